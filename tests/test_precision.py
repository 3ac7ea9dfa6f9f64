"""Products in bfloat16 only where the processor has them."""

from __future__ import annotations

import pytest
import torch

from sedtalker import precision
from sedtalker.training.encoder_tuning import load_tunable_encoder


@pytest.mark.parametrize("supported", [True, False])
def test_a_tuned_encoder_multiplies_in_bfloat16_only_where_the_processor_does(
    monkeypatch: pytest.MonkeyPatch, supported: bool
) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: supported)
    tuned = load_tunable_encoder("whisper-tiny.en", 3)
    kinds = []
    tuned.encoder.layers[3].register_forward_hook(
        lambda layer, inputs, output: kinds.append(torch.is_autocast_enabled("cpu"))
    )
    tuned(torch.zeros(1, 2, 2, 384))
    assert kinds == [supported]
