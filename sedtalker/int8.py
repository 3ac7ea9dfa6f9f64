"""Linear layers in 8-bit integers on a CPU: a quarter of the memory to read, and two to six times as fast.

A step of a streaming model multiplies a few frames by all of its weights, so memory bandwidth limits its speed. Weights
have 7 bits and a scale for each row, so that the 16-bit sums of processors without VNNI cannot overflow. Inputs have 8
bits and one range, measured once and saved with the model. As the range is fixed, the result of a frame does not depend
on the other frames of a call. Before quantization each input channel is divided by a factor and its weights are
multiplied by it (SmoothQuant, Xiao et al. 2023, alpha 0.5), so that a few large channels do not take the whole range.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sedtalker.weights import LEVELS, SMOOTHED, STEPS, Float, Int8Weights, Weights

QUANTILE = 1e-6  # share of the inputs outside the range, at each end
CHANNEL_QUANTILE = 0.999  # quantile of an input channel's magnitude that SmoothQuant uses
SAMPLES = 1_000_000  # inputs from which a range is measured, at most


@lru_cache(maxsize=1)
def is_supported() -> bool:
    """Whether this build of torch has the kernels, as those for x86 processors do."""
    if not {"x86", "fbgemm"} & set(torch.backends.quantized.supported_engines):
        return False
    try:
        Int8Linear(MeasuredLinear(4, 4))(torch.zeros(1, 4))
    except (RuntimeError, AttributeError):  # newer versions of torch may lack them
        return False
    return True


def use_int8(device: str | torch.device, precision: str) -> bool:
    """Whether a model computes in 8 bits.

    Args:
        precision: "int8" (CPU only), "float32", or "auto": int8 where it is supported.
    """
    return precision == "int8" or (precision == "auto" and torch.device(device).type == "cpu" and is_supported())


class QuantizedRows(NamedTuple):
    """Weights in 8 bits."""

    integers: Tensor  # (rows, ...) int8, of at most `LEVELS`
    scales: Tensor  # (rows,) float32

    def restore(self) -> Tensor:
        """The weights (rows, ...) in float32."""
        return self.integers * _broadcast_scales(self.scales, self.integers)


def quantize_rows(weight: Tensor) -> QuantizedRows:
    """Weights (rows, ...) float32 in 8 bits."""
    scales = (weight.flatten(1).abs().amax(1) / LEVELS).clamp(min=1e-12)
    integers = (weight / _broadcast_scales(scales, weight)).round().clamp(-LEVELS, LEVELS).to(torch.int8)
    return QuantizedRows(integers, scales)


def _broadcast_scales(scales: Tensor, weight: Tensor) -> Tensor:
    """Scales (rows,) in the shape (rows, 1, ...), which multiplies weights (rows, ...)."""
    return scales.reshape(-1, *[1] * (weight.ndim - 1))


class MeasuredLinear(nn.Linear):
    """A linear layer in floating point that stores the range of its inputs for `Int8Linear`."""

    smoothing: Tensor
    input_range: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("smoothing", torch.ones(inputs))  # divides the inputs, multiplies the weights
        self.register_buffer("input_range", torch.tensor([-1.0, 1.0]))  # lowest and highest input after smoothing

    @torch.no_grad()
    def measure(self, inputs: Tensor) -> None:
        """Set the range from typical inputs (N, in)."""
        few = inputs[:: max(1, inputs.numel() // SAMPLES)].float()
        magnitude = few.abs().quantile(CHANNEL_QUANTILE, 0).clamp(min=1e-4)
        self.smoothing.copy_((magnitude / self.weight.abs().amax(0).clamp(min=1e-4)).sqrt().clamp(min=1e-3))
        smoothed = (few / self.smoothing).flatten().sort().values
        outside = int(QUANTILE * len(smoothed))
        self.input_range[0] = smoothed[outside].clamp(max=0.0)
        self.input_range[1] = smoothed[-1 - outside].clamp(min=1e-3)


class Int8Linear(nn.Module):
    """A `MeasuredLinear` in 8-bit integers: (..., in) float32 -> (..., out) float32."""

    def __init__(self, linear: MeasuredLinear, stored: QuantizedRows | None = None) -> None:
        """`stored` has the smoothed weights; None: those of `linear` are rounded."""
        super().__init__()
        low, high = linear.input_range.tolist()
        self.scale = (high - low) / STEPS
        self.zero = min(max(round(-low / self.scale), 0), STEPS)
        integers, scales = stored or quantize_rows(linear.weight.detach().float() * linear.smoothing)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*quantize.*deprecated")  # `is_supported` detects its removal
            rows = torch._make_per_channel_quantized_tensor(
                integers, scales.double(), torch.zeros(len(scales), dtype=torch.long), 0
            )
        self.packed = torch.ops.quantized.linear_prepack(rows, linear.bias.detach().float())
        self.factor = 1 / linear.smoothing

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            x * self.factor, self.scale, self.zero, self.packed
        )


def named_weights(network: nn.Module) -> Weights:
    """The weights of a network as arrays, on the CPU and in float32: parameters and buffers, and layers in 8 bits."""
    tensors = [*network.named_parameters(), *network.named_buffers()]
    weights: dict[str, Float | Int8Weights] = {name: part.detach().float().cpu().numpy() for name, part in tensors}
    for name, layer in network.named_modules():
        if isinstance(layer, Int8Linear):
            rows, bias = torch.ops.quantized.linear_unpack(layer.packed)
            scales = rows.q_per_channel_scales().float().numpy()
            integers, factor = rows.int_repr().numpy(), layer.factor.numpy()
            weights[name] = Int8Weights(integers, scales, bias.detach().numpy(), factor, layer.scale, layer.zero)
    return Weights(weights)


def to_int8(model: nn.Module, stored: Mapping[str, QuantizedRows] | None = None) -> None:
    """Replace every `MeasuredLinear` of the model by an `Int8Linear`; CPU only, and irreversible.

    Args:
        stored: smoothed weights by the name of the layer, as `smoothed_weights` names them.
    """
    for name, linear in list(_measured_layers(model)):
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, Int8Linear(linear, (stored or {}).get(name + SMOOTHED)))


def smooth_state(model: nn.Module) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a model with smoothed weights instead of those of `MeasuredLinear`, and the names of the former.

    Smoothed weights can be stored in 8 bits without any difference to a computation in 8 bits.
    """
    state = model.state_dict()
    names = [name for name, _ in _measured_layers(model)]
    for name in names:
        smoothing = state[f"{name}.smoothing"].half().float()  # as it is stored
        state[name + SMOOTHED] = state.pop(f"{name}.weight").float() * smoothing
    return state, [name + SMOOTHED for name in names]


def undo_smoothing(state: dict[str, Tensor]) -> None:
    """Replace the smoothed weights of `smooth_state` by those of `MeasuredLinear`."""
    for name in [name.removesuffix(SMOOTHED) for name in state if name.endswith(SMOOTHED)]:
        state[f"{name}.weight"] = state.pop(name + SMOOTHED) / state[f"{name}.smoothing"]


@torch.inference_mode()
def measure_ranges(model: nn.Module, calls: Iterable[tuple[Any, ...]]) -> None:
    """Set the ranges of all `MeasuredLinear` of the model from their inputs in `calls` of the model."""
    layers = dict(_measured_layers(model))
    read: dict[str, list[Tensor]] = {name: [] for name in layers}

    def keep(name: str) -> Callable[[nn.Module, Any], None]:
        return lambda _, inputs: read[name].append(inputs[0].flatten(0, -2).half())

    hooks = [layer.register_forward_pre_hook(keep(name)) for name, layer in layers.items()]
    try:
        for arguments in calls:
            model(*arguments)
    finally:
        for hook in hooks:
            hook.remove()
    for name, layer in layers.items():
        layer.measure(torch.cat(read[name]))


def _measured_layers(model: nn.Module) -> Iterator[tuple[str, MeasuredLinear]]:
    for name, module in model.named_modules():
        if isinstance(module, MeasuredLinear):
            yield name, module
