"""HTML of animations and tracks in notebooks."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
from made_animation import made_animation

from sedtalker.emotion.segments import Segment
from sedtalker.emotion.track import EmotionTrack
from sedtalker.export.html import html_page
from sedtalker.export.notebook import animation_html, track_html


def test_a_short_animation_is_an_iframe(tmp_path: Path) -> None:
    animation = made_animation(tmp_path, 0.2)
    html = animation_html(animation)
    root = ET.fromstring(html)
    assert root.tag == "iframe" and root.attrib["sandbox"] == "allow-scripts"
    inside = html[html.index('srcdoc="') + 8 : html.rindex('"')]
    assert '"' not in inside and unescape(inside) == "".join(html_page(animation))


def test_a_long_animation_is_a_line_of_text(tmp_path: Path) -> None:
    animation = made_animation(tmp_path, 0.2)
    long = replace(animation, blendshapes=np.zeros((1900, 52), np.float32))
    assert animation_html(long).startswith("<p>Animation of 63.3 s") and "iframe" not in animation_html(long)


def test_a_track_is_an_svg_with_its_segments() -> None:
    labels = ("neutral", "<b>happy</b>", "sad")
    track = EmotionTrack.from_segments([Segment(1, 3, labels[1], 0.8), Segment(3, 3.2, "sad", 0.5)], 4.0, labels)
    root = ET.fromstring(track_html(track))  # well formed, so the label is escaped
    drawing = root.find("svg")
    polygons, boxes = drawing.findall("polygon"), drawing.findall("rect")
    assert len(polygons) == 3 and len(boxes) == len(track.segments)
    assert [text.text for text in drawing.findall("text")] == ["<b>happy</b> 80%"]
    assert float(boxes[-1].attrib["x"]) == 600.5
    line = np.array([pair.split(",") for pair in drawing.find("polyline").attrib["points"].split()], float)
    middle = line[np.abs(line[:, 0] - 400).argmin(), 1]  # at 2 s the intensity is 0.8
    np.testing.assert_allclose(middle, 132 - 0.8 * 108, atol=0.2)
