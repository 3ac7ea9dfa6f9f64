"""Checks of vertex sequences before training: layout, unit, axes, topology, motion, sound.

Each check returns a sentence with the problem and its solution, or None.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import DataError
from sedtalker.face.motion_bounds import MotionBounds

HEAD_SIZE = (0.08, 2.5)  # metres, the longest side of the box around a head, with or without shoulders
LARGEST_MOTION = 0.10  # metres from the template; an open jaw moves the chin by 0.04
LEAST_MOTION = 1e-5  # metres; below it a sequence does not move
LARGEST_STEP = 0.05  # metres between two frames
FAR_FROM_TEMPLATE = 0.02  # metres, root mean square over the vertices; speech stays below 0.005
SOUND_TOLERANCE = 0.2  # s between the end of the motion and the end of the sound
COMMON_RATES = (24.0, 25.0, 29.97, 30.0, 50.0, 60.0, 100.0, 120.0)  # Hz

Float = NDArray[np.floating]

_UNITS = {0.001: "millimetres", 0.01: "centimetres", 0.0254: "inches"}  # metres a unit


def as_frames(array: Float, vertices: int) -> Float:
    """A sequence (T, V, 3) or (T, 3 V) as (T, V, 3), without a copy.

    Raises:
        DataError: it is of another type, shape or topology, or its axes are swapped; the message lacks the file's name.
    """
    if array.dtype.kind != "f":
        raise DataError(f"numbers of type {array.dtype}, not floating point. Save positions in metres")
    shape = tuple(array.shape)
    if len(shape) == 2 and shape[1] == 3 * vertices:
        array = array.reshape(shape[0], vertices, 3)
    elif len(shape) != 3 or shape[1:] != (vertices, 3):
        raise DataError(_wrong_shape(shape, vertices))
    if len(array) < 2:
        raise DataError(f"{len(array)} frames. A sequence needs at least 2")
    return array


def _wrong_shape(shape: tuple[int, ...], vertices: int) -> str:
    wanted = f"(T, {vertices}, 3) or (T, {3 * vertices})"
    if len(shape) == 3 and sorted(shape[1:]) == sorted((vertices, 3)):
        return f"swapped axes: shape {shape} is (T, 3, V). Transpose it to {wanted}"
    if len(shape) == 3 and vertices in shape and 3 in shape:
        return f"swapped axes: shape {shape}. Transpose it to {wanted}"
    if len(shape) == 2 and shape[0] == 3 * vertices:
        return f"swapped axes: shape {shape} is (3 V, T). Transpose it to {wanted}"
    if shape == (vertices, 3):
        return f"one frame alone: shape {shape}. A sequence has {wanted}"
    count = shape[1] if len(shape) == 3 else shape[-1] / 3 if shape else 0
    return f"wrong topology: shape {shape} has {count:g} vertices, the template {vertices}. Use the template's mesh"


def template_problem(template: Float) -> str | None:
    """Problem of a template (V, 3)."""
    if template.ndim != 2 or template.shape[1] != 3 or template.dtype.kind != "f":
        return f"not a template: shape {template.shape} of {template.dtype}. It must be (V, 3), in metres"
    if not np.isfinite(template).all():
        return "coordinates with NaN or infinity. Export the template again"
    return _unit_problem(float(np.ptp(template, axis=0).max()))


def _unit_problem(size: float) -> str | None:
    low, high = HEAD_SIZE
    if low <= size <= high:
        return None
    for factor, unit in _UNITS.items():
        if low <= size * factor <= min(high, 1.0):
            return f"a head {size:.3g} units large, probably in {unit}. Scale it to metres with --scale {factor:g}"
    return f"a head {size:.3g} units large; one in metres measures about 0.25. Scale it to metres with --scale"


def within_bounds(bounds: MotionBounds) -> bool:
    """Whether the extremes of a sequence suffice to know that `motion_problem` finds none; conservative."""
    if not bounds.finite:
        return False
    reach = np.square(np.maximum(-bounds.low, bounds.high)).reshape(-1, 3).sum(axis=1)  # (V,) square metres, or more
    far = reach.max() > LARGEST_MOTION**2 or reach.mean() > FAR_FROM_TEMPLATE**2
    return not far and bounds.step.max() <= 0.99 * LARGEST_STEP  # steps of differences are rounded


def motion_problem(frames: Float, template: Float) -> str | None:
    """Problem of positions (T, V, 3) in metres of a face whose template is (V, 3)."""
    if not np.isfinite(frames).all():
        bad = np.flatnonzero(~np.isfinite(frames).all(axis=(1, 2)))
        return f"coordinates with NaN or infinity in {len(bad)} frames, the first is {bad[0]}. Export it again"
    moved = frames - template
    middle = np.median(moved[:: max(1, len(moved) // 32)], axis=0)
    if _rms(middle) > FAR_FROM_TEMPLATE:
        return _mismatch(middle + template, template)
    reach = np.sqrt(np.square(moved).sum(axis=2, dtype=np.float32))  # (T, V) metres
    if reach.max() > LARGEST_MOTION:
        frame, vertex = np.unravel_index(int(reach.argmax()), reach.shape)
        return (
            f"motion out of range: vertex {vertex} is {reach.max():.3f} m from the template in frame {frame}. "
            "Remove the head's rigid motion, or the broken frames"
        )
    steps = np.abs(np.diff(frames, axis=0)).max(axis=(1, 2))
    if steps.max() > LARGEST_STEP:
        return f"a jump of {steps.max():.3f} m after frame {int(steps.argmax())}. Remove the broken frames"
    return None


def _rms(displacement: Float) -> float:
    return float(np.sqrt(np.square(displacement).sum(axis=-1).mean()))


def _mismatch(posture: Float, template: Float) -> str:
    """Why a typical posture (V, 3) is far from the template: displacements, unit, axes, place or order of vertices."""
    size, wanted = (float(np.ptp(points, axis=0).max()) for points in (posture, template))
    if _rms(posture) < 0.1 * _rms(template - template.mean(axis=0)):
        return "displacements, not positions (they are around zero). Add the template"
    if not 0.5 < size / wanted < 2:
        return f"another unit: {size / wanted:.3g} times as large as the template. Scale it to metres with --scale"
    centred, target = posture - posture.mean(axis=0), template - template.mean(axis=0)
    order = _matching_axes(centred, target)
    if order is not None:
        return f"swapped axes: it fits the template as {order}. Export it y up, facing +z, in the template's axes"
    if _rms(centred - target) < FAR_FROM_TEMPLATE:
        offset = ", ".join(f"{value:.3f}" for value in posture.mean(axis=0) - template.mean(axis=0))
        return f"moved by ({offset}) m against the template. Align it"
    return "it does not fit the template: another order of vertices, or another subject's template. Use the one it had"


def _matching_axes(posture: Float, template: Float) -> str | None:
    """The axes, as "x -z y", that turn a centred posture (V, 3) into the template's, where they are not x y z."""
    for order in permutations(range(3)):
        for signs in np.ndindex(2, 2, 2):
            turned = posture[:, order] * (1 - 2 * np.array(signs))
            changed = order != (0, 1, 2) or any(signs)
            if changed and _rms(turned - template) < FAR_FROM_TEMPLATE:
                return " ".join("-" * sign + "xyz"[axis] for axis, sign in zip(order, signs, strict=True))
    return None


def sound_problem(frames: int, rate: float, seconds: float) -> str | None:
    """Whether `frames` at `rate` Hz last as long as their sound; otherwise which common rate would fit."""
    if abs(frames / rate - seconds) <= SOUND_TOLERANCE:
        return None
    fitting = [f"{other:g}" for other in COMMON_RATES if abs(frames / other - seconds) <= SOUND_TOLERANCE]
    hint = f"it would fit {' or '.join(fitting)} Hz (--source-fps)" if fitting else "use the recording of this sequence"
    return f"{frames} frames at {rate:g} Hz last {frames / rate:.2f} s, the sound {seconds:.2f} s: {hint}"


def likeliest_rate(lengths: Sequence[tuple[int, float]], candidates: Sequence[float]) -> float:
    """The candidate rate in Hz at which (frames, seconds) pairs agree best; the first one where there are none."""
    if not lengths:
        return candidates[0]
    return min(candidates, key=lambda rate: sum(abs(frames / rate - seconds) for frames, seconds in lengths))
