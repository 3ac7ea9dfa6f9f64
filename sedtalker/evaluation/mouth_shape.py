"""Shape of the mouth: width, protrusion, contour, labiodental tuck, tongue, and a viseme reader trained on real mouths.

A tracked clip is `NAME.npz` with `lip_gap`, `lip_width` (T,), `lip_points` (T, 40, 3) and `fps`, next to the sound of
the same name; distances are fractions of the distance between the outer eye corners (MediaPipe landmarks 33 and 263).
Frame i is at (i + 0.5) / fps seconds. Every figure over clips is a median with the 2.5th and the 97.5th percentile of
bootstrapped medians.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import DataError, reason_of
from sedtalker.evaluation.bootstrap import RESAMPLES
from sedtalker.evaluation.lips import frames_of_phone, over_p95
from sedtalker.face.mouth_measures import MILLIMETRES, lip_vertices, middle_lip_pairs
from sedtalker.face.rig import Face
from sedtalker.phones import SILENCE, Phone

Array = NDArray[np.floating]
Interval = tuple[float, float, float]
"""A figure, and the limits of its 95 % interval; NaN where it is not defined."""

EYE_DISTANCE_MM = 89.3  # between the outer eye corners, of a man: the unit of the tracked distances
LAGS = np.arange(-0.20, 0.201, 0.02)  # seconds of shift among which the best correlation is searched
FEWEST_FRAMES = 12  # frames with a face that a tracked clip needs

# MediaPipe's inner lip in the order of `lip_points`: upper rim from the person's right corner, then the lower rim.
MEDIAPIPE_ORDER = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95, 78, 191, 80, 81,
    82, 13, 312, 311, 310, 415, 308, 409, 270, 269, 267, 0, 37, 39, 40,
)  # fmt: skip
UPPER_RIM = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
LOWER_RIM = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)

PHONE_CLASSES: dict[str, tuple[str, ...]] = {
    "p b m": ("P", "B", "M"),
    "f v": ("F", "V"),
    "th dh": ("TH", "DH"),
    "w r": ("W", "R"),
    "sh ch j zh": ("SH", "CH", "JH", "ZH"),
    "t d s z n l k g": ("T", "D", "S", "Z", "N", "L", "K", "G", "NG"),
    "spread": ("IY", "IH", "EY", "EH", "AE"),
    "rounded": ("UW", "OW", "AO", "UH", "OY"),
    "open": ("AA", "AY", "AH", "AW"),
}
"""Six groups of consonants that lip readers distinguish (Owens & Blazek 1985), and three shapes of vowels."""

NORM_PHONES: dict[str, tuple[str, ...]] = {
    "u o w": ("UW", "OW", "W"), "u w": ("UW", "W"), "i": ("IY",), "a": ("AA", "AE", "AY"),
    "sh": ("SH", "CH", "JH", "ZH"), "f v": ("F", "V"), "a i": ("AA", "AE", "AY", "IY"),
}  # fmt: skip
SHAPE_NORMS: dict[str, str] = {
    "protrusion_u_o_w_over_i_mm": ">= 6 (VocalTractLab JD3: 6 to 9)",
    "protrusion_sh_over_a_i_mm": ">= 2.5 (JD3)",
    "width_u_w": ".90 to .95 of the clip's median (GRID)",
    "width_i": "1.02 to 1.04 of the clip's median (GRID)",
    "labiodental_tuck": ">= .90",
    "tongue_th": ">= .90",
    "tongue_l_n_t_d": ">= .90 where the gap allows",
    "gap_r": ">= .965 on GRID s1, .83 to .91 on other talkers, .55 on natural speech",
    "width_r": ">= .86 on GRID s1, .50 on natural speech",
    "gap_spread": ".8 to 1.2",
    "width_spread": ".8 to 1.2",
    "gap_velocity_spread": ".9 to 1.1",
    "participation_ratio": "within 15 % of the real one",
    "viseme_reader_ratio": ">= .9",
}

SET_BACK = 1.0  # mm between the lower lip and its position at rest, in a tuck
TEETH_SEEN = 1.0  # mm of the upper incisors visible between the lips, in a tuck
REACH = 3.6  # mm of lip gap at which a lower lip can touch the incisors, .3 of an open mouth
TONGUE_ROOM = 2.0  # mm of lip gap from which a tongue behind the teeth is visible
TONGUE_BEHIND = 4.0  # mm behind the upper incisors' front at which a tongue counts as at the teeth
TIP = 0.008  # metres from the middle of the face: region of the tongue's tip


@dataclass(frozen=True)
class TrackedMouth:
    """Tracked measures of a mouth, without the frames in which no face was found."""

    times: Array  # (T,) seconds
    gap: Array  # (T,) over the eye distance
    width: Array  # (T,)
    points: Array  # (T, 40, 3)


def read_tracked_mouth(path: Path | str) -> TrackedMouth:
    """Read a tracked clip.

    Raises:
        DataError: the file is not a tracked clip, or a face was found in too few frames.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            gap, width, points = (data[name].astype(float) for name in ("lip_gap", "lip_width", "lip_points"))
            fps = float(data["fps"])
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"not a tracked mouth: {path} ({reason_of(error)}). Give the tracker's own .npz") from error
    known = np.isfinite(gap) & np.isfinite(width) & np.isfinite(points).all(axis=(1, 2))
    if known.sum() < FEWEST_FRAMES:
        raise DataError(f"a face in only {known.sum()} frames: {path}. Give clips of at least {FEWEST_FRAMES}")
    times = ((np.arange(len(gap)) + 0.5) / fps)[known]
    return TrackedMouth(times, gap[known], width[known], points[known])


@dataclass(frozen=True)
class MouthCurves:
    """Measures of an animated mouth."""

    times: Array  # (T,) seconds
    gap: Array  # (T,) mm between the rims, mean of the middle lip pairs
    width: Array  # (T,) mm between the corners
    protrusion: Array  # (T,) mm, mean of both lips, from rest
    points: Array  # (T, 2 N, 3) mm, inner rim: upper and lower of each lip pair from corner to corner


def mouth_curves(vertices: Array, face: Face, fps: float) -> MouthCurves:
    """Measures of vertices (T, V, 3) in metres at `fps`."""
    pairs = np.asarray(face.lip_pairs)
    third = len(pairs) // 3
    middle = pairs[third : len(pairs) - third]
    left, right = face.landmarks["mouth_left"], face.landmarks["mouth_right"]
    forward = [(vertices[:, lip, 2] - face.template[lip, 2]).mean(axis=1) for lip in lip_vertices(face)]
    gap = np.linalg.norm(vertices[:, middle[:, 0]] - vertices[:, middle[:, 1]], axis=2).mean(axis=1)
    width = np.linalg.norm(vertices[:, left] - vertices[:, right], axis=1)
    protrusion = np.mean(forward, axis=0)
    points = vertices[:, pairs.ravel()]
    times = (np.arange(len(vertices)) + 0.5) / fps
    return MouthCurves(times, *(MILLIMETRES * curve for curve in (gap, width, protrusion, points)))


def curves_of_weights(weights: Array, face: Face, fps: float) -> MouthCurves:
    """`mouth_curves` of ARKit weights (T, 52), without posing the whole face."""
    assert face.blendshapes is not None and face.lip_pairs is not None
    used = np.unique(
        np.concatenate(
            [
                np.ravel(face.lip_pairs),
                *lip_vertices(face),
                [face.landmarks[f"mouth_{side}"] for side in ("left", "right")],
            ]
        )
    )
    moved = np.zeros((len(weights), *face.template.shape), np.float32)
    shapes = face.blendshapes[:, used].reshape(len(face.blendshapes), -1)
    moved[:, used] = (np.asarray(weights, np.float32) @ shapes).reshape(len(weights), len(used), 3)
    return mouth_curves(moved + face.template, face, fps)


def participation_ratio(points: Array) -> float:
    """Dimensions that points (T, N, 3) use: squared sum over sum of squares of the variances along principal axes."""
    flat = points.reshape(len(points), -1)
    flat = flat - flat.mean(axis=0)
    covariance = flat.T @ flat  # its eigenvalues are the variances: their sum is the trace, that of squares the norm's
    return float(np.trace(covariance) ** 2 / max(float(np.square(covariance).sum()), 1e-30))


@dataclass(frozen=True)
class ClipShape:
    """Comparison of an animated clip with the tracked one."""

    figures: Mapping[str, float]
    ours: Array  # (T, 2 N, 3), contour less its frame's mean and less the clip's mean
    real: Array  # (T, 40, 3)


def shape_against_tracked(ours: MouthCurves, real: TrackedMouth) -> ClipShape:
    """Correlation, spread and speed of gap and width at the tracked frames."""
    figures: dict[str, float] = {}
    for name, curve, truth in (("gap", ours.gap, real.gap), ("width", ours.width, real.width)):
        moved = [_correlation(np.interp(real.times + lag, ours.times, curve), truth) for lag in LAGS]
        at = np.interp(real.times, ours.times, curve) / EYE_DISTANCE_MM
        figures |= {
            f"{name}_r": _correlation(at, truth),
            f"{name}_r_best_lag": float(np.max(moved)),
            f"{name}_spread": float(at.std() / max(truth.std(), 1e-9)),
            f"{name}_velocity_spread": float(_speed(at, real.times).std() / max(_speed(truth, real.times).std(), 1e-9)),
        }
    return ClipShape(figures, _centred(ours.points), _centred(real.points))


def _speed(curve: Array, times: Array) -> Array:
    """Change a second between neighbouring frames; pairs with missing frames between them are omitted."""
    steps = np.diff(times)
    neighbours = steps < 1.5 * np.median(steps)
    return (np.diff(curve) / steps)[neighbours]


def _centred(points: Array) -> Array:
    points = points - points.mean(axis=1, keepdims=True)
    return points - points.mean(axis=0)


def _correlation(one: Array, other: Array) -> float:
    if one.std() < 1e-12 or other.std() < 1e-12:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def pooled_shape(clips: Sequence[ClipShape], seed: int = 0) -> dict[str, Interval]:
    """Median, and 95 % interval of bootstrapped medians, of every figure; and both participation ratios."""
    table = {name: median_interval([clip.figures[name] for clip in clips], seed) for name in clips[0].figures}
    for name, part in (("participation_ratio", "ours"), ("participation_ratio_real", "real")):
        ratio = participation_ratio(np.concatenate([getattr(clip, part) for clip in clips]))
        draws = _bootstrap_indices(len(clips), 50, seed)
        spread = [participation_ratio(np.concatenate([getattr(clips[i], part)[::3] for i in draw])) for draw in draws]
        table[name] = (ratio, *np.percentile(spread, (2.5, 97.5)).tolist())
    return table


def median_interval(values: Sequence[float], seed: int = 0) -> Interval:
    """Median of values, without NaN, with the 2.5th and 97.5th percentile of bootstrapped medians."""
    known = np.array([value for value in values if np.isfinite(value)])
    if not len(known):
        return (float("nan"),) * 3
    medians = np.median(known[_bootstrap_indices(len(known), RESAMPLES, seed)], axis=1)
    return (float(np.median(known)), *np.percentile(medians, (2.5, 97.5)).tolist())


def share_interval(hits: int, tries: int) -> Interval:
    """A share with its 95 % interval (Wilson 1927)."""
    if not tries:
        return (float("nan"),) * 3
    z, share = 1.96, hits / tries
    centre = (share + z**2 / (2 * tries)) / (1 + z**2 / tries)
    half = z * np.sqrt(share * (1 - share) / tries + z**2 / (4 * tries**2)) / (1 + z**2 / tries)
    return share, float(centre - half), float(centre + half)


def _bootstrap_indices(count: int, times: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(count, size=(times, count))


# By phone


@dataclass(frozen=True)
class SpokenMouth:
    """A clip with known phones."""

    curves: MouthCurves
    phones: Sequence[Phone]


def phone_shapes(clips: Sequence[SpokenMouth], seed: int = 0) -> dict[str, Interval]:
    """Protrusion in mm and width over the clip's median at the phones of NORM_PHONES, and their differences."""
    width: dict[str, list[float]] = {name: [] for name in NORM_PHONES}
    forward: dict[str, list[float]] = {name: [] for name in NORM_PHONES}
    opening: dict[str, list[float]] = {name: [] for name in NORM_PHONES}
    for clip in clips:
        curves = clip.curves
        relative = curves.width / np.median(curves.width)
        gap = over_p95(curves.gap)
        for name, members in NORM_PHONES.items():
            pick = np.min if name in ("u w", "u o w") else np.max
            for inside in (frames_of_phone(curves.times, phone) for phone in clip.phones if phone.name in members):
                width[name].append(float(pick(relative[inside])))
                forward[name].append(float(curves.protrusion[inside].max()))
                opening[name].append(float(gap[inside].max()))
    table = {
        "width_u_w": median_interval(width["u w"], seed),
        "width_i": median_interval(width["i"], seed),
        "protrusion_u_o_w_over_i_mm": _difference(forward["u o w"], forward["i"], seed),
        "protrusion_sh_over_a_i_mm": _difference(forward["sh"], forward["a i"], seed),
    }
    return table | {f"gap_over_p95_{name}": median_interval(values, seed) for name, values in opening.items()}


def _difference(one: Sequence[float], other: Sequence[float], seed: int) -> Interval:
    """Difference of medians with its bootstrapped interval."""
    if not one or not other:
        return (float("nan"),) * 3
    a, b = np.array(one), np.array(other)
    drawn = np.median(a[_bootstrap_indices(len(a), RESAMPLES, seed)], 1) - np.median(
        b[_bootstrap_indices(len(b), RESAMPLES, seed + 1)], 1
    )
    return (float(np.median(a) - np.median(b)), *np.percentile(drawn, (2.5, 97.5)).tolist())


# Teeth and tongue, in the posed rig


def labiodental_tuck(clips: Sequence[tuple[Array, Sequence[Phone]]], face: Face, fps: float) -> dict[str, Interval]:
    """Shares of /f v/ of ARKit weights (T, 52) in which the lower lip is tucked under the upper incisors.

    At the frame of each phone where the lower lip is furthest back: `set_back`, it is `SET_BACK` mm behind its rest;
    `teeth_seen`, `TEETH_SEEN` mm of the upper incisors show between the lips; `near`, the gap is at most `REACH` mm;
    `labiodental_tuck`, all three.
    """
    lower = lip_vertices(face)[1]
    count = {"labiodental_set_back": 0, "labiodental_teeth_seen": 0, "labiodental_near": 0, "labiodental_tuck": 0}
    tries = 0
    for weights, phones in clips:
        times = (np.arange(len(weights)) + 0.5) / fps
        labiodentals = [phone for phone in phones if phone.name in ("F", "V")]
        if not labiodentals:
            continue
        back = -_displacements(weights, face, lower)[:, :, 2].mean(axis=1)
        upper_rim, lower_rim, incisal = (_heights(weights, face, key) for key in ("upper", "lower", "incisal"))
        for phone in labiodentals:
            inside = np.flatnonzero(frames_of_phone(times, phone))
            at = inside[back[inside].argmax()]
            seen = upper_rim[at] - max(lower_rim[at], incisal[at])
            found = (back[at] >= SET_BACK, seen >= TEETH_SEEN, upper_rim[at] - lower_rim[at] <= REACH)
            for name, hit in zip(count, (*found, all(found)), strict=True):
                count[name] += bool(hit)
            tries += 1
    return {name: share_interval(hits, tries) for name, hits in count.items()}


def tongue_seen(clips: Sequence[tuple[Array, Sequence[Phone]]], face: Face, fps: float) -> dict[str, Interval]:
    """Shares of phones of ARKit weights (T, 52) during which the tongue's tip shows between teeth and lips.

    The tip shows where one of its vertices is at the teeth or in front of them, above the lower lip and the lower
    incisors and below the upper ones, seen from the front. /l n t d/ count where the lips part by `TONGUE_ROOM` mm.
    """
    tongue = np.asarray(face.parts["tongue"])
    front = tongue[np.abs(face.template[tongue, 0]) < TIP]
    tip = front[face.template[front, 2] > face.template[front, 2].max() - TIP]
    groups = {
        "tongue_th": ("TH", "DH"),
        "tongue_l_n_t_d": ("L", "N", "T", "D"),
        "tongue_others": ("AA", "AE", "IY", "F", "V", "P", "B", "M", "K", "G"),
    }
    hits, tries = dict.fromkeys(groups, 0), dict.fromkeys(groups, 0)
    teeth = float(face.template[_edge(face, "incisal"), 2].max()) * MILLIMETRES
    for weights, phones in clips:
        times = (np.arange(len(weights)) + 0.5) / fps
        place = _displacements(weights, face, tip) + face.template[tip] * MILLIMETRES
        upper_rim, lower_rim, incisal, lower_incisal = (
            _heights(weights, face, key)[:, None] for key in ("upper", "lower", "incisal", "lower_incisal")
        )
        before_lower_teeth = place[..., 2] > _depth(weights, face)[:, None]
        floor = np.where(before_lower_teeth, lower_rim, np.maximum(lower_rim, lower_incisal))
        at_teeth = place[..., 2] > teeth - TONGUE_BEHIND
        shown = (at_teeth & (place[..., 1] > floor) & (place[..., 1] < np.minimum(upper_rim, incisal))).any(axis=1)
        gap = (upper_rim - lower_rim)[:, 0]
        for name, phone in product(groups, phones):
            inside = frames_of_phone(times, phone)
            if phone.name in groups[name] and (name == "tongue_th" or gap[inside].max() >= TONGUE_ROOM):
                hits[name] += bool(shown[inside].any())
                tries[name] += 1
    return {name: share_interval(hits[name], tries[name]) for name in groups}


def _displacements(weights: Array, face: Face, ids: NDArray[np.integer]) -> Array:
    """Displacements (T, N, 3) in mm of vertices."""
    assert face.blendshapes is not None
    shapes = face.blendshapes[:, ids].reshape(len(face.blendshapes), -1) * MILLIMETRES
    return (np.asarray(weights, np.float32) @ shapes).reshape(len(weights), len(ids), 3)


def _edge(face: Face, key: str) -> NDArray[np.integer]:
    """The vertices of a rim of the lips or of an incisal edge, in the middle of the face."""
    assert face.lip_pairs is not None
    if key in ("upper", "lower"):
        return middle_lip_pairs(face)[:, 0 if key == "upper" else 1]
    teeth = np.asarray(face.parts["teeth_upper" if key == "incisal" else "teeth_lower"])
    teeth = teeth[np.abs(face.template[teeth, 0]) < TIP]
    height = face.template[teeth, 1]
    return teeth[height < height.min() + 0.001] if key == "incisal" else teeth[height > height.max() - 0.001]


def _heights(weights: Array, face: Face, key: str) -> Array:
    """Height (T,) in mm of an edge."""
    ids = _edge(face, key)
    return (_displacements(weights, face, ids)[..., 1] + face.template[ids, 1] * MILLIMETRES).mean(axis=1)


def _depth(weights: Array, face: Face) -> Array:
    """Front (T,) in mm of the lower incisors."""
    ids = _edge(face, "lower_incisal")
    return (_displacements(weights, face, ids)[..., 2] + face.template[ids, 2] * MILLIMETRES).max(axis=1)


# A reader of visemes

OFFSETS = (-0.08, -0.04, 0.0, 0.04, 0.08)  # seconds around the middle of a phone at which the mouth is read
SHUT = 0.06  # of p95: a smaller gap is shut; the rest is the tracker's noise or the rig's gap at rest
RIDGE = 1e-2


def real_outline(real: TrackedMouth) -> MouthCurves:
    """A tracked mouth as `mouth_curves` describes an animated one; protrusion is unknown to a frontal tracker: 0."""
    order = {landmark: place for place, landmark in reversed(list(enumerate(MEDIAPIPE_ORDER)))}
    rims = [[order[landmark] for landmark in rim] for rim in (UPPER_RIM, LOWER_RIM)]
    points = np.stack([real.points[:, rim] for rim in rims], axis=2).reshape(len(real.points), -1, 3)
    gap, width = EYE_DISTANCE_MM * real.gap, EYE_DISTANCE_MM * real.width
    return MouthCurves(real.times, gap, width, np.zeros(len(gap)), EYE_DISTANCE_MM * points)


def reader_inputs(curves: MouthCurves, phones: Sequence[Phone]) -> tuple[Array, list[str]]:
    """Features (N, 15) of each phone of PHONE_CLASSES, and the class of the phone.

    Gap and inner area over their 95th percentiles and width over its median at `OFFSETS`; the face's size cancels.
    """
    rim = curves.points.reshape(len(curves.points), -1, 2, 3)
    steps = np.diff((rim[:, :, 0, 0] + rim[:, :, 1, 0]) / 2, axis=1)
    heights = np.maximum(rim[:, :, 0, 1] - rim[:, :, 1, 1], 0.0)
    area = np.abs(steps * (heights[:, 1:] + heights[:, :-1]) / 2).sum(axis=1)
    seen = (
        np.maximum(over_p95(curves.gap), SHUT),
        np.maximum(over_p95(area), SHUT),
        10 * (curves.width / np.median(curves.width) - 1),
    )
    names = {phone: name for name, members in PHONE_CLASSES.items() for phone in members}
    counted = [phone for phone in phones if phone.name in names and phone.name != SILENCE]
    rows = [
        [np.interp((phone.start + phone.end) / 2 + offset, curves.times, one) for one in seen for offset in OFFSETS]
        for phone in counted
    ]
    return np.array(rows).reshape(len(counted), len(seen) * len(OFFSETS)), [names[phone.name] for phone in counted]


@dataclass(frozen=True)
class VisemeReader:
    """Classifier of phones by the mouth around them: quadratic features, ridge regression on balanced classes."""

    classes: tuple[str, ...]
    mean: Array
    scale: Array
    coefficients: Array  # (features, classes)

    def read(self, inputs: Array) -> list[str]:
        """The class of each row (N, 15)."""
        return [self.classes[best] for best in (self._features(inputs) @ self.coefficients).argmax(axis=1)]

    def _features(self, inputs: Array) -> Array:
        return _quadratic((inputs - self.mean) / self.scale)

    @classmethod
    def fit(cls, inputs: Array, labels: Sequence[str]) -> VisemeReader:
        """Fit a reader to rows (N, 15) with known classes; all classes have equal weight."""
        classes = tuple(name for name in PHONE_CLASSES if name in labels)
        mean, scale = inputs.mean(axis=0), inputs.std(axis=0) + 1e-9
        features = _quadratic((inputs - mean) / scale)
        truth = np.array([[label == name for name in classes] for label in labels], float)
        weight = (truth / truth.sum(axis=0)).sum(axis=1)[:, None]
        gram = features.T @ (weight * features) + RIDGE * np.eye(features.shape[1])
        return cls(classes, mean, scale, np.linalg.solve(gram, features.T @ (weight * truth)))


def _quadratic(rows: Array) -> Array:
    """Rows (N, D) with a constant and all products of two of their values."""
    first, second = np.triu_indices(rows.shape[1])
    return np.concatenate([np.ones((len(rows), 1)), rows, rows[:, first] * rows[:, second]], axis=1)


def balanced_accuracy(truth: Sequence[str], named: Sequence[str], seed: int = 0) -> Interval:
    """Mean recall of the classes, with its bootstrapped 95 % interval."""
    labels, hits = np.array(truth), np.array(truth) == np.array(named)

    def mean(chosen: NDArray[np.int64]) -> float:
        return float(np.mean([hits[chosen][labels[chosen] == name].mean() for name in np.unique(labels[chosen])]))

    drawn = [mean(draw) for draw in _bootstrap_indices(len(labels), 200, seed)]
    return (mean(np.arange(len(labels))), *np.percentile(drawn, (2.5, 97.5)).tolist())


def confusions(truth: Sequence[str], named: Sequence[str]) -> Array:
    """(C, C) shares, rows are the true classes of PHONE_CLASSES, columns the predicted ones."""
    names = list(PHONE_CLASSES)
    counts = np.zeros((len(names), len(names)))
    for true, predicted in zip(truth, named, strict=True):
        counts[names.index(true), names.index(predicted)] += 1
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


# Reports


def tracked_figures(clips: Sequence[tuple[Array, Path]], face: Face, fps: float) -> dict[str, Interval]:
    """`pooled_shape` of ARKit weights (T, 52) at `fps`, each with its tracked clip."""
    return pooled_shape(
        [
            shape_against_tracked(curves_of_weights(weights, face, fps), read_tracked_mouth(path))
            for weights, path in clips
        ]
    )


def spoken_figures(clips: Sequence[tuple[Array, Sequence[Phone]]], face: Face, fps: float) -> dict[str, Interval]:
    """Width and protrusion by phone, tuck and tongue of ARKit weights (T, 52) at `fps` whose phones are known."""
    spoken = [SpokenMouth(curves_of_weights(weights, face, fps), phones) for weights, phones in clips]
    return {**phone_shapes(spoken), **labiodental_tuck(clips, face, fps), **tongue_seen(clips, face, fps)}


def reader_figures(
    real: Sequence[tuple[Path, Sequence[Phone]]],
    judged: Sequence[tuple[Array, Path, Sequence[Phone]]],
    face: Face,
    fps: float,
) -> dict[str, Interval]:
    """Balanced accuracy of a reader fitted to tracked clips, on other tracked clips and on animations of their sound.

    `viseme_reader` is of the animations, `viseme_reader_real` of the real mouths, `viseme_reader_ratio` their ratio.
    `viseme_confusions_differ` is the share of phones that the two are read as different classes, the mean over the
    true classes of half the absolute difference of their rows of `confusions`.
    """
    learned = [reader_inputs(real_outline(read_tracked_mouth(path)), phones) for path, phones in real]
    reader = VisemeReader.fit(np.concatenate([rows for rows, _ in learned]), [n for _, names in learned for n in names])
    figures: dict[str, Interval] = {}
    read: list[Array] = []
    for key, outlines in (
        ("viseme_reader", [(curves_of_weights(weights, face, fps), phones) for weights, _, phones in judged]),
        ("viseme_reader_real", [(real_outline(read_tracked_mouth(path)), phones) for _, path, phones in judged]),
    ):
        seen = [reader_inputs(curves, phones) for curves, phones in outlines]
        truth = [name for _, names in seen for name in names]
        named = reader.read(np.concatenate([rows for rows, _ in seen]))
        figures[key] = balanced_accuracy(truth, named)
        read.append(confusions(truth, named))
    ratio = figures["viseme_reader"][0] / max(figures["viseme_reader_real"][0], 1e-9)
    known = read[0].any(axis=1)
    differ = float(np.abs(read[0] - read[1])[known].sum(axis=1).mean() / 2)
    unknown = (float("nan"), float("nan"))
    return figures | {"viseme_reader_ratio": (ratio, *unknown), "viseme_confusions_differ": (differ, *unknown)}
