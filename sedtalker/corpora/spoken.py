"""Speech without emotion: `utterances.tsv` (id, speaker, text) and `audio/ID.*`, of voices real or made.

It teaches a diarizer that plain reading is neutral, whatever its level, voice and recording.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

from sedtalker.corpora.manifest import Manifest, SkipCounter, Utterance, audio_files, finish
from sedtalker.errors import DataError


def read_spoken(folder: str | os.PathLike[str]) -> Manifest:
    """Read every utterance as neutral."""
    rows = _rows(Path(folder, "utterances.tsv"))
    skipped = SkipCounter()
    utterances = []
    for path in audio_files(folder):
        row = rows.get(path.stem)
        if row is None:
            skipped.skip("not in utterances.tsv")
            continue
        utterances.append(
            Utterance(
                id=f"spoken/{path.stem}",
                path=str(path.relative_to(folder)),
                corpus="spoken",
                speaker=f"spoken-{row['speaker']}",
                gender="unknown",
                language="en",
                emotion="neutral",
                intensity=0.0,
                transcript=row["text"],
            )
        )
    return finish(folder, utterances, skipped)


def _rows(path: Path) -> dict[str, dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {row["id"]: row for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)}
    except OSError as error:
        raise DataError(
            f"no table of utterances: {path} ({error.strerror}). It lies beside the folder audio"
        ) from error
