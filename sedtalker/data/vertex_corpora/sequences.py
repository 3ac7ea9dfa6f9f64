"""Data classes of vertex corpora, as the readers find them before anything is copied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import AudioSource
from sedtalker.face.orientation import UPRIGHT, Pose

Template = NDArray[np.float32]  # (V, 3), in the corpus's unit and axes

UNUSED = "unused"  # split of clips that belong to no other


@dataclass(frozen=True)
class VertexSequence:
    """One recording of a moving face, with the path of its vertices."""

    id: str  # unique in the corpus, and a file's name: "FaceTalk_170809_00138_TA_sentence21_Smile2_3"
    subject: str
    sentence: str
    vertices: Path  # .npy of (T, V, 3) or (T, 3 V)
    sound: str  # key of Source.sounds; the variants of a sentence share it
    split: str = "train"  # train, validation, test, or UNUSED
    emotion: str = "neutral"  # a label of the model, or the corpus's own name in lower case
    intensity: float = 0.0  # 0..1
    expression: str = ""  # the corpus's own name of the emotion: "Smile2"
    level: int = 0  # the corpus's own level, 0 where it has none
    rows: tuple[int, ...] | None = None  # the frames, where many sequences share one array


@dataclass
class VertexSource:
    """A corpus as its publisher ships it."""

    corpus: str
    root: Path
    rates: tuple[float, ...]  # Hz the vertices may have; the sounds' lengths decide between them
    sequences: list[VertexSequence]
    sounds: Mapping[str, AudioSource]
    templates: Mapping[str, Template]  # by subject
    faces: NDArray[np.int32] | None = None  # (F, 3), where the corpus ships a mesh
    missing: list[str] = field(default_factory=list)  # parts of the corpus that are missing
    refused: dict[str, str] = field(default_factory=dict)  # file or sequence -> problem
    notes: list[str] = field(default_factory=list)  # findings and decisions
    pose: Pose = UPRIGHT  # of templates and sequences
