"""ARKit's blendshapes: their names, their order, and their columns in arrays of weights."""

from __future__ import annotations

ARKIT_NAMES: tuple[str, ...] = (
    "eyeBlinkLeft", "eyeLookDownLeft", "eyeLookInLeft", "eyeLookOutLeft", "eyeLookUpLeft", "eyeSquintLeft",
    "eyeWideLeft", "eyeBlinkRight", "eyeLookDownRight", "eyeLookInRight", "eyeLookOutRight", "eyeLookUpRight",
    "eyeSquintRight", "eyeWideRight", "jawForward", "jawLeft", "jawRight", "jawOpen", "mouthClose", "mouthFunnel",
    "mouthPucker", "mouthLeft", "mouthRight", "mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft",
    "mouthFrownRight", "mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthPressLeft", "mouthPressRight",
    "mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight", "browDownLeft",
    "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff", "cheekSquintLeft",
    "cheekSquintRight", "noseSneerLeft", "noseSneerRight", "tongueOut",
)  # fmt: skip
"""Apple's 52 blendshape names in Apple's order; "left" is the person's own left."""

JAW_OPEN, MOUTH_CLOSE = ARKIT_NAMES.index("jawOpen"), ARKIT_NAMES.index("mouthClose")
MOUTH_FUNNEL, MOUTH_PUCKER = ARKIT_NAMES.index("mouthFunnel"), ARKIT_NAMES.index("mouthPucker")
STRETCH_LEFT, STRETCH_RIGHT = ARKIT_NAMES.index("mouthStretchLeft"), ARKIT_NAMES.index("mouthStretchRight")
ROLL_LOWER, TONGUE_OUT = ARKIT_NAMES.index("mouthRollLower"), ARKIT_NAMES.index("tongueOut")


def arkit_columns(name: str) -> tuple[int, ...]:
    """Columns of a blendshape: one, or the left and the right of a name without its side.

    Raises:
        ValueError: ARKit has no such blendshape.
    """
    columns = tuple(ARKIT_NAMES.index(full) for full in (name, f"{name}Left", f"{name}Right") if full in ARKIT_NAMES)
    if not columns:
        raise ValueError(f"not a blendshape of ARKit: {name}")
    return columns
