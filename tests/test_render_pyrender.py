"""The OpenGL backend against the software renderer, where there is OpenGL."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from made_face import bare_face

from sedtalker.errors import RenderError
from sedtalker.face.assets import load_face
from sedtalker.face.rig import Surface
from sedtalker.render import RenderConfig, SoftRenderer, animation_video, pyrender
from sedtalker.render.shade import KEY_VISIBILITY

pytest.importorskip("pyrender")
WORKS, SAID = pyrender.probe()
needs_opengl = pytest.mark.skipif(not WORKS, reason=SAID)


@needs_opengl
@pytest.mark.parametrize(("matched", "least"), [(True, 0.95), (False, 0.94)])
def test_default_head_looks_like_the_software_renderers(matched, least):
    """As it is, where OpenGL has no shadow and no gloss; and with all of it matt, lit alike and unshadowed."""
    metrics = pytest.importorskip("skimage.metrics")
    face = load_face("default")
    if matched:
        worn = {name: replace(item, surface=_matt(item.surface)) for name, item in face.attachments.items()}
        face = replace(face, surfaces=tuple(map(_matt, face.surfaces)), attachments=worn)
    background = (0.2, 0.2, 0.2)
    soft = SoftRenderer(face, 512, 512, background=background)
    if matched:
        soft._prepared.scene.corners[..., KEY_VISIBILITY] = 1.0
    theirs = pyrender.PyrenderRenderer(face, 512, 512, background=background).frame(face.template)
    assert metrics.structural_similarity(soft.frame(face.template), theirs, channel_axis=2) > least


def _matt(surface: Surface) -> Surface:
    """A surface that answers light by Lambert's law alone."""
    kind = surface.material.kind if surface.material.kind in ("card", "cornea", "cloth") else "plain"
    matt = replace(surface.material, kind=kind, wrap=(0.0, 0.0, 0.0), specular=0.0, sheen=0.0)
    return replace(surface, material=matt, scalp=None)


@needs_opengl
def test_outline_and_head_motion_are_the_same():
    face = bare_face()
    head = np.eye(4, dtype=np.float32)
    head[0, 3] = 0.02
    ours = SoftRenderer(face, 96, 96, background="transparent").frame(face.template, head)[..., 3]
    theirs = pyrender.PyrenderRenderer(face, 96, 96, background="transparent").frame(face.template, head)[..., 3]
    assert ((ours > 127) != (theirs > 127)).mean() < 0.01


@needs_opengl
def test_vertices_that_are_no_numbers_stop():
    face = bare_face()
    with pytest.raises(RenderError, match="NaN or infinity"):
        pyrender.PyrenderRenderer(face, 96, 96).frame(face.template * np.nan)


def test_software_serves_where_opengl_does_not(monkeypatch, caplog):
    def broken() -> None:
        raise RenderError("OpenGL does not work here (no display). Use the software renderer, or install EGL")

    monkeypatch.setattr(pyrender, "_context", broken)
    with caplog.at_level(logging.WARNING):
        renderer = animation_video.make_renderer(bare_face(), RenderConfig(64, 64, backend="pyrender"))
    assert isinstance(renderer, SoftRenderer)
    assert "OpenGL does not work here" in caplog.text
    assert pyrender.probe() == (
        False,
        "OpenGL does not work here (no display). Use the software renderer, or install EGL",
    )
