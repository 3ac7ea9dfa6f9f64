"""Emotional talking heads from speech with known phones, in the layout of EmoVOCA's generator.

Every speaker becomes one of EmoVOCA's subjects on its side of the split, with the head of one of the identities; every
sentence is performed under each expression at each level (`sedtalker.synthesis.coarticulation`). The
readers, the training and the evaluation of EmoVOCA work on it unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sedtalker.audio import SAMPLE_RATE, load_audio
from sedtalker.curves import resample
from sedtalker.data.vertex_corpora.emovoca import EXPRESSIONS, LEVELS
from sedtalker.data.vertex_corpora.vocaset import SENTENCES, SPLITS
from sedtalker.emotion.track import constant_track
from sedtalker.emotion.vad import loudness
from sedtalker.errors import DataError
from sedtalker.face.assets import identities as packaged_identities
from sedtalker.face.assets import load_face
from sedtalker.face.rig import Face
from sedtalker.mel import FRAME_RATE
from sedtalker.synthesis.aligned_speech import (
    AlignedUtterance,
    align_manifests,
    read_limited_manifest,
    read_spoken_folder,
    select_aligned,
)
from sedtalker.synthesis.coarticulation import SpeakerStyle, perform
from sedtalker.synthesis.emovoca_like import FOLDER, require_absent, write_sequence, write_shared

Float = NDArray[np.float32]

FIRST_SENTENCE = 20  # validation and test use only sentences 21 to 40, and so do all splits here
MOST_SENTENCES = len(SENTENCES) - FIRST_SENTENCE


@dataclass(frozen=True)
class Subject:
    """One subject of the corpus."""

    name: str  # EmoVOCA's
    face: Face
    style: SpeakerStyle
    sentences: Sequence[AlignedUtterance]


def synthesize_talking_heads(
    destination: Path,
    *,
    spoken: Path | None = None,
    speech: Path | None = None,
    phones: Sequence[Path] = (),
    most: int | None = None,
    identities: Sequence[str] | None = None,
    sentences: int = 4,
    fps: float = 30.0,
) -> tuple[int, int]:
    """Write an EmoVOCA of speech with known phones to `destination/New_EmoVOCA`.

    Args:
        destination: folder of the corpus; it also gets `phones.tsv` with the phones that had to be aligned.
        spoken: folder of utterances with phone times (`aligned_speech.read_spoken_folder`).
        speech: manifest of recordings with transcripts.
        phones: tables of phone times for `speech`; other recordings are aligned.
        most: maximum number of recordings per corpus; None: all.
        identities: packaged heads; None: all.
        sentences: maximum number of sentences per subject.
        fps: frames per second.

    Returns:
        The numbers of sequences and of subjects.

    Raises:
        DataError: see `write_corpus`.
    """
    require_absent(destination / FOLDER)  # before recordings are aligned
    utterances = [*islice(read_spoken_folder(spoken), most)] if spoken else []
    if speech:
        manifest = read_limited_manifest(speech, most)
        utterances += select_aligned(manifest, align_manifests([manifest], phones, destination / "phones.tsv"))
    faces = [load_face(name) for name in identities or packaged_identities()]
    subjects = assign_subjects(utterances, faces, sentences)
    return write_corpus(destination, subjects, fps), len(subjects)


def assign_subjects(speech: Iterable[AlignedUtterance], faces: Sequence[Face], sentences: int) -> list[Subject]:
    """Assign speakers to EmoVOCA's subjects (8 training, 2 validation, 2 test), with at most `sentences` each."""
    speakers: dict[str, dict[str, list[AlignedUtterance]]] = {split: {} for split in SPLITS}
    for item in speech:
        in_split = speakers[item.split]
        if item.speaker in in_split or len(in_split) < len(SPLITS[item.split]):
            in_split.setdefault(item.speaker, []).append(item)
    assigned = [
        (name, speaker, items)
        for split, names in SPLITS.items()
        for name, (speaker, items) in zip(names, speakers[split].items(), strict=False)
    ]
    return [
        Subject(name, faces[number % len(faces)], _style(speaker), items[: min(sentences, MOST_SENTENCES)])
        for number, (name, speaker, items) in enumerate(assigned)
    ]


def write_corpus(destination: Path, subjects: Sequence[Subject], fps: float = 30.0) -> int:
    """Write the corpus to `destination/New_EmoVOCA`; returns the number of sequences.

    Raises:
        DataError: there is no subject, a head has another topology, or the folder exists.
    """
    root = destination / FOLDER
    if not subjects:
        raise DataError("no speech with known phones. Give --spoken or --speech")
    require_absent(root)
    if len({len(subject.face.template) for subject in subjects}) > 1:
        raise DataError("heads of more than one topology. Choose identities of one head")
    write_shared(root, {subject.name: subject.face.template for subject in subjects}, subjects[0].face.faces)
    count = 0
    for subject, sentence, item in tqdm(list(_sentences(subjects)), desc=str(root), unit="sentence"):
        samples = load_audio(item.audio)
        for expression, (_, label) in EXPRESSIONS.items():
            if label is None:
                continue
            for level in range(1, LEVELS + 1):
                vertices = animate_sentence(item, subject, samples, label, level / LEVELS, fps)
                name = f"{subject.name}_{sentence}_{expression}_{level}"
                write_sequence(root, name, vertices, samples, SAMPLE_RATE)
                count += 1
    return count


def animate_sentence(
    item: AlignedUtterance, subject: Subject, samples: Float, label: str, intensity: float, fps: float
) -> Float:
    """Vertices (T, V, 3) in metres of a sentence spoken with one emotion."""
    decibels = loudness(samples)
    performance = perform(item.phones, decibels, *constant_track(label, intensity, len(decibels)), subject.style)
    frames = max(1, round(len(samples) / SAMPLE_RATE * fps))
    return subject.face.pose(resample(performance.weights, FRAME_RATE, fps, frames))


def _sentences(subjects: Sequence[Subject]) -> Iterator[tuple[Subject, str, AlignedUtterance]]:
    for subject in subjects:
        for sentence, item in zip(SENTENCES[FIRST_SENTENCE:], subject.sentences, strict=False):
            yield subject, sentence, item


def _style(speaker: str) -> SpeakerStyle:
    return SpeakerStyle.random(np.random.default_rng(list(speaker.encode())))
