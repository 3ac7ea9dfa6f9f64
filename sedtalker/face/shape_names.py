"""Names of morph targets in other programs, and the ARKit shapes that they provide.

A file's names are compared without case, separators and prefixes; `_L`, `Left`, `left_` and the like are one side.
What a file lacks of ARKit's 52 is replaced by its visemes (Oculus, VRM) and expressions (VRM) with the shares in
`SUBSTITUTES`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

import numpy as np

from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.rig import Float

_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\x00-\x7f]+")
_SIDES = {"l": "left", "left": "left", "r": "right", "right": "right", "lt": "left", "rt": "right"}

_ALIASES = {
    "まばたき": "blink", "ウィンク": "blinkleft", "ウィンク右": "blinkright",
    "あ": "aa", "い": "ih", "う": "ou", "え": "ee", "お": "oh",
    "a": "aa", "i": "ih", "u": "ou", "e": "ee", "o": "oh", "ah": "aa",
    "joy": "happy", "fun": "relaxed", "sorrow": "sad",
    "eyesclosed": "blink", "eyeclose": "blink", "eyecloseleft": "blinkleft", "eyecloseright": "blinkright",
    "winkleft": "blinkleft", "winkright": "blinkright", "mouthopen": "jawopen", "jawdrop": "jawopen",
    "eyeslookup": "lookup", "eyeslookdown": "lookdown", "visemei": "visemeih", "visemee": "visemeeh",
    "visemeo": "visemeoh", "visemeu": "visemeou", "surprise": "surprised", "smile": "mouthsmile",
}  # fmt: skip
"""Names without separators -> the name used in the tables here."""

Shares = dict[str, float]

_OPEN: tuple[Shares, ...] = ({"visemeaa": 1.0}, {"aa": 1.0})
_ROUND: tuple[Shares, ...] = ({"visemeou": 0.9}, {"ou": 0.9})
_FUNNEL: tuple[Shares, ...] = ({"visemeoh": 0.5}, {"oh": 0.5})
_WIDE: tuple[Shares, ...] = ({"visemeih": 0.3}, {"ih": 0.3})


def _negative(alternatives: tuple[Shares, ...]) -> tuple[Shares, ...]:
    return tuple({name: -share for name, share in shares.items()} for shares in alternatives)


SUBSTITUTES: dict[str, tuple[Shares, ...]] = {
    "jawOpen": _OPEN,
    "mouthClose": _negative(({"jawopen": 1.0}, *_OPEN)),  # equal weights of jawOpen and mouthClose close the lips
    "mouthFunnel": _FUNNEL,
    "mouthPucker": _ROUND,
    "mouthStretchLeft": _WIDE, "mouthStretchRight": _WIDE,
    "mouthPressLeft": ({"visemepp": 0.5},), "mouthPressRight": ({"visemepp": 0.5},),
    "mouthRollLower": ({"visemeff": 0.5},),
    "mouthLowerDownLeft": ({"visemess": 0.2},), "mouthLowerDownRight": ({"visemess": 0.2},),
    "mouthSmileLeft": ({"mouthsmile": 0.5}, {"happy": 0.3}), "mouthSmileRight": ({"mouthsmile": 0.5}, {"happy": 0.3}),
    "mouthFrownLeft": ({"sad": 0.3},), "mouthFrownRight": ({"sad": 0.3},),
    "browDownLeft": ({"angry": 0.3},), "browDownRight": ({"angry": 0.3},),
    "browInnerUp": ({"surprised": 0.3},),
    "eyeBlinkLeft": ({"blinkleft": 1.0}, {"blink": 0.5}), "eyeBlinkRight": ({"blinkright": 1.0}, {"blink": 0.5}),
    "eyeLookUpLeft": ({"lookup": 0.5},), "eyeLookUpRight": ({"lookup": 0.5},),
    "eyeLookDownLeft": ({"lookdown": 0.5},), "eyeLookDownRight": ({"lookdown": 0.5},),
    "eyeLookOutLeft": ({"lookleft": 0.5},), "eyeLookInRight": ({"lookleft": 0.5},),
    "eyeLookInLeft": ({"lookright": 0.5},), "eyeLookOutRight": ({"lookright": 0.5},),
}  # fmt: skip
"""Shares of a file's shapes that replace an ARKit shape; the first alternative that the file has is taken.

They were chosen so that a mouth in speech keeps its opening: visemes of rounded vowels also lower the jaw, which the
talker's jawOpen does already. Expressions are whole faces, mouth included, and so count little.
"""

_CANONICAL = {name.lower(): name for name in ARKIT_NAMES}
_KNOWN = frozenset(
    {*_CANONICAL, *(name for options in SUBSTITUTES.values() for shares in options for name in shares)}
    | {name.lower().removesuffix("left").removesuffix("right") for name in ARKIT_NAMES}
    | {f"{name.lower()}{side}" for name in ARKIT_NAMES for side in ("left", "right") if not name.endswith(side.title())}
)


def canonical_name(name: str) -> str | None:
    """A known shape's name in lower case without separators, such as `eyeblinkleft` or `visemeaa`; None for others."""
    for candidate in _candidates(name):
        candidate = _ALIASES.get(candidate, candidate)
        if candidate in _KNOWN:
            return candidate
    return None


def arkit_shares(names: Collection[str]) -> dict[str, Shares]:
    """ARKit name -> shares of the file's shapes, for canonical `names`; shapes that nothing provides are left out."""
    result = {name: shares for name in ARKIT_NAMES if (shares := _shares(name, names))}
    if "jawOpen" not in result:
        result.pop("mouthClose", None)
    return result


def _shares(name: str, names: Collection[str]) -> Shares:
    lower = name.lower()
    if lower in names:
        return {lower: 1.0}
    base = lower.removesuffix("left").removesuffix("right")
    if base != lower and lower not in ("mouthleft", "mouthright", "jawleft", "jawright") and base in names:
        return {base: 0.5}  # one shape moves both sides
    sides = {f"{lower}{side}": 1.0 for side in ("left", "right") if f"{lower}{side}" in names}
    if sides:
        return sides
    return next((shares for shares in SUBSTITUTES.get(name, ()) if {*shares} <= {*names}), {})


def _candidates(name: str) -> Iterator[str]:
    """The name without separators, then with its side last, then without one and more of its first words."""
    text = re.split(r"[:|/]", name)[-1]
    words = [word.lower() for word in _TOKEN.findall(text)]
    while words:
        joined = "".join(words)
        yield joined
        places = [index for index, word in enumerate(words) if word in _SIDES]
        if places and len(words) > 1:
            at = places[-1]
            yield "".join(words[:at] + words[at + 1 :]) + _SIDES[words[at]]
        elif joined[-1:] in ("l", "r") and joined[:-1] + _SIDES[joined[-1]] in _CANONICAL:
            yield joined[:-1] + _SIDES[joined[-1]]
        words = words[1:]


def control_weights(shares: Mapping[str, Shares], weights: Float) -> dict[str, Float]:
    """Weights (T,) of a file's shapes by canonical name, for ARKit weights (T, 52)."""
    result: dict[str, Float] = {}
    for column, name in enumerate(ARKIT_NAMES):
        for control, share in shares.get(name, {}).items():
            result[control] = result.get(control, np.float32(0)) + np.float32(share) * weights[:, column]
    return result
