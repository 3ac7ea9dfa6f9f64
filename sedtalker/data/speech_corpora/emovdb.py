"""EmoV-DB (Adigwe et al. 2018): `bea_Amused/amused_1-15_0001.wav`. Sleepiness has no label here; amused counts as
happy.
"""

from __future__ import annotations

import os
import re

from sedtalker.data.manifest import Manifest, SkipCounter, Utterance, audio_files, finish

EMOTIONS = {
    "amused": "happy",
    "ang": "angry",
    "anger": "angry",
    "angry": "angry",
    "disgust": "disgust",
    "disgusted": "disgust",
    "neutral": "neutral",
}
GENDERS = {"bea": "female", "jenie": "female", "josh": "male", "sam": "male"}
_FOLDER = re.compile(r"(?P<speaker>[a-z]+)_(?P<emotion>[a-z]+)", re.IGNORECASE)


def read_emovdb(folder: str | os.PathLike[str]) -> Manifest:
    """Read EmoV-DB's English speakers; speaker and emotion are the name of the folder."""
    skipped = SkipCounter()
    utterances = []
    for path in audio_files(folder):
        match = _FOLDER.fullmatch(path.parent.name)
        speaker = match["speaker"].lower() if match else ""
        emotion = EMOTIONS.get(match["emotion"].lower()) if match else None
        if speaker not in GENDERS:
            skipped.skip("not an EmoV-DB folder")
        elif emotion is None:
            skipped.skip("an emotion without a label (sleepy)")
        else:
            utterances.append(
                Utterance(
                    id=f"emov-db/{speaker}_{path.stem}",
                    path=str(path.relative_to(folder)),
                    corpus="emov-db",
                    speaker=f"emov-db-{speaker}",
                    gender=GENDERS[speaker],
                    language="en",
                    emotion=emotion,
                    intensity=0.0 if emotion == "neutral" else None,
                )
            )
    return finish(folder, utterances, skipped)
