"""Configuration files: YAML that fills a frozen dataclass, with KEY=VALUE overrides from the command line.

Every value is checked against the type of its field, at any depth, before a run begins.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import reprlib
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from sedtalker.errors import DataError, SEDTalkerError
from sedtalker.files import read_text

Config = TypeVar("Config")


def read_config(path: Path | str, overrides: Sequence[str], kind: type[Config]) -> Config:
    """Read a YAML file into a dataclass `kind`; an override is `key=value` or `part.key=value` with a YAML value.

    Raises:
        DataError: the file cannot be read, or a key is unknown, missing, of the wrong type or out of range.
    """
    try:
        values = _load_yaml(read_text(path))
    except OSError as error:
        raise DataError(f"configuration cannot be read: {path} ({error.strerror}). configs/ holds examples") from error
    except ValueError as error:
        raise DataError(f"not YAML: {path} ({error}). configs/ holds examples") from error
    values = {} if values is None else values
    _require_settings(values, str(path))
    for override in overrides:
        _override(values, override)
    return build(kind, values, str(path))


def _load_yaml(text: str) -> Any:
    """The content of a YAML text."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except (KeyError, AttributeError) as error:  # PyYAML on tags such as !!bool with a value of another type
        raise ValueError(f"a tag does not fit its value: {error}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def build(kind: type[Config], values: Any, where: str) -> Config:
    """Build a dataclass, and the dataclasses in it, from plain values as YAML has them.

    Raises:
        DataError: a key is unknown or missing, or its value of the wrong type or out of range.
    """
    _require_settings(values, where)
    hints = get_type_hints(kind)
    fields: dict[str, dataclasses.Field[Any]] = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(str(key) for key in set(values) - set(fields)):
        similar = difflib.get_close_matches(unknown[0], fields)
        raise DataError(f"unknown setting {unknown[0]!r}: {where}. Use one of: {', '.join(similar or fields)}")
    absent = dataclasses.MISSING
    for name, field in fields.items():
        if name not in values and field.default is absent and field.default_factory is absent:
            raise DataError(
                f"setting {name!r} is missing: {where}. Write {name}: value, or {name}=value after the file"
            )
    settings = {key: _convert(hints[key], value, f"{where}, {key}") for key, value in values.items()}
    try:
        return kind(**settings)
    except SEDTalkerError as error:  # from the dataclass's checks, which do not know the file
        raise DataError(f"{where}: {error}") from error


def require_within(settings: object, **bounds: tuple[float, float]) -> None:
    """Check numbers of a dataclass against (minimum, maximum), both included.

    Raises:
        DataError: a number is out of range.
    """
    for name, (least, most) in bounds.items():
        value = getattr(settings, name)
        for number in value.values() if isinstance(value, dict) else [value]:
            if not least <= number <= most:
                span = f"{least:g} or more" if math.isinf(most) else f"a value from {least:g} to {most:g}"
                raise DataError(f"{name} is {number}. Set it to {span}")


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Convert a plain value to the type `hint` of a field."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_optional(arguments, value, where)
    if origin is tuple:
        return _convert_tuple(arguments, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise DataError(f"name: value pairs expected, not {reprlib.repr(value)}: {where}. Write {{name: value}}")
        return {_convert(arguments[0], k, where): _convert(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, where)
    return _SCALARS[hint](value, where)


def _convert_optional(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    """Convert a value to `kind | None`."""
    if value is None and type(None) in kinds:
        return None
    (kind,) = (kind for kind in kinds if kind is not type(None))
    return _convert(kind, value, where)


def _convert_tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    """Convert a list to a tuple of one type (`tuple[kind, ...]`), or with a type for each item."""
    if not isinstance(value, (list, tuple)):
        raise DataError(
            f"a list expected, not {reprlib.repr(value)}: {where}. Write it as [{'' if value is None else value}]"
        )
    if kinds[1:] == (...,):
        kinds = kinds[:1] * len(value)
    if len(value) != len(kinds):
        raise DataError(
            f"a list of {len(kinds)} expected, not {reprlib.repr(value)}: {where}. Give {len(kinds)} values"
        )
    return tuple(_convert(kind, item, where) for kind, item in zip(kinds, value, strict=True))


def _to_bool(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise DataError(f"true or false expected, not {reprlib.repr(value)}: {where}. Write one of them")
    return value


def _to_int(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"a whole number expected, not {reprlib.repr(value)}: {where}. Write it in digits")
    return value


def _to_float(value: Any, where: str) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError("wrong type")
        number = float(value)  # YAML reads 1e-3 as text
        if not math.isfinite(number):
            raise ValueError("not finite")
    except (ValueError, OverflowError) as error:
        raise DataError(f"a number expected, not {reprlib.repr(value)}: {where}. Write it as 0.001 or 1e-3") from error
    return number


def _to_str(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"text expected, not {reprlib.repr(value)}: {where}. Write it in quotes, as in '\"2024\"'")
    return value


_SCALARS: dict[Any, Callable[[Any, str], Any]] = {bool: _to_bool, int: _to_int, float: _to_float, str: _to_str}


def _require_settings(values: Any, where: str) -> None:
    if not isinstance(values, dict):
        raise DataError(f"settings expected, not {reprlib.repr(values)}: {where}. Write key: value lines")


def _override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise DataError(f"cannot read {override!r}. Write settings to override as key=value")
    try:
        value = _load_yaml(text)
    except ValueError as error:
        raise DataError(f"cannot read {override!r} ({error}). Write the value as YAML") from error
    *parts, last = key.split(".")
    for part in parts:
        if values.get(part) is None:
            values[part] = {}
        values = values[part]
        if not isinstance(values, dict):
            raise DataError(f"cannot override {key}: {part} holds no settings")
    values[last] = value
