"""Files that appear whole or not at all, and texts and tables that other programs wrote."""

from __future__ import annotations

import codecs
import csv
import hashlib
import logging
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from sedtalker.errors import SEDTalkerError

logger = logging.getLogger(__name__)

RECORDS = ".sedtalker"  # folder beside results with a record of each finished input
MADE_HERE = "Made by SEDTalker"  # the comment in media files by which a later run does not take them for inputs

_ASIDE = re.compile(r"\.(?P<stem>.+)~[0-9a-f]{8}(?P<suffix>(\.[^.~]*)?)")
_NUMBERED = re.compile(r"(?P<prefix>(frame_)?)(?P<number>0{6,})(?P<suffix>\.(png|obj|ply))")


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """A temporary path (for a file or a folder) beside `path`; renamed to it when the block ends well, else deleted.

    The temporary name keeps the suffix, since writers choose their format by it.

    Raises:
        SEDTalkerError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    temp_path = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temp_path
        replace_into(temp_path, path)
    except OSError as error:
        raise SEDTalkerError(
            f"cannot write {final_name(path)}: {error.strerror or error}. Choose another folder with -o, or free space"
        ) from error
    finally:
        if temp_path.is_dir():
            shutil.rmtree(temp_path, ignore_errors=True)
        else:
            with suppress(OSError):
                temp_path.unlink()


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.stem}~{secrets.token_hex(4)}{path.suffix}")


def final_name(path: Path) -> Path:
    """What a temporary path of `written_whole` is for; any other path is its own."""
    while meant := _ASIDE.fullmatch(path.name):
        path = path.with_name(meant["stem"] + meant["suffix"])
    return path


def replace_into(temp_path: Path, path: Path) -> None:
    """Rename a file or folder, in place of what was there: a file of a file, a folder of a folder.

    Raises:
        SEDTalkerError: a folder is there that holds other files than those that replace them.
    """
    if not (temp_path.is_dir() and path.is_dir()):
        temp_path.replace(path)
        return
    if not _is_numbered(path) and not {*_names(path)} <= {*_names(temp_path)}:
        raise foreign_folder(path)
    old = _temporary(path)
    path.replace(old)
    temp_path.replace(path)
    shutil.rmtree(old, ignore_errors=True)


def check_replaceable(path: Path) -> None:
    """Refuse, before the work, a folder for numbered files that holds anything else.

    Raises:
        SEDTalkerError: the folder holds other files.
    """
    if path.is_dir() and not _is_numbered(path):
        raise foreign_folder(path)


def foreign_folder(path: Path) -> SEDTalkerError:
    """The error that a folder holds what this program did not make."""
    return SEDTalkerError(f"the folder is not empty: {path}. Remove it or choose another with -o")


def _names(folder: Path) -> list[str]:
    return [str(file.relative_to(folder)) for file in folder.rglob("*")]


def _is_numbered(folder: Path) -> bool:
    """Whether a folder holds nothing but the files of one sequence, numbered from 0 as the writers here do."""
    names = sorted(entry.name for entry in folder.iterdir())
    first = _NUMBERED.fullmatch(names[0]) if names else None
    if first is None:
        return not names
    digits = len(first["number"])
    expected = [f"{first['prefix']}{index:0{digits}d}{first['suffix']}" for index in range(len(names))]
    return names == expected and not any(entry.is_dir() for entry in folder.iterdir())


def digest(path: Path) -> str:
    """Hash of a file, or of the files in a folder."""
    if not path.is_dir():
        return sha256(path)
    listed = "".join(f"{file.relative_to(path)} {sha256(file)}\n" for file in sorted(path.rglob("*")) if file.is_file())
    return hashlib.sha256(listed.encode()).hexdigest()


def sha256(path: Path | str) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    total = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Small letters beyond ASCII of languages that share an encoding. The detector confuses these encodings in short texts.
_ALPHABETS = (
    ("cp1252", ("àâæçéèêëîïôœùûü", "áéíñóúü¿¡", "àáâãçéêíóôõúü", "äöüß", "àèéìòù", "åäöæøé", "áéíóúñçàèïü·")),
    ("cp1250", ("ąćęłńóśźż", "áčďéěíňóřšťúůýž", "áäčďéíĺľňóôŕšťúýž", "áéíóöőúüű", "ăâîşţ", "čćđšž")),
    ("cp1254", ("çğı\u0307öşüâî",)),
)
_PUNCTUATION = "«»“”„‘’‚‹›–—…•€£©®°§ºª"


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file that another program wrote, whatever its encoding.

    A byte-order mark decides; without one, UTF-8 where the bytes are UTF-8, else UTF-16 where every other byte is
    zero, else the encoding that fits best. The log names an encoding that was guessed.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not text, or its encoding cannot be found.
    """
    data = Path(path).read_bytes()
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return _decode(data, encoding)
    if b"\0" in data:
        if len(data) % 2 == 0 and data[1::2].count(0) > len(data) // 4 and not data[::2].count(0):
            return _decode(data, "utf-16-le")
        if len(data) % 2 == 0 and data[::2].count(0) > len(data) // 4 and not data[1::2].count(0):
            return _decode(data, "utf-16-be")
        raise ValueError("not text")
    try:
        return data.decode()
    except UnicodeDecodeError:
        encoding = _guess_encoding(data)
    logger.warning("%s is not UTF-8; read as %s. Save it as UTF-8 if letters are wrong", path, encoding)
    return _decode(data, encoding)


def _decode(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"not text in {encoding}. Save it as UTF-8") from error


def _guess_encoding(data: bytes) -> str:
    if sum(byte < 32 and byte not in b"\t\n\r\f\x1a\x1b" for byte in data[:65536]) > 0:
        raise ValueError("not text")
    sample = b" ".join(re.findall(rb"[^\s\d]*[\x80-\xff][^\s\d]*", data[: 1 << 20]))[:65536]
    high = sum(byte >= 0x80 for byte in sample)
    if high < 0.5 * len(sample):  # Latin letters between plain ones
        for encoding, alphabets in _ALPHABETS:
            letters = {letter for letter in sample.decode(encoding, "replace").lower() if not letter.isascii()}
            if any(letters <= {*alphabet, *_PUNCTUATION} for alphabet in alphabets):
                return encoding
    from charset_normalizer import from_bytes

    found = from_bytes(data[: 1 << 18] if b"\n" not in data[1 << 18 :] else data[: data.index(b"\n", 1 << 18)]).best()
    if found is None:
        raise ValueError("not text, or in an unknown encoding. Save it as UTF-8")
    return found.encoding


def read_table(
    text: str,
    columns: Mapping[str, Sequence[str]],
    delimiter: str | None = None,
    required: Sequence[Sequence[str]] = (),
) -> Iterator[dict[str, str]]:
    """Rows of a table with a heading, by the names of `columns`; empty cells are left out.

    Args:
        text: values separated by commas, semicolons, tabs or bars, as the heading shows.
        columns: for each name the headings that mean it, in lower case.
        delimiter: None takes the one that splits the heading into the most known columns.
        required: of each group of names the heading has one.

    Raises:
        ValueError: a required column is missing, a row with more cells than the heading, or quotes that do not end.
    """
    lines = text.lstrip("\n\r").splitlines()
    if lines and re.fullmatch(r"sep=.", lines[0].strip()):  # what Excel writes and reads
        delimiter, lines = lines[0].strip()[-1], lines[1:]
    if not lines or not text.strip():
        if required:
            raise ValueError("it is empty")
        return
    meaning = {alias: name for name, aliases in columns.items() for alias in aliases}

    def headings(mark: str) -> list[str]:
        cells = next(csv.reader(lines[:1], delimiter=mark, skipinitialspace=True), [])
        return [meaning.get(cell.strip().lower(), cell.strip().lower()) for cell in cells]

    marks = [delimiter] if delimiter else [",", ";", "\t", "|"]
    chosen = max(marks, key=lambda mark: (sum(name in columns for name in headings(mark)), lines[0].count(mark)))
    names = headings(chosen)
    if len({*names} & {*columns}) < sum(name in columns for name in names):
        raise ValueError(f"two columns mean the same: {lines[0].strip()[:80]!r}")
    absent = [" or ".join(group) for group in required if not {*group} & {*names}]
    if absent:
        raise ValueError(f"no column {' and no column '.join(absent)} in the heading {lines[0].strip()[:80]!r}")
    try:
        for number, cells in enumerate(csv.reader(lines[1:], delimiter=chosen, skipinitialspace=True), 2):
            if any(cell.strip() for cell in cells[len(names) :]):
                hint = ". Numbers with a decimal comma need ';' between columns" if chosen == "," else ""
                raise ValueError(f"row {number} has {len(cells)} cells for {len(names)} columns{hint}")
            row = {name: cell.strip() for name, cell in zip(names, cells, strict=False) if cell.strip()}
            if row:
                yield row
    except csv.Error as error:
        raise ValueError(str(error)) from error


def read_number(text: str | None, name: str) -> float:
    """A finite number of a table's cell, with a decimal point or a decimal comma.

    Raises:
        ValueError: the cell is empty or holds something else.
    """
    if text is None:
        raise ValueError(f"no {name} in a row")
    try:
        value = float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:
        raise ValueError(f"{name} {text[:40]!r} is not a number")
    return value
