"""The settings of a rendering."""

from __future__ import annotations

import argparse

import pytest

from sedtalker.cli.options import add_picture_options
from sedtalker.errors import RenderError
from sedtalker.render.config import RenderConfig
from sedtalker.task_options import PictureOptions


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"backend": "vulkan"}, "unknown backend: vulkan"),
        ({"quality": "ultra"}, "unknown quality: ultra"),
        ({"view": "above"}, "unknown view: above"),
        ({"framing": "feet"}, "unknown framing: feet"),
        ({"width": 8}, "8 x 512 pixels is too small"),
        ({"background": "pink"}, "unknown background: 'pink'"),
    ],
)
def test_render_config_rejects_unknown_settings(setting, message):
    with pytest.raises(RenderError, match=message):
        RenderConfig(**setting)


def test_command_line_and_tasks_have_the_same_defaults():
    parser = argparse.ArgumentParser()
    add_picture_options(parser)
    arguments = parser.parse_args([])
    for defaults in (arguments, PictureOptions()):
        assert defaults.size == RenderConfig().width == RenderConfig().height
        for name in ("quality", "backend", "view", "background", "framing"):
            assert getattr(defaults, name) == getattr(RenderConfig(), name)
