"""ESD (Zhou et al. 2021): `0011/Angry/0011_000351.wav` with `0011/0011.txt`. Mandarin (0001-0010) and English, no
intensities.

Some archives hold the recordings in `train`, `test` and `evaluation` below the emotion; those splits mix the
speakers and are not used. The texts come in several encodings.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sedtalker.data.manifest import Manifest, SkipCounter, Utterance, audio_files, finish

EMOTIONS = {"Angry": "angry", "Happy": "happy", "Neutral": "neutral", "Sad": "sad", "Surprise": "surprise"}
WOMEN = frozenset({"0001", "0002", "0003", "0007", "0009", "0015", "0016", "0017", "0018", "0019"})
_NAME = re.compile(r"(?P<speaker>00[01]\d|0020)_(?P<number>\d{6})")


def read_esd(folder: str | os.PathLike[str]) -> Manifest:
    """Read ESD; the emotion is the name of a folder above the recording."""
    texts = _texts(Path(folder))
    skipped = SkipCounter()
    utterances = []
    for path in audio_files(folder):
        match = _NAME.fullmatch(path.stem)
        emotions = [EMOTIONS[part] for part in path.parts if part in EMOTIONS]
        if match is None or not emotions:
            skipped.skip("not an ESD name")
            continue
        speaker, emotion = match["speaker"], emotions[-1]
        utterances.append(
            Utterance(
                id=f"esd/{path.stem}",
                path=str(path.relative_to(folder)),
                corpus="esd",
                speaker=f"esd-{speaker}",
                gender="female" if speaker in WOMEN else "male",
                language="zh" if int(speaker) <= 10 else "en",
                emotion=emotion,
                intensity=0.0 if emotion == "neutral" else None,
                transcript=texts.get(path.stem, ""),
            )
        )
    return finish(folder, utterances, skipped)


def _texts(root: Path) -> dict[str, str]:
    """What is said, by the recording's name: lines of name, text and emotion with tabs between."""
    texts = {}
    for path in sorted(root.rglob("00??.txt")):
        for line in _decoded(path.read_bytes()).splitlines():
            fields = line.split("\t")
            if len(fields) > 1:
                texts[fields[0].strip()] = fields[1].strip()
    return texts


def _decoded(content: bytes) -> str:
    for encoding in ("utf-16", "utf-8-sig", "gb18030"):
        if encoding == "utf-16" and content[:2] not in (b"\xff\xfe", b"\xfe\xff"):
            continue
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    return content.decode("latin1")
