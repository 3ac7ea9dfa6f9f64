"""nEMO (Christop 2024), Polish, CC BY-NC-SA 4.0: `data.tsv` and `samples/WR0_surprised_64.wav`. It has no
intensities.
"""

from __future__ import annotations

import os
from pathlib import Path

from sedtalker.data.manifest import Manifest, SkipCounter, Utterance, audio_files, finish
from sedtalker.data.tables import index_rows, match_names, read_table
from sedtalker.labels import canonical_label

COLUMNS = ("file_id", "emotion", "speaker_id", "gender", "raw_text")


def read_nemo(folder: str | os.PathLike[str]) -> Manifest:
    """Read nEMO; a recording in another format than the table's `.wav` is taken by its name without the suffix."""
    root, files = Path(folder), audio_files(folder)
    table = root / "data.tsv"
    rows = index_rows(read_table(table, COLUMNS, quoted=False), "file_id", table)
    matched = match_names(rows, [path.stem for path in files], table, complete=False)
    skipped = SkipCounter()
    utterances = []
    for path in files:
        row = matched.get(path.stem)
        if row is None:
            skipped.skip("not in data.tsv")
            continue
        emotion = canonical_label(row["emotion"])
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
    skipped.skip("named in data.tsv, no recording", len(rows) - len(matched))
    return finish(folder, utterances, skipped)
