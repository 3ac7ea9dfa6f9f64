"""A whole recording read by a network of both directions in time, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

SEGMENT, CONTEXT = 3000, 250  # frames of a recording that are read at once, and those read again on both sides


def predict_segments(predict: Callable[[Float], Float], blocks: Iterable[Float]) -> Iterator[Float]:
    """Predictions (n, ...) of consecutive frames of a recording, of blocks (n, width) of its input.

    A recording up to `SEGMENT` + `CONTEXT` frames is read at once, a longer one in overlapping segments.

    Args:
        predict: the network, from inputs (T, width) to predictions (T, ...).
    """
    read = None  # frames from `CONTEXT` before the next segment on
    before = 0  # frames of context in it
    for block in blocks:
        read = block if read is None else np.concatenate([read, block])
        while len(read) > before + SEGMENT + CONTEXT:
            end = before + SEGMENT
            yield predict(read[: end + CONTEXT])[before:end]
            read, before = read[end - CONTEXT :], CONTEXT
    if read is not None:
        yield predict(read)[before:]
