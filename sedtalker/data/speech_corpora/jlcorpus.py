"""JL-Corpus (James et al. 2018), CC0: `female1_angry_10a_1.wav` with `female1_angry_10a_1.txt`. New Zealand English.

Excited counts as happy. The secondary emotions (anxious, apologetic, assertive, concerned, encouraging) have no
label here.
"""

from __future__ import annotations

import os
import re

from sedtalker.data.manifest import Manifest, SkipCounter, Utterance, audio_files, finish

EMOTIONS = {"angry": "angry", "sad": "sad", "neutral": "neutral", "happy": "happy", "excited": "happy"}
_NAME = re.compile(r"(?P<speaker>(?P<gender>female|male)[12])_(?P<emotion>[a-z]+)_(?P<sentence>\w+)_(?P<take>\d+)")


def read_jlcorpus(folder: str | os.PathLike[str]) -> Manifest:
    """Read JL-Corpus' primary emotions."""
    skipped = SkipCounter()
    utterances = []
    for path in audio_files(folder):
        match = _NAME.fullmatch(path.stem)
        if match is None:
            skipped.skip("not a JL-Corpus name")
            continue
        emotion = EMOTIONS.get(match["emotion"])
        if emotion is None:
            skipped.skip("an emotion without a label (secondary)")
            continue
        text = path.with_suffix(".txt")
        utterances.append(
            Utterance(
                id=f"jl-corpus/{path.stem}",
                path=str(path.relative_to(folder)),
                corpus="jl-corpus",
                speaker=f"jl-corpus-{match['speaker']}",
                gender=match["gender"],
                language="en",
                emotion=emotion,
                intensity=0.0 if emotion == "neutral" else None,
                transcript=text.read_text(encoding="utf-8", errors="replace").strip() if text.exists() else "",
            )
        )
    return finish(folder, utterances, skipped)
