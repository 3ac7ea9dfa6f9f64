"""A diarized stream: every frame comes once, in time, and nearly as offline."""

from __future__ import annotations

import torch
from test_emotion_diarizer import small_diarizer

from sedtalker.emotion.diarizer import Diarizer
from sedtalker.emotion.inference import diarize_piece, predict_frames


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


def test_frames_come_once_and_no_later_than_promised():
    features = torch.randn(333, 3, 24)
    posterior, counts = streamed(small_diarizer(), features, 25, 20)
    assert len(posterior) == 333
    assert counts[:4] == [5, 30, 55, 80]


def test_with_enough_to_hear_a_stream_gives_what_offline_gives():
    diarizer = small_diarizer()
    features = torch.randn(1_000, 3, 24)
    offline, _ = predict_frames(diarizer, features)
    posterior, _ = streamed(diarizer, features, 100, 200)
    assert (posterior - offline).abs().max() < 5e-3


def test_a_piece_shorter_than_the_look_ahead_gives_nothing_yet():
    posterior, _, state = diarize_piece(small_diarizer(), torch.randn(10, 3, 24))
    assert len(posterior) == 0
    assert state.pending == 10
