"""Configuration files: YAML that fills a frozen dataclass, with KEY=VALUE overrides from the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml

from sedtalker.errors import DataError

Config = TypeVar("Config")


def read_config(path: Path | str, overrides: Sequence[str], kind: type[Config]) -> Config:
    """The configuration `kind` of a YAML file; an override is `key=value` or `part.key=value`, its value YAML too.

    Raises:
        DataError: the file cannot be read, or a key is unknown, missing or of another type.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        for override in overrides:
            _override(values, override)
    except OSError as error:
        raise DataError(f"configuration cannot be read: {path} ({error.strerror}). configs/ holds examples") from error
    except yaml.YAMLError as error:
        raise DataError(f"not YAML: {path} ({' '.join(str(error).split())}). configs/ holds examples") from error
    return build(kind, values, str(path))


def build(kind: type[Config], values: Any, where: str) -> Config:
    """A dataclass, and the dataclasses within it, of plain values.

    Raises:
        DataError: a key is unknown or missing, or its value of another type.
    """
    if not isinstance(values, dict):
        raise DataError(f"settings expected, not {values!r}: {where}. Write key: value lines")
    hints = get_type_hints(kind)
    unknown = sorted(set(values) - {field.name for field in dataclasses.fields(kind)})  # type: ignore[arg-type]
    if unknown:
        raise DataError(f"unknown setting {unknown[0]!r}: {where}. Known here: {', '.join(hints)}")
    try:
        return kind(**{key: _converted(hints[key], value, f"{where}, {key}") for key, value in values.items()})
    except TypeError as error:
        raise DataError(f"settings that do not fit: {where} ({error}). See the example in configs/") from error


def _converted(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, where)
    if isinstance(value, list):
        return _tuples(value)
    if hint is float and isinstance(value, (int, str)):
        try:
            return float(value)  # YAML reads 1e-3 as text
        except ValueError as error:
            raise DataError(f"a number expected, not {value!r}: {where}") from error
    if hint in (int, bool, str) and not isinstance(value, hint):
        raise DataError(f"{hint.__name__} expected, not {value!r}: {where}")
    return value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise DataError(f"cannot read {override!r}. Write settings to override as key=value")
    *parts, last = key.split(".")
    for part in parts:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise DataError(f"cannot override {key}: {part} holds no settings")
    values[last] = yaml.safe_load(text)
