"""Training clips of a vertex corpus at 50 Hz, as displacements in mm or PCA coefficients, also with changing emotions.

EmoVOCA has one emotion at one level per recording. The variants of a sentence share their sound and timing. Tracks with
a changing emotion are made in two ways: by a transition between two variants within a sentence, and by concatenation of
two sentences of a subject. Their source is "CORPUS-changing".
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
from sedtalker.data.vertex_emotion import DIARIZER, EMOTION_SOURCES, read_emotions
from sedtalker.data.vertex_store import Store, VertexClip
from sedtalker.emotion.track import BLEND
from sedtalker.errors import DataError
from sedtalker.files import atomic_write
from sedtalker.mel import FRAME_RATE
from sedtalker.pca import principal_components
from sedtalker.training.losses import MILLIMETRES, Target
from sedtalker.training.windows import ClipInfo, Example

Float = NDArray[np.float32]

BASIS_FRAMES = 3000  # training frames that a basis is fitted to; 180 MB for FLAME


@dataclass(frozen=True)
class Piece:
    """Part of a track: a clip and the frame from which it is used."""

    clip: VertexClip
    start: int  # frame (20 ms) of the track at which the piece begins
    offset: int  # frame of the track at which the clip's first frame would be


Track = tuple[Piece, ...]


class VertexClips:
    """Clips of one emotion, and for training also tracks in which it changes."""

    def __init__(
        self, store: Store, components: int | None = None, seed: int = 0, emotion: str = EMOTION_SOURCES[0]
    ) -> None:
        """Values are coefficients of a PCA basis of `components`; None: displacements in mm.

        Raises:
            DataError: speech features, or with `emotion` "diarizer" the tracks, are missing.
        """
        self.store = store
        self.basis = fit_basis(store, components, seed) if components else None
        self.tracks: dict[str, Track] = {clip.id: (Piece(clip, 0, 0),) for clip in store}
        self.clips = [ClipInfo(c.id, c.subject, store.corpus, c.split, _frames(c, store.fps)) for c in store]
        for track in make_changing_tracks(store.select("train"), store.fps, seed):
            name = " > ".join(f"{piece.clip.id}@{piece.start}" for piece in track)
            frames = track[-1].offset + _frames(track[-1].clip, store.fps)
            self.tracks[name] = track
            self.clips.append(ClipInfo(name, track[0].clip.subject, f"{store.corpus}-changing", "train", frames))
        _require_features(store)
        self._emotions = read_emotions(store) if emotion == DIARIZER else None  # key of a sound -> track
        self._cache: dict[str, NDArray[np.float16]] = {}  # coefficients by clip, 16 kB each

    def example(self, clip: ClipInfo, start: int, stop: int, style: int) -> Example:
        """Cut frames start..stop (20 ms each) from a clip or track."""
        track, times = self.tracks[clip.id], np.arange(start, stop)
        weights = _blend_weights(track, times)
        parts = [self.values(piece, times) for piece in track]
        values = parts[0]
        if len(parts) > 1:
            values = np.asarray(sum(weight[:, None] * part for weight, part in zip(weights, parts, strict=True)))
        labels = self.store.labels
        posterior = np.zeros((len(times), len(labels)), np.float32)
        intensity = np.zeros(len(times), np.float32)
        for piece, weight in zip(track, weights, strict=True):
            if self._emotions is None:
                posterior[:, labels.index(piece.clip.emotion)] += weight
                intensity += weight * np.float32(piece.clip.intensity)
                continue
            emotion = self._emotions[piece.clip.audio]
            own = np.clip(times - piece.offset, 0, len(emotion.intensity) - 1)
            posterior[:, : emotion.posterior.shape[1]] += weight[:, None] * emotion.posterior[own]
            intensity += weight * emotion.intensity[own]
        target = torch.from_numpy(np.asarray(values, np.float32))
        return Example(
            self._features(track, times),
            torch.from_numpy(posterior),
            torch.from_numpy(intensity),
            torch.tensor(style),
            Target(target, torch.ones(len(times), 1), None, torch.zeros(len(times))),  # one weight for all coordinates
        )

    def values(self, piece: Piece, times: NDArray[np.integer]) -> Float:
        """Values (T, K) of a piece's clip at frames (T,) of the track, held before and after the clip."""
        positions = (times - piece.offset + 0.5) / FRAME_RATE * self.store.fps - 0.5  # frames of the store
        positions = np.clip(positions, 0, piece.clip.frames - 1)
        first, last = int(positions.min()), min(int(positions.max()) + 2, piece.clip.frames)
        if self.basis is None:
            read = self.store.displacements(piece.clip, first, last).reshape(last - first, -1) * np.float32(MILLIMETRES)
        else:
            read = self._coefficients(piece.clip)[first:last]
        return interpolate_frames(read, positions - first)

    def _coefficients(self, clip: VertexClip) -> Float:
        """Coefficients (T, K) of a whole clip, computed at first use."""
        assert self.basis is not None
        if clip.id not in self._cache:
            flat = self.store.displacements(clip).reshape(clip.frames, -1)
            projected = flat @ (self.basis / np.square(self.basis).sum(axis=1, keepdims=True)).T
            self._cache[clip.id] = projected.astype(np.float16)
        return self._cache[clip.id].astype(np.float32)

    def _features(self, track: Track, times: NDArray[np.integer]) -> Tensor:
        """Features (T, L, D) of the piece that speaks at each frame."""
        speaking = np.searchsorted([piece.start for piece in track], times, side="right") - 1
        parts = []
        for number, piece in enumerate(track):
            own = times[speaking == number] - piece.offset
            if len(own):
                mapped = np.load(self.store.features(piece.clip), mmap_mode="r", allow_pickle=False)
                parts.append(mapped[np.clip(own, 0, len(mapped) - 1)])
        return torch.from_numpy(np.concatenate(parts))


def fit_basis(store: Store, components: int, seed: int = 0) -> Float:
    """Fit principal directions (K, 3 V) to displacements of the training clips, or read them from the store.

    The file name has a digest of the sampled frames, so that another seed, split or clip gives another basis.

    Displacements in metres = coefficients @ basis. The basis is scaled so that the mean square of the coefficients
    equals the mean square of the coordinates in mm: a loss on coefficients is then a loss on vertices.

    Raises:
        DataError: the training clips have fewer frames than components.
    """
    sample = _sampled_frames(store, seed)
    most = min(sample.shape)
    if not 1 <= components <= most:
        raise DataError(
            f"{len(sample)} training frames of {store.vertices} vertices cannot give {components} components: "
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
    """Sample at most BASIS_FRAMES displacements (N, 3 V) in metres, equally many from each training clip."""
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


def make_changing_tracks(clips: Sequence[VertexClip], fps: float, seed: int = 0) -> list[Track]:
    """Make two tracks per sentence: a change of variant within it, and a second sentence of another emotion."""
    rng = np.random.default_rng(seed)
    variants: defaultdict[tuple[str, str], list[VertexClip]] = defaultdict(list)
    for clip in clips:
        variants[clip.subject, clip.sentence].append(clip)
    tracks: list[Track] = []
    for (subject, sentence), group in sorted(variants.items()):
        first = group[rng.integers(len(group))]
        frames = _frames(first, fps)
        same = [clip for clip in group if _differs_in_emotion(clip, first) and clip.frames == first.frames]
        if same:
            change = int(rng.integers(frames // 4, max(frames // 4 + 1, 3 * frames // 4)))
            tracks.append((Piece(first, 0, 0), Piece(same[rng.integers(len(same))], change, 0)))
        others = [clip for clip in clips if clip.subject == subject and clip.sentence != sentence]
        others = [clip for clip in others if _differs_in_emotion(clip, first)]
        if others:
            tracks.append((Piece(first, 0, 0), Piece(others[rng.integers(len(others))], frames, frames)))
    return tracks


def _differs_in_emotion(one: VertexClip, other: VertexClip) -> bool:
    return (one.emotion, one.level) != (other.emotion, other.level)


def _frames(clip: VertexClip, fps: float) -> int:
    """Number of whole frames of 20 ms in a clip."""
    return int(clip.frames / fps * FRAME_RATE)


def _blend_weights(track: Track, times: NDArray[np.integer]) -> list[Float]:
    """Blend weights (T,) of each piece at frames of the track; they sum to 1, and a transition takes BLEND seconds."""
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
