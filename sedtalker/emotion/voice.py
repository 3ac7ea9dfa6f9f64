"""A speaker's voice: mean and deviation of encoder states over speech, and their running estimate.

A diarizer subtracts from its input what is constant in a voice or channel. The states are layer-normed steps of
`sedtalker.emotion.diarizer.pool_frames`; the evidence is their number in seconds, weighted by speech activity.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sedtalker.errors import CheckpointError, as_path, reason_of
from sedtalker.files import atomic_write

KIND = "voice-profile"
VERSION = 1
PARTS = "mean", "deviation"  # names of a profile's tensors
PROJECTED = "projected_"  # before the names of those of `ProjectedVoice`
LONGEST_EVIDENCE = 60.0  # s; longer evidence weighs as much, so that an estimate follows a change of speaker
LEAST_DEVIATION = 1e-2  # of a state; limits the effect of a profile with little evidence

Array = NDArray[np.float32]


class ProjectedVoice(NamedTuple):
    """Mean and deviation of a voice's projected inputs of a diarizer's networks (`DiarizerConfig.projected_voice`)."""

    mean: Array  # (P,)
    deviation: Array  # (P,), 0 or more
    network: str  # `fingerprint` of the networks


@dataclass(frozen=True)
class VoiceProfile:
    """Mean and deviation of a speaker's encoder states.

    Raises:
        CheckpointError: shapes differ, or values are not finite.
    """

    mean: Array  # (L, D)
    deviation: Array  # (L, D), 0 or more
    seconds: float  # of speech
    encoder: str  # whose states
    projected: ProjectedVoice | None = None  # of one diarizer; others predict theirs from the states

    def __post_init__(self) -> None:
        pairs = [(self.mean, self.deviation), *([] if self.projected is None else [self.projected[:2]])]
        finite = np.isfinite(self.seconds) and all(np.isfinite(part).all() for pair in pairs for part in pair)
        fits = all(mean.shape == deviation.shape for mean, deviation in pairs)
        if self.mean.ndim != 2 or not fits or not finite or self.seconds < 0:
            raise CheckpointError(
                f"not a voice profile: mean {self.mean.shape}, deviation {self.deviation.shape}, {self.seconds} s. "
                "Both need the same shape (L, D), and all values must be finite"
            )

    def is_of(self, network: str, size: int) -> bool:
        """Whether the profile has the projected inputs (size,) of networks with this fingerprint."""
        projected = self.projected
        return projected is not None and projected.network == network and projected.mean.shape == (size,)

    def merge(self, other: VoiceProfile) -> VoiceProfile:
        """The profile of the speech of both.

        Raises:
            CheckpointError: the profiles are of different encoders.
        """
        if (self.encoder, self.mean.shape) != (other.encoder, other.mean.shape):
            raise CheckpointError(
                f"voice profiles of different encoders: {self.encoder}, {other.encoder}. Enroll the voice again"
            )
        both = VoiceEstimate.of_profile(self, limit=None).add(VoiceEstimate.of_profile(other, limit=None))
        merged = both.profile(self.encoder, self.mean.shape[0])
        if self.projected is None or other.projected is None or self.projected.network != other.projected.network:
            return merged
        known = VoiceEstimate.of_projected(self, limit=None).add(VoiceEstimate.of_projected(other, limit=None))
        return replace(merged, projected=ProjectedVoice(*known.arrays(), self.projected.network))

    def save(self, path: Path | str) -> None:
        """Write the profile as safetensors. Raises SEDTalkerError if the file cannot be written."""
        from safetensors.numpy import save

        described = {"kind": KIND, "version": VERSION, "seconds": float(self.seconds), "encoder": self.encoder}
        tensors = {"mean": self.mean.astype(np.float32), "deviation": self.deviation.astype(np.float32)}
        if self.projected is not None:
            described["network"] = self.projected.network
            tensors |= {PROJECTED + name: tensor for name, tensor in zip(PARTS, self.projected[:2], strict=True)}
        with atomic_write(Path(path)) as temp_path:
            temp_path.write_bytes(save(tensors, metadata={"sedtalker": json.dumps(described)}))

    @classmethod
    def load(cls, path: Path | str) -> VoiceProfile:
        """Read a profile.

        Raises:
            CheckpointError: the file is missing or is not a voice profile of this version.
        """
        from safetensors import SafetensorError, safe_open

        file = as_path(path, "a voice profile", CheckpointError)
        if not file.is_file():
            raise CheckpointError(f"no voice profile: {path}. Make one with: sedtalker voice enroll")
        try:
            with safe_open(file, "np") as content:
                described = json.loads((content.metadata() or {})["sedtalker"])
                kind, version = described["kind"], described["version"]
                mean, deviation = (content.get_tensor(name).astype(np.float32) for name in PARTS)
                seconds, encoder = float(described["seconds"]), str(described["encoder"])
                projected = None
                if "network" in described:  # profiles of diarizers without projected voices have none
                    one, other = (content.get_tensor(PROJECTED + name).astype(np.float32) for name in PARTS)
                    projected = ProjectedVoice(one, other, str(described["network"]))
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            reason = reason_of(error)[:120]
            raise CheckpointError(
                f"not a voice profile: {path} ({reason}). Make one with: sedtalker voice enroll"
            ) from error
        if (kind, version) != (KIND, VERSION):
            raise CheckpointError(f"a voice profile of version {version}: {path}. Enroll the voice again")
        return cls(mean, deviation, seconds, encoder, projected)


def fingerprint(biases: Sequence[Array]) -> str:
    """Identity of a diarizer's networks, of the biases (width,) of their projections."""
    return hashlib.sha256(np.concatenate(biases).astype("<f4").tobytes()).hexdigest()[:16]


class VoiceEstimate(NamedTuple):
    """Sums over the speech of a voice, tensors or arrays; a batch of estimates has leading dimensions (...)."""

    sums: Any  # (..., size), of states times speech activity times their duration
    squares: Any  # (..., size), of squared states
    seconds: Any  # (...,), evidence
    reference: Any  # (...,), evidence from before the recording

    @classmethod
    def empty(cls, size: int, *batch: int) -> VoiceEstimate:
        """Tensors without evidence."""
        import torch  # of the networks that train; the compiled ones start from arrays

        return cls(torch.zeros(*batch, size), torch.zeros(*batch, size), torch.zeros(batch), torch.zeros(batch))

    @classmethod
    def empty_arrays(cls, size: int) -> VoiceEstimate:
        """Arrays of one estimate without evidence."""
        return cls(*(np.zeros(shape, np.float32) for shape in (size, size, (), ())))

    @classmethod
    def of_profile(cls, profile: VoiceProfile, limit: float | None = LONGEST_EVIDENCE) -> VoiceEstimate:
        """Arrays of the estimate that starts from a profile, whose evidence counts up to `limit` seconds."""
        return cls.of_statistics(profile.mean, profile.deviation, profile.seconds, limit)

    @classmethod
    def of_projected(cls, profile: VoiceProfile, limit: float | None = LONGEST_EVIDENCE) -> VoiceEstimate:
        """The same of a profile's projected inputs."""
        assert profile.projected is not None
        return cls.of_statistics(profile.projected.mean, profile.projected.deviation, profile.seconds, limit)

    @classmethod
    def of_statistics(
        cls, mean: Array, deviation: Array, seconds: float, limit: float | None = LONGEST_EVIDENCE
    ) -> VoiceEstimate:
        """Arrays of the estimate that starts from a mean and a deviation; the evidence counts up to `limit` seconds."""
        weight = np.float32(seconds if limit is None else min(seconds, limit))
        mean, deviation = (np.asarray(part, np.float32).ravel() for part in (mean, deviation))
        squares = (mean * mean + deviation * deviation) * weight
        return cls(mean * weight, squares, np.array(weight), np.array(weight))

    def add(self, other: VoiceEstimate) -> VoiceEstimate:
        """The estimate with the evidence of both; the reference is this one's."""
        return VoiceEstimate(
            self.sums + other.sums, self.squares + other.squares, self.seconds + other.seconds, self.reference
        )

    def sum_of(self, shares: Any) -> VoiceEstimate:
        """References (N,): the evidence of these estimates (B,), each times a share (N, B)."""
        seconds = shares @ self.seconds
        return VoiceEstimate(shares @ self.sums, shares @ self.squares, seconds, seconds).limited()

    def limited(self) -> VoiceEstimate:
        """The same mean and deviation, with at most `LONGEST_EVIDENCE` seconds of evidence."""
        share = (LONGEST_EVIDENCE / self.seconds.clip(min=1e-9)).clip(max=1.0)
        return VoiceEstimate(
            self.sums * share[..., None], self.squares * share[..., None], self.seconds * share, self.reference * share
        )

    def statistics(self) -> tuple[Any, Any]:
        """Mean and deviation (..., size); 0 and 1 without evidence."""
        unknown = self.seconds[..., None] <= 0
        seconds = self.seconds.clip(min=1e-9)[..., None]
        mean = self.sums / seconds
        variance = self.squares / seconds - mean * mean + unknown
        return mean, variance.clip(min=LEAST_DEVIATION**2) ** 0.5

    def arrays(self) -> tuple[Array, Array]:
        """Mean and deviation (size,) of a single estimate."""
        mean, deviation = (
            values if isinstance(values, np.ndarray) else values.cpu().numpy() for values in self.statistics()
        )
        return mean, deviation

    def profile(self, encoder: str, layers: int) -> VoiceProfile:
        """The profile of a single estimate."""
        mean, deviation = self.arrays()
        return VoiceProfile(mean.reshape(layers, -1), deviation.reshape(layers, -1), float(self.seconds), encoder)
