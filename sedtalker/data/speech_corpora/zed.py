"""ZED, the Zaion Emotion Dataset (Wang et al. 2023), CC BY-NC 4.0: `ZED.json` and the recordings it names.

An entry: `{"wav": "datafolder/...", "duration": s, "emotion": [{"emo": "angry", "start": s, "end": s}],
"transcription": ...}`.
The utterance is labelled by its emotion; its segments say where that is, and the rest is neutral. Speakers are told
by the folder of the recording; gender is not given.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from sedtalker.data.manifest import Manifest, SkipCounter, Span, Utterance, finish
from sedtalker.errors import DataError
from sedtalker.labels import canonical_label


def read_zed(folder: str | os.PathLike[str]) -> Manifest:
    """Read ZED with its marked boundaries."""
    root = Path(folder)
    skipped = SkipCounter()
    utterances = []
    for name, entry in _entries(root / "ZED.json").items():
        path = Path(entry["wav"].replace("datafolder", "").lstrip("/"))
        if not (root / path).is_file():
            skipped.skip("named in ZED.json, no recording")
            continue
        spans = tuple(Span(float(e["start"]), float(e["end"]), canonical_label(e["emo"])) for e in entry["emotion"])
        utterances.append(
            Utterance(
                id=f"zed/{name}",
                path=str(path),
                corpus="zed",
                speaker=f"zed-{path.parent.name}",
                gender="unknown",
                language="en",
                emotion=spans[0].emotion if spans else "neutral",
                segments=spans,
                transcript=entry.get("transcription", ""),
            )
        )
    return finish(folder, utterances, skipped)


def _entries(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"ZED lacks its labels: {path} ({error}). Give the folder that holds ZED.json") from error
