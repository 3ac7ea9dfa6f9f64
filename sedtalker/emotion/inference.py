"""Diarizing a stream: frames become final a short look-ahead after they were heard."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sedtalker.emotion.diarizer import Diarizer
from sedtalker.speech import FRAME_RATE

LOOK_AHEAD = round(0.4 * FRAME_RATE)  # frames
CONTEXT = 8 * FRAME_RATE  # frames of the past that are read again with what is new


@dataclass(frozen=True)
class StreamState:
    """What a stream carries from one piece to the next."""

    features: Tensor  # (t, L, D), the context and what is not final yet
    pending: int  # how many of them, at the end, are not final yet


def diarize_piece(
    diarizer: Diarizer,
    features: Tensor,
    state: StreamState | None = None,
    look_ahead: int = LOOK_AHEAD,
    last: bool = False,
) -> tuple[Tensor, Tensor, StreamState]:
    """Posterior (t, C) and intensity (t,) of the frames that become final with a new piece of features (T, L, D).

    Every frame is read with up to 8 s of the past and at least `look_ahead` frames of the future. Diarizers are
    trained on utterances that are cut at random, so that an end of hearing is nothing new to them. The work a piece
    is that of 8 s: pieces of 0.2 s or more keep it far below real time.

    Args:
        last: nothing follows, and every frame becomes final.
    """
    held = features if state is None else torch.cat([state.features, features])
    pending = len(features) if state is None else state.pending + len(features)
    final = pending if last else max(0, pending - look_ahead)
    posterior, intensity = (
        diarizer.frames(held) if final else (torch.empty(0, len(diarizer.config.labels)), torch.empty(0))
    )
    first = len(held) - pending
    keep = min(len(held), pending - final + CONTEXT)
    # An even number of frames goes, so that pairs of frames stay the pairs that they were.
    keep += (len(held) - keep) % 2
    after = StreamState(held[len(held) - keep :], pending - final)
    return posterior[first : first + final], intensity[first : first + final], after
