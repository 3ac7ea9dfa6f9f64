"""RAVDESS (Livingstone & Russo 2018), CC BY-NC-SA 4.0: `Actor_07/03-01-05-02-01-01-07.wav`.

The name's fields: modality, channel, emotion, intensity, statement, repetition, actor. Calm counts as neutral. The two
intensities, normal and strong, become 0.5 and 1.
"""

from __future__ import annotations

import os
from pathlib import Path

from sedtalker.data.manifest import Manifest, SkipCounter, Utterance, audio_files, finish

EMOTIONS = {
    "01": "neutral", "02": "neutral", "03": "happy", "04": "sad", "05": "angry", "06": "fear", "07": "disgust",
    "08": "surprise",
}  # fmt: skip
INTENSITIES = {"01": 0.5, "02": 1.0}
STATEMENTS = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}


def read_ravdess(folder: str | os.PathLike[str]) -> Manifest:
    """Read RAVDESS' speech recordings."""
    skipped = SkipCounter()
    utterances = []
    for path in audio_files(folder):
        fields = path.stem.split("-")
        if len(fields) != 7 or fields[2] not in EMOTIONS or fields[3] not in INTENSITIES:
            skipped.skip("not a RAVDESS name")
        elif fields[0] != "03":
            skipped.skip("video")
        elif fields[1] != "01":
            skipped.skip("song")
        else:
            utterances.append(_utterance(path.relative_to(folder), fields))
    return finish(folder, utterances, skipped)


def _utterance(path: Path, fields: list[str]) -> Utterance:
    _, _, emotion, intensity, statement, _, actor = fields
    label = EMOTIONS[emotion]
    return Utterance(
        id=f"ravdess/{path.stem}",
        path=str(path),
        corpus="ravdess",
        speaker=f"ravdess-{actor}",
        gender="female" if int(actor) % 2 == 0 else "male",
        language="en",
        emotion=label,
        intensity=0.0 if label == "neutral" else INTENSITIES[intensity],
        transcript=STATEMENTS.get(statement, ""),
    )
