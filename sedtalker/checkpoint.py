"""Model folders: `config.json` (plain types) and `model.safetensors`, without pickle."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import CheckpointError, reason_of
from sedtalker.files import atomic_write, sha256
from sedtalker.resources import asset
from sedtalker.weights import StoredRows

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sedtalker.int8 import QuantizedRows

Config = TypeVar("Config")

VERSION = 1
_LARGEST = 1_000_000  # of the sizes in a configuration; memory is allocated for them before weights are compared
INTEGERS, SCALE = ".int8", ".scale"  # a tensor in 8 bits is stored as integers and a scale for each row


def save_checkpoint(
    folder: Path | str, kind: str, config: dict[str, Any], state: dict[str, Tensor], eight_bits: Collection[str] = ()
) -> None:
    """Write a model folder that `load_checkpoint` reads.

    Args:
        folder: created if missing.
        kind: of the model: "diarizer", "talker", "speech-encoder" ...
        config: plain types, enough to build the model.
        state: tensors by name; floating-point ones are stored as float16.
        eight_bits: names of the tensors (rows, ...) that are stored in 8 bits.

    Raises:
        CheckpointError: a tensor contains NaN or infinity.
        SEDTalkerError: the folder cannot be written.
    """
    import torch
    from safetensors.torch import save

    from sedtalker.int8 import quantize_rows

    folder = Path(folder)
    tensors = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).detach().cpu().contiguous()
        for name, tensor in state.items()
    }
    if not all(torch.isfinite(t).all() for t in tensors.values() if t.is_floating_point()):
        raise CheckpointError(f"weights with NaN or infinity: nothing written to {folder}. Train again with a lower lr")
    for name in eight_bits:
        del tensors[name]
        tensors[name + INTEGERS], tensors[name + SCALE] = quantize_rows(state[name].detach().cpu().float())
    with atomic_write(folder / "model.safetensors") as temp_path:
        temp_path.write_bytes(save(tensors))  # `save_file` would let no other user read the file
    described = {"kind": kind, "version": VERSION, "config": config, "sha256": sha256(folder / "model.safetensors")}
    with atomic_write(folder / "config.json") as temp_path:
        temp_path.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def load_checkpoint(folder: Path | str, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and float32 tensors of a model folder.

    Raises:
        CheckpointError: a file is missing, of another kind or version, or the weights do not match their sha256.
    """
    config, state, rows = load_rows(folder, kind)
    return config, {**state, **{name: stored.restore() for name, stored in rows.items()}}


def load_rows(folder: Path | str, kind: str) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, QuantizedRows]]:
    """As `load_checkpoint`, with the tensors that are stored in 8 bits apart."""
    import torch

    from sedtalker.int8 import QuantizedRows

    config, state, rows = load_arrays(folder, kind)
    return (
        config,
        {name: torch.from_numpy(values) for name, values in state.items()},
        {name: QuantizedRows(*map(torch.from_numpy, stored)) for name, stored in rows.items()},
    )


def load_arrays(folder: Path | str, kind: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]], dict[str, StoredRows]]:
    """As `load_rows`, with arrays instead of tensors; torch is not imported."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    described = read_config(folder, kind)
    weights = Path(folder) / "model.safetensors"
    if not weights.is_file():
        raise CheckpointError(f"no weights: {weights}. Copy the whole model folder")
    if described.get("sha256") not in (None, sha256(weights)):
        raise CheckpointError(f"damaged weights (their sha256 differs): {weights}. Copy or download the folder again")
    try:
        state = load_file(weights)
        names = [name.removesuffix(INTEGERS) for name in state if name.endswith(INTEGERS)]
        scales = {name: state.pop(name + SCALE).astype(np.float32) for name in names}
        rows = {name: StoredRows(state.pop(name + INTEGERS), scales[name]) for name in names}
        for stored in rows.values():
            stored.check()
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, TypeError, MemoryError) as error:
        reason = reason_of(error)
        raise CheckpointError(f"unreadable weights: {weights} ({reason}). Copy the folder again") from error
    floats = {name: x.astype(np.float32) if x.dtype.kind == "f" else x for name, x in state.items()}
    return described["config"], floats, rows


def load_weights(model: nn.Module, state: dict[str, Tensor], folder: Path | str) -> None:
    """Load the tensors of a folder into a model. Raises CheckpointError if names or shapes differ from the model's."""
    with check_fit(folder):
        model.load_state_dict(state)


@contextmanager
def check_fit(folder: Path | str) -> Iterator[None]:
    """Raise CheckpointError if the block finds that names or shapes in a folder differ from those of its model."""
    try:
        yield
    except (RuntimeError, KeyError, ValueError, IndexError, AssertionError, AttributeError, MemoryError) as error:
        raise CheckpointError(
            f"weights that do not fit their configuration: {folder}. Copy the folder again, or train with this version"
        ) from error


def average_weights(states: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    """Weighted mean of state dicts with the same keys; the shares sum to 1."""
    return {
        name: sum((share * state[name] for state, share in zip(states, shares, strict=True)), 0 * first)
        for name, first in states[0].items()
    }


def check_settings(config: Any, kind: str, zero: Collection[str] = ()) -> None:
    """Check the fields of a model's configuration, a frozen dataclass, by their types.

    Args:
        config: numbers must be finite, and integers from 1 to a million; lists become tuples.
        kind: of the model, for the message.
        zero: names of the integers that may be 0.

    Raises:
        CheckpointError: a field has a wrong type or size.
    """
    hints = get_type_hints(type(config))
    for field in fields(config):
        value, kinds = getattr(config, field.name), (get_args(hints[field.name]) or (hints[field.name],))
        if get_args(hints[field.name]) and isinstance(value, list):
            value = tuple(value)
            object.__setattr__(config, field.name, value)  # the dataclass is frozen
        wrong = _setting_problem(value, kinds[0], bool(get_args(hints[field.name])), int(field.name not in zero))
        if wrong:
            raise CheckpointError(f"not a {kind}: {field.name} is {value!r}, need {wrong}. Correct the configuration")


def config_from_plain(config: type[Config], values: dict[str, Any], kind: str) -> Config:
    """Build a model's configuration from plain types. Raises CheckpointError if a setting is unknown."""
    unknown = set(values) - {field.name for field in fields(config)}  # type: ignore[arg-type]
    if unknown:
        raise CheckpointError(f"unknown settings of a {kind}: {sorted(unknown)}. Update sedtalker")
    return config(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def raise_problem(kind: str, problems: Mapping[str, bool]) -> None:
    """Raise CheckpointError for the first problem of a model's configuration that is present."""
    for problem, present in problems.items():
        if present:
            raise CheckpointError(f"not a {kind}: {problem}. Correct the configuration")


def _setting_problem(value: Any, kind: type, several: bool, least: int) -> str:
    """The requirement of this type that a value does not meet; "" if it meets it."""
    if several:
        wrong = not isinstance(value, tuple) or any(_setting_problem(part, kind, False, least) for part in value)
        return f"a list of {'names' if kind is str else 'numbers'}" if wrong else ""
    if kind is str:
        return "" if isinstance(value, str) and value else "a name"
    if kind is bool:
        return "" if isinstance(value, bool) else "true or false"
    if kind is int:
        whole = isinstance(value, int) and not isinstance(value, bool) and least <= value <= _LARGEST
        return "" if whole else f"a whole number from {least} to {_LARGEST}"
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return "" if number else "a finite number"


def weights_hash(folder: Path | str) -> str | None:
    """sha256 of the weights of a model folder as its `config.json` states it; None if it does not."""
    try:
        described = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return described.get("sha256") if isinstance(described, dict) else None


def is_checkpoint(folder: Path | str, kind: str) -> bool:
    """Whether a folder holds a model of this kind."""
    try:
        read_config(folder, kind)
    except CheckpointError:
        return False
    return True


def read_config(folder: Path | str, kind: str) -> dict[str, Any]:
    """The document in `config.json` of a model folder, checked for its kind and version.

    Raises:
        CheckpointError: as `load_checkpoint`.
    """
    path = Path(folder) / "config.json"
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        exported = Path(folder) / "model"  # in the folder of a training run
        packaged = asset(kind)
        names = sorted(path.name for path in packaged.iterdir()) if packaged.is_dir() else []
        if (exported / "config.json").is_file():
            way_out = f"Name {exported}"
        else:
            way_out = f"Check the path, or choose a packaged {kind}: {', '.join(names)}" if names else "Check the path"
        raise CheckpointError(f"no model folder: {folder} has no readable config.json. {way_out}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"not a model configuration: {path} ({error}). Copy the folder again") from error
    described = described if isinstance(described, dict) else {}
    found = described.get("kind")
    if found != kind or not isinstance(described.get("config"), dict):
        raise CheckpointError(f"not a {kind}: {path} is of kind {found!r}. Give a {kind} folder")
    if described.get("version") != VERSION:
        raise CheckpointError(f"a {kind} of version {described.get('version')}: {path}. Update sedtalker")
    return described
