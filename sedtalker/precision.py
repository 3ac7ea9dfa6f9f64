"""Precision of torch's products: bfloat16 where a device multiplies in it, float32 elsewhere."""

from __future__ import annotations

import torch


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies in bfloat16; other processors are several times slower in it than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if device.type != "cpu":
        return True
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def bfloat16_products(device: torch.device, enabled: bool = True) -> torch.autocast:
    """A context in which products are computed in bfloat16 if the device has it; sums and weights stay float32.

    Outputs of layers in it may be bfloat16: convert what leaves it with `float`.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled and has_bfloat16(device))
