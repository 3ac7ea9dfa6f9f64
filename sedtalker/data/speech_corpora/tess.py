"""TESS (Pichora-Fuller & Dupuis 2020), CC BY-NC-ND 4.0: `OAF_Fear/OAF_back_fear.wav`. Two women, no intensities.

One file of the publisher's is called `OA_bite_neutral.wav`; it is OAF's. `ps` is pleasant surprise.
"""

from __future__ import annotations

import os
import re

from sedtalker.data.manifest import Manifest, SkipCounter, Utterance, audio_files, finish

EMOTIONS = {
    "angry": "angry", "disgust": "disgust", "fear": "fear", "happy": "happy", "neutral": "neutral", "ps": "surprise",
    "sad": "sad",
}  # fmt: skip
_NAME = re.compile(r"(?P<speaker>OAF?|YAF)_(?P<word>\w+)_(?P<emotion>[a-z]+)")


def read_tess(folder: str | os.PathLike[str]) -> Manifest:
    """Read TESS; a second copy of a recording, as some archives hold it, is skipped."""
    skipped = SkipCounter()
    utterances: dict[str, Utterance] = {}
    for path in audio_files(folder):
        match = _NAME.fullmatch(path.stem)
        if match is None or match["emotion"] not in EMOTIONS:
            skipped.skip("not a TESS name")
            continue
        speaker = "YAF" if match["speaker"] == "YAF" else "OAF"
        emotion = EMOTIONS[match["emotion"]]
        identity = f"tess/{speaker}_{match['word']}_{match['emotion']}"
        if identity in utterances:
            skipped.skip("second copy")
            continue
        utterances[identity] = Utterance(
            id=identity,
            path=str(path.relative_to(folder)),
            corpus="tess",
            speaker=f"tess-{speaker}",
            gender="female",
            language="en",
            emotion=emotion,
            intensity=0.0 if emotion == "neutral" else None,
            transcript=f"Say the word {match['word']}.",
        )
    return finish(folder, list(utterances.values()), skipped)
