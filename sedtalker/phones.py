"""Phones with their times in a recording, and the table file that lists them.

Phones are ARPAbet without stress (CMUdict's 39), and `SIL` for silence.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sedtalker.errors import DataError
from sedtalker.files import atomic_write, read_number, read_text

SILENCE = "SIL"
LONG_PAUSE = 0.6  # seconds; the lips close in a pause of this length, in a shorter one they stay parted
COLUMNS = ("id", "word", "phone", "start", "end")


@dataclass(frozen=True)
class Phone:
    """One phone of a word, in seconds from the start of the recording."""

    word: str
    name: str  # ARPAbet, or SIL
    start: float
    end: float


def read_phones(path: Path | str) -> dict[str, tuple[Phone, ...]]:
    """Read the phones of each recording from a table with the columns id, word, phone, start, end.

    Raises:
        DataError: the file is missing, or is not a table of phones.
    """
    phones: dict[str, list[Phone]] = defaultdict(list)
    try:
        heading, *lines = read_text(path).splitlines() or [""]
        delimiter = max("\t,;", key=heading.count)
        columns = [name.strip().lower() for name in heading.split(delimiter)]
        for line in filter(str.strip, lines):  # quotes have no meaning: `"` can be a word
            cells = [cell.strip() for cell in line.split(delimiter)]
            if len(cells) != len(columns):
                raise ValueError(f"{len(cells)} cells for {len(columns)} columns in {line[:40]!r}")
            row = dict(zip(columns, cells, strict=True))
            start, end = (read_number(row[name], name) for name in ("start", "end"))
            phones[row["id"]].append(Phone(row["word"], row["phone"], start, end))
    except OSError as error:
        raise DataError(f"cannot read the table of phones: {path} ({error.strerror}). Check the path") from error
    except (ValueError, KeyError) as error:
        reason = f"no column {error.args[0]}" if isinstance(error, KeyError) else error
        raise DataError(
            f"not a table of phones: {path} ({reason}). Write one with: python -m sedtalker.recipes align"
        ) from error
    return {identity: tuple(spoken) for identity, spoken in phones.items()}


def write_phones(path: Path | str, phones: Mapping[str, Sequence[Phone]]) -> None:
    """Write a table that `read_phones` reads; times are rounded to 10 ms."""
    with atomic_write(Path(path)) as temp_path, temp_path.open("w", encoding="utf-8", newline="") as file:
        file.write("\t".join(COLUMNS) + "\n")
        for identity, spoken in phones.items():
            for phone in spoken:
                file.write(f"{identity}\t{phone.word}\t{phone.name}\t{phone.start:.2f}\t{phone.end:.2f}\n")
