"""nEMO (Christop 2024), Polish, CC BY-NC-SA 4.0: `data.tsv` and `samples/WR0_surprised_64.wav`. It has no
intensities.
"""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from sedtalker.corpora.manifest import Manifest, SkipCounter, Utterance, audio_files, finish
from sedtalker.emotion.labels import canonical
from sedtalker.errors import DataError
from sedtalker.files import read_text


def read_nemo(folder: str | os.PathLike[str]) -> Manifest:
    """Read nEMO; a recording in another format than the table's `.wav` is taken by its name without the suffix."""
    root = Path(folder)
    rows = _rows(root / "data.tsv")
    skipped = SkipCounter()
    utterances = []
    for path in audio_files(folder):
        row = rows.get(path.stem)
        if row is None:
            skipped.skip("not in data.tsv")
            continue
        emotion = canonical(row["emotion"])
        utterances.append(
            Utterance(
                id=f"nemo/{path.stem}",
                path=str(path.relative_to(root)),
                corpus="nemo",
                speaker=f"nemo-{row['speaker_id'].strip()}",
                gender=row["gender"].strip(),
                language="pl",
                emotion=emotion,
                intensity=0.0 if emotion == "neutral" else None,
                transcript=row["raw_text"].strip(),
            )
        )
    return finish(folder, utterances, skipped)


def _rows(path: Path) -> dict[str, dict[str, str]]:
    try:
        table = csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
        return {Path(row["file_id"].strip()).stem: row for row in table}
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"nEMO lacks its table: {path} ({error}). It lies beside the folder samples") from error
