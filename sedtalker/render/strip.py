"""The emotion strip: a timeline of the emotion track, drawn below the face."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from sedtalker import labels
from sedtalker.render.arrays import Bytes
from sedtalker.render.text import WHITE, Color, draw_text

if TYPE_CHECKING:
    from sedtalker.emotion.track import EmotionTrack


COLORS: dict[str, tuple[int, ...]] = {label: tuple(bytes.fromhex(code[1:])) for label, code in labels.COLORS.items()}
_OTHER_LABEL: Color = (150, 150, 150)
_BACKGROUND: Color = (24, 26, 31)
_LABEL_COLOR: Color = (138, 144, 156)
_EMPTY_BAR: Color = (52, 56, 64)

WINDOW = 20.0  # seconds that are visible at a time
_HATCH, _HATCH_BRIGHTNESS = 6, 0.5  # pixels between the lines over frames that are not certain
_FUTURE_BRIGHTNESS = 0.45  # of the timeline after the current time


class EmotionStrip:
    """A bar of `height` x `width` pixels: current label and intensity, and the posterior over time.

    The timeline stacks the posteriors in the emotions' colors; the white line is the intensity of the likeliest, 0
    for neutral. Frames whose emotion is not certain are hatched, and the label is gray at them.
    """

    def __init__(self, track: EmotionTrack, width: int) -> None:
        self.width = width
        self._track = track
        self._pad = max(3, width // 36)
        self._text = max(8, round(width * 0.036))
        self._top = self._pad + round(self._text * 1.55)
        self.height = max(round(width * 0.18), self._top + self._pad + 10) // 2 * 2  # even, for a video
        self._inner = width - 2 * self._pad
        self._seconds = min(WINDOW, max(track.duration, 1e-3))
        self._abstained, self._intensity = track.abstained, track.shown_intensity
        self._timeline = self._draw_timeline()
        self._state = lru_cache(maxsize=256)(self._draw_state)  # label and rounded intensity repeat in most frames
        self._dimmed = (self._timeline * _FUTURE_BRIGHTNESS + np.array(_BACKGROUND) * (1 - _FUTURE_BRIGHTNESS)).astype(
            np.uint8
        )

    def frame(self, seconds: float) -> Bytes:
        """Draw the strip (height, width, 3) at a time in seconds."""
        track = self._track
        index = min(int(seconds * track.frame_rate), len(track.intensity) - 1)
        label = track.labels[int(np.argmax(track.posterior[index]))]
        intensity = f"{min(max(float(self._intensity[index]), 0.0), 1.0):.2f}"
        picture = self._state(label, intensity, bool(self._abstained[index])).copy()
        start, now = self._scroll(seconds), self._column(seconds)
        bottom = self._top + len(self._timeline)
        left, cursor = self._pad, min(self._pad + now - start, self.width - self._pad - 1)
        picture[self._top : bottom, left : left + self._inner] = self._dimmed[:, start : start + self._inner]
        picture[self._top : bottom, left : left + now - start] = self._timeline[:, start:now]
        picture[self._top - 2 : bottom + 2, cursor : cursor + 2] = WHITE
        return picture

    def _draw_state(self, label: str, intensity: str, abstained: bool) -> Bytes:
        """Draw the strip without its timeline: dot, label and intensity, gray if the emotion is not certain."""
        picture = np.empty((self.height, self.width, 3), np.uint8)
        picture[:] = _BACKGROUND
        color = _OTHER_LABEL if abstained else COLORS.get(label, _OTHER_LABEL)
        y, dot = self._pad // 2, self._text // 2
        top = y + self._text // 2
        picture[top : top + dot, self._pad : self._pad + dot] = color
        draw_text(picture, label, self._pad + round(dot * 1.8), y, self._text, _LABEL_COLOR if abstained else WHITE)
        right = self.width - self._pad
        draw_text(picture, intensity, right, y, self._text, anchor="right")
        bar, thick = round(self.width * 0.22), max(2, self._text // 4)
        left, high = right - round(self._text * 2.4) - bar, top + dot // 2 - thick // 2
        draw_text(picture, "intensity", left - self._pad // 2, y, self._text, _LABEL_COLOR, "right")
        picture[high : high + thick, left : left + bar] = _EMPTY_BAR
        picture[high : high + thick, left : left + round(bar * float(intensity))] = color
        return picture

    def _column(self, seconds: float) -> int:
        """Column of the timeline at a time."""
        return int(np.clip(round(seconds / self._seconds * self._inner), 0, self._timeline.shape[1]))

    def _scroll(self, seconds: float) -> int:
        """First visible column; the current time stays in the middle of a long track."""
        last = self._timeline.shape[1] - self._inner
        return int(np.clip(self._column(seconds) - self._inner // 2, 0, max(last, 0)))

    def _draw_timeline(self) -> Bytes:
        """Draw the timeline of the whole track."""
        track, height = self._track, self.height - self._top - self._pad
        width = max(self._inner, round(track.duration / self._seconds * self._inner))
        times = (np.arange(width) + 0.5) * track.duration / width
        index = np.minimum((times * track.frame_rate).astype(int), len(track.intensity) - 1)
        posterior, intensity = track.posterior[index], self._intensity[index]
        picture = np.zeros((height, width, 3), np.float32)
        rows = (np.arange(height)[::-1, None] + 0.5) / height  # share from the bottom
        lower = np.zeros(width, np.float32)
        order = sorted(range(len(track.labels)), key=lambda k: track.labels[k] == "neutral")
        for k in order:
            upper = lower + posterior[:, k]
            inside = (rows >= lower) & (rows < upper + (1e-4 if k == order[-1] else 0))
            picture[inside] = COLORS.get(track.labels[k], _OTHER_LABEL)
            lower = upper
        hatched = (np.arange(height)[:, None] + np.arange(width)) % _HATCH < _HATCH // 2
        picture[hatched & self._abstained[index]] *= _HATCH_BRIGHTNESS
        line = np.clip(((1 - intensity) * (height - 2)).astype(int), 0, height - 2)
        for column, row in enumerate(line):
            previous = line[max(column - 1, 0)]
            picture[min(row, previous) : max(row, previous) + 1, column] = WHITE
        return picture.astype(np.uint8)
