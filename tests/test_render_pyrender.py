"""The OpenGL backend, compared with the software renderer on machines with OpenGL."""

from __future__ import annotations

import logging
import os
from dataclasses import replace

import numpy as np
import pytest
from made_face import bare_face

from sedtalker.errors import RenderError
from sedtalker.face.assets import load_face
from sedtalker.face.rig import Surface
from sedtalker.render import animation_video, pyrender
from sedtalker.render.camera import portrait_camera
from sedtalker.render.config import RenderConfig
from sedtalker.render.shade import KEY_VISIBILITY
from sedtalker.render.soft import SoftRenderer

pytest.importorskip("pyrender")
WORKS, REASON = pyrender.probe()
needs_opengl = pytest.mark.skipif(not WORKS, reason=REASON)


@needs_opengl
@pytest.mark.parametrize(("matched", "least"), [(True, 0.95), (False, 0.935)])
def test_default_head_is_similar_to_the_software_renderer(matched, least):
    """With all materials matt and without shadow; and unchanged, where OpenGL draws no shadow and no gloss."""
    metrics = pytest.importorskip("skimage.metrics")
    face = load_face("default")
    if matched:
        attachments = {name: replace(item, surface=_matt(item.surface)) for name, item in face.attachments.items()}
        face = replace(face, surfaces=tuple(map(_matt, face.surfaces)), attachments=attachments)
    background = (0.2, 0.2, 0.2)
    camera = portrait_camera(face)  # hair, in which the renderers differ most, takes less of this picture
    soft = SoftRenderer(face, 512, 512, background=background, camera=camera)
    if matched:
        soft._prepared.scene.corners[..., KEY_VISIBILITY] = 1.0
    theirs = pyrender.PyrenderRenderer(face, 512, 512, background=background, camera=camera).frame(face.template)
    assert metrics.structural_similarity(soft.frame(face.template), theirs, channel_axis=2) > least


def _matt(surface: Surface) -> Surface:
    """The surface with a Lambertian material."""
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
def test_vertices_with_nan_are_rejected():
    face = bare_face()
    with pytest.raises(RenderError, match="NaN or infinity"):
        pyrender.PyrenderRenderer(face, 96, 96).frame(face.template * np.nan)


def test_software_renderer_replaces_a_broken_opengl(monkeypatch, caplog):
    def broken() -> None:
        raise RenderError("OpenGL does not work here (no display). Use the software renderer, or install EGL")

    monkeypatch.setattr(pyrender, "_create_context", broken)
    with caplog.at_level(logging.WARNING):
        renderer = animation_video.make_renderer(bare_face(), RenderConfig(64, 64, backend="pyrender"))
    assert isinstance(renderer, SoftRenderer)
    assert "OpenGL does not work here" in caplog.text
    assert pyrender.probe() == (
        False,
        "OpenGL does not work here (no display). Use the software renderer, or install EGL",
    )


@pytest.mark.parametrize("variable", [None, "DISPLAY", "PYOPENGL_PLATFORM"])
def test_headless_platform_restores_the_environment(monkeypatch, variable):
    """EGL is selected only without a display and without a choice of the user, and only while the block runs."""
    for name in ("DISPLAY", "PYOPENGL_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    if variable is not None:
        monkeypatch.setenv(variable, "osmesa")
    before = dict(os.environ)
    with pytest.raises(ZeroDivisionError), pyrender._headless_platform():
        platform = os.environ.get("PYOPENGL_PLATFORM")
        raise ZeroDivisionError
    assert platform == {None: "egl", "DISPLAY": None, "PYOPENGL_PLATFORM": "osmesa"}[variable]
    assert dict(os.environ) == before


def test_probe_leaves_the_environment_unchanged():
    before = dict(os.environ)
    pyrender._create_context.cache_clear()
    assert pyrender.probe()[0] == WORKS  # a reason may hold an address, which changes
    assert dict(os.environ) == before
