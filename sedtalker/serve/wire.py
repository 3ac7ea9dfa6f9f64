"""Messages with frames: JSON, binary, and TalkingHead's."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.serve.engine import FrameBlock
from sedtalker.serve.visemes import find_visemes

Float = NDArray[np.float32]

MAGIC = b"SEDF"
DIGITS = 4  # decimals of numbers in JSON
FORMATS = ("json", "binary", "talkinghead")


def columns(labels: tuple[str, ...]) -> list[str]:
    """Names of the columns of a binary message."""
    angles = ["headPitch", "headYaw", "headRoll", "gazeLeft", "gazeUp"]
    return [*ARKIT_NAMES, *angles, *(f"emotion_{label}" for label in labels), "intensity"]


def frames_json(kind: str, block: FrameBlock, **values: Any) -> str:
    """A block as JSON; `start` is the time of the first frame, and frame i covers start + i / fps to (i + 1) / fps."""
    return json.dumps(
        {
            "type": kind,
            **values,
            "start": round(block.start, DIGITS),
            "fps": block.fps,
            "weights": rounded(block.weights),
            "head": rounded(block.head),
            "gaze": rounded(block.gaze),
            "posterior": rounded(block.posterior),
            "intensity": rounded(block.intensity),
        },
        separators=(",", ":"),
    )


def frames_binary(kind: str, block: FrameBlock, **values: Any) -> bytes:
    """A block as bytes: "SEDF", length of the header (uint32), the header in JSON, rows of float32; little-endian."""
    rows = np.concatenate(
        [block.weights, block.head, block.gaze, block.posterior, block.intensity[:, None]], axis=1
    ).astype("<f4")
    header = {
        "type": kind, **values, "start": round(block.start, DIGITS), "fps": block.fps, "shape": list(rows.shape)
    }  # fmt: skip
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    return MAGIC + struct.pack("<I", len(text)) + text + rows.tobytes()


def talkinghead(block: FrameBlock, **values: Any) -> str:
    """A block as an argument of TalkingHead's `streamAudio`, without the sound, under the key `r`; times in ms."""
    step = 1000 / block.fps
    times = [round(step, DIGITS)] * len(block.weights)
    shapes = {name: rounded(column) for name, column in zip(ARKIT_NAMES, block.weights.T, strict=True)}
    start = block.start * 1000
    visemes = find_visemes(block)
    return json.dumps(
        {
            "type": "streamAudio",
            **values,
            "start": round(block.start, DIGITS),
            "r": {
                "anims": [{"name": "blendshapes", "delay": round(start, 1), "dt": times, "vs": shapes}],
                "visemes": [viseme for viseme, _, _ in visemes],
                "vtimes": [round(start + first * step, 1) for _, first, _ in visemes],
                "vdurations": [round(count * step, 1) for _, _, count in visemes],
            },
        },
        separators=(",", ":"),
    )


def rounded(values: NDArray[np.floating]) -> list[Any]:
    """Nested lists of the numbers of an array, with DIGITS decimals."""
    return np.round(values.astype(np.float64), DIGITS).tolist()
