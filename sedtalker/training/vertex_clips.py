"""A vertex corpus as clips for the talker's training: at 50 Hz, in millimetres or a basis, with emotions that change.

EmoVOCA says every sentence with one emotion at one level. Its variants of a sentence share the sound and the timing, so
clips whose emotion changes are made by passing from one variant to another within a sentence, and by saying two
sentences of a subject one after the other. They are drawn under the source "CORPUS-changing".
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sedtalker.curves import interpolate_frames
from sedtalker.data.vertex_store import Store, VertexClip
from sedtalker.emotion.track import BLEND
from sedtalker.errors import DataError
from sedtalker.files import atomic_write
from sedtalker.pca import principal_components
from sedtalker.speech import FRAME_RATE
from sedtalker.training.losses import MILLIMETRES, Target
from sedtalker.training.windows import ClipInfo, Example

Float = NDArray[np.float32]

BASIS_FRAMES = 3000  # training frames that a basis is fitted to: 180 MB of FLAME's vertices


@dataclass(frozen=True)
class Piece:
    """Part of a track: a clip, from where it is heard and felt."""

    clip: VertexClip
    start: int  # frame of 20 ms of the track at which the piece begins
    offset: int  # frame of the track at which the clip's own time begins


Track = tuple[Piece, ...]


class VertexClips:
    """Clips of one emotion, and for training also tracks in which it changes."""

    def __init__(self, store: Store, components: int | None = None, seed: int = 0) -> None:
        """`components` of a PCA basis, whose coefficients are then the values; None for displacements in mm."""
        self.store = store
        self.basis = fit_basis(store, components, seed) if components else None
        self.tracks: dict[str, Track] = {clip.id: (Piece(clip, 0, 0),) for clip in store}
        self.clips = [ClipInfo(c.id, c.subject, store.corpus, c.split, _frames(c, store.fps)) for c in store]
        for track in changing_tracks(store.select("train"), store.fps, seed):
            name = " > ".join(f"{piece.clip.id}@{piece.start}" for piece in track)
            frames = track[-1].offset + _frames(track[-1].clip, store.fps)
            self.tracks[name] = track
            self.clips.append(ClipInfo(name, track[0].clip.subject, f"{store.corpus}-changing", "train", frames))
        _require_features(store)
        self._kept: dict[str, NDArray[np.float16]] = {}  # coefficients by clip, 16 kB each

    def example(self, clip: ClipInfo, start: int, stop: int, style: int) -> Example:
        """Frames start..stop (of 20 ms) of a clip or track."""
        track, times = self.tracks[clip.id], np.arange(start, stop)
        shares = _shares(track, times)
        values = sum(share[:, None] * self.values(piece, times) for piece, share in zip(track, shares, strict=True))
        labels = self.store.labels
        posterior = np.zeros((len(times), len(labels)), np.float32)
        intensity = np.zeros(len(times), np.float32)
        for piece, share in zip(track, shares, strict=True):
            posterior[:, labels.index(piece.clip.emotion)] += share
            intensity += share * np.float32(piece.clip.intensity)
        target = torch.from_numpy(np.asarray(values, np.float32))
        return Example(
            self._features(track, times),
            torch.from_numpy(posterior),
            torch.from_numpy(intensity),
            torch.tensor(style),
            Target(target, torch.ones_like(target), None, torch.zeros(len(times))),
        )

    def values(self, piece: Piece, times: NDArray[np.integer]) -> Float:
        """What a piece's clip shows at frames of the track, (T, K); before and after its own time it stands still."""
        wanted = (times - piece.offset + 0.5) / FRAME_RATE * self.store.fps - 0.5  # frames of the store
        wanted = np.clip(wanted, 0, piece.clip.frames - 1)
        first, last = int(wanted.min()), min(int(wanted.max()) + 2, piece.clip.frames)
        if self.basis is None:
            read = self.store.displacements(piece.clip, first, last).reshape(last - first, -1) * np.float32(MILLIMETRES)
        else:
            read = self._coefficients(piece.clip)[first:last]
        return interpolate_frames(read, wanted - first)

    def _coefficients(self, clip: VertexClip) -> Float:
        """Coefficients (T, K) of a whole clip, projected when first asked for."""
        assert self.basis is not None
        if clip.id not in self._kept:
            flat = self.store.displacements(clip).reshape(clip.frames, -1)
            projected = flat @ (self.basis / np.square(self.basis).sum(axis=1, keepdims=True)).T
            self._kept[clip.id] = projected.astype(np.float16)
        return self._kept[clip.id].astype(np.float32)

    def _features(self, track: Track, times: NDArray[np.integer]) -> Tensor:
        """(T, L, D), of the piece that is heard at each frame."""
        speaking = np.searchsorted([piece.start for piece in track], times, side="right") - 1
        parts = []
        for number, piece in enumerate(track):
            own = times[speaking == number] - piece.offset
            if len(own):
                mapped = np.load(self.store.features(piece.clip), mmap_mode="r", allow_pickle=False)
                parts.append(mapped[np.clip(own, 0, len(mapped) - 1)])
        return torch.from_numpy(np.concatenate(parts))


def fit_basis(store: Store, components: int, seed: int = 0) -> Float:
    """Principal directions (K, 3 V) of the training clips' displacements, kept in the store once fitted.

    The file is named by a digest of what the basis is fitted to: another seed, split or clip gives another basis.

    Scaled so that the mean square of the coefficients is the mean square of the coordinates in millimetres: an error
    of the coefficients is then an error of the vertices, and displacements in metres = coefficients @ basis.

    Raises:
        DataError: the training clips have fewer frames than components.
    """
    sample = _sampled_frames(store, seed)
    most = min(sample.shape)
    if not 1 <= components <= most:
        raise DataError(
            f"{len(sample)} training frames of {store.vertices} vertices give no {components} components: "
            f"{store.root}. Use 1 to {most} (model.coefficients)"
        )
    digest = hashlib.sha256(f"{seed} {components} {sample.shape} ".encode() + sample.tobytes()).hexdigest()[:16]
    path = store.root / f"basis_{components}_{digest}.npy"
    if path.is_file():
        return np.load(path, allow_pickle=False)
    # not centred: a still face has no displacement, so zero coefficients must mean the template
    directions = principal_components(sample, components)
    scale = np.sqrt(3 * store.vertices / components) / MILLIMETRES
    basis = (directions * scale).astype(np.float32)
    with atomic_write(path) as temp_path:
        np.save(temp_path, basis)
    return basis


def _sampled_frames(store: Store, seed: int) -> Float:
    """At most BASIS_FRAMES displacements (N, 3 V) in metres, as many of each training clip."""
    clips, rng = store.select("train"), np.random.default_rng(seed)
    if not clips:
        raise DataError(f"no training clips: {store.root}. Give their subjects the train split")
    chosen = rng.permutation(len(clips))[:BASIS_FRAMES]
    each = max(1, BASIS_FRAMES // len(chosen))
    read = []
    for number in chosen:
        clip = clips[number]
        frames = np.sort(rng.permutation(clip.frames)[:each])
        read.append(np.asarray(store.memmap(clip)[frames], np.float32).reshape(len(frames), -1))
    return np.concatenate(read)


def changing_tracks(clips: Sequence[VertexClip], fps: float, seed: int = 0) -> list[Track]:
    """For every sentence a change of variant on the way, and the sentence followed by another with another emotion."""
    rng = np.random.default_rng(seed)
    variants: defaultdict[tuple[str, str], list[VertexClip]] = defaultdict(list)
    for clip in clips:
        variants[clip.subject, clip.sentence].append(clip)
    tracks: list[Track] = []
    for (subject, sentence), group in sorted(variants.items()):
        first = group[rng.integers(len(group))]
        frames = _frames(first, fps)
        same = [clip for clip in group if _feels_other(clip, first) and clip.frames == first.frames]
        if same:
            change = int(rng.integers(frames // 4, max(frames // 4 + 1, 3 * frames // 4)))
            tracks.append((Piece(first, 0, 0), Piece(same[rng.integers(len(same))], change, 0)))
        others = [clip for clip in clips if clip.subject == subject and clip.sentence != sentence]
        others = [clip for clip in others if _feels_other(clip, first)]
        if others:
            tracks.append((Piece(first, 0, 0), Piece(others[rng.integers(len(others))], frames, frames)))
    return tracks


def _feels_other(one: VertexClip, other: VertexClip) -> bool:
    return (one.emotion, one.level) != (other.emotion, other.level)


def _frames(clip: VertexClip, fps: float) -> int:
    """Whole frames of 20 ms of a clip."""
    return int(clip.frames / fps * FRAME_RATE)


def _shares(track: Track, times: NDArray[np.integer]) -> list[Float]:
    """How much each piece shows at frames of the track, (T,) each, together 1: a change takes BLEND seconds."""
    begun = [np.clip((times - piece.start) / (BLEND * FRAME_RATE) + 0.5, 0, 1) for piece in track[1:]]
    edges = [np.ones(len(times)), *begun, np.zeros(len(times))]
    return [(now - later).astype(np.float32) for now, later in pairwise(edges)]


def _require_features(store: Store) -> None:
    lacking = sorted({clip.audio for clip in store if not store.features(clip).is_file()})
    if lacking:
        raise DataError(
            f"no speech features of {lacking[0]} and {len(lacking) - 1} more sounds: {store.root}. "
            "Run sedtalker data prepare again, without --encoder none"
        )
