"""Speech without emotion: `utterances.tsv` (id, speaker, text) and `audio/ID.*`, of voices real or made.

It teaches a diarizer that plain reading is neutral, whatever its level, voice and recording.
"""

from __future__ import annotations

import os
from pathlib import Path

from sedtalker.data.manifest import Manifest, SkipCounter, Utterance, audio_files, finish
from sedtalker.data.tables import index_rows, match_names, read_table


def read_spoken(folder: str | os.PathLike[str]) -> Manifest:
    """Read every utterance as neutral.

    Raises:
        DataError: the table is missing or broken, or names no recording.
    """
    table, files = Path(folder, "utterances.tsv"), audio_files(folder)
    rows = index_rows(read_table(table, ("id", "speaker", "text"), quoted=False), "id", table)
    matched = match_names(rows, [path.stem for path in files], table, complete=False)
    skipped = SkipCounter()
    utterances = []
    for path in files:
        row = matched.get(path.stem)
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
    skipped.skip("named in utterances.tsv, no recording", len(rows) - len(matched))
    return finish(folder, utterances, skipped)
