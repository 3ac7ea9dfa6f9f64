"""Read Lightning checkpoints without unpickling code, and check them against the run that resumes from them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sedtalker.errors import DataError

SAME_BASIS = 1e-2  # relative to the largest value; an exported basis is rounded to float16


def read_lightning_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint with its `state_dict` to the CPU. Only tensors and plain types are read.

    Raises:
        DataError: the file is missing, damaged, or not a Lightning checkpoint.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"checkpoint cannot be read: {path} ({error.strerror or error}). Check the path") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise DataError(
            f"damaged, or not a checkpoint: {path}. Give a .ckpt of sedtalker train, or delete it"
        ) from error
    if not isinstance(saved, dict) or not isinstance(saved.get("state_dict"), dict):
        raise DataError(f"not a checkpoint of a training: {path}. Give a .ckpt of sedtalker train")
    return saved


def last_checkpoint(module: nn.Module, output: Path, steps: int) -> Path | None:
    """Path of the checkpoint that a run of `steps` steps resumes from; None if the folder has none.

    Raises:
        DataError: it is of another model, damaged, or has more steps.
    """
    path = output / "last.ckpt"
    if not path.exists():
        return None
    saved = read_lightning_checkpoint(path)
    check_fits(module, saved["state_dict"], path)
    if saved.get("global_step", 0) > steps:
        raise DataError(
            f"{saved['global_step']} steps are done already, {steps} were asked for: {path}. "
            "Give more steps, or another output"
        )
    return path


def check_fits(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Check that weights have the names, sizes and basis of a module. Raises DataError if they differ."""
    own, fixed = module.state_dict(), dict(module.named_buffers())
    if differing := sorted(set(own) ^ set(state)):
        raise DataError(f"weights of another model ({differing[0]}): {path}. Choose another output or init_from")
    for name, tensor in own.items():
        if state[name].shape != tensor.shape:
            sizes = f"{tuple(state[name].shape)}, here {tuple(tensor.shape)}"
            raise DataError(
                f"weights of other sizes or speakers ({name} is {sizes}): {path}. Choose another output or init_from"
            )
        if name in fixed and name.split(".")[-1] == "basis" and not _same(state[name], tensor):
            raise DataError(f"coefficients of another basis: {path}. Train on its store, with its seed and components")


def _same(one: Tensor, other: Tensor) -> bool:
    one, other = one.float().cpu(), other.float().cpu()
    return bool((one - other).abs().max() <= SAME_BASIS * other.abs().max().clamp(min=1e-12))
