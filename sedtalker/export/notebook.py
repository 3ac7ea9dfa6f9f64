"""HTML representations of an animation (the exported page) and of an emotion track (a plot) for notebooks."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from sedtalker.labels import label_colors

if TYPE_CHECKING:
    from sedtalker.animation import Animation
    from sedtalker.emotion.track import EmotionTrack

_MAX_SECONDS = 60.0  # a longer page would make the notebook file too large
_PATTERN = (  # hatching of frames whose emotion is not certain
    '<pattern id="uncertain" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<path d="M0 0V6" stroke="#10131a" stroke-width="3" stroke-opacity=".7"/></pattern>'
)
_WIDTH, _HEIGHT, _NAMES = 800, 132, 22  # pixels of the plot, and height of the row of segments
_STEPS = 400  # columns of the plot


def animation_html(animation: Animation) -> str:
    """The page in an iframe; a line of text for an animation longer than a minute."""
    if animation.duration > _MAX_SECONDS:
        return (
            f"<p>Animation of {animation.duration:.1f} s at {animation.fps:g} fps: too long for a notebook. "
            "Export it to html.</p>"
        )
    from sedtalker.export.html import html_page

    document = escape("".join(html_page(animation)), quote=True)
    style = "width:100%;height:680px;border:0;border-radius:8px"
    return f'<iframe title="Animation" sandbox="allow-scripts" style="{style}" srcdoc="{document}"></iframe>'


def track_html(track: EmotionTrack) -> str:
    """Inline SVG of a track: posterior as stacked areas, intensity as a line, segments on top."""
    scale = _WIDTH / track.duration
    frames = np.linspace(0, len(track) - 1, min(len(track), _STEPS)).round().astype(int)
    x = np.clip(track.times[frames] * scale, 0, _WIDTH)
    tops = np.concatenate([np.zeros((len(frames), 1)), np.cumsum(track.posterior[frames], axis=1)], axis=1)
    y = _NAMES + (_HEIGHT - _NAMES) * np.clip(tops, 0, 1)
    colors = label_colors(track.labels)
    visible = [k for k in range(len(track.labels)) if track.posterior[:, k].max() > 0.005]
    areas = [_area(x, y[:, k], y[:, k + 1], colors[k], 0.3 if track.labels[k] == "neutral" else 0.75) for k in visible]
    level = _HEIGHT - (_HEIGHT - _NAMES - 2) * np.clip(track.shown_intensity[frames], 0, 1)
    line = f'<polyline points="{_points(x, level)}" fill="none" stroke="currentColor" stroke-width="1.6"/>'
    segments = [
        _segment(s.start * scale, s.end * scale, s.emotion, s.intensity, colors[track.labels.index(s.emotion)])
        for s in track.segments
    ]
    hatching = "".join(
        f'<rect x="{start * scale:.1f}" y="{_NAMES}" width="{(end - start) * scale:.1f}" height="{_HEIGHT - _NAMES}" '
        'fill="url(#uncertain)"><title>not certain</title></rect>'
        for start, end in track.abstained_spans
    )
    legend = "".join(
        f'<span style="margin-right:14px"><i style="display:inline-block;width:9px;height:9px;border-radius:2px;'
        f'margin-right:5px;background:{colors[k]}"></i>{escape(track.labels[k])}</span>'
        for k in visible
    )
    hatched = "hatched: not certain, " if hatching else ""
    role = f'role="img" aria-label="Emotion over {track.duration:.1f} s"'
    return (
        f'<div style="max-width:{_WIDTH}px;font:12px system-ui,sans-serif">'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="100%" {role}>{"".join(areas)}'
        f"{_PATTERN if hatching else ''}{hatching}{line}{''.join(segments)}</svg>"
        f"<div>{legend}{hatched}line: intensity, {track.duration:.1f} s</div></div>"
    )


def _points(x: np.ndarray, y: np.ndarray) -> str:
    return " ".join(f"{across:.1f},{down:.1f}" for across, down in zip(x, y, strict=True))


def _area(x: np.ndarray, top: np.ndarray, bottom: np.ndarray, color: str, opacity: float) -> str:
    outline = f"{_points(x, top)} {_points(x[::-1], bottom[::-1])}"
    return f'<polygon points="{outline}" fill="{color}" fill-opacity="{opacity}"/>'


def _segment(start: float, end: float, emotion: str, intensity: float, color: str) -> str:
    share = "" if emotion == "neutral" else f" {intensity:.0%}"
    text = f'<text x="{start + 5:.1f}" y="13" font-size="11" fill="#10131a">{escape(emotion + share)}</text>'
    box = f'<rect x="{start + 0.5:.1f}" width="{max(end - start - 1, 1):.1f}" height="17" rx="3" fill="{color}"/>'
    return box + (text if end - start > 60 else f"<title>{escape(emotion + share)}</title>")
