"""Measure the cost of training a talker: speed of its loader alone and of its steps, memory, and FLOPs.

FLOPs are those of matrix products and convolutions, as torch counts them, and of the selective scan by its formula;
launches are torch's operations in a step with the chunked scan, each a kernel on a GPU. The time on a GPU is an
estimate, the longest of three: FLOPs over its peak rate in bfloat16 (from its data sheet) at a given utilisation,
launches at LAUNCH each, and the windows that the loader's processes deliver.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from sedtalker.mamba.block import MambaBlock
from sedtalker.mamba.scan import Backend
from sedtalker.training.config import read_config
from sedtalker.training.talker import (
    TalkerData,
    TalkerModule,
    TalkerTraining,
    config_for_store,
    make_module,
    open_training_store,
)
from sedtalker.training.windows import Example

PEAKS = {"RTX 4090": 165e12, "A100": 312e12, "H200": 989e12}
"""FLOP/s of dense bfloat16 products with float32 sums, from the data sheets."""

LAUNCH = 10e-6  # s of an operation in eager torch, which the host must issue; an assumption

SCAN_FORWARD, SCAN_BACKWARD = 7, 14
"""FLOPs of the scan for each frame, channel and state: exp(delta A), delta B u, h, C h; its gradients about twice."""


@dataclass(frozen=True)
class Cost:
    """Cost of one optimizer step."""

    parameters: int
    windows: int  # per step
    loader: float  # windows a second of the loader alone; CPU seconds without worker processes
    seconds: float  # CPU seconds of a step on this machine, without the loader
    flops: float
    launches: int

    def estimate(self, steps: int, peak: float, utilisation: float, workers: int) -> float:
        """Seconds of a training on a GPU with so many processes that load windows."""
        loading = self.windows / (self.loader * max(1, workers))
        return steps * max(self.flops / (peak * utilisation), self.launches * LAUNCH, loading)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="configuration of the training")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings that override it")
    parser.add_argument("--steps", type=int, default=4, help="steps to measure (default: 4)")
    parser.add_argument("--workers", type=int, default=8, help="processes of the loader beside a GPU (default: 8)")
    parser.add_argument("--utilisation", type=float, default=0.2, help="share of the GPU's peak rate (default: 0.2)")


def run(arguments: argparse.Namespace) -> None:
    training = read_config(arguments.config, arguments.overrides, TalkerTraining)
    cost = measure_cost(training, arguments.steps)
    print(f"{cost.parameters / 1e6:.2f} M parameters, {cost.windows} windows a step")
    print(f"loader alone: {cost.loader:.1f} windows/s; a step: {cost.windows / cost.seconds:.1f} windows/s")
    print(f"step: {cost.seconds:.2f} CPU s without the loader, {cost.flops / 1e9:.0f} GFLOP, {cost.launches} launches")
    unit = 1 if sys.platform == "darwin" else 1024
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9:.2f} GB")
    for name, peak in PEAKS.items():
        hours = cost.estimate(training.steps, peak, arguments.utilisation, arguments.workers) / 3600
        computed = training.steps * cost.flops / (peak * arguments.utilisation) / 3600
        print(
            f"{training.steps} steps on one {name} (estimate): {hours:.2f} h, of which the FLOPs at "
            f"{arguments.utilisation:.0%} of {peak / 1e12:.0f} TFLOP/s need {computed:.2f} h"
        )


def measure_cost(training: TalkerTraining, steps: int = 4) -> Cost:
    """Measure the loader and the steps of a training on the CPU, and count the FLOPs of a step."""
    torch.set_num_threads(training.threads)
    store = open_training_store(training)
    data = TalkerData(training, store)
    training = replace(training, model=config_for_store(training.model, store, len(data.styles)))
    module = make_module(training, store)
    loaded, loader_seconds = _load(data.train_dataloader(), steps + 1)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-6)
    _step(module, optimizer, loaded[0])  # allocates the optimizer's state and compiles the scan
    started = time.process_time()
    for batch in loaded[1:]:
        _step(module, optimizer, batch)
    seconds = (time.process_time() - started) / steps
    windows = len(loaded[0].intensity)
    flops = count_flops(module, loaded[0]) * training.accumulate_grad_batches
    launches = count_launches(module, loaded[0]) * training.accumulate_grad_batches
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return Cost(
        parameters,
        windows * training.accumulate_grad_batches,
        windows / loader_seconds,
        seconds * training.accumulate_grad_batches,
        flops,
        launches,
    )


class _Operations(TorchDispatchMode):
    """Counts torch's operations."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return function(*args, **(kwargs or {}))


def count_launches(module: TalkerModule, batch: Example) -> int:
    """Operations of forward and backward of a batch, the scan in plain torch."""
    chunked = Backend("chunked", "its operations are counted")
    with patch("sedtalker.mamba.scan.scan_backend", return_value=chunked), _Operations() as operations:
        module.loss(batch)[0].backward()
    module.zero_grad()
    return operations.count


def count_flops(module: TalkerModule, batch: Example) -> float:
    """FLOPs of forward and backward of a batch."""
    with FlopCounterMode(display=False) as counter:
        module.loss(batch)[0].backward()
    module.zero_grad()
    batch_size, frames = batch.intensity.shape
    config = module.settings.model
    runs = 2 if config.injection == "added" else 1  # the lips are computed by a second run
    scanned = sum(block.inner * block.states for block in module.modules() if isinstance(block, MambaBlock))
    scan = (SCAN_FORWARD + SCAN_BACKWARD) * scanned * batch_size * (frames + config.look_ahead) * runs
    return float(counter.get_total_flops() + scan)


def _load(loader: DataLoader[Example], count: int) -> tuple[list[Example], float]:
    """Batches, and the seconds of one, of the CPU for a loader in this process."""
    batches = []
    wall, cpu = time.perf_counter(), time.process_time()
    for batch in loader:
        batches.append(batch)
        if len(batches) == count:
            break
    spent = time.perf_counter() - wall if loader.num_workers else time.process_time() - cpu
    return batches, spent / len(batches)


def _step(module: TalkerModule, optimizer: torch.optim.Optimizer, batch: Example) -> None:
    module.loss(batch)[0].backward()
    optimizer.step()
    optimizer.zero_grad()
