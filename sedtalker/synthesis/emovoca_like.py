"""Synthetic corpus of the default head in the layout of EmoVOCA's generator, for tests and users without its licence.

The sounds are syllables: a harmonic tone under two moving resonances whose loudness opens and closes. The jaw follows
the loudness, the lips' width the upper resonance, and the expression and its level are added, so that the motion can be
learned from the sound and the label. It is not a model of human speech.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import write_wav
from sedtalker.data.vertex_corpora.emovoca import EXPRESSIONS
from sedtalker.data.vertex_corpora.vocaset import SENTENCES, SPLITS
from sedtalker.errors import DataError
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.mesh import format_obj
from sedtalker.face.rig import Face
from sedtalker.files import atomic_write

FOLDER = "New_EmoVOCA"  # of the corpus, as its archive has it
SOURCE_FPS = 60  # Hz
SOUND_RATE = 22_000  # Hz, as VOCASET's

POSES: dict[str, dict[str, float]] = {
    "Afraid": {"browInnerUp": 0.8, "eyeWideLeft": 0.8, "eyeWideRight": 0.8, "mouthStretchLeft": 0.5,
               "mouthStretchRight": 0.5},
    "Disgust": {"noseSneerLeft": 0.9, "noseSneerRight": 0.9, "mouthFrownLeft": 0.5, "mouthFrownRight": 0.5},
    "Irritated1": {"browDownLeft": 0.9, "browDownRight": 0.9, "eyeSquintLeft": 0.6, "eyeSquintRight": 0.6},
    "Sad1": {"browInnerUp": 0.9, "mouthFrownLeft": 0.8, "mouthFrownRight": 0.8},
    "Smile2": {"mouthSmileLeft": 0.9, "mouthSmileRight": 0.9, "cheekSquintLeft": 0.6, "cheekSquintRight": 0.6},
    "Upset": {"browDownLeft": 0.5, "browDownRight": 0.5, "mouthShrugLower": 0.7, "mouthFrownLeft": 0.5,
              "mouthFrownRight": 0.5},
}  # fmt: skip
"""Weights of each expression at level 3."""


@dataclass(frozen=True)
class Size:
    """Size of the corpus."""

    subjects: tuple[str, ...] = (SPLITS["train"][0], SPLITS["train"][1], SPLITS["validation"][0], SPLITS["test"][0])
    sentences: tuple[str, ...] = SENTENCES[20:24]
    expressions: tuple[str, ...] = tuple(POSES)
    levels: tuple[int, ...] = (1, 2, 3)
    seconds: float = 2.0


def make_size(subjects: int, sentences: int, seconds: float) -> Size:
    """The size of a corpus of this many subjects and sentences; three subjects or more have all three splits."""
    test, validation, *train = SPLITS["test"][0], SPLITS["validation"][0], *SPLITS["train"]
    names = (train[0], test, validation, *train[1:], SPLITS["validation"][1], SPLITS["test"][1])
    return Size(subjects=names[:subjects], sentences=SENTENCES[20 : 20 + sentences], seconds=seconds)


def synthesize_emovoca(destination: Path | str, face: Face, size: Size | None = None, seed: int = 0) -> int:
    """Write the corpus to `destination/New_EmoVOCA`; returns the number of sequences.

    The same seed gives the same bytes. `face` needs the 52 ARKit blendshapes.

    Raises:
        DataError: the face has no blendshapes, or the folder holds something already.
    """
    size, root = size or Size(), Path(destination) / FOLDER
    if face.blendshapes is None or face.blendshape_names != ARKIT_NAMES:
        raise DataError(f"no ARKit blendshapes: {face.name}. Use the default face")
    require_absent(root)
    templates = {subject: stretch_template(face.template, subject, seed) for subject in size.subjects}
    write_shared(root, templates, face.faces)
    count = 0
    for subject, sentence in product(size.subjects, size.sentences):
        rng = np.random.default_rng([seed, *f"{subject}{sentence}".encode()])
        openness, width = make_gestures(round(size.seconds * SOURCE_FPS), rng)
        sound = make_sound(openness, width, rng)
        speech = speech_weights(openness, width)
        for expression, level in product(size.expressions, size.levels):
            weights = np.clip(speech + _pose(expression) * level / 3, 0, 1)
            vertices = face.pose(weights).astype(np.float64) - face.template + templates[subject]
            write_sequence(root, f"{subject}_{sentence}_{expression}_{level}", vertices, sound)
            count += 1
    return count


def require_absent(folder: Path) -> None:
    """Raise DataError if the folder of a new corpus exists."""
    if folder.exists():
        raise DataError(f"the folder exists: {folder}. Choose another folder with -o")


def stretch_template(template: NDArray[np.floating], subject: str, seed: int) -> NDArray[np.float64]:
    """A template (V, 3) stretched by a few per cent along each axis, so that subjects differ."""
    rng = np.random.default_rng([seed, *subject.encode()])
    return template.astype(np.float64) * rng.uniform(0.95, 1.05, 3)


def make_gestures(frames: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Opening and width (frames,) of the mouth in 0..1: three to five syllables a second, closed at both ends."""
    time = np.arange(frames) / SOURCE_FPS
    rate = rng.uniform(3, 5)
    syllables = 0.5 - 0.5 * np.cos(2 * np.pi * rate * time)
    strength = np.interp(time * rate, np.arange(frames), rng.uniform(0.3, 1.0, frames))
    ends = np.clip(np.minimum(time, time[-1] - time) / 0.15, 0, 1)
    width = np.interp(time * rate, np.arange(frames), rng.uniform(0.0, 1.0, frames))
    return syllables * strength * ends, width


def speech_weights(openness: NDArray[np.float64], width: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights (T, 52) of a mouth that opens and spreads."""
    weights = np.zeros((len(openness), len(ARKIT_NAMES)))
    shapes = {
        "jawOpen": 0.6 * openness,
        "mouthFunnel": 0.5 * openness * (1 - width),
        "mouthStretchLeft": 0.4 * openness * width,
        "mouthStretchRight": 0.4 * openness * width,
    }
    for name, values in shapes.items():
        weights[:, ARKIT_NAMES.index(name)] = values
    return weights


def _pose(expression: str) -> NDArray[np.float64]:
    weights = np.zeros(len(ARKIT_NAMES))
    for name, value in POSES[expression].items():
        weights[ARKIT_NAMES.index(name)] = value
    return weights


def make_sound(
    openness: NDArray[np.float64], width: NDArray[np.float64], rng: np.random.Generator, fps: int = SOURCE_FPS
) -> NDArray[np.float32]:
    """Harmonics of a voice, (N,) at `SOUND_RATE`: loud where the mouth is open, bright where it is wide."""
    count = round(len(openness) / fps * SOUND_RATE)
    time = np.arange(count) / SOUND_RATE
    frames = np.arange(len(openness)) / fps
    loudness, upper = np.interp(time, frames, openness), np.interp(time, frames, 900 + 1500 * width)
    pitch = rng.uniform(110, 220)
    sound = np.zeros(count)
    for harmonic in range(1, 25):
        hertz = harmonic * pitch
        gain = np.exp(-(((hertz - 500) / 250) ** 2)) + 0.7 * np.exp(-(((hertz - upper) / 300) ** 2))
        sound += gain * np.sin(2 * np.pi * hertz * time)
    sound = 0.5 * loudness * sound / max(1e-9, np.abs(sound).max()) + 0.002 * rng.standard_normal(count)
    return sound.astype(np.float32)


def write_shared(root: Path, templates: Mapping[str, NDArray[np.floating]], faces: NDArray[np.int32]) -> None:
    """Folders, templates by subject (V, 3) in metres, and a mesh of the topology, as EmoVOCA's generator has them."""
    for folder in ("sequences", "label", "intensity", "wav", "templates"):
        (root / folder).mkdir(parents=True)
    with atomic_write(root / "templates.pkl") as temp_path:
        temp_path.write_bytes(pickle.dumps(dict(templates), protocol=2))
    template = next(iter(templates.values()))
    with atomic_write(root / "templates" / "sample.obj") as temp_path:
        temp_path.write_bytes(format_obj(template, faces))


def write_sequence(
    root: Path, name: str, vertices: NDArray[np.floating], sound: NDArray[np.float32], rate: int = SOUND_RATE
) -> None:
    """One sequence (T, V, 3) in metres, its label, its level and its sound (N,)."""
    expression, level = name.split("_")[-2:]
    np.save(root / "sequences" / f"{name}.npy", vertices)
    np.save(root / "label" / f"{name}.npy", np.array(EXPRESSIONS[expression][0]))
    np.save(root / "intensity" / f"{name}.npy", np.array(int(level)))
    write_wav(root / "wav" / f"{name}.wav", [sound], rate)
