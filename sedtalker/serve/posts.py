"""Answers to posted files, in the shapes of NeuroSync, Azure and Audio2Face's files."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.rotations import head_angles
from sedtalker.serve.engine import FrameBlock
from sedtalker.serve.studio import Motion
from sedtalker.serve.visemes import OCULUS, find_visemes
from sedtalker.serve.wire import rounded

FPS = 60.0  # of NeuroSync and Azure

NEUROSYNC_EMOTIONS = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
"""Columns 61 to 67 of NeuroSync's rows."""

_EYES = 6  # angles of the eyes in Live Link's rows, which are 0 because the eyes move by blendshapes
_TICKS = 10_000_000  # of Azure's audio offsets, in a second
_EVENT_FRAMES = 30  # of an event of Azure, half a second

_AZURE_VISEMES = {
    "sil": 0, "PP": 21, "FF": 18, "TH": 17, "DD": 19, "kk": 20, "CH": 16, "SS": 15, "RR": 13, "aa": 2, "E": 4, "I": 6,
    "O": 8, "U": 7,
}  # fmt: skip
"""Oculus' viseme -> Azure's number, which is SAPI's."""

assert set(_AZURE_VISEMES) == set(OCULUS)


def neurosync(motion: Motion) -> dict[str, Any]:
    """`{"blendshapes": [[68 numbers], ...]}`: 52 weights in Live Link's order, 9 angles in radians, 7 emotions."""
    angles = np.array([head_angles(rotation) for rotation in motion.head], np.float32).reshape(-1, 3)
    eyes = np.zeros((len(angles), _EYES), np.float32)
    emotions = np.stack([_share(motion, name) for name in NEUROSYNC_EMOTIONS], axis=1)
    return {"blendshapes": rounded(np.concatenate([motion.weights, angles, eyes, emotions], axis=1))}


def azure(motion: Motion) -> dict[str, Any]:
    """Viseme events as Azure's speech synthesis sends them, with 55 columns a frame at 60 fps.

    `animation` is JSON in a string, as in the event of Azure's SDK, whose handlers parse it. The columns are the 52
    ARKit weights, headRoll, leftEyeRoll and rightEyeRoll. `audioOffset` is in 100 ns.
    """
    rolls = np.array([[head_angles(rotation)[2], 0.0, 0.0] for rotation in motion.head], np.float32).reshape(-1, 3)
    rows = np.concatenate([motion.weights, rolls], axis=1)
    visemes = dict.fromkeys(range(len(rows)), "sil")
    none = np.zeros((len(rows), 0), np.float32)
    for name, first, count in find_visemes(FrameBlock(0, FPS, motion.weights, none, none, none, none)):
        visemes |= dict.fromkeys(range(first, first + count), name)
    return {
        "events": [
            {
                "audioOffset": round(first / FPS * _TICKS),
                "visemeId": _AZURE_VISEMES[visemes[first]],
                "animation": json.dumps(
                    {"FrameIndex": first, "BlendShapes": rounded(rows[first : first + _EVENT_FRAMES])}
                ),
            }
            for first in range(0, len(rows), _EVENT_FRAMES)
        ]
    }


def a2f_json(motion: Motion) -> dict[str, Any]:
    """The file that Audio2Face exports: names, weights and frame rate."""
    return {
        "exportFps": FPS,
        "trackPath": "",
        "numPoses": len(ARKIT_NAMES),
        "numFrames": len(motion.weights),
        "facsNames": list(ARKIT_NAMES),
        "weightMat": rounded(motion.weights),
    }


def _share(motion: Motion, label: str) -> np.ndarray:
    """(T,) strength of an emotion; neutral is what is left."""
    if label == "neutral":
        return 1 - motion.intensity
    if label not in motion.labels:
        return np.zeros(len(motion.intensity), np.float32)
    return motion.intensity * motion.posterior[:, motion.labels.index(label)]
