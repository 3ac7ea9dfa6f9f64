"""The settings of a rendering, with their defaults and choices; cheap to import."""

from __future__ import annotations

from dataclasses import dataclass

from sedtalker.errors import RenderError

Background = tuple[float, float, float] | str | None

QUALITIES = {"standard": 1, "fine": 2}
"""Name -> supersampling factor along each side of the picture."""

BACKENDS = ("soft", "pyrender")

VIEWS = {"front": 0.0, "three-quarter": 35.0, "side": 90.0, "turntable": 0.0}
"""Name -> yaw of the camera in degrees; the turntable starts there and turns with time."""

FRAMINGS = ("face", "portrait")
"""The face over two thirds of the picture's height, or the head with shoulders."""

MIN_SIZE = 16  # pixels


@dataclass(frozen=True)
class RenderConfig:
    """Size, quality, backend, view, background and framing of a rendering.

    Raises:
        RenderError: an unknown quality, backend, view or framing, or a picture smaller than `MIN_SIZE`.
    """

    width: int = 512  # pixels
    height: int = 512  # pixels
    quality: str = "standard"  # a key of QUALITIES
    backend: str = "soft"  # one of BACKENDS
    view: str = "front"  # a key of VIEWS
    background: Background = None  # sRGB in [0, 1], "transparent" for RGBA frames, or None for a gray gradient
    framing: str = "face"  # one of FRAMINGS

    def __post_init__(self) -> None:
        _check_choice("quality", self.quality, QUALITIES)
        _check_choice("backend", self.backend, BACKENDS)
        _check_choice("view", self.view, VIEWS)
        _check_choice("framing", self.framing, FRAMINGS)
        if self.width < MIN_SIZE or self.height < MIN_SIZE:
            raise RenderError(
                f"a picture of {self.width} x {self.height} pixels is too small: draw at least {MIN_SIZE} x {MIN_SIZE}"
            )
        if isinstance(self.background, str) and self.background != "transparent":
            raise RenderError(f"unknown background: {self.background!r}. Use an RGB tuple, 'transparent' or None")


def _check_choice(setting: str, value: str, choices: tuple[str, ...] | dict[str, float] | dict[str, int]) -> None:
    if value not in choices:
        raise RenderError(f"unknown {setting}: {value}. Choose one of {', '.join(choices)}")
