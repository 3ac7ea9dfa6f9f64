"""Speech on other faces (`sedtalker evaluate faces`): lip closures, lips through each other, speed of drawing.

Every face gets the same weights, so that the figures differ by the face alone: its shapes, its lip pairs and what its
file lacks. The first face is the reference.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sedtalker.audio import SAMPLE_RATE, load_audio
from sedtalker.emotion.track import EmotionTrack
from sedtalker.errors import FaceError
from sedtalker.evaluation.lips import closure_metrics, lip_gap_of_weights, pool
from sedtalker.evaluation.report import markdown_table
from sedtalker.face.assets import load_face
from sedtalker.face.rig import Face
from sedtalker.mel import FRAME_RATE
from sedtalker.phones import Phone
from sedtalker.pipeline import Talker
from sedtalker.render.soft import SoftRenderer

Float = NDArray[np.float32]

SIZE = 512  # pixels, width and height of the drawn pictures
DRAWN = 40  # frames that are drawn
_CORNERS = 4  # pairs at each corner of the mouth, which stay in contact
_COLUMNS = {
    "closed": "/p b m/ closed",
    "closure_recall": "share",
    "difference_points": "difference, points",
    "false_contact": "other phones closed",
    "crossing_mm": "deepest crossing of the lips, mm",
    "gap_p95_mm": "lip gap, p95, mm",
    "frames_per_second": "frames/s drawn",
}


def evaluate_faces(
    talker: Talker, names: Sequence[str], spoken: Sequence[tuple[Path, Sequence[Phone]]], drawn: int = DRAWN
) -> dict[str, dict[str, float | str]]:
    """Figures by face.

    Args:
        talker: gives the weights.
        names: of faces, as `load_face` takes them; the first is the reference.
        spoken: recordings and their phones.
        drawn: frames that are drawn for the time; 0 for none.

    Raises:
        FaceError: a face cannot be read, has no blendshapes, or no lips that open.
    """
    faces = {name: _load(name) for name in dict.fromkeys(names)}
    clips = [(_neutral_weights(talker, path), phones) for path, phones in tqdm(spoken, desc="speech")]
    report = {name: _measure(face, clips, drawn) for name, face in faces.items()}
    reference = float(next(iter(report.values()))["closure_recall"])
    for row in report.values():
        row["difference_points"] = 100 * (float(row["closure_recall"]) - reference)
    return report


def format_faces(report: Mapping[str, Mapping[str, Any]]) -> str:
    """The report as a Markdown table."""
    rows = [["", *_COLUMNS.values()]]
    for name, row in report.items():
        cells = (row[key] if isinstance(row[key], str) else f"{row[key]:.3g}" for key in _COLUMNS)
        rows.append([Path(name).name, *("" if cell == "nan" else cell for cell in cells)])
    return markdown_table(rows)


def lip_heights(face: Face, weights: Float) -> Float:
    """Heights (T, N) in metres of the upper over the lower lip for weights (T, 52), without the mouth's corners."""
    assert face.lip_pairs is not None and face.blendshapes is not None  # checked by `_load`
    inner = face.lip_pairs[_CORNERS:-_CORNERS] if len(face.lip_pairs) > 2 * _CORNERS else face.lip_pairs
    upper, lower = inner.T
    rest = face.template[upper, 1] - face.template[lower, 1]
    heights: Float = rest + weights @ (face.blendshapes[:, upper, 1] - face.blendshapes[:, lower, 1])
    return heights


def _load(name: str) -> Face:
    face = load_face(name)
    if face.blendshapes is None:
        raise FaceError(f"a face without blendshapes: {name}. Make a rig with: sedtalker face fit")
    if face.lip_pairs is None:
        raise FaceError(f"no lips that open were found on this face: {name}. Its closures cannot be measured")
    return face


def _neutral_weights(talker: Talker, path: Path) -> Float:
    """Weights (T, 52) at 50 Hz with the neutral emotion."""
    samples = load_audio(path)
    track = EmotionTrack.neutral(len(samples) / SAMPLE_RATE)
    animation = talker.animate((samples, SAMPLE_RATE), emotion=track, fps=FRAME_RATE, still=True)
    assert animation.blendshapes is not None
    return animation.blendshapes


def _measure(face: Face, clips: Sequence[tuple[Float, Sequence[Phone]]], drawn: int) -> dict[str, float | str]:
    gaps = [lip_gap_of_weights(weights, face) for weights, _ in clips]
    figures = [closure_metrics(gap, phones, FRAME_RATE) for gap, (_, phones) in zip(gaps, clips, strict=True)]
    closures = pool(figures)
    summary = closures.summary()
    lowest = np.min([lip_heights(face, weights).min(axis=0) for weights, _ in clips], axis=0)
    rest = lip_heights(face, np.zeros((1, len(face.blendshape_names)), np.float32))[0]
    return {
        "closed": f"{closures.closed_bilabials} of {closures.bilabials}",
        "closure_recall": summary["closure_recall"],
        "false_contact": summary["false_contact"],
        "crossing_mm": 1000 * max(0.0, float((np.minimum(rest, 0) - lowest).max())),
        "gap_p95_mm": 1000 * float(np.median([np.percentile(gap, 95) for gap in gaps])),
        "frames_per_second": _draw(face, np.concatenate([weights for weights, _ in clips])[:drawn]),
    }


def _draw(face: Face, weights: Float) -> float:
    """Pictures per second of one thread; NaN without weights."""
    if not len(weights):
        return float("nan")
    renderer = SoftRenderer(face, SIZE, SIZE)
    renderer.frame(face.pose(weights[0]))  # compiled code is loaded
    start = time.process_time()
    for frame in weights:
        renderer.frame(face.pose(frame))
    return len(weights) / max(time.process_time() - start, 1e-9)
