"""Inference of the diarizer: windows, overlap-add, tracks and streams."""

from __future__ import annotations

import pytest
import torch
from test_emotion_diarizer import PAIR, SMALL, small_diarizer

from sedtalker.emotion.diarizer import Diarizer, pool_frames
from sedtalker.emotion.inference import (
    diarize,
    diarize_piece,
    overlap_add,
    predict_frames,
    sliding_windows,
    upsample_steps,
)
from sedtalker.labels import LABELS
from sedtalker.speech import Windowing


def streamed(diarizer: Diarizer, features: torch.Tensor, piece: int, look_ahead: int) -> tuple[torch.Tensor, list[int]]:
    """The posterior of a stream, and how many frames were final after each piece."""
    state, posteriors, counts = None, [], []
    pieces = features.split(piece)
    for number, part in enumerate(pieces):
        posterior, intensity, state = diarize_piece(diarizer, part, state, look_ahead, last=number == len(pieces) - 1)
        assert len(posterior) == len(intensity)
        posteriors.append(posterior)
        counts.append(sum(len(p) for p in posteriors))
    return torch.cat(posteriors), counts


def test_each_frame_comes_once_within_the_look_ahead():
    features = torch.randn(333, 3, 24)
    posterior, counts = streamed(small_diarizer(), features, 25, 20)
    assert len(posterior) == 333
    assert counts[:4] == [5, 30, 55, 80]


def test_with_enough_look_ahead_a_stream_equals_offline():
    diarizer = small_diarizer()
    features = torch.randn(1_000, 3, 24)
    offline = predict_frames(diarizer, features).posterior
    posterior, _ = streamed(diarizer, features, 100, 200)
    assert (posterior - offline).abs().max() < 5e-3


def test_a_piece_shorter_than_the_look_ahead_yields_no_frames():
    posterior, _, state = diarize_piece(small_diarizer(), torch.randn(10, 3, 24))
    assert len(posterior) == 0
    assert state.pending == 10


@pytest.mark.parametrize("config", [SMALL, PAIR])
def test_blocks_of_any_length_equal_the_whole(config):
    diarizer = small_diarizer(config)
    features = torch.randn(2_711, 3, 24)
    whole = predict_frames(diarizer, features)
    blocks = predict_frames(diarizer, iter(features.split([1, 200, 333, 1700, 477])))
    for one, other in zip(whole[:2], blocks[:2], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_windows_equal_one_pass_over_long_audio():
    """The memory of the recurrent layer is shorter than the overlap, so that windows have almost no effect."""
    diarizer = small_diarizer()
    features = torch.randn(6_000, 3, 24)
    windowed = predict_frames(diarizer, features).posterior
    at_once = upsample_steps(diarizer(pool_frames(features[None]))[0].mean(0).softmax(-1), 6_000)[0]
    assert (windowed - at_once).abs().max() < 0.02


def test_overlap_add_is_a_linear_cross_fade():
    for length in (1, 5, 30, 31, 50, 51, 100, 1003):
        steps = torch.arange(float(length))[:, None]
        lengths: list[int] = []

        def predict(window: torch.Tensor, lengths: list[int] = lengths) -> torch.Tensor:
            lengths.append(len(window))
            return torch.cat([window, torch.full_like(window, len(lengths))], dim=1)

        output = torch.cat(list(overlap_add(steps.split(7), predict, window=30, overlap=10)))
        torch.testing.assert_close(output[:, :1], steps)  # equal predictions do not change
        assert max(lengths) <= 30 and len(output) == length
        number = output[:, 1]  # of the window: from one to the next in ten equal steps
        assert number[:20].eq(1).all()
        if length > 30:
            torch.testing.assert_close(number[20:30], 1 + (torch.arange(10) + 0.5) / 10)
            assert number[-1] == len(lengths)


def test_sliding_windows_have_their_context():
    frames = torch.arange(103.0)[:, None, None]
    windows = Windowing(left=4, hop=10, right=6)
    new = []
    for window, first, last in sliding_windows(iter(frames.split(7)), windows):
        assert len(window) <= 4 + 10 + 6
        new.append(window[first:last])
        start = int(window[first, 0, 0])
        assert first == min(4, start)
        assert len(window) - last == min(6, 103 - start - (last - first))
    torch.testing.assert_close(torch.cat(new), frames)


def test_steps_and_upsampling_keep_time():
    ramp = torch.arange(101.0)[None, :, None, None] * torch.tensor([1.0, -1.0])
    steps = pool_frames(ramp + torch.tensor([0.0, 100.0]))
    assert steps.shape == (1, 51, 1, 2)
    assert steps[0, 24, 0, 0] < 0 < steps[0, 26, 0, 0]  # the two cross at the fiftieth frame
    back = upsample_steps(torch.arange(51.0)[None, :, None] * 2 + 0.5, 101)[0, :, 0]
    torch.testing.assert_close(back[2:98], torch.arange(2.0, 98.0))


def test_the_track_has_the_audios_length():
    diarizer = small_diarizer()
    track = diarize(diarizer, torch.randn(120, 3, 24), duration=2.385, audio="a.wav")
    assert len(track) == 120
    assert (track.duration, track.audio, track.labels) == (2.385, "a.wav", LABELS)
