"""Profiles of one voice from several recordings, which do not depend on the order of the recordings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from itertools import accumulate
from typing import TypeVar

from sedtalker.emotion.voice import VoiceProfile

Name = TypeVar("Name")


def merge_profiles(profiles: Iterable[VoiceProfile]) -> VoiceProfile:
    """The profile of the speech of all, at least one. Raises CheckpointError if their encoders differ."""
    return reduce(VoiceProfile.merge, sorted(profiles, key=_order))


def merge_others(profiles: Mapping[Name, VoiceProfile]) -> dict[Name, VoiceProfile | None]:
    """For each recording the profile of the speech of all others; None if there is no other.

    Raises:
        CheckpointError: the encoders of the profiles differ.
    """
    names = sorted(profiles, key=lambda name: _order(profiles[name]))
    ordered = [profiles[name] for name in names]
    before = [None, *accumulate(ordered, VoiceProfile.merge)]
    after = [None, *accumulate(reversed(ordered), VoiceProfile.merge)][::-1]
    return {name: _merge_known(before[k], after[k + 1]) for k, name in enumerate(names)}


def _order(profile: VoiceProfile) -> tuple[float, bytes]:
    return profile.seconds, profile.mean.tobytes()


def _merge_known(one: VoiceProfile | None, other: VoiceProfile | None) -> VoiceProfile | None:
    return one.merge(other) if one and other else one or other
