"""Atomic writes, file hashes, and readers of texts and tables of any encoding."""

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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from sedtalker.errors import SEDTalkerError

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)

RECORDS_FOLDER = ".sedtalker"  # subfolder of the results with a record of each finished input
OUTPUT_MARKER = "Made by SEDTalker"  # comment in media files; later runs skip files that contain it

_TEMP_NAME = re.compile(r"\.(?P<stem>.+)~[0-9a-f]{8}(?P<suffix>(\.[^.~]*)?)")
_NUMBERED_NAME = re.compile(r"(?P<prefix>(frame_)?)(?P<number>0{6,})(?P<suffix>\.(png|obj|ply))")


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` if the block succeeds, else delete it.

    The path may become a file or a folder. It keeps the suffix, since writers choose their format by it.

    Raises:
        SEDTalkerError: the path is a pipe or device, the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    if path.exists() and not (path.is_file() or path.is_dir()):  # root could replace /dev/null
        raise SEDTalkerError(f"cannot write {path}: it is a pipe or device, not a file. Name another file with -o")
    temp_path = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temp_path
        replace_into(temp_path, path)
    except OSError as error:
        raise write_error(final_name(path), error) from error
    finally:
        with suppress(OSError):  # is_dir raises for a name that is too long
            if temp_path.is_dir():
                shutil.rmtree(temp_path, ignore_errors=True)
            else:
                temp_path.unlink()


def write_error(path: Path, error: OSError) -> SEDTalkerError:
    """The error that a file or folder cannot be written."""
    reason = error.strerror or str(error)
    if isinstance(error, FileExistsError | NotADirectoryError):
        reason = "a file has the name of the folder"
    elif isinstance(error, IsADirectoryError):
        reason = "a folder has its name"
    return SEDTalkerError(f"cannot write {path}: {reason}. Choose another folder with -o, or free space")


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.stem}~{secrets.token_hex(4)}{path.suffix}")


def final_name(path: Path) -> Path:
    """The final path of a temporary path of `atomic_write`; other paths are returned unchanged."""
    while match := _TEMP_NAME.fullmatch(path.name):
        path = path.with_name(match["stem"] + match["suffix"])
    return path


def remove_temporary(folder: Path) -> None:
    """Delete the temporary files that killed runs left in a folder."""
    for path in folder.glob(".*~*"):
        if final_name(path) != path and path.is_file():
            path.unlink(missing_ok=True)


def replace_into(temp_path: Path, path: Path) -> None:
    """Rename a file or folder; it replaces an existing file, or an existing folder with files of the same names.

    Raises:
        SEDTalkerError: the existing folder contains other files.
    """
    if not (temp_path.is_dir() and path.is_dir()):
        temp_path.replace(path)
        return
    if not _is_numbered_sequence(path) and not {*_names(path)} <= {*_names(temp_path)}:
        raise folder_not_empty_error(path)
    old = _temporary(path)
    path.replace(old)
    temp_path.replace(path)
    shutil.rmtree(old, ignore_errors=True)


def check_replaceable(path: Path) -> None:
    """Check a folder for numbered files before the work. Raises SEDTalkerError if the folder contains other files."""
    if path.is_dir() and not _is_numbered_sequence(path):
        raise folder_not_empty_error(path)


def folder_not_empty_error(path: Path) -> SEDTalkerError:
    """The error that a folder contains files of other origin."""
    return SEDTalkerError(f"the folder is not empty: {path}. Remove it or choose another with -o")


def _names(folder: Path) -> list[str]:
    return [str(file.relative_to(folder)) for file in folder.rglob("*")]


def _is_numbered_sequence(folder: Path) -> bool:
    """Whether a folder contains only the files of one sequence, numbered from 0, or no file."""
    names = sorted(entry.name for entry in folder.iterdir())
    first = _NUMBERED_NAME.fullmatch(names[0]) if names else None
    if first is None:
        return not names
    digits = len(first["number"])
    expected = [f"{first['prefix']}{index:0{digits}d}{first['suffix']}" for index in range(len(names))]
    return names == expected and not any(entry.is_dir() for entry in folder.iterdir())


def digest(path: Path) -> str:
    """sha256 of a file, or of the names and contents of the files in a folder."""
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
# Lower-case non-ASCII letters of languages, by encoding. The detector confuses these encodings in short texts.
_ALPHABETS = (
    ("cp1252", ("àâæçéèêëîïôœùûü", "áéíñóúü¿¡", "àáâãçéêíóôõúü", "äöüß", "àèéìòù", "åäöæøé", "áéíóúñçàèïü·")),
    ("cp1250", ("ąćęłńóśźż", "áčďéěíňóřšťúůýž", "áäčďéíĺľňóôŕšťúýž", "áéíóöőúüű", "ăâîşţ", "čćđšž")),
    ("cp1254", ("çğı\u0307öşüâî",)),
)
_ENCODINGS = (  # that the detector chooses from; it would confuse them with encodings that hardly anyone uses
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1256", "cp1257", "cp1258", "cp874", "koi8_r", "cp866",
    "mac_roman", "cp932", "euc_jp", "gb18030", "big5", "cp949",
)  # fmt: skip
_HEBREW = re.compile(rb"[\xe0-\xfa]+")  # letters of cp1255; Cyrillic and Greek texts have capitals too
_MIN_LETTERS = 8  # Hebrew letters that are enough
_PUNCTUATION = "«»“”„‘’‚‹›–—…•€£©®°§ºª"


def read_array_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of a `.npy` array, from its header; the values follow in the file.

    Raises:
        ValueError: there is no such header.
    """
    import numpy as np

    version = np.lib.format.read_magic(file)
    shape, _, dtype = getattr(np.lib.format, f"read_array_header_{min(version[0], 2)}_0")(file)
    return shape, dtype


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a text file of any encoding.

    A byte-order mark determines the encoding. Without one it is UTF-8 if the bytes are valid UTF-8, else UTF-16 if
    every other byte is zero, else the most probable encoding, which is logged.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not text, or its encoding cannot be detected.
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
    if high < 0.5 * len(sample):  # a Latin alphabet: mostly ASCII letters
        for encoding, alphabets in _ALPHABETS:
            letters = {letter for letter in sample.decode(encoding, "replace").lower() if not letter.isascii()}
            if any(letters <= {*alphabet, *_PUNCTUATION} for alphabet in alphabets):
                return encoding
    if high >= _MIN_LETTERS and all(_HEBREW.fullmatch(run) for run in re.findall(rb"[\x80-\xff]+", sample)):
        return "cp1255"
    from charset_normalizer import from_bytes

    start = data[: 1 << 18] if b"\n" not in data[1 << 18 :] else data[: data.index(b"\n", 1 << 18)]
    match = from_bytes(start, cp_isolation=list(_ENCODINGS)).best() or from_bytes(start).best()
    if match is None:
        raise ValueError("not text, or in an unknown encoding. Save it as UTF-8")
    return match.encoding


def read_table(
    text: str,
    columns: Mapping[str, Sequence[str]],
    delimiter: str | None = None,
    required: Sequence[Sequence[str]] = (),
    filled: str = "",
    others: bool = True,
    quoted: bool = True,
    strict: bool = False,
) -> Iterator[dict[str, str]]:
    """Rows of a table with a heading as dicts of column name -> text; empty cells are omitted.

    Args:
        text: values separated by commas, semicolons, tabs or bars.
        columns: column name -> accepted headings, in lower case.
        delimiter: None chooses the one with which the heading has the most known columns.
        required: groups of column names; the heading must have one of each group.
        filled: a column that must have a value in every row; empty: none.
        others: whether other columns than `columns` are allowed; their names are their headings in lower case.
        quoted: whether `"` quotes, as in CSV; a published TSV often means it literally.
        strict: refuse a quote that is not closed, or text after a closing one.

    Raises:
        ValueError: a column is missing, not allowed or there twice, or a row does not fit.
    """
    lines = text.lstrip("\ufeff\n\r").splitlines()
    if lines and re.fullmatch(r"sep=.", lines[0].strip()):  # a line of Excel
        delimiter, lines = lines[0].strip()[-1], lines[1:]
    if not lines or not text.strip():
        if required:
            raise ValueError(f"an empty table, without the heading {_list_columns(columns)}")
        return
    meaning = {alias: name for name, aliases in columns.items() for alias in aliases}

    def split(lines: Iterable[str], mark: str) -> Iterator[list[str]]:
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
        return csv.reader(lines, delimiter=mark, skipinitialspace=True, quoting=quoting, strict=strict)

    def headings(mark: str) -> list[str]:
        return [meaning.get(cell.strip().lower(), cell.strip().lower()) for cell in next(split(lines[:1], mark), [])]

    try:
        marks = [delimiter] if delimiter else [",", ";", "\t", "|"]
        best = max(marks, key=lambda mark: (sum(name in columns for name in headings(mark)), lines[0].count(mark)))
        names = headings(best)
        _check_headings(names, lines[0], columns, required, others)
        for number, cells in enumerate(split(lines[1:], best), 2):
            if any(cell.strip() for cell in cells[len(names) :]):
                hint = ". Numbers with a decimal comma need ';' between columns" if best == "," else ""
                raise ValueError(f"row {number} has {len(cells)} cells for {len(names)} columns{hint}")
            row = {name: cell.strip() for name, cell in zip(names, cells, strict=False) if cell.strip()}
            if row and filled and filled not in row:
                raise ValueError(f"a row without {filled}: line {number}")
            if row:
                yield row
    except csv.Error as error:
        raise ValueError(str(error)) from error


def _check_headings(
    names: list[str], line: str, columns: Mapping[str, Sequence[str]], required: Sequence[Sequence[str]], others: bool
) -> None:
    double = [name for name in columns if names.count(name) > 1]
    if double:
        raise ValueError(f"twice the column {double[0]!r} in the heading {line.strip()[:80]!r}")
    absent = [" or ".join(group) for group in required if not {*group} & {*names}]
    if absent:
        raise ValueError(f"no column {' and no column '.join(absent)} in the heading {line.strip()[:80]!r}")
    unknown = [] if others else [name for name in names if name not in columns]
    if unknown:
        raise ValueError(f"an unknown column {unknown[0]!r}, not one of {_list_columns(columns)}")


def _list_columns(columns: Mapping[str, Sequence[str]]) -> str:
    listed = ",".join(columns)
    return listed if len(listed) <= 120 else f"{listed[:120]}..."


def read_number(text: str | None, name: str) -> float:
    """Parse a finite number with a decimal point or a decimal comma.

    Raises:
        ValueError: the text is empty or not a number.
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
