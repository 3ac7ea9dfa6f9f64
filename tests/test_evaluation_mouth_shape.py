"""Measures of the mouth's shape, on mouths whose shape is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sedtalker.errors import DataError
from sedtalker.evaluation import mouth_shape as shape
from sedtalker.evaluation.motion import format_motion, tracked_pairs
from sedtalker.face.arkit import ARKIT_NAMES, arkit_columns
from sedtalker.face.assets import load_face
from sedtalker.face.mouth_fit import fit_gap
from sedtalker.face.mouth_measures import GAP, WIDTH, mouth_measures
from sedtalker.face.visemes import VISEMES
from sedtalker.phones import Phone

FPS = 50


def weights_of(frames: int = 1, **values: float) -> np.ndarray:
    weights = np.zeros((frames, len(ARKIT_NAMES)), np.float32)
    for name, value in values.items():
        weights[:, list(arkit_columns(name))] = value
    return weights


def tracked(gap: np.ndarray, width: np.ndarray, fps: float = 25.0) -> dict[str, np.ndarray]:
    points = np.zeros((len(gap), 40, 3))
    points[:, 13, 1] = gap
    points[:, 0, 0] = width
    return {"lip_gap": gap, "lip_width": width, "lip_points": points, "fps": np.float32(fps)}


def test_participation_ratio_counts_equal_dimensions() -> None:
    rng = np.random.default_rng(0)
    for dimensions in (1, 2, 5):
        basis = np.linalg.qr(rng.normal(size=(30, dimensions)))[0]
        points = (rng.normal(size=(20000, dimensions)) @ basis.T).reshape(-1, 10, 3)
        assert shape.participation_ratio(points) == pytest.approx(dimensions, rel=0.02)


def test_a_curve_twice_as_large_and_40_ms_late(tmp_path: Path) -> None:
    times = (np.arange(100) + 0.5) / 25
    gap, width = 0.1 + 0.05 * np.sin(9 * times), 0.5 + 0.02 * np.cos(7 * times)
    np.savez(tmp_path / "clip.npz", **tracked(gap, width))
    real = shape.read_tracked_mouth(tmp_path / "clip.npz")
    fine = (np.arange(200) + 0.5) / FPS
    late = [2 * shape.EYE_DISTANCE_MM * np.interp(fine - 0.04, times, curve) for curve in (gap, width)]
    ours = shape.MouthCurves(fine, *late, np.zeros(200), np.zeros((200, 2, 3)))
    figures = shape.shape_against_tracked(ours, real).figures
    for name in ("gap", "width"):
        assert figures[f"{name}_r_best_lag"] > 0.99 > figures[f"{name}_r"]
        assert figures[f"{name}_spread"] == pytest.approx(2, rel=0.05)
        assert figures[f"{name}_velocity_spread"] == pytest.approx(2, rel=0.1)


def test_lost_frames_are_left_out_and_an_empty_clip_is_refused(tmp_path: Path) -> None:
    gap = np.linspace(0, 0.1, 50)
    gap[10:20] = np.nan
    np.savez(tmp_path / "gaps.npz", **tracked(gap, np.full(50, 0.5)))
    assert len(shape.read_tracked_mouth(tmp_path / "gaps.npz").times) == 40
    np.savez(tmp_path / "none.npz", **tracked(np.full(50, np.nan), np.full(50, 0.5)))
    with pytest.raises(DataError, match="only 0 frames"):
        shape.read_tracked_mouth(tmp_path / "none.npz")


def test_curves_of_weights_are_those_of_the_posed_face() -> None:
    face, rng = load_face(), np.random.default_rng(0)
    weights = rng.uniform(0, 0.4, (4, len(ARKIT_NAMES))).astype(np.float32)
    posed, direct = shape.mouth_curves(face.pose(weights), face, FPS), shape.curves_of_weights(weights, face, FPS)
    for name in ("gap", "width", "protrusion"):
        np.testing.assert_allclose(getattr(posed, name), getattr(direct, name), atol=0.01)


def test_rounding_protrudes_and_narrows() -> None:
    face = load_face()
    mouth = shape.curves_of_weights(weights_of(mouthPucker=0.8, mouthFunnel=0.4), face, FPS)
    rest = shape.curves_of_weights(weights_of(), face, FPS)
    assert mouth.protrusion[0] > 6
    assert mouth.width[0] < 0.9 * rest.width[0]


def test_linear_measures_follow_the_posed_lips() -> None:
    face = load_face()
    measures = mouth_measures(face)
    weights = weights_of(jawOpen=0.4, mouthFunnel=0.3, mouthStretch=0.2)
    curves = shape.curves_of_weights(weights, face, FPS)
    assert measures.of_weights(weights)[0, GAP] == pytest.approx(curves.gap[0], rel=0.15)
    assert measures.of_weights(weights)[0, WIDTH] == pytest.approx(curves.width[0], rel=0.01)
    assert measures.protrusion(weights)[0] == pytest.approx(curves.protrusion[0], abs=1.5)


@pytest.mark.parametrize(
    ("values", "gap", "tucked"),
    [(VISEMES["f"].shape, 2.75, True), ({}, 0.0, False), ({}, 10.0, False), (VISEMES["m"].shape, 0.0, False)],
    ids=["f", "closed", "open", "m"],
)
def test_only_f_and_v_are_tucked(values: dict[str, float], gap: float, tucked: bool) -> None:
    face = load_face()
    weights = fit_gap(np.full(20, gap), weights_of(20, **values), np.ones(20), mouth_measures(face))
    found = shape.labiodental_tuck([(weights, [Phone("five", "F", 0.1, 0.2)])], face, FPS)
    assert found["labiodental_tuck"][0] == float(tucked)


def test_phone_shapes_tell_rounded_from_spread() -> None:
    face = load_face()
    weights = weights_of(60, jawOpen=0.1)
    weights[:20] = weights_of(mouthPucker=0.8, mouthFunnel=0.4)
    weights[40:] = weights_of(jawOpen=0.15, mouthStretch=0.3)
    phones = [Phone("two", "UW", 0.0, 0.4), Phone("three", "IY", 0.8, 1.2)]
    table = shape.phone_shapes([shape.SpokenMouth(shape.curves_of_weights(weights, face, FPS), phones)])
    assert table["protrusion_u_o_w_over_i_mm"][0] > 6
    assert table["width_u_w"][0] < 0.95 < 1.0 < table["width_i"][0]


def test_the_reader_reads_what_it_was_trained_on() -> None:
    rng = np.random.default_rng(0)
    centres = {name: rng.normal(size=15) for name in ("p b m", "rounded", "open")}
    labels = [name for name in centres for _ in range(200)]
    rows = np.array([centres[name] for name in labels]) + 0.2 * rng.normal(size=(600, 15))
    reader = shape.VisemeReader.fit(rows[::2], labels[::2])
    assert shape.balanced_accuracy(labels[1::2], reader.read(rows[1::2]))[0] > 0.98
    shuffled = rng.permutation(rows[1::2])
    assert shape.balanced_accuracy(labels[1::2], reader.read(shuffled))[0] == pytest.approx(1 / 3, abs=0.12)


def test_shares_and_medians_have_intervals() -> None:
    share, low, high = shape.share_interval(9, 10)
    assert low < share == 0.9 < high <= 1
    median, low, high = shape.median_interval([1.0, 2.0, 3.0, float("nan")])
    assert low <= median == 2.0 <= high
    assert np.isnan(shape.share_interval(0, 0)[0])


@pytest.mark.parametrize(("tongue", "gap", "seen"), [(0.45, 6.0, True), (0.0, 6.0, False), (0.45, 1.0, False)])
def test_tongue_is_seen_between_the_teeth_of_a_mouth_that_is_open_enough(tongue: float, gap: float, seen: bool) -> None:
    face = load_face()
    weights = fit_gap(np.full(20, gap), weights_of(20, tongueOut=tongue), np.ones(20), mouth_measures(face))
    found = shape.tongue_seen([(weights, [Phone("three", "TH", 0.1, 0.2)])], face, FPS)
    assert found["tongue_th"][0] == float(seen)


def test_a_folder_of_tracked_clips_needs_their_audio(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no tracked clips"):
        tracked_pairs(tmp_path)
    (tmp_path / "a.npz").touch()
    with pytest.raises(DataError, match=r"tracked clip without audio: .*a\.npz"):
        tracked_pairs(tmp_path)
    (tmp_path / "a.opus").touch()
    assert tracked_pairs(tmp_path) == [(tmp_path / "a.npz", tmp_path / "a.opus")]


def test_figures_are_printed_with_their_intervals_and_norms() -> None:
    text = format_motion(
        {"grid, mouth shape": {"width_r": (0.81, 0.7, 0.9), "viseme_reader_ratio": (0.9, np.nan, np.nan)}}
    )
    assert "0.81 [0.7, 0.9]" in text and "on GRID s1" in text
    assert "nan" not in text
