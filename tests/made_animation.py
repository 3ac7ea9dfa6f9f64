"""An animation of the default head from made weights, for the tests of exports."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from sedtalker.animation import Animation
from sedtalker.emotion.segments import Segment
from sedtalker.emotion.track import EmotionTrack
from sedtalker.face.assets import load_face
from sedtalker.face.neck import neck_pivot
from sedtalker.files import sha256

FPS = 30.0


def made_weights(names: tuple[str, ...], frames: int) -> np.ndarray:
    """(T, 52) a talking, smiling and blinking face, smooth in time."""
    time = (np.arange(frames) + 0.5) / FPS
    weights = np.zeros((frames, len(names)), np.float32)
    curves = {
        "jawOpen": 0.3 + 0.3 * np.sin(2 * np.pi * 1.7 * time),
        "mouthFunnel": 0.2 + 0.2 * np.sin(2 * np.pi * 0.9 * time),
        "browInnerUp": 0.4 + 0.3 * np.sin(2 * np.pi * 0.4 * time),
        "mouthSmile": 0.5 - 0.3 * np.cos(2 * np.pi * 0.5 * time),
        "eyeBlink": np.exp(-(((time % 1.0 - 0.5) / 0.07) ** 2)),
        "eyeLookOut": np.clip(np.sin(2 * np.pi * 0.6 * time), 0, 1) * 0.6,
    }
    for column, name in enumerate(names):
        curve = curves.get(name.removesuffix("Left").removesuffix("Right"))
        if curve is not None:
            weights[:, column] = curve
    return weights


def made_animation(folder: Path, seconds: float = 1.0, audio_name: str = "made.wav") -> Animation:
    """A second of the default head, moving, with a tone in `folder` as its sound."""
    face = load_face("default")
    frames = round(seconds * FPS)
    sound = folder / audio_name
    with wave.open(str(sound), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        tone = 8000 * np.sin(2 * np.pi * 220 * np.arange(round(seconds * 16_000)) / 16_000)
        file.writeframes(tone.astype("<i2").tobytes())
    track = EmotionTrack.from_segments(
        [Segment(0.2 * seconds, 0.6 * seconds, "happy", 0.8), Segment(0.6 * seconds, seconds, "sad", 0.5)],
        seconds,
        audio=str(sound),
    )
    return Animation(
        face.template,
        face.faces,
        FPS,
        track,
        made_weights(face.blendshape_names, frames),
        face.blendshape_names,
        head=_nods(frames, neck_pivot(face)),
        meta={"audio": str(sound), "audio_sha256": sha256(sound), "face": "default"},
        rig=face,
    )


def _nods(frames: int, pivot: np.ndarray) -> np.ndarray:
    """(T, 4, 4) the head turns and nods about the neck."""
    time = np.arange(frames) / FPS
    yaw, pitch = 0.3 * np.sin(2 * np.pi * 0.7 * time), 0.15 * np.sin(2 * np.pi * 1.1 * time)
    head = np.tile(np.eye(4), (frames, 1, 1))
    for matrix, (a, b) in zip(head, zip(yaw, pitch, strict=True), strict=True):
        turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
        nod = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
        matrix[:3, :3] = turn @ nod
        matrix[:3, 3] = pivot - turn @ nod @ pivot
    return head.astype(np.float32)
