"""The synthetic EmoVOCA: its layout, equal bytes for a seed, and motion that sound and labels determine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sedtalker.audio import load_audio
from sedtalker.data.prepare import prepare
from sedtalker.data.vertex_corpora.emovoca import read_emovoca
from sedtalker.data.vertex_corpora.vocaset import SPLITS
from sedtalker.data.vertex_store import open_store
from sedtalker.errors import DataError
from sedtalker.face.assets import load_face
from sedtalker.synthesis.emovoca_like import Size, synthesize_emovoca

SIZE = Size(
    subjects=(SPLITS["train"][0], SPLITS["test"][0]),
    sentences=("sentence21",),
    expressions=("Smile2", "Sad1"),
    levels=(1, 3),
    seconds=1.0,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("made")
    assert synthesize_emovoca(made, load_face(), SIZE) == 8
    return made


def test_the_corpus_is_prepared_like_emovoca(folder: Path) -> None:
    outcome = prepare(read_emovoca(folder), folder / "store")
    assert not outcome.refused and (outcome.source_fps, outcome.fps) == (60, 30)
    store, face = open_store(folder / "store"), load_face()
    assert store.faces is not None
    np.testing.assert_array_equal(store.faces, face.faces)
    assert {(clip.emotion, clip.level, clip.split) for clip in store} == {
        (emotion, level, split) for emotion in ("happy", "sad") for level in (1, 3) for split in ("train", "test")
    }


def test_the_mouth_follows_the_sound_and_the_level_the_expression(folder: Path) -> None:
    face, subject = load_face(), SIZE.subjects[0]
    names = [f"{subject}_sentence21_{variant}" for variant in ("Smile2_1", "Smile2_3")]
    low, high = (np.load(folder / "New_EmoVOCA" / "sequences" / f"{name}.npy") for name in names)
    opening = np.abs(low - low[0])[:, face.landmarks["chin"]].sum(axis=1)
    samples = load_audio(folder / "New_EmoVOCA" / "wav" / f"{names[0]}.wav")
    loudness = np.abs(samples[: 60 * 266].reshape(60, 266)).mean(axis=1)
    assert np.corrcoef(opening, loudness)[0, 1] > 0.8
    corner = face.landmarks["mouth_left"]
    smiles = [np.linalg.norm((motion - low[0])[0, corner]) for motion in (low, high)]
    assert smiles[0] == 0 and smiles[1] > 1e-3


def test_the_same_seed_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    synthesize_emovoca(tmp_path / "again", load_face(), SIZE)
    synthesize_emovoca(tmp_path / "other", load_face(), SIZE, seed=1)
    name = f"New_EmoVOCA/sequences/{SIZE.subjects[0]}_sentence21_Sad1_3.npy"
    first, again, other = ((root / name).read_bytes() for root in (folder, tmp_path / "again", tmp_path / "other"))
    assert first == again != other


def test_an_existing_folder_and_a_face_without_blendshapes_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the folder exists"):
        synthesize_emovoca(folder, load_face(), SIZE)
    with pytest.raises(DataError, match="no ARKit blendshapes"):
        synthesize_emovoca(tmp_path, replace(load_face(), blendshapes=None), SIZE)
