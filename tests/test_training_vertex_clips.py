"""Training clips of a vertex corpus: rate, basis, and tracks whose emotion changes."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import vertex_corpora as made

pytest.importorskip("lightning")

from sedtalker.data.prepare import prepare
from sedtalker.data.vertex_corpora.emovoca import read_emovoca
from sedtalker.data.vertex_store import Store, open_store
from sedtalker.errors import DataError
from sedtalker.labels import LABELS
from sedtalker.training.vertex_clips import BLEND, VertexClips, fit_basis, make_changing_tracks

HALF = round(BLEND * 50 / 2) + 1  # frames from the middle of a change to its end


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two training subjects, two sentences, three variants; features that encode the sentence and the frame."""
    folder = tmp_path_factory.mktemp("emovoca")
    variants = (("Smile2", 4, 3), ("Afraid", 0, 1), ("Sad1", 3, 2))
    made.generator_layout(folder, (made.TRAIN, made.OTHER_TRAIN, made.VALIDATION), variants=variants)
    prepare(read_emovoca(folder), folder / "store")
    opened = open_store(folder / "store")
    (opened.root / "features").mkdir()
    for number, key in enumerate(sorted({clip.audio for clip in opened})):
        frames = np.arange(50)[:, None, None] + 100 * number
        np.save(opened.root / "features" / f"{key}.npy", np.broadcast_to(frames, (50, 2, 3)).astype(np.float16))
    return opened


def test_values_are_interpolated_by_time(store: Store) -> None:
    clips = VertexClips(store)
    info = clips.clips[0]
    example = clips.example(info, 5, 25, style=2)
    moved = store.displacements(store.clips[0]).reshape(30, -1) * 1000
    times = (np.arange(5, 25) + 0.5) / 50
    expected = np.stack([np.interp(times, (np.arange(30) + 0.5) / 30, column) for column in moved.T], axis=1)
    np.testing.assert_allclose(example.target.values, expected, atol=1e-5)
    assert example.features.shape == (20, 2, 3) and example.style == 2 and info.frames == 50


def test_every_variant_reads_the_features_of_its_sentence(store: Store) -> None:
    clips = VertexClips(store)
    by_sentence: dict[str, set[float]] = {}
    for info in clips.clips[: len(store)]:
        features = clips.example(info, 10, 12, 0).features
        by_sentence.setdefault(info.id.rsplit("_", 2)[0], set()).add(float(features[0, 0, 0]))
    assert len(by_sentence) == 6 and all(len(values) == 1 for values in by_sentence.values())


def test_emotion_changes_within_a_sentence(store: Store) -> None:
    clips = VertexClips(store)
    same = [info for info in clips.clips if "changing" in info.source and info.frames == 50]
    assert len(same) == 4 and {info.split for info in same} == {"train"}  # one for each subject and sentence
    first, second = clips.tracks[same[0].id]
    assert first.clip.audio == second.clip.audio and first.clip.emotion != second.clip.emotion
    example, change = clips.example(same[0], 0, 50, 0), second.start
    whole = {piece: clips.values(piece, np.arange(50)) for piece in (first, second)}
    np.testing.assert_allclose(example.target.values[: change - HALF], whole[first][: change - HALF])
    np.testing.assert_allclose(example.target.values[change + HALF :], whole[second][change + HALF :])
    feels = example.posterior.argmax(-1).numpy()
    assert feels[0] == store.labels.index(first.clip.emotion) and feels[-1] == store.labels.index(second.clip.emotion)
    np.testing.assert_allclose(example.posterior.sum(-1), 1, atol=1e-6)
    assert example.posterior.diff(dim=0).abs().max() < 0.1  # no sharp switch
    assert example.intensity[[0, -1]].tolist() == pytest.approx([first.clip.intensity, second.clip.intensity])
    np.testing.assert_array_equal(example.features[:, 0, 0].diff(), 1)  # the speech is not changed


def test_the_emotion_can_be_that_of_a_diarizer(store: Store) -> None:
    with pytest.raises(DataError, match="no emotion track: "):
        VertexClips(store, emotion="diarizer")
    (store.root / "emotion").mkdir()
    for number, key in enumerate(sorted({clip.audio for clip in store})):
        posterior = np.zeros((50, len(LABELS)))
        posterior[:25, LABELS.index("happy")] = posterior[25:, LABELS.index("sad")] = 1
        np.savez(store.root / "emotion" / f"{key}.npz", posterior=posterior, intensity=np.full(50, 0.1 * number))
    labelled, diarized = VertexClips(store), VertexClips(store, emotion="diarizer")
    info, sounds = diarized.clips[0], sorted({clip.audio for clip in store})
    example = diarized.example(info, 10, 40, style=0)
    assert (example.posterior[:15, LABELS.index("happy")] == 1).all()
    assert (example.posterior[15:, LABELS.index("sad")] == 1).all()
    level = 0.1 * sounds.index(store.clips[0].audio)
    np.testing.assert_allclose(example.intensity, level, atol=1e-6)
    torch.testing.assert_close(example.target.values, labelled.example(info, 10, 40, style=0).target.values)
    followed = next(clip for clip in diarized.clips if clip.frames > 90)  # two sentences
    example = diarized.example(followed, 0, followed.frames, style=0)
    np.testing.assert_allclose(example.posterior.sum(1), 1, atol=1e-6)
    shutil.rmtree(store.root / "emotion")


def test_two_sentences_follow_each_other(store: Store) -> None:
    clips = VertexClips(store)
    info = next(info for info in clips.clips if info.frames == 100)
    first, second = clips.tracks[info.id]
    assert first.clip.subject == second.clip.subject and first.clip.sentence != second.clip.sentence
    example = clips.example(info, 0, 100, 0)
    own = {piece: np.load(store.root / "features" / f"{piece.clip.audio}.npy") for piece in (first, second)}
    np.testing.assert_array_equal(example.features, np.concatenate([own[first], own[second]]))
    later = clips.values(second, np.arange(100))[50 + HALF :]
    np.testing.assert_allclose(example.target.values[50 + HALF :], later)
    assert example.target.values.diff(dim=0).abs().max() < 5  # mm: the face does not jump where they meet


def test_a_basis_keeps_the_motion_and_its_scale(store: Store) -> None:
    plain, projected = VertexClips(store), VertexClips(store, components=24)
    assert projected.basis is not None and projected.basis.shape == (24, 3 * made.VERTICES)
    example, reference = (clips.example(clips.clips[0], 0, 50, 0).target.values for clips in (projected, plain))
    back = example.numpy() @ projected.basis * 1000
    kept = 1 - np.square(back - reference.numpy()).sum() / np.square(reference.numpy()).sum()
    assert kept > 0.3
    full = VertexClips(store, components=100)
    exact = full.example(full.clips[0], 0, 50, 0).target.values
    assert exact.square().mean().item() == pytest.approx(reference.square().mean().item(), rel=1e-2)
    np.testing.assert_allclose(exact.numpy() @ full.basis * 1000, reference, atol=0.05)  # mm


def test_a_basis_is_fitted_once_and_needs_enough_frames(store: Store) -> None:
    first = fit_basis(store, 12)
    (kept,) = store.root.glob("basis_12_*.npy")
    np.testing.assert_array_equal(first, np.load(kept))
    written = kept.stat().st_mtime_ns
    np.testing.assert_array_equal(fit_basis(store, 12), first)
    assert kept.stat().st_mtime_ns == written
    products = first @ first.T
    np.testing.assert_allclose(products, np.eye(12) * products[0, 0], atol=1e-4 * products[0, 0])
    with pytest.raises(DataError, match="cannot give 100000 components"):
        fit_basis(store, 100_000)


def test_another_seed_split_or_clip_gives_another_basis(store: Store) -> None:
    def fitted(of: Store, seed: int = 0) -> str:
        """The file of a fitted basis; the new one after a refit."""
        before = set(store.root.glob("basis_6_*.npy"))
        fit_basis(of, 6, seed)
        return "".join(path.name for path in set(store.root.glob("basis_6_*.npy")) - before)

    first = fit_basis(store, 6)
    assert not fitted(store)
    assert fitted(store, seed=1)
    fewer = replace(store, clips=tuple(clip for clip in store.clips if clip.subject != made.OTHER_TRAIN))
    assert fitted(fewer)
    path = store.root / "clips" / f"{store.select('train')[0].id}.npy"
    content = path.read_bytes()
    try:
        frames = np.load(path)
        np.save(path, frames + np.random.default_rng(0).normal(0, 0.01, frames.shape).astype(frames.dtype))
        assert np.abs(fit_basis(store, 6) - first).max() > 1e-6
    finally:
        path.write_bytes(content)
    np.testing.assert_array_equal(fit_basis(store, 6), first)


def test_the_same_seed_gives_the_same_tracks(store: Store) -> None:
    train = store.select("train")
    assert (
        make_changing_tracks(train, 30, 1) == make_changing_tracks(train, 30, 1) != make_changing_tracks(train, 30, 2)
    )


def test_missing_features_name_the_way_to_make_them(store: Store) -> None:
    file = next((store.root / "features").glob("*.npy"))
    content = file.read_bytes()
    file.unlink()
    try:
        with pytest.raises(DataError, match=f"no speech features of {file.stem}.*data prepare"):
            VertexClips(store)
    finally:
        file.write_bytes(content)
