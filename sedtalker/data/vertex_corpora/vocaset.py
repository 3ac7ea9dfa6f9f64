"""VOCASET (Cudeiro et al. 2019): twelve speakers, forty sentences each, FLAME vertices at 60 Hz, audio at 22 kHz.

data_verts.npy         (frames of all sequences, 5023, 3) float32, 8 GB; opened as a memory map
raw_audio_fixed.pkl    subject -> sentence -> {"audio": (N,) int16, "sample_rate": 22000}
templates.pkl          subject -> (5023, 3)
subj_seq_to_idx.pkl    subject -> sentence -> {frame of the sequence: row of data_verts}
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from sedtalker.audio import AudioSource
from sedtalker.data.safe_files import check_is_content, load_pickle
from sedtalker.data.vertex_corpora.sequences import UNUSED, VertexSequence, VertexSource
from sedtalker.data.vertex_corpora.templates import read_templates, read_triangles
from sedtalker.errors import DataError, reason_of

FILES = ("data_verts.npy", "raw_audio_fixed.pkl", "templates.pkl", "subj_seq_to_idx.pkl")
SENTENCES = tuple(f"sentence{number:02d}" for number in range(1, 41))
HELD_OUT_SENTENCES = frozenset(SENTENCES[20:])  # validation and test use these alone

SPLITS: dict[str, tuple[str, ...]] = {
    "train": (
        "FaceTalk_170728_03272_TA", "FaceTalk_170904_00128_TA", "FaceTalk_170725_00137_TA", "FaceTalk_170915_00223_TA",
        "FaceTalk_170811_03274_TA", "FaceTalk_170913_03279_TA", "FaceTalk_170904_03276_TA", "FaceTalk_170912_03278_TA",
    ),
    "validation": ("FaceTalk_170811_03275_TA", "FaceTalk_170908_03277_TA"),
    "test": ("FaceTalk_170809_00138_TA", "FaceTalk_170731_00024_TA"),
}  # fmt: skip
"""The subjects of each side of the split that the field uses."""

ABSENT = frozenset({("FaceTalk_170811_03274_TA", "sentence24"), ("FaceTalk_170809_00138_TA", "sentence32")})
"""Sentences that the published archive does not hold."""


def split_of(subject: str, sentence: str) -> str:
    """Split of a subject's sentence; `UNUSED` if it belongs to none."""
    for split, subjects in SPLITS.items():
        if subject in subjects:
            return split if split == "train" or sentence in HELD_OUT_SENTENCES else UNUSED
    return UNUSED


def missing_sentences(sequences: Iterable[VertexSequence]) -> list[str]:
    """Sentences of VOCASET's subjects that are missing; those that the published archive lacks are marked."""
    spoken = defaultdict(set)
    for sequence in sequences:
        spoken[sequence.subject].add(sequence.sentence)
    listed = set().union(*spoken.values()) if spoken else set()
    missing = []
    for subject in sorted(spoken):
        for sentence in SENTENCES:
            if sentence in spoken[subject]:
                continue
            if (subject, sentence) in ABSENT:
                missing.append(f"{subject} {sentence} (the published archive lacks it as well)")
            elif sentence in listed:
                missing.append(f"{subject} {sentence}")
    known = [subject for subjects in SPLITS.values() for subject in subjects]
    return missing + [f"{subject}, every sentence" for subject in known if subject not in spoken]


def read_vocaset(source: Path | str) -> VertexSource:
    """Find the sequences of VOCASET's four files. Raises DataError if a file is missing, a pointer or damaged."""
    root = Path(source)
    for name in FILES:
        if not (root / name).is_file():
            raise DataError(
                f"VOCASET lacks {name}: {root}. Unpack trainingdata.tar.gz from voca.is.tue.mpg.de into this folder"
            )
        check_is_content(root / name)
    rows = load_pickle(root / "subj_seq_to_idx.pkl")
    sounds, refused = _sounds(load_pickle(root / "raw_audio_fixed.pkl"))
    found = VertexSource("vocaset", root, (60.0,), [], sounds, read_templates(root), read_triangles(root))
    found.refused.update(refused)
    found.notes.append(f"layout: VOCASET's archives, {root}")
    for subject, sentences in sorted(rows.items()):
        for sentence, frames in sorted(sentences.items()):
            found.sequences.append(
                VertexSequence(
                    id=f"{subject}_{sentence}",
                    subject=subject,
                    sentence=sentence,
                    vertices=root / "data_verts.npy",
                    sound=f"{subject}_{sentence}",
                    split=split_of(subject, sentence),
                    rows=tuple(int(frames[frame]) for frame in sorted(frames)),
                )
            )
    found.missing += missing_sentences(found.sequences)
    return found


def _sounds(audio: Any) -> tuple[dict[str, AudioSource], dict[str, str]]:
    sounds: dict[str, AudioSource] = {}
    refused = {}
    for subject, sentences in audio.items():
        for sentence, sound in sentences.items():
            name = f"{subject}_{sentence}"
            try:
                samples, rate = np.asarray(sound["audio"]), int(sound["sample_rate"])
                sounds[name] = (samples.astype(np.int16) if samples.dtype.kind == "i" else samples, rate)
            except (KeyError, TypeError, ValueError) as error:
                refused[name] = (
                    f"no audio and sample_rate in raw_audio_fixed.pkl ({reason_of(error)}). Get the archive again"
                )
    return sounds, refused
