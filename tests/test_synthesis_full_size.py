"""The corpora of full size, made small: layout, exact amounts, hard links, faults, and the way to a store."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sedtalker.data.prepare import check_source, check_store, prepare
from sedtalker.data.vertex_corpora.biwi import read_biwi
from sedtalker.data.vertex_corpora.emovoca import read_emovoca
from sedtalker.data.vertex_corpora.vocaset import read_vocaset
from sedtalker.data.vertex_store import open_store
from sedtalker.errors import DataError
from sedtalker.evaluation.masks import read_masks
from sedtalker.face.assets import load_face
from sedtalker.synthesis import full_size
from sedtalker.synthesis.full_size import (
    coarsen,
    mesh_of_size,
    synthesize_biwi_sized,
    synthesize_emovoca_sized,
    synthesize_vocaset_sized,
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head of 300 vertices and short sentences."""
    monkeypatch.setattr(full_size, "FLAME_VERTICES", 300)
    monkeypatch.setattr(full_size, "EMOVOCA_FRAMES", 168 * 33 * 30 + 123)
    monkeypatch.setattr(full_size, "VOCASET_FRAMES", 478 * 100)


def test_emovoca_has_the_exact_amount_with_hard_links_and_faults(tmp_path: Path) -> None:
    amount = synthesize_emovoca_sized(tmp_path / "made", load_face(), unique=0.5, share=2 / 56)
    sequences = sorted((tmp_path / "made" / "New_EmoVOCA" / "sequences").glob("*.npy"))
    total = round((168 * 33 * 30 + 123) * 6 / 168)
    assert len(sequences) == amount.sequences == 6 * 33 and amount.frames == total
    assert 0.4 * amount.logical < amount.unique < 0.6 * amount.logical
    source = read_emovoca(tmp_path / "made", all_expressions=True)
    report = prepare(source, tmp_path / "store")
    assert len(report.refused) == full_size.POINTERS and all("pointer" in reason for reason in report.refused.values())
    assert not report.kept and {clip.split for clip in report.clips} == {"train", "validation", "test"}
    store = open_store(tmp_path / "store")
    assert not check_store(store)
    longer = sum(2 * clip.frames / 60 > clip.seconds + 1 / 120 for clip in store)
    assert longer > 0  # sequences that are longer than their sound
    masks = read_masks(tmp_path / "made" / "masks.json", 300)
    assert {"lips", "upper_face", "emotion", "lip_pair"} <= set(masks.regions)


def test_vocaset_and_biwi_have_their_layouts(tmp_path: Path) -> None:
    amount = synthesize_vocaset_sized(tmp_path / "vocaset", load_face(), share=0.02)
    vocaset = read_vocaset(tmp_path / "vocaset")
    assert sum(len(sequence.rows or ()) for sequence in vocaset.sequences) == amount.frames
    assert not check_source(vocaset).refused
    amount = synthesize_biwi_sized(tmp_path / "biwi", load_face(), unique=0.5, share=0.05, vertices=3895)
    biwi = check_source(read_biwi(tmp_path / "biwi"))
    assert not biwi.refused and sum(clip.frames for clip in biwi.clips) == amount.frames
    assert {clip.split for clip in biwi.clips} >= {"train", "validation", "test"}


def test_full_sizes_are_those_of_the_corpora(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    subjects, count = full_size._emovoca_subjects(1.0)
    sentences = full_size._plan_sentences(subjects, count, 0.28, 628_668 // 33, rng)
    frames = 33 * sum(sentence.frames for sentence in sentences)
    assert len(subjects) == 12 and 33 * len(sentences) == 5544
    assert frames <= 628_668 < frames + 33 * 5  # the rest are sequences with a frame more
    assert len({sentence.name for sentence in sentences}) == 40
    assert len({(sentence.subject, sentence.source) for sentence in sentences}) == 12 * 4
    assert len(list(full_size._biwi_sentences(1.0, 0.25, rng))) == 1109


def test_a_mesh_of_another_size_moves_like_the_face() -> None:
    face = load_face()
    kept, faces = coarsen(face.template, face.faces, 5023, np.array([100, 200]))
    assert len(kept) == 5023 and {100, 200} <= set(kept.tolist()) and faces.max() < 5023
    assert (faces != np.roll(faces, 1, axis=1)).all()
    for vertices in (5023, 23_370):
        mesh = mesh_of_size(face, vertices)
        assert mesh.template.shape == (vertices, 3) and json.dumps(mesh.masks["lip_pair"].tolist())
        upper, lower = mesh.masks["lip_pair"]
        opened = mesh.vertices(mesh.template, np.eye(52)[[0, face.blendshape_names.index("jawOpen")]], np.zeros(52))
        gap = np.linalg.norm(opened[:, upper] - opened[:, lower], axis=1)
        assert gap[1] > gap[0] + 0.01  # metres
    with pytest.raises(DataError, match="too few"):
        mesh_of_size(face, 100_000)
