"""SAVEE (Haq & Jackson 2009): `AudioData/DC/sa01.wav`, or flat, `DC_sa01.wav`. Four men, British English, no
intensities.
"""

from __future__ import annotations

import os
import re

from sedtalker.data.manifest import Manifest, SkipCounter, Utterance, audio_files, finish

EMOTIONS = {
    "a": "angry", "d": "disgust", "f": "fear", "h": "happy", "n": "neutral", "sa": "sad", "su": "surprise",
}  # fmt: skip
_NAME = re.compile(r"(?:(?P<speaker>DC|JE|JK|KL)_)?(?P<emotion>sa|su|[adfhn])(?P<sentence>\d\d)")


def read_savee(folder: str | os.PathLike[str]) -> Manifest:
    """Read SAVEE's sound; the speaker stands in the name or is the folder."""
    skipped = SkipCounter()
    utterances = []
    for path in audio_files(folder):
        match = _NAME.fullmatch(path.stem)
        speaker = match and (match["speaker"] or path.parent.name)
        if match is None or speaker not in ("DC", "JE", "JK", "KL"):
            skipped.skip("not a SAVEE name")
            continue
        emotion = EMOTIONS[match["emotion"]]
        utterances.append(
            Utterance(
                id=f"savee/{speaker}_{match['emotion']}{match['sentence']}",
                path=str(path.relative_to(folder)),
                corpus="savee",
                speaker=f"savee-{speaker}",
                gender="male",
                language="en",
                emotion=emotion,
                intensity=0.0 if emotion == "neutral" else None,
            )
        )
    return finish(folder, utterances, skipped)
