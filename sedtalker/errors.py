"""Errors and warnings for users: one line with the problem, the file and the remedy."""

from __future__ import annotations

import importlib
import math
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

# file names may contain line breaks and the codes that change the colours of a terminal or clear it
_CONTROL_CHARACTERS = {code: repr(chr(code))[1:-1] for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}


def one_line(text: str) -> str:
    """The text with escaped control characters and line breaks."""
    return text.translate(_CONTROL_CHARACTERS)


_EXTRAS = {"torch": "torch", "transformers": "hub"} | dict.fromkeys(
    ("lightning", "scipy", "sklearn", "tensorboard", "torchaudio", "torchmetrics"), "train"
)
"""The extra that installs a package which modules import at their start."""


class SEDTalkerError(Exception):
    """A problem that a user can solve; the command line prints its message as one line, without a traceback."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class SEDTalkerWarning(UserWarning):
    """A notice about an input; the command line prints it as one line on stderr."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class AudioWarning(SEDTalkerWarning):
    """Audio that was read, and is incomplete or silent."""


class FaceWarning(SEDTalkerWarning):
    """A mesh that was rotated or scaled to metres, y up, facing +z."""


class UsageError(SEDTalkerError):
    """Options that contradict each other; the exit code of the command line is 2."""


class AudioError(SEDTalkerError):
    """Audio that is missing, unreadable, empty or damaged."""


class TrackError(SEDTalkerError):
    """An emotion track, an emotion name or a track file that cannot be used."""


class FaceError(SEDTalkerError):
    """A face asset or a mesh that cannot be used."""


class AnimationError(SEDTalkerError):
    """An animation file that is missing, damaged or does not fit."""


class RenderError(SEDTalkerError):
    """A frame or a video that could not be rendered."""


class CheckpointError(SEDTalkerError):
    """A model folder that is missing, incomplete or of another kind."""


class DataError(SEDTalkerError):
    """A corpus, a manifest or a training configuration that cannot be used."""


class MissingExtraError(SEDTalkerError):
    """An optional dependency that is needed and not installed."""


def reason_of(error: BaseException) -> str:
    """What went wrong, for the brackets of a message: without an error number, the quotes of a key or line breaks."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split()) or type(error).__name__
    return f"without {text}" if isinstance(error, KeyError) else text


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type if it has none: libraries append many lines of advice."""
    first, *_ = str(error).splitlines() or [type(error).__name__]
    return first


def as_number(value: Any, name: str, error: type[SEDTalkerError] = SEDTalkerError) -> float:
    """Convert `value` to a float; `name` is for the message.

    Raises:
        SEDTalkerError: (or `error`) it is not a number.
    """
    try:
        number = math.nan if isinstance(value, (str, bytes, bool)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if math.isnan(number):
        shown = repr(value)
        raise error(f"{name} is not a number: {shown if len(shown) <= 40 else type(value).__name__}")
    return number


def as_path(value: Any, name: str, error: type[SEDTalkerError] = SEDTalkerError) -> Path:
    """Convert `value` to a path; `name` is for the message. Raises `error` if it is not one."""
    if not isinstance(value, (str, os.PathLike)) or not str(value):
        raise error(f"{name} must be a name or a path, not {value!r:.40}")
    return Path(value)


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Raises:
        MissingExtraError: the module cannot be imported, with the extra to install, or its library cannot be loaded.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing_extra(module, extra, error) from error
    except OSError as error:  # a build for CUDA beside a torch for the CPU
        package = module.partition(".")[0]
        raise MissingExtraError(
            f"{package} is installed and cannot be loaded ({reason_of(error)}). Its build may not fit that of torch: "
            f"install torch and {package} again, both for the CPU or both for CUDA"
        ) from error


def require_torch() -> None:
    """Raise MissingExtraError if torch cannot be imported; the packaged models on the CPU do not need it."""
    require("torch", _EXTRAS["torch"])


def _missing_extra(module: str, extra: str, error: ImportError) -> MissingExtraError:
    return MissingExtraError(
        f"{module} is needed and cannot be imported ({error}). Install it with: pip install 'sedtalker[{extra}]'"
    )


@contextmanager
def name_missing_extras() -> Iterator[None]:
    """Raise MissingExtraError if a module of the block cannot import a package that an extra installs."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            raise
        raise _missing_extra(package, _EXTRAS[package], error) from error


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Print each `SEDTalkerWarning` of the block once, as one line on stderr, as the command line prints errors."""
    printed: set[str] = set()
    original = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *arguments: Any, **options: Any) -> None:
        if not issubclass(category, SEDTalkerWarning):
            original(message, category, *arguments, **options)
        elif str(message) not in printed:
            printed.add(str(message))
            print(f"sedtalker: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", SEDTalkerWarning)
        warnings.showwarning = show
        yield
