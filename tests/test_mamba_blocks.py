"""Blocks of the hybrid stack: parity with transformers' Mamba, carried state, bounded windows, experts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sedtalker.mamba.attention import RotaryPositions, WindowedAttention
from sedtalker.mamba.block import MambaBlock
from sedtalker.mamba.moe import MixtureOfExperts, balance_loss

SPLITS = [[1] * 12 + [50, 3, 60, 25], [150], [149, 1], [4] * 37 + [2]]


def test_mamba_equals_transformers_with_the_same_weights() -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.models.mamba.modeling_mamba import MambaMixer

    torch.manual_seed(0)
    config = transformers.MambaConfig(hidden_size=48, state_size=16, conv_kernel=4, expand=2, num_hidden_layers=1)
    theirs = MambaMixer(config, layer_idx=0).eval()
    run = getattr(theirs, "slow_forward", theirs.forward)  # the name of the pure PyTorch way before transformers 5
    ours = MambaBlock(48, states=16, conv=4, expand=2)
    theirs.load_state_dict(ours.state_dict())  # the names and shapes are mamba_ssm's, here and there
    x = torch.randn(2, 90, 48)
    torch.testing.assert_close(ours(x)[0], run(x), rtol=1e-4, atol=1e-5)


def test_steps_start_in_their_range() -> None:
    step = F.softplus(MambaBlock(64).dt_proj.bias)
    assert step.min() > 9e-4 and step.max() < 0.11
    assert step.max() / step.min() > 20


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("make", [lambda: MambaBlock(32, conv=8), lambda: WindowedAttention(32, window=20)])
def test_chunks_with_carried_state_equal_the_whole(make, split: list[int]) -> None:
    torch.manual_seed(0)
    block, x = make(), torch.randn(2, 150, 32)
    whole, _ = block(x)
    parts, state = [], None
    for piece in x.split(split, dim=1):
        y, state = block(piece, state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [lambda: MambaBlock(32), lambda: WindowedAttention(32, window=20)])
def test_blocks_are_causal(make) -> None:
    torch.manual_seed(0)
    block, x = make(), torch.randn(1, 60, 32)
    before = block(x)[0]
    x[:, 41:] += 1
    after = block(x)[0]
    torch.testing.assert_close(after[:, :41], before[:, :41], rtol=0, atol=1e-6)
    assert (after[:, 41:] - before[:, 41:]).abs().amax(-1).min() > 1e-4


def test_attention_sees_its_window_only() -> None:
    torch.manual_seed(0)
    block, x = WindowedAttention(32, window=20), torch.randn(1, 100, 32)
    before = block(x)[0]
    x[:, 30] += 1
    moved = (block(x)[0] - before).abs().amax(-1)[0] > 1e-6
    assert moved.nonzero().flatten().tolist() == list(range(30, 50))


def test_attention_equals_full_attention_under_a_band() -> None:
    """Independent: torch's scaled_dot_product_attention over all positions at once, with absolute rotary positions."""
    torch.manual_seed(0)
    block, x = WindowedAttention(32, heads=4, kv_heads=2, window=7, rotary="low-rank"), torch.randn(1, 40, 32)
    nn.init.normal_(block.rotary.heads_factor)
    q, k, v = (
        projection(x).unflatten(-1, (-1, 8)).transpose(1, 2)
        for projection in (block.q_proj, block.k_proj, block.v_proj)
    )
    q = block.rotary(q.unflatten(1, (2, 2))[:, None], first=1000).flatten(1, 3)
    k = block.rotary(k[:, None, :, None], first=1000).flatten(1, 3).repeat_interleave(2, dim=1)
    distance = torch.arange(40)[:, None] - torch.arange(40)
    mixed = F.scaled_dot_product_attention(
        q, k, v.repeat_interleave(2, dim=1), attn_mask=(distance >= 0) & (distance < 7)
    )
    torch.testing.assert_close(block(x)[0], block.o_proj(mixed.transpose(1, 2).flatten(2)), rtol=1e-4, atol=1e-5)


def test_low_rank_rotary_starts_as_the_plain_one() -> None:
    x = torch.randn(1, 1, 2, 2, 30, 8)
    torch.testing.assert_close(RotaryPositions(2, 8, rank=3)(x, 5), RotaryPositions(2, 8)(x, 5))


def test_rotary_scores_depend_on_distance_alone() -> None:
    q, k = torch.randn(1, 1, 1, 1, 1, 8), torch.randn(1, 1, 1, 1, 1, 8)
    rotary = RotaryPositions(1, 8)
    near = (rotary(q, 12) * rotary(k, 9)).sum()
    torch.testing.assert_close((rotary(q, 1012) * rotary(k, 1009)).sum(), near, rtol=1e-3, atol=1e-4)


def test_the_output_is_the_weighted_sum_of_the_selected_experts() -> None:
    torch.manual_seed(0)
    block, x = MixtureOfExperts(8, 16, experts=4, top_k=2), torch.randn(2, 5, 8)
    y, _ = block(x)
    for frame, got in zip(x.flatten(0, 1), y.flatten(0, 1), strict=True):
        probability = block.router(frame).softmax(-1)
        weight, chosen = probability.topk(2)
        expected = sum(w * block.experts[int(k)](frame) for w, k in zip(weight / weight.sum(), chosen, strict=True))
        torch.testing.assert_close(got, expected)


def test_dense_and_sparse_experts_are_equal() -> None:
    torch.manual_seed(0)
    block, x = MixtureOfExperts(8, 16, experts=3, top_k=3), torch.randn(2, 5, 8)
    weight, chosen = block.router(x.flatten(0, 1)).softmax(-1).topk(3)
    torch.testing.assert_close(block(x)[0].flatten(0, 1), block._run_selected(x.flatten(0, 1), weight, chosen))


def test_balance_loss_of_even_and_of_single_use() -> None:
    even = torch.full((8, 4), 0.25)
    assert balance_loss(even, torch.arange(8)[:, None] % 4).item() == pytest.approx(1)
    one = F.one_hot(torch.zeros(8, dtype=torch.long), 4).float()
    assert balance_loss(one, torch.zeros(8, 1, dtype=torch.long)).item() == pytest.approx(4)
