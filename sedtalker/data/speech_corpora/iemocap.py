"""IEMOCAP (Busso et al. 2008): `SessionN/sentences/wav/...`, `SessionN/dialog/EmoEvaluation/*.txt` and
`.../transcriptions/*.txt`.

Excited counts as happy, frustrated as upset. What the raters did not agree on (`xxx`) or called other is skipped. The
intensity of an emotion is its activation, rated from 1 to 5, as 0 to 1.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sedtalker.data.manifest import Manifest, SkipCounter, Utterance, audio_files, finish

EMOTIONS = {
    "neu": "neutral", "hap": "happy", "exc": "happy", "sad": "sad", "ang": "angry", "fru": "upset", "dis": "disgust",
    "fea": "fear", "sur": "surprise",
}  # fmt: skip
_RATING = re.compile(
    r"\[[\d.]+ - [\d.]+\]\s+(?P<name>Ses\w+)\s+(?P<emotion>[a-z]{3})\s+\[[\d.]+, (?P<activation>[\d.]+), [\d.]+\]"
)
_LINE = re.compile(r"(?P<name>Ses\w+) \[[\d.]+-[\d.]+\]: (?P<text>.*)")


def read_iemocap(folder: str | os.PathLike[str]) -> Manifest:
    """Read IEMOCAP's utterances with the raters' majority."""
    root = Path(folder)
    ratings = {match["name"]: match for match in _matches(root, "EmoEvaluation", _RATING)}
    texts = {match["name"]: match["text"].strip() for match in _matches(root, "transcriptions", _LINE)}
    skipped = SkipCounter()
    utterances = []
    for path in audio_files(folder):
        rating = ratings.get(path.stem)
        if rating is None:
            skipped.skip("no rating (a whole dialog, or another file)")
        elif rating["emotion"] not in EMOTIONS:
            skipped.skip("raters disagree, or call it other")
        else:
            emotion = EMOTIONS[rating["emotion"]]
            session, gender = path.stem[3:5], path.stem.rsplit("_", 1)[1][0]
            activation = min(1.0, max(0.0, (float(rating["activation"]) - 1) / 4))
            utterances.append(
                Utterance(
                    id=f"iemocap/{path.stem}",
                    path=str(path.relative_to(root)),
                    corpus="iemocap",
                    speaker=f"iemocap-{session}{gender}",
                    gender={"F": "female", "M": "male"}[gender],
                    language="en",
                    emotion=emotion,
                    intensity=0.0 if emotion == "neutral" else activation,
                    transcript=texts.get(path.stem, ""),
                )
            )
    return finish(folder, utterances, skipped)


def _matches(root: Path, folder: str, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    """Every line of the text files in folders of that name that the pattern fits."""
    files = sorted(path for path in root.rglob("*.txt") if path.parent.name == folder and not path.name.startswith("."))
    lines = (line for path in files for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return [match for line in lines if (match := pattern.match(line))]
