"""Training windows of speech and motion, and the rig clips (`sedtalker.data.rig_store`) they are cut from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from sedtalker.data.rig_store import (
    FEATURES,
    OPENINGS,
    RigArrays,
    feature_folders,
    read_arrays,
    read_features,
    read_rig_manifest,
    require_features,
)
from sedtalker.errors import DataError
from sedtalker.talker.model import MEAN_STYLE
from sedtalker.training.losses import Target

Float = NDArray[np.float32]
BEYOND = 0.25  # share of a window by which a start may be drawn beyond a clip's ends before it is clipped to them
FILE_CACHE = 4096  # clips whose small arrays stay in memory


class Example(NamedTuple):
    """A window of a clip, or with a leading dimension a batch of them."""

    features: Tensor  # (T, L, D)
    posterior: Tensor  # (T, C)
    intensity: Tensor  # (T,)
    style: Tensor  # (), index of the speaker or MEAN_STYLE
    target: Target


@dataclass(frozen=True)
class ClipInfo:
    """One clip of a store."""

    id: str
    speaker: str
    source: str
    split: str
    frames: int  # of 20 ms
    features: str = FEATURES  # folder of its features


class MotionStore(Protocol):
    """Clips that windows are cut from."""

    @property
    def clips(self) -> Sequence[ClipInfo]: ...

    def example(self, clip: ClipInfo, start: int, stop: int, style: int) -> Example:
        """Cut frames start..stop (20 ms each) from a clip; `style` is the speaker's index or MEAN_STYLE."""
        ...


class RigStore:
    """Clips of a rig store, whose values are blendshape weights.

    A clip occurs once for every folder of features, so that a talker learns all look-aheads of its encoder.
    """

    def __init__(self, folder: Path | str) -> None:
        """Open a store.

        Raises:
            DataError: it is not a rig store, features are missing, or pseudo-labels are not applied to all clips.
        """
        self.root = root = Path(folder)
        manifest = read_rig_manifest(root)
        if (root / OPENINGS).is_dir() and not manifest.openings_applied:
            raise DataError(
                f"pseudo-labelled openings that are not applied to all clips: {root}. "
                "Run python -m sedtalker.recipes lip_teacher (again), or delete the folder openings"
            )
        self.clips = []
        for name in feature_folders(root):
            require_features(root, [clip.id for clip in manifest.clips], name)
            self.clips += [ClipInfo(c.id, c.speaker, c.source, c.split, c.frames, name) for c in manifest.clips]
        self._cache: dict[str, RigArrays] = {}

    def _arrays(self, clip_id: str) -> RigArrays:
        """Read a clip's arrays; the first FILE_CACHE clips stay in memory."""
        if clip_id in self._cache:
            return self._cache[clip_id]
        arrays = read_arrays(self.root, clip_id)
        if len(self._cache) < FILE_CACHE:
            self._cache[clip_id] = arrays
        return arrays

    def example(self, clip: ClipInfo, start: int, stop: int, style: int) -> Example:
        """Frames `start` to `stop` of a clip, with the index of its style."""
        arrays = self._arrays(clip.id)
        names = ("weights", "loss_weight", "expression", "posterior", "intensity", "closed")
        weights, loss_weight, expression, posterior, intensity, closed = (
            torch.from_numpy(getattr(arrays, name)[start:stop].astype(np.float32)) for name in names
        )
        target = Target(weights, loss_weight, (weights - expression).clamp(0, 1), closed)
        features = read_features(self.root, clip.id, start, stop, clip.features)
        return Example(features, posterior, intensity, torch.tensor(style), target)


@dataclass
class Windows(Dataset[Example]):
    """Random windows; each has its own seed, so that an epoch is the same in any number of workers."""

    store: MotionStore
    clips: Sequence[ClipInfo]
    styles: dict[str, int]  # speaker -> index
    frames: int  # of a window; a shorter clip is padded with loss weight 0
    count: int  # windows per epoch
    seed: int
    epoch: int = 0
    source_weights: dict[str, float] = field(default_factory=dict)  # source -> sampling weight (default 1)
    style_dropout: float = 0.2  # share of the windows without their speaker's style

    def __post_init__(self) -> None:
        self.chance = _probabilities([clip.frames * self.source_weights.get(clip.source, 1.0) for clip in self.clips])

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        rng = np.random.default_rng([self.seed, self.epoch, index])
        clip = self.clips[rng.choice(len(self.clips), p=self.chance)]
        start = self._start(clip, rng)
        style = _draw_style(clip, self.styles, self.style_dropout, rng)
        example = self.store.example(clip, start, min(clip.frames, start + self.frames), style)
        return _pad(example, self.frames)

    def _start(self, clip: ClipInfo, rng: np.random.Generator) -> int:
        """Draw the first frame of a window; the start and the end of a long clip are drawn more often.

        Drawn uniformly, the first frames of a long clip would be rare, but every recording has them at inference.
        """
        last, beyond = max(0, clip.frames - self.frames), round(BEYOND * self.frames)
        return int(np.clip(rng.integers(-beyond, last + beyond + 1), 0, last))


@dataclass
class Batches(Dataset[Example]):
    """Batches of whole clips of similar length, to limit padding; an epoch is the same in any number of workers.

    Each device loads its share of every batch, padded to the longest clip of the batch.
    """

    store: MotionStore
    clips: Sequence[ClipInfo]
    styles: dict[str, int]  # speaker -> index
    size: int  # clips per batch
    count: int  # batches per epoch
    seed: int
    epoch: int = 0
    source_weights: dict[str, float] = field(default_factory=dict)  # source -> sampling weight (default 1)
    style_dropout: float = 0.2
    rank: int = 0  # of this device
    devices: int = 1

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, self.epoch])
        chance = _probabilities([self.source_weights.get(clip.source, 1.0) for clip in self.clips])
        drawn = rng.choice(len(self.clips), self.count * self.size, p=chance)
        by_length = sorted(drawn.tolist(), key=lambda number: self.clips[number].frames)
        self.batches = [by_length[place * self.size : (place + 1) * self.size] for place in rng.permutation(self.count)]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        rng = np.random.default_rng([self.seed, self.epoch, index])
        clips = [self.clips[number] for number in self.batches[index]]
        styles = [_draw_style(clip, self.styles, self.style_dropout, rng) for clip in clips]
        own = list(zip(clips, styles, strict=True))[self.rank :: self.devices]
        examples = [self.store.example(clip, 0, clip.frames, style) for clip, style in own]
        return collate(examples, max(clip.frames for clip in clips))


@dataclass
class WholeClips(Dataset[Example]):
    """Clips from their start, at most `frames` long, for validation; with the mean style, as for an unseen speaker."""

    store: MotionStore
    clips: Sequence[ClipInfo]
    frames: int

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Example:
        clip = self.clips[index]
        return self.store.example(clip, 0, min(clip.frames, self.frames), MEAN_STYLE)


def _probabilities(weights: Sequence[float]) -> NDArray[np.float64]:
    """Normalize weights to a sum of 1."""
    chances = np.array(weights, float)
    if not chances.sum() > 0:
        raise DataError(
            "nothing to train on: no clips, or every source_weights value is 0. Check splits and source_weights"
        )
    return chances / chances.sum()


def _draw_style(clip: ClipInfo, styles: dict[str, int], style_dropout: float, rng: np.random.Generator) -> int:
    return MEAN_STYLE if rng.random() < style_dropout else styles.get(clip.speaker, MEAN_STYLE)


def _pad(example: Example, frames: int) -> Example:
    """Pad an example to `frames` with its last frame, at loss weight 0 and closure weight 0."""
    missing = frames - len(example.intensity)
    if missing <= 0:
        return example

    def repeat_last(x: Tensor) -> Tensor:
        return torch.cat([x, x[-1:].expand(missing, *x.shape[1:])])

    def append_zeros(x: Tensor) -> Tensor:
        return torch.cat([x, x.new_zeros(missing, *x.shape[1:])])

    values, loss_weight, neutral, closed = example.target
    rest = None if neutral is None else repeat_last(neutral)
    target = Target(repeat_last(values), append_zeros(loss_weight), rest, append_zeros(closed))
    features, posterior, intensity = map(repeat_last, example[:3])
    return Example(features, posterior, intensity, example.style, target)


def device_share(count: int, batch_size: int, rank: int, devices: int) -> list[int]:
    """Indices of the examples of one device, so that the devices' batches together are those of a single device."""
    return [first + place for first in range(0, count, batch_size) for place in range(rank, batch_size, devices)]


def collate(examples: Sequence[Example], frames: int = 0) -> Example:
    """Stack examples to a batch, padded to the longest, or to `frames`."""
    frames = max(frames, *(len(example.intensity) for example in examples))
    examples = [_pad(example, frames) for example in examples]
    features, posterior, intensity, style = (torch.stack(parts) for parts in list(zip(*examples, strict=True))[:4])
    targets = [example.target for example in examples]
    stacked = [None if part[0] is None else torch.stack(part) for part in zip(*targets, strict=True)]
    return Example(features, posterior, intensity, style, Target(*stacked))  # type: ignore[arg-type]
