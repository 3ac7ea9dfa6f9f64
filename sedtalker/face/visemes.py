"""Visemes of ARPAbet phones: targets in ARKit weights, and their dominance.

The inventory is the 22 visemes of Microsoft's Speech API (SAPI 5, `SpVisemes`, from Disney's thirteen mouth positions)
for the phones of ARPAbet. The dominance of a viseme over its neighbours is that of Cohen & Massaro, "Modeling
coarticulation in synthetic visual speech" (1993): full for /m/ at the lips, nearly zero for /h/. Jaw and lips have
separate dominances, as in JALI (Edwards et al. 2016).

`opening` is the distance between the lips, in units of the jawOpen weight that would cause it alone (1 = 34 mm on the
default head). `split_opening` divides it between jawOpen and mouthClose.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from sedtalker.face.rig import Float

JAW_REST_IN_SPEECH = 0.05  # jawOpen with closed lips during speech: the jaw does not close for a fast /b/


@dataclass(frozen=True)
class Viseme:
    """Targets of one mouth position, and their dominance over neighbouring visemes in [0, 1]."""

    number: int  # in SAPI
    opening: float  # distance between the lips
    opening_dominance: float  # of the opening
    shape: dict[str, float] = field(default_factory=dict)  # ARKit weights of the lips, equal on both sides
    shape_dominance: float = 0.3  # of the lips' shape


_ROUND = {"mouthPucker": 1.0, "mouthFunnel": 0.50, "mouthStretch": 0.27}
_OPEN_ROUND = {"mouthPucker": 0.60, "mouthFunnel": 0.58, "mouthStretch": 0.15}
_SPREAD = {"mouthStretch": 0.20, "mouthSmile": 0.10, "mouthLowerDown": 0.20, "mouthUpperUp": 0.14}

VISEMES: dict[str, Viseme] = {
    "silence": Viseme(0, 0.00, 1.0, {}, 0.6),
    "ae": Viseme(1, 0.34, 0.50, {"mouthLowerDown": 0.14, "mouthUpperUp": 0.08, "mouthStretch": 0.06}, 0.3),
    "ah": Viseme(1, 0.26, 0.50, {"mouthLowerDown": 0.08, "mouthUpperUp": 0.04}, 0.2),
    "aa": Viseme(2, 0.43, 0.90, {"mouthLowerDown": 0.10, "mouthUpperUp": 0.05}, 0.3),
    "ao": Viseme(3, 0.28, 0.70, _OPEN_ROUND, 0.7),
    "eh": Viseme(4, 0.38, 0.60, {"mouthLowerDown": 0.14, "mouthUpperUp": 0.07, "mouthStretch": 0.08}, 0.3),
    "uh": Viseme(4, 0.20, 0.50, {"mouthPucker": 0.60, "mouthFunnel": 0.41, "mouthStretch": 0.13}, 0.5),
    "er": Viseme(5, 0.19, 0.50, {"mouthPucker": 0.31, "mouthFunnel": 0.36}, 0.4),
    "iy": Viseme(6, 0.29, 0.50, _SPREAD, 0.6),
    "ih": Viseme(6, 0.29, 0.40, {"mouthStretch": 0.08, "mouthLowerDown": 0.12, "mouthUpperUp": 0.06}, 0.3),
    "uw": Viseme(7, 0.11, 0.90, _ROUND, 0.9),
    "ow": Viseme(8, 0.29, 0.65, {"mouthPucker": 0.89, "mouthFunnel": 0.58, "mouthStretch": 0.23}, 0.9),
    "h": Viseme(12, 0.22, 0.10, {}, 0.05),
    "r": Viseme(13, 0.03, 0.45, {"mouthPucker": 0.48, "mouthFunnel": 0.43, "mouthStretch": 0.13}, 0.6),
    "l": Viseme(14, 0.21, 0.40, {"mouthLowerDown": 0.08, "mouthUpperUp": 0.06}, 0.25),
    "s": Viseme(15, 0.13, 0.30, {"mouthStretch": 0.10, "mouthLowerDown": 0.18, "mouthUpperUp": 0.08}, 0.4),
    "sh": Viseme(16, 0.16, 0.50, {"mouthFunnel": 0.80, "mouthPucker": 0.45, "mouthStretch": 0.25,
                              "mouthLowerDown": 0.14, "mouthUpperUp": 0.10}, 0.8),
    "th": Viseme(17, 0.17, 0.60, {"mouthLowerDown": 0.24, "mouthUpperUp": 0.08}, 0.75),
    "f": Viseme(18, 0.03, 0.90, {"mouthRollLower": 0.90, "mouthUpperUp": 0.44}, 0.95),
    "t": Viseme(19, 0.10, 0.15, {"mouthLowerDown": 0.10, "mouthUpperUp": 0.04, "mouthStretch": 0.04}, 0.18),
    "k": Viseme(20, 0.24, 0.16, {"mouthLowerDown": 0.04}, 0.1),
    "w": Viseme(7, 0.01, 0.60, {"mouthPucker": 1.0, "mouthFunnel": 0.43, "mouthStretch": 0.23}, 0.95),
    "m": Viseme(21, 0.00, 1.0, {"mouthPress": 0.06, "mouthRollLower": 0.08, "mouthRollUpper": 0.06}, 0.9),
}  # fmt: skip
"""Openings and their dominances were fitted by least squares to the tracked lip gap of speaker s1 of GRID
(`sedtalker.recipes.fit_visemes`). They were then rounded to two decimals, and the openings of the rounded visemes were
lowered. On every tenth sentence, not used in the fit, the median correlation is .78. The shapes
follow published norms on the default head: /u o w/ protrude 6 to 9 mm more than /i a/ (a trained talker a millimetre
less), /sh/ protrudes and is open, the lower lip of /f v/ is set back under the upper teeth (VocalTractLab's speaker
JD3), and the opening is the gap between the lips, whatever the shapes add to it. /th/ is wider than GRID's, so that the
tongue can be seen."""

PHONES: dict[str, tuple[str, ...]] = {
    "SIL": ("silence",),
    "AA": ("aa",), "AE": ("ae",), "AH": ("ah",), "AO": ("ao",), "EH": ("eh",), "ER": ("er",), "IH": ("ih",),
    "IY": ("iy",), "UH": ("uh",), "UW": ("uw",), "OW": ("ow", "uw"), "AW": ("aa", "uw"), "AY": ("aa", "iy"),
    "EY": ("eh", "iy"), "OY": ("ao", "iy"),
    "HH": ("h",), "R": ("r",), "L": ("l",), "S": ("s",), "Z": ("s",), "SH": ("sh",), "ZH": ("sh",), "CH": ("sh",),
    "JH": ("sh",), "TH": ("th",), "DH": ("th",), "F": ("f",), "V": ("f",), "T": ("t",), "D": ("t",), "N": ("t",),
    "K": ("k",), "G": ("k",), "NG": ("k",), "P": ("m",), "B": ("m",), "M": ("m",), "W": ("w",), "Y": ("iy",),
}  # fmt: skip
"""Visemes of each ARPAbet phone (the 39 of CMUdict, and silence): one, or two for a diphthong."""

BILABIALS = frozenset({"P", "B", "M"})
LABIODENTALS = frozenset({"F", "V"})
TONGUE_TIP = {"TH": 0.58, "DH": 0.58, "L": 0.38, "N": 0.38, "T": 0.38, "D": 0.38}
"""tongueOut of the phones whose tongue tip is at the teeth; neighbours do not blend with it."""
NARROW = frozenset({"R", "W", "UW", "OW", "AO", "UH", "OY", "AW", "ER"})  # rounded enough to look closed
OPEN_VOWELS = frozenset({"AA", "AE", "AY", "AW", "EH", "EY"})
ROUNDED = frozenset({"UW", "W", "OW"})
PROTRUDED = frozenset({"SH", "ZH", "CH", "JH"})  # open and rounded

SHAPE_CHANNELS: tuple[str, ...] = (
    "mouthFunnel", "mouthPucker", "mouthSmile", "mouthStretch", "mouthRollLower", "mouthRollUpper", "mouthShrugLower",
    "mouthPress", "mouthLowerDown", "mouthUpperUp", "tongueOut",
)  # fmt: skip
"""The channels of `Viseme.shape`: ARKit names without the side."""

OPENERS: tuple[str, ...] = ("mouthFunnel", "mouthLowerDown", "mouthUpperUp", "tongueOut")
"""Shapes that open the lips, and that are reduced at a closure."""


def shape_targets(viseme: Viseme) -> Float:
    """Targets (S,) of a viseme in the order of SHAPE_CHANNELS."""
    return np.array([viseme.shape.get(name, 0.0) for name in SHAPE_CHANNELS], np.float32)


def split_opening(opening: Float, speaking: Float) -> tuple[Float, Float]:
    """Weights of jawOpen and mouthClose (T,) that open the lips by `opening` (T,).

    Equal weights of jawOpen and mouthClose cancel. During speech (`speaking` (T,) in [0, 1]) the jaw stays lowered
    slightly behind closed lips; in silence both weights are zero.
    """
    jaw = np.sqrt(np.square(opening) + np.square(JAW_REST_IN_SPEECH * speaking))
    return jaw, jaw - opening
