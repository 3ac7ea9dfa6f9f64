"""A mark in the luminance of pictures: 72 bits with an error-correcting code, spread over a grid of the whole picture.

The grid has the same number of cells at every size of the picture, so that the mark is found after scaling. A cell is
one level brighter or darker, by a pseudo-random sign and a bit of the code. The payload is 16 bits of the tool, 40 of
the record's sha256 and 16 of a checksum (CRC-16-CCITT), and is coded by the convolutional code of rate 1/2 and
constraint length 7 (generators 133, 171 octal). The decoder compares each cell with its neighbours (spread spectrum:
Cox et al. 1997) and decodes the sums of the cells by Viterbi's algorithm.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Float = NDArray[np.float64]

ROWS, COLUMNS = 72, 64  # cells
TOOL_ID = 0x5ED7
HASH_BYTES = 5
AMPLITUDE = 1  # levels of 255, up or down

_MEMORY = 6  # bits of the code's state
_GENERATORS = (0o133, 0o171)
_BITS = 16 + 8 * HASH_BYTES + 16
_CODED = len(_GENERATORS) * (_BITS + _MEMORY)
_FLAT = 0.5  # squared or cubed levels; bounds the weight of cells without texture


class Mark:
    """The mark with the first bytes of a record's sha256."""

    def __init__(self, digest: bytes) -> None:
        self.digest = digest[:HASH_BYTES]
        self._patterns: dict[tuple[int, ...], Bytes] = {}

    @cached_property
    def cells(self) -> NDArray[np.int8]:
        """Sign of each cell, (ROWS, COLUMNS)."""
        index, signs = _layout()
        bits = np.array(_encode(_payload(self.digest)))
        return ((1 - 2 * bits[index]) * signs).astype(np.int8)

    def pattern(self, height: int, width: int) -> NDArray[np.int8]:
        """Change of each pixel in levels, (H, W)."""
        rows = (2 * np.arange(height) + 1) * ROWS // (2 * height)
        columns = (2 * np.arange(width) + 1) * COLUMNS // (2 * width)
        return AMPLITUDE * self.cells[rows][:, columns]

    def add_to_luma(self, plane: Bytes) -> None:
        """Add the mark to a plane (H, W) of video luma, 16 to 235, in place."""
        plane += self._modular(plane.shape)

    def add(self, frame: Bytes) -> Bytes:
        """A frame (H, W, 3 or 4) with the mark in its colours; an alpha channel stays as it is."""
        colors = np.minimum(np.maximum(frame[..., :3], AMPLITUDE), 255 - AMPLITUDE)
        colors += self._modular(colors.shape)
        return colors if frame.shape[2] == 3 else np.concatenate([colors, frame[..., 3:]], axis=2)

    def _modular(self, shape: tuple[int, ...]) -> Bytes:
        """The pattern for planes of this shape, modulo 256, so that adding it to bytes subtracts as well."""
        if shape not in self._patterns:
            pattern = self.pattern(*shape[:2]).view(np.uint8)
            channels = (..., *[None] * (len(shape) - 2))
            self._patterns = {shape: np.ascontiguousarray(np.broadcast_to(pattern[channels], shape))}
        return self._patterns[shape]


@dataclass(frozen=True)
class Found:
    """A mark that was read."""

    digest: bytes  # the first HASH_BYTES of the record's sha256
    frames: int  # frames that were added up until it could be read


class MarkReader:
    """Reads the mark from frames of one picture or video, which are added up."""

    def __init__(self) -> None:
        self._sums = np.zeros((ROWS, COLUMNS))
        self.frames = 0

    def push(self, frame: Bytes) -> None:
        """Add a frame (H, W), (H, W, 3) or (H, W, 4)."""
        self._sums += cell_values(luminance(frame))
        self.frames += 1

    def read(self) -> Found | None:
        """The mark of the frames so far; None without a valid one."""
        (digest,) = _read_payloads(self._sums[None])
        return None if digest is None else Found(digest, self.frames)


def read_mark(frame: Bytes) -> bytes | None:
    """The first bytes of the record's sha256 in one picture; None without a valid mark."""
    return read_marks([frame])[0]


def read_marks(frames: Sequence[Bytes]) -> list[bytes | None]:
    """`read_mark` of single pictures of any sizes, decoded together."""
    return _read_payloads(np.stack([cell_values(luminance(frame)) for frame in frames]))


def _read_payloads(cells: Float) -> list[bytes | None]:
    """The first bytes of the record's sha256 in values of cells (N, ROWS, COLUMNS); None without a valid mark."""
    index, signs = _layout()
    order = np.argsort(index.ravel(), kind="stable")
    starts = np.searchsorted(index.ravel()[order], np.arange(_CODED))
    signed = (cells * signs).reshape(len(cells), -1)[:, order]
    packed = np.packbits(_decode(np.add.reduceat(signed, starts, axis=1)).astype(np.uint8), axis=1)
    numbers = [row.tobytes() for row in packed]
    tool = TOOL_ID.to_bytes(2, "big")
    return [n[2:-2] if n[:2] == tool and _checksum(n[:-2]) == n[-2:] else None for n in numbers]


def luminance(frame: Bytes) -> NDArray[np.float32]:
    """Luminance (H, W) of a frame by the weights of ITU-R BT.709."""
    if frame.ndim == 2:
        return frame.astype(np.float32)
    return frame[..., :3].astype(np.float32) @ np.array([0.2126, 0.7152, 0.0722], np.float32)


def cell_values(luma: NDArray[np.float32]) -> Float:
    """Difference of each cell from its four neighbours, (ROWS, COLUMNS); textured cells get small weights.

    The cube of the mean difference around a cell is an approximation of the weight by which a difference of heavy
    tails is as reliable as one of a flat area.
    """
    means = _cell_means(luma)
    padded = np.pad(means, 1, mode="reflect")
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    difference = means - around / 4
    size = np.pad(np.abs(difference), 1, mode="reflect")
    texture = sum(size[i : i + ROWS, j : j + COLUMNS] for i in range(3) for j in range(3)) / 9
    values: Float = difference / (texture**3 + _FLAT)
    return values


def _cell_means(luma: NDArray[np.float32]) -> Float:
    """Mean of each cell; its borders need not be whole pixels."""
    means = luma.astype(np.float64)
    for axis, cells in ((0, ROWS), (1, COLUMNS)):
        size = means.shape[axis]
        sums = np.insert(np.cumsum(means, axis), 0, 0, axis)
        edges = np.arange(cells + 1) * size / cells
        below = np.minimum(edges.astype(int), size - 1)
        share = (edges - below).reshape((-1, 1) if axis == 0 else (1, -1))
        at = np.take(sums, below, axis) * (1 - share) + np.take(sums, below + 1, axis) * share
        means = np.diff(at, axis=axis) * cells / size
    return means


@cache
def _layout() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Index of the coded bit and sign of each cell; the same in every version of numpy."""
    state, numbers = 0x2545F491, []
    for _ in range(2 * ROWS * COLUMNS):  # xorshift
        state ^= (state << 13) & 0xFFFFFFFF
        state ^= state >> 17
        state ^= (state << 5) & 0xFFFFFFFF
        numbers.append(state)
    drawn = np.array(numbers, np.int64).reshape(2, ROWS, COLUMNS)
    index = np.empty(ROWS * COLUMNS, np.int64)
    index[np.argsort(drawn[0].ravel(), kind="stable")] = np.arange(ROWS * COLUMNS) % _CODED
    return index.reshape(ROWS, COLUMNS), np.where(drawn[1] >> 16 & 1, 1, -1)


def _checksum(payload: bytes) -> bytes:
    return binascii.crc_hqx(payload, 0xFFFF).to_bytes(2, "big")


def _payload(digest: bytes) -> list[int]:
    data = TOOL_ID.to_bytes(2, "big") + digest
    return [byte >> (7 - k) & 1 for byte in data + _checksum(data) for k in range(8)]


def _parity(value: int) -> int:
    return value.bit_count() & 1


def _encode(bits: list[int]) -> list[int]:
    state, coded = 0, []
    for bit in [*bits, *[0] * _MEMORY]:
        register = bit << _MEMORY | state
        coded += [_parity(register & generator) for generator in _GENERATORS]
        state = register >> 1
    return coded


def _decode(values: Float) -> NDArray[np.int64]:
    """The most probable bits (N, _BITS) of the sums (N, _CODED), which are positive for a coded 0."""
    states = np.arange(1 << _MEMORY)
    newest = states >> (_MEMORY - 1)
    before = np.stack([(states << 1 & (1 << _MEMORY) - 1) | last for last in (0, 1)])  # the two states before a state
    registers = newest << _MEMORY | before
    expected = np.array(
        [[[1 - 2 * _parity(int(r) & g) for r in row] for row in registers] for g in _GENERATORS], np.float64
    )
    score = np.full((len(values), 1 << _MEMORY), -np.inf)
    score[:, 0] = 0.0
    choices = []
    for pair in values.reshape(len(values), -1, len(_GENERATORS)).swapaxes(0, 1):
        candidates = score[:, before] + np.tensordot(pair, expected, 1)  # (N, 2, states)
        chosen = candidates.argmax(1)
        choices.append(chosen)
        score = candidates.max(1)
    rows = np.arange(len(values))
    state = np.zeros(len(values), np.int64)
    bits = []
    for chosen in reversed(choices):
        bits.append(newest[state])
        state = before[chosen[rows, state], state]
    return np.stack(bits[::-1][:_BITS], axis=1)
