"""Measures against numbers computed by other means: plain loops over the formulas, and torchmetrics."""

from __future__ import annotations

import cmath
import math

import numpy as np
import pytest

from sedtalker.evaluation.vertices import MEASURES, measure

FRAMES, VERTICES, FPS = 7, 9, 25.0
REGIONS = {"lips": np.array([1, 4, 6]), "upper_face": np.array([0, 2]), "emotion": np.array([1, 2, 3, 8]),
           "lip_pair": np.array([6, 4])}  # fmt: skip

_rng = np.random.default_rng(5)
TEMPLATE = _rng.normal(0, 0.1, (VERTICES, 3))
TRUTH = TEMPLATE + _rng.normal(0, 0.01, (FRAMES, VERTICES, 3))
PRED = TRUTH + _rng.normal(0, 0.004, (FRAMES, VERTICES, 3))
FIGURES = measure(PRED, TRUTH, TEMPLATE, REGIONS, FPS)


def distance(a, b) -> float:
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def frames_of(pick, region) -> float:
    """Mean over frames of `pick` over a region's distances."""
    return mean(pick([distance(PRED[t][v], TRUTH[t][v]) for v in region]) for t in range(FRAMES))


def step(motion, t, v):
    return [motion[t + 1][v][axis] - motion[t][v][axis] for axis in range(3)]


def second(motion, t, v):
    return [motion[t + 2][v][axis] - 2 * motion[t + 1][v][axis] + motion[t][v][axis] for axis in range(3)]


def spread(motion, v) -> float:
    """Population standard deviation over time of the squared distance from the template."""
    squares = [distance(motion[t][v], TEMPLATE[v]) ** 2 for t in range(FRAMES)]
    centre = mean(squares)
    return math.sqrt(mean((square - centre) ** 2 for square in squares))


def transform(signal):
    return [
        sum(x * cmath.exp(-2j * math.pi * k * t / len(signal)) for t, x in enumerate(signal))
        for k in range(len(signal))
    ]


def frame_distance(i: int, j: int) -> float:
    """Distance of predicted frame i and true frame j over the lips."""
    return math.sqrt(sum(distance(PRED[i][v], TRUTH[j][v]) ** 2 for v in REGIONS["lips"]))


def warped(i: int, j: int, join) -> float:
    """The smallest accumulated cost of all warps to (i, j), by its recursive definition."""
    here = frame_distance(i, j)
    if i == j == 0:
        return join(here, 0.0)
    before = [(i - 1, j), (i, j - 1), (i - 1, j - 1)]
    return join(here, min(warped(a, b, join) for a, b in before if a >= 0 and b >= 0))


def test_distances() -> None:
    lips, everything = REGIONS["lips"], range(VERTICES)
    assert FIGURES["mve"] == pytest.approx(frames_of(mean, everything), rel=1e-12)
    assert FIGURES["lve"] == pytest.approx(frames_of(lambda d: max(d) ** 2, lips), rel=1e-12)
    assert FIGURES["lve_l2"] == pytest.approx(frames_of(max, lips), rel=1e-12)
    assert FIGURES["lip_mve"] == pytest.approx(frames_of(mean, lips), rel=1e-12)
    assert FIGURES["eve"] == pytest.approx(frames_of(mean, REGIONS["emotion"]), rel=1e-12)


def test_dynamics_are_signed() -> None:
    expected = mean(spread(TRUTH, v) - spread(PRED, v) for v in REGIONS["upper_face"])
    assert FIGURES["fdd"] == pytest.approx(expected, rel=1e-9)
    assert FIGURES["fdd_abs"] == abs(FIGURES["fdd"])
    assert measure(TRUTH, PRED, TEMPLATE, REGIONS, FPS)["fdd"] == pytest.approx(-expected, rel=1e-9)


def test_velocity_and_acceleration() -> None:
    pairs = [(t, v) for t in range(FRAMES - 1) for v in range(VERTICES)]
    lips = [(t, v) for t, v in pairs if v in REGIONS["lips"]]
    triples = [(t, v) for t in range(FRAMES - 2) for v in range(VERTICES)]
    assert FIGURES["mod"] == pytest.approx(mean(distance(step(PRED, *at), step(TRUTH, *at)) for at in pairs))
    assert FIGURES["lip_mod"] == pytest.approx(mean(distance(step(PRED, *at), step(TRUTH, *at)) for at in lips))
    assert FIGURES["ae"] == pytest.approx(mean(distance(second(PRED, *at), second(TRUTH, *at)) for at in triples))
    assert FIGURES["tc"] == pytest.approx(mean(distance(step(PRED, *at), (0, 0, 0)) for at in pairs))


def test_frequency_error_by_a_written_out_transform() -> None:
    total = 0.0
    for v in range(VERTICES):
        for axis in range(3):
            true, pred = transform(TRUTH[:, v, axis]), transform(PRED[:, v, axis])
            total += sum(abs(a - b) ** 2 for a, b in zip(true, pred, strict=True))
    assert FIGURES["ffe"] == pytest.approx(total / (FRAMES * VERTICES * 3), rel=1e-9)


def test_warped_distances_by_recursion() -> None:
    squared = warped(FRAMES - 1, FRAMES - 1, lambda here, before: here**2 + before)
    assert FIGURES["dtw"] == pytest.approx(math.sqrt(squared), rel=1e-9)
    assert FIGURES["dfd"] == pytest.approx(warped(FRAMES - 1, FRAMES - 1, max), rel=1e-9)


def test_warping_forgives_a_delay_and_lve_does_not() -> None:
    time = np.arange(40)
    moved = np.zeros((40, VERTICES, 3))
    moved[:, 4, 1] = 0.01 * np.exp(-(((time - 15) / 4) ** 2))
    late = np.roll(moved, 5, axis=0)
    figures = measure(TEMPLATE + late, TEMPLATE + moved, TEMPLATE, REGIONS, FPS)
    assert figures["dtw"] < 1e-4 < 1e-3 < figures["lve_l2"]


def test_lips_shifted_by_a_constant_have_known_errors() -> None:
    shift, lips = np.array([0.003, -0.004, 0.012]), REGIONS["lips"]  # 13 mm
    pred = TRUTH.copy()
    pred[:, lips] += shift
    figures = measure(pred, TRUTH, TEMPLATE, REGIONS, FPS)
    share = len(lips) / VERTICES
    assert figures["lve"] == pytest.approx(0.013**2) and figures["lve_l2"] == pytest.approx(0.013)
    assert figures["lip_mve"] == pytest.approx(0.013) and figures["mve"] == pytest.approx(0.013 * share)
    assert figures["ffe"] == pytest.approx(0.013**2 * FRAMES * share / 3)  # a constant has one frequency
    still = ("mod", "lip_mod", "ae", "fdd", "uve")  # velocities and the upper face are those of the truth
    assert max(abs(figures[name]) for name in still) < 1e-12


def test_lve_is_the_worst_lip_vertex_of_each_frame() -> None:
    pred = TRUTH.copy()
    size = np.linspace(0.001, 0.02, FRAMES)
    pred[np.arange(FRAMES), REGIONS["lips"][np.arange(FRAMES) % 3], 2] += size  # another vertex in every frame
    figures = measure(pred, TRUTH, TEMPLATE, REGIONS, FPS)
    assert figures["lve"] == pytest.approx(np.mean(size**2)) and figures["lve_l2"] == pytest.approx(np.mean(size))
    assert figures["lip_mve"] == pytest.approx(np.mean(size) / 3)


@pytest.mark.parametrize("posture", [0.0, 0.01])
def test_fdd_of_a_frozen_upper_face_is_the_spread_of_the_truth(posture: float) -> None:
    time, amplitude = np.arange(48), np.linspace(0.002, 0.01, len(REGIONS["upper_face"]))
    truth, pred = (np.repeat(TEMPLATE[None], len(time), axis=0) for _ in range(2))
    truth[:, REGIONS["upper_face"], 1] += amplitude * np.sin(2 * np.pi * 3 * time / len(time))[:, None]
    pred[:, REGIONS["upper_face"], 2] += posture  # a posture that is held has no dynamics either
    figures = measure(pred, truth, TEMPLATE, REGIONS, FPS)
    assert figures["fdd"] == pytest.approx(np.mean(amplitude**2) / math.sqrt(8))  # of sin^2 over whole periods
    assert measure(truth, pred, TEMPLATE, REGIONS, FPS)["fdd"] == pytest.approx(-figures["fdd"])
    assert figures["lve"] == 0


@pytest.mark.parametrize("seed", range(5))
def test_measures_scale_with_the_unit_and_ignore_the_pose_of_the_head(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    factor, offset = rng.uniform(0.1, 1000), rng.normal(0, 0.2, 3)

    def placed(points: np.ndarray) -> np.ndarray:
        return factor * (points @ rotation + offset)

    figures = measure(placed(PRED), placed(TRUTH), placed(TEMPLATE), REGIONS, FPS)
    for one in MEASURES:
        power = {"ms": 0, "m^2": 2}.get(one.unit, 1)
        assert figures[one.name] == pytest.approx(FIGURES[one.name] * factor**power, rel=1e-6, nan_ok=True), one.name


def test_lip_vertex_error_is_torchmetrics() -> None:
    functional = pytest.importorskip("torchmetrics.functional.multimodal")
    torch = pytest.importorskip("torch")
    theirs = functional.lip_vertex_error(torch.tensor(PRED), torch.tensor(TRUTH), REGIONS["lips"].tolist())
    assert FIGURES["lve"] == pytest.approx(theirs.item(), rel=1e-9)


def lip_motion(distance: np.ndarray) -> np.ndarray:
    """Positions whose lip pair is this far (T,) apart, in metres."""
    moved = np.tile(TEMPLATE, (len(distance), 1, 1))
    moved[:, 6] = moved[:, 4] + distance[:, None] * (0.6, 0.8, 0.0)
    return moved


def test_misalignment_is_the_delay() -> None:
    time = np.arange(90) / FPS
    mouth = 0.02 + 0.01 * np.sin(2 * np.pi * 1.25 * time + 0.3)
    late = np.interp(time - 2 / FPS, time, mouth)
    figures = measure(lip_motion(late), lip_motion(mouth), TEMPLATE, REGIONS, FPS)
    assert figures["mtm"] == pytest.approx(2 / FPS * 1000, abs=8)  # the unmatched ends lower it slightly
    assert measure(lip_motion(mouth), lip_motion(mouth), TEMPLATE, REGIONS, FPS)["mtm"] == 0


def test_misalignment_by_loops_and_scipy() -> None:
    signal = pytest.importorskip("scipy.signal")
    ndimage = pytest.importorskip("scipy.ndimage")
    rng = np.random.default_rng(3)
    true, pred = (0.02 + 0.004 * np.cumsum(rng.normal(size=60)) / 8 for _ in range(2))
    smooth = [ndimage.gaussian_filter1d(np.abs(curve), 2) for curve in (true, pred)]
    kinds = []
    for curve in smooth:
        tops, bottoms = (signal.find_peaks(sign * curve)[0] for sign in (1, -1))
        kinds.append(dict.fromkeys(tops, "max") | dict.fromkeys(bottoms, "min"))
    slopes = [[0.0] + [curve[i] - curve[i - 1] for i in range(1, 60)] for curve in smooth]
    total = {(-1, -1): 0.0}
    came = {}
    for i in range(60):
        for j in range(60):
            ways = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
            came[i, j] = min(ways, key=lambda way: total.get(way, math.inf))
            total[i, j] = abs(slopes[0][i] - slopes[1][j]) + total.get(came[i, j], math.inf)
    at, late, order = (59, 59), [], sorted(kinds[0])
    while at != (-1, -1):
        i, j = at
        if i in kinds[0] and kinds[0][i] == kinds[1].get(j):
            place = order.index(i)
            if (order[place - 1] if place else 0) <= j <= (order[place + 1] if place + 1 < len(order) else 59):
                late.append(abs(i - j))
        at = came[at]
    figures = measure(lip_motion(pred), lip_motion(true), TEMPLATE, REGIONS, FPS)
    assert late and figures["mtm"] == pytest.approx(mean(late) / FPS * 1000, rel=1e-9)


def test_lips_that_stay_where_they_are_have_no_extrema() -> None:
    still = np.broadcast_to(TEMPLATE, (20, VERTICES, 3))
    assert math.isnan(measure(still, lip_motion(np.linspace(0, 1, 20) % 0.3), TEMPLATE, REGIONS, FPS)["mtm"])


def test_lip_intensity() -> None:
    moved = [mean(distance(step(PRED, t, v), (0, 0, 0)) for v in REGIONS["lips"]) for t in range(FRAMES - 1)]
    assert FIGURES["lip_intensity"] == pytest.approx(math.sqrt(mean(x**2 for x in moved)), rel=1e-9)


def test_truth_itself_has_no_error() -> None:
    figures = measure(TRUTH, TRUTH, TEMPLATE, REGIONS, FPS)
    moving = {name for name, value in figures.items() if value > 1e-9}  # warping rounds at 1e-10 m
    assert moving == {"tc", "lip_intensity"}
    assert set(figures) == {one.name for one in MEASURES}


def test_regions_that_are_not_given_are_left_out() -> None:
    assert set(measure(PRED, TRUTH, TEMPLATE, {}, FPS)) == {"mve", "mod", "ae", "tc", "ffe"}
    with pytest.raises(ValueError, match="shapes"):
        measure(PRED[:-1], TRUTH, TEMPLATE, REGIONS, FPS)


def test_time_warping_equals_librosa() -> None:
    sequence = pytest.importorskip("librosa.sequence")
    rng = np.random.default_rng(3)
    pred, truth, template = 0.01 * rng.normal(size=(40, 5, 3)), 0.01 * rng.normal(size=(40, 5, 3)), np.zeros((5, 3))
    total, _ = sequence.dtw(pred.reshape(40, -1).T, truth.reshape(40, -1).T, metric="sqeuclidean")
    figures = measure(pred, truth, template, {"lips": np.arange(5)}, fps=25)
    assert figures["dtw"] == pytest.approx(math.sqrt(total[-1, -1]), rel=1e-9)


def test_mean_errors_of_a_whole_face_are_those_of_the_formulas() -> None:
    rng = np.random.default_rng(3)
    pred, truth = (rng.normal(size=(20, 300, 3)).astype(np.float32) for _ in range(2))
    figures, errors = measure(pred, truth, truth[0], {}, FPS), pred.astype(float) - truth
    norms = [np.linalg.norm(np.diff(errors, n=order, axis=0), axis=-1).mean() for order in range(3)]
    assert [figures[name] for name in ("mve", "mod", "ae")] == pytest.approx(norms, rel=1e-9)
    assert figures["tc"] == pytest.approx(np.linalg.norm(np.diff(pred.astype(float), axis=0), axis=-1).mean(), rel=1e-9)
    assert figures["ffe"] == pytest.approx((errors**2).sum() / (3 * 300), rel=1e-9)
