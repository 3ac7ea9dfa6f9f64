"""Tables of recordings (CSV and TSV), and the matching of their rows with files, for every corpus.

A table that names other recordings, or none, is an error and not the same as a missing table.
"""

from __future__ import annotations

import mimetypes
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from sedtalker import files
from sedtalker.errors import DataError
from sedtalker.inputs import AUDIO_SUFFIXES

Row = dict[str, str]
Entry = TypeVar("Entry")

ENDINGS = frozenset((*AUDIO_SUFFIXES, ".npy", ".npz"))  # of recordings, which a row may leave out
SHOWN = 5  # names in a message


def read_table(
    path: Path, required: Collection[str], optional: Collection[str] | None = None, quoted: bool = True
) -> list[Row]:
    """The rows of a table by heading, without surrounding blanks; empty or absent cells of known columns are "".

    Args:
        required: headings that must be there, with a value in each row for the first of them.
        optional: headings that may be there; None allows any, and names them in lower case. Headings match in any case.
        quoted: whether `"` quotes, as in CSV; a published TSV often means it literally.

    Raises:
        DataError: the file cannot be read, is not text, or its headings or a row do not fit.
    """
    names = (*required, *(optional or ()))
    try:
        rows = files.read_table(
            files.read_text(path),
            {name: (name.lower(),) for name in names},
            required=[(name,) for name in required],
            filled=next(iter(required)),
            others=optional is None,
            quoted=quoted,
            strict=True,
        )
        return [dict.fromkeys(names, "") | row for row in rows]
    except OSError as error:
        raise DataError(f"table cannot be read: {path} ({error.strerror}). Check the path") from error
    except ValueError as error:
        raise DataError(f"not a table: {path} ({error}). Save it as CSV, UTF-8, with {','.join(names)}") from error


def index_rows(rows: Iterable[Row], key: str, path: Path) -> dict[str, Row]:
    """Rows by the name in a column. Raises DataError if two rows have the same name."""
    found: dict[str, Row] = {}
    for row in rows:
        if row[key] in found:
            raise DataError(f"two rows of {row[key]}: {path}. Keep one")
        found[row[key]] = row
    return found


def match_names(
    table: Mapping[str, Entry], names: Collection[str], path: Path, complete: bool = True
) -> dict[str, Entry]:
    """Entries of a table by the names of recordings; a table may name them with folder or ending ("take_01.wav").

    `complete`: every row must have a recording, and every recording a row. Otherwise both may be left over, as a
    published corpus is often held in part, but not all of them.

    Raises:
        DataError: rows or recordings are left over, or two rows are of one recording; it names them.
    """
    known = {unicodedata.normalize("NFC", name): name for name in names}
    folded = Counter(name.casefold() for name in known)
    any_case = {form.casefold(): name for form, name in known.items() if folded[form.casefold()] == 1}
    found: dict[str, Entry] = {}
    rows_left = []
    for written, entry in table.items():
        forms = _forms(written)
        name = next((known[form] for form in forms if form in known), None)
        name = name or next((any_case[form.casefold()] for form in forms if form.casefold() in any_case), None)
        if name is None:
            rows_left.append(written)
        elif name in found:
            raise DataError(f"two rows of {name}: {path}. Keep one")
        else:
            found[name] = entry
    names_left = [name for name in names if name not in found]
    if (complete and (rows_left or names_left)) or (not found and rows_left and names_left):
        parts = [f"rows without a recording: {_join_names(rows_left)}"] if rows_left else []
        parts += [f"recordings without a row: {_join_names(names_left)}"] if names_left else []
        raise DataError(f"table and recordings do not match: {path} ({'; '.join(parts)}). Correct the names")
    return found


def _forms(written: str) -> list[str]:
    """Names that a row may refer to, the most likely first: with and without the folder, and the ending."""
    whole = unicodedata.normalize("NFC", written)
    path = whole.replace("\\", "/")
    folder, slash, last = path.rpartition("/")
    stem, dot, ending = last.rpartition(".")
    kind, _ = mimetypes.guess_type(f"x.{ending}")
    recorded = f".{ending.lower()}" in ENDINGS or (kind or "").startswith(("audio/", "video/"))
    return [whole, path, f"{folder}{slash}{stem}", last, stem] if dot and recorded else [whole, path, last]


def _join_names(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
