"""Which files a command works on: files, folders and patterns, told apart by content and not by their endings."""

from __future__ import annotations

import glob
import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sedtalker.errors import SEDTalkerWarning
from sedtalker.files import MADE_HERE, RECORDS, digest

# Taken without a look inside, so that a damaged recording is an error and not a file without sound.
AUDIO_SUFFIXES = (
    ".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".wma", ".aif", ".aiff", ".mp4", ".mkv", ".mov", ".webm",
)  # fmt: skip

# Never sound: left out without a word, and without a look inside, since a random table may resemble MP3.
_OTHER_SUFFIXES = frozenset(
    """
    .txt .md .rst .json .jsonl .srt .vtt .ass .lrc .csv .tsv .rttm .textgrid .lab .xml .yaml .yml .toml .ini .cfg .log
    .html .htm .pdf .doc .docx .xls .xlsx .odt .rtf .png .jpg .jpeg .gif .webp .bmp .tif .tiff .svg .ico .npy .npz
    .glb .gltf .usd .usda .usdc .usdz .obj .mtl .ply .stl .fbx .blend .py .ipynb .sh .bat .zip .gz .xz .bz2 .7z .tar
    .safetensors .ckpt .pt .pkl .db .sqlite .tmp .part .bak .lock .nfo .cue .m3u .pls
    """.split()  # noqa: SIM905, a list would take 90 lines
)
_NAMED = 5  # skipped files that the note names
_PACKETS = 20  # of a file of unknown ending that are tried


def expand_inputs(names: Sequence[str], suffixes: tuple[str, ...] | None = None) -> list[Path]:
    """Files named by paths, folders and glob patterns, in order, each once.

    Of folders and patterns, hidden files and results of this program are left out. A file that is named is taken as it
    is.

    Args:
        names: paths of files and folders, and patterns.
        suffixes: endings of the files that are wanted of a folder; None: all that hold sound. Files of a folder that
            hold none are named in a warning, unless their ending says that they are something else.
    """
    found: list[Path] = []
    for name in names:
        path = Path(name)
        try:
            if path.is_dir():
                files = sorted(file for file in path.iterdir() if file.is_file())
                found += _with_sound(files) if suffixes is None else _ending_in(files, suffixes)
            elif glob.has_magic(name) and not path.exists():
                matches = sorted(Path(match) for match in glob.glob(name, recursive=True))  # noqa: PTH207, may be absolute
                files = [file for file in matches if file.is_file()]
                found += (list(_foreign(files)) if suffixes is None else files) or [path]
            else:
                found.append(path)
        except OSError:  # a folder that cannot be read, a name that is too long: told as a failure of this input
            found.append(path)
    return list(dict.fromkeys(found))


def _ending_in(files: Iterable[Path], suffixes: tuple[str, ...]) -> list[Path]:
    return [file for file in files if file.suffix.lower() in suffixes and not file.name.startswith(".")]


def _with_sound(files: Iterable[Path]) -> list[Path]:
    """Those of a folder's files that are to be worked on; the rest is named in a warning."""
    taken: list[Path] = []
    skipped: list[Path] = []
    for file in _foreign(files):
        suffix = file.suffix.lower()
        if suffix in AUDIO_SUFFIXES:
            taken.append(file)
        elif suffix not in _OTHER_SUFFIXES:
            (taken if holds_sound(file) else skipped).append(file)
    if skipped:
        more = f" and {len(skipped) - _NAMED} more" if len(skipped) > _NAMED else ""
        named = ", ".join(str(file) for file in skipped[:_NAMED])
        warnings.warn(f"skipped, no sound in it: {named}{more}", SEDTalkerWarning, stacklevel=3)
    return taken


def _foreign(files: Iterable[Path]) -> Iterator[Path]:
    """The files that are neither hidden nor made by this program."""
    for file in files:
        if not file.name.startswith(".") and not made_here(file):
            yield file


def holds_sound(path: Path) -> bool:
    """Whether a frame of sound can be decoded from the beginning of a file."""
    import av

    try:
        with path.open("rb") as file, av.open(file) as container:  # by name, a colon would name a protocol
            if not container.streams.audio:
                return False
            for count, packet in enumerate(container.demux(container.streams.audio[0])):
                if any(frame.samples for frame in packet.decode()):
                    return True
                if count == _PACKETS:
                    return False
    except (av.error.FFmpegError, OSError, ValueError):
        return False
    return False


def made_here(path: Path) -> bool:
    """Whether this program made a media file: by the mark in it, or by the record of the run that made it."""
    if path.suffix.lower() not in (".mp4", ".webm", ".wav"):
        return False
    return _is_marked(path) or _is_recorded(path)


def _is_marked(path: Path) -> bool:
    import av

    try:
        with path.open("rb") as file, av.open(file) as container:  # by name, a colon would name a protocol
            return MADE_HERE in container.metadata.values()
    except (av.error.FFmpegError, OSError, ValueError):
        return False


def _is_recorded(path: Path) -> bool:
    """Whether a record in the file's folder names it, with the hash of its present bytes."""
    for record in (path.parent / RECORDS).glob(f"{glob.escape(path.name.split('.')[0])}*.json"):
        try:
            made = json.loads(record.read_text(encoding="utf-8"))["made"]
            if path.name in made and made[path.name]["sha256"] == digest(path):
                return True
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return False
