"""Expand the inputs of a command: files, folders and patterns. Audio files are recognised by content."""

from __future__ import annotations

import glob
import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from sedtalker.errors import SEDTalkerWarning, UsageError
from sedtalker.files import OUTPUT_MARKER, RECORDS_FOLDER, digest

# Always inputs: a damaged recording must be an error and must not be skipped as a file without audio.
AUDIO_SUFFIXES = (
    ".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".wma", ".aif", ".aiff", ".mp4", ".mkv", ".mov", ".webm",
)  # fmt: skip

# Never audio: skipped without a warning and without decoding, since random bytes may decode as MP3.
_OTHER_SUFFIXES = frozenset(
    """
    .txt .md .rst .json .jsonl .srt .vtt .ass .lrc .csv .tsv .rttm .textgrid .lab .xml .yaml .yml .toml .ini .cfg .log
    .html .htm .pdf .doc .docx .xls .xlsx .odt .rtf .png .jpg .jpeg .gif .webp .bmp .tif .tiff .svg .ico .npy .npz
    .glb .gltf .usd .usda .usdc .usdz .obj .mtl .ply .stl .fbx .blend .py .ipynb .sh .bat .zip .gz .xz .bz2 .7z .tar
    .safetensors .ckpt .pt .pkl .db .sqlite .tmp .part .bak .lock .nfo .cue .m3u .pls
    """.split()  # noqa: SIM905, a list would take 90 lines
)
_NAMED = 5  # skipped files that the warning names
_PACKETS = 20  # packets to try in a file of unknown suffix


def expand_inputs(names: Sequence[str], suffixes: tuple[str, ...] | None = None) -> list[Path]:
    """The files that paths, folders and glob patterns name, in order, without duplicates.

    In folders and patterns, hidden files and outputs of this program are skipped. A file that is named directly is
    always included.

    Args:
        names: paths of files and folders, and patterns.
        suffixes: suffixes to select in folders; None: all files with audio. A warning names the files without audio,
            except those with the suffix of another kind of file.

    Raises:
        UsageError: a name is empty.
    """
    paths: list[Path] = []
    for name in names:
        if not name:  # `Path` would read it as the current folder
            raise UsageError("an empty name among the inputs. Check the variable that it comes from")
        path = Path(name)
        try:
            if path.is_dir():
                files = sorted(file for file in path.iterdir() if file.is_file() or _is_broken_link(file))
                paths += _select_audio(files) if suffixes is None else _select_suffixes(files, suffixes)
                _warn_about_subfolders(path, suffixes)
            elif glob.has_magic(name) and not path.exists():
                matches = _drop_repeated(map(Path, glob.glob(name, recursive=True)))  # noqa: PTH207, may be absolute
                files = [file for file in sorted(matches) if file.is_file() or _is_broken_link(file)]
                paths += (list(_skip_own_outputs(files)) if suffixes is None else files) or [path]
            else:
                paths.append(path)
        except OSError:  # an unreadable folder or a name that is too long: reported later as a failed input
            paths.append(path)
    return _drop_repeated(paths)


def _drop_repeated(paths: Iterable[Path]) -> list[Path]:
    """The paths without longer ones of the same file, as through a link to a folder."""
    folders: dict[Path, Path] = {}
    found: dict[tuple[Path, str], Path] = {}
    for path in paths:
        folder = path.parent
        if folder not in folders:
            try:
                folders[folder] = folder.resolve()
            except (OSError, RuntimeError):  # it does not exist, or its links go round
                folders[folder] = folder
        kept = found.setdefault((folders[folder], path.name), path)
        if len(path.parts) < len(kept.parts):
            found[folders[folder], path.name] = path
    return list(found.values())


def _is_broken_link(path: Path) -> bool:
    """Whether a path is a link without a target; links to recordings must be errors and must not be skipped."""
    return path.is_symlink() and not path.exists()


def _select_suffixes(files: Iterable[Path], suffixes: tuple[str, ...]) -> list[Path]:
    return [file for file in files if file.suffix.lower() in suffixes and not file.name.startswith(".")]


def _warn_about_subfolders(folder: Path, suffixes: tuple[str, ...] | None) -> None:
    """Warn if subfolders, which are not searched, contain inputs."""
    inputs: list[Path] = []
    for subfolder in sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        with suppress(OSError):  # an unreadable folder
            entries = sorted(entry for entry in subfolder.iterdir() if entry.is_file())  # opening a pipe would wait
            files = _select_suffixes(entries, suffixes or AUDIO_SUFFIXES)
            inputs += [file for file in files if suffixes is not None or not is_own_output(file)][:1]
    if inputs:
        named = _name_some([file.parent for file in inputs])
        pattern = folder / "**" / f"*{inputs[0].suffix}"
        warnings.warn(f"subfolders are not searched: {named}. Use '{pattern}' for all", SEDTalkerWarning, stacklevel=3)


def _name_some(files: Sequence[Path]) -> str:
    more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
    return ", ".join(str(file) for file in files[:_NAMED]) + more


def _select_audio(files: Sequence[Path]) -> list[Path]:
    """The files with audio; a warning names the others, and outputs of this program if there is nothing else."""
    selected: list[Path] = []
    skipped: list[Path] = []
    for file in _skip_own_outputs(files):
        suffix = file.suffix.lower()
        if suffix in AUDIO_SUFFIXES:
            selected.append(file)
        elif suffix not in _OTHER_SUFFIXES:
            (selected if has_audio(file) else skipped).append(file)
    if skipped:
        warnings.warn(f"skipped files without audio: {_name_some(skipped)}", SEDTalkerWarning, stacklevel=3)
    if not selected and (own := [file for file in files if is_own_output(file)]):
        text = f"skipped outputs of sedtalker: {_name_some(own)}. Name such a file directly to use it"
        warnings.warn(text, SEDTalkerWarning, stacklevel=3)
    return selected


def _skip_own_outputs(files: Iterable[Path]) -> Iterator[Path]:
    """The files that are neither hidden nor outputs of this program."""
    for file in files:
        if not file.name.startswith(".") and not is_own_output(file):
            yield file


def has_audio(path: Path) -> bool:
    """Whether an audio frame can be decoded from the beginning of a file."""
    import av

    try:
        with path.open("rb") as file, av.open(file) as container:  # FFmpeg would read a colon in a path as a protocol
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


def is_own_output(path: Path) -> bool:
    """Whether this program wrote a media file, by the marker in its metadata or by the record of the run."""
    if path.suffix.lower() not in (".mp4", ".webm", ".wav"):
        return False
    return _has_marker(path) or _is_in_record(path)


def _has_marker(path: Path) -> bool:
    import av

    try:
        with path.open("rb") as file, av.open(file) as container:  # FFmpeg would read a colon in a path as a protocol
            return OUTPUT_MARKER in container.metadata.values()
    except (av.error.FFmpegError, OSError, ValueError):
        return False


def _is_in_record(path: Path) -> bool:
    """Whether a record in the same folder contains the file's name and present hash."""
    for record in (path.parent / RECORDS_FOLDER).glob(f"{glob.escape(path.name.split('.')[0])}*.json"):
        try:
            made = json.loads(record.read_text(encoding="utf-8"))["made"]
            if path.name in made and made[path.name]["sha256"] == digest(path):
                return True
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return False
