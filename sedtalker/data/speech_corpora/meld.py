"""MELD (Poria et al. 2019), GPL-3: `train_sent_emo.csv` and `train_splits/dia0_utt0.mp4`, and so for dev and test.

Its splits share the speakers (the cast of Friends) and are not used. Gender is known for the six main characters.
"""

from __future__ import annotations

import os
from pathlib import Path

from sedtalker.data.manifest import AUDIO_SUFFIXES, Manifest, SkipCounter, Utterance, finish
from sedtalker.data.tables import index_rows, match_names, read_table
from sedtalker.labels import canonical_label

COLUMNS = ("Dialogue_ID", "Utterance_ID", "Emotion", "Speaker", "Utterance")

PARTS = ("train", "dev", "test")
GENDERS = {
    "Monica": "female", "Phoebe": "female", "Rachel": "female", "Chandler": "male", "Joey": "male", "Ross": "male",
}  # fmt: skip


def read_meld(folder: str | os.PathLike[str]) -> Manifest:
    """Read the utterances that the tables name; clips outside the tables are not looked at."""
    root = Path(folder)
    skipped = SkipCounter()
    utterances = []
    for part in PARTS:
        table = next(iter(sorted(root.rglob(f"{part}_sent_emo.csv"))), None)
        if table is None:
            continue
        clips = _clips(root, part)
        listed = read_table(table, COLUMNS)
        rows = index_rows(
            [row | {"name": f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"} for row in listed], "name", table
        )
        matched = match_names(rows, list(clips), table, complete=False)
        skipped.skip("named in the table, no clip", len(rows) - len(matched))
        for name, row in matched.items():
            emotion, speaker = canonical_label(row["Emotion"]), row["Speaker"].strip()
            utterances.append(
                Utterance(
                    id=f"meld/{part}_{name}",
                    path=str(clips[name].relative_to(root)),
                    corpus="meld",
                    speaker=f"meld-{speaker}",
                    gender=GENDERS.get(speaker, "unknown"),
                    language="en",
                    emotion=emotion,
                    intensity=0.0 if emotion == "neutral" else None,
                    transcript=row["Utterance"].strip(),
                )
            )
    return finish(folder, utterances, skipped)


def _clips(root: Path, part: str) -> dict[str, Path]:
    """Clips of one part by name, from folders like train_splits, dev_splits_complete, output_repeated_splits_test."""
    found = (path for path in sorted(root.rglob("dia*_utt*")) if path.suffix.lower() in AUDIO_SUFFIXES)
    return {path.stem: path for path in found if part in path.parent.name}
