"""The software renderer: the same bytes every time, the right picture, and no frame that lies."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_face import bare_face, sphere, textured_face
from PIL import Image

from sedtalker.errors import RenderError
from sedtalker.face.assets import load_face
from sedtalker.face.rig import Face
from sedtalker.render import Camera, SoftRenderer, shadow
from sedtalker.render.camera import portrait_camera, view_camera
from sedtalker.render.shade import to_linear, to_srgb, tone_map

REFERENCE = Path(__file__).parent / "data" / "render_dressed.png"
SIZE = 96
CAMERA = Camera(distance=0.75)


@pytest.fixture(scope="module")
def dressed() -> SoftRenderer:
    return SoftRenderer(textured_face(), SIZE, SIZE, camera=CAMERA)


@pytest.mark.parametrize("quality", ["standard", "fine"])
def test_frames_are_byte_equal_whatever_the_threads(quality):
    face = textured_face()
    moves = [face.template * (1 + 0.02 * k) for k in range(8)]
    alone = SoftRenderer(face, SIZE, SIZE, quality)
    expected = [alone.frame(vertices).tobytes() for vertices in moves]
    renderer = SoftRenderer(face, SIZE, SIZE, quality)
    for threads in (1, 4):
        with ThreadPoolExecutor(threads) as pool:
            assert [frame.tobytes() for frame in pool.map(renderer.frame, moves)] == expected


def test_frames_are_byte_equal_whatever_the_processor():
    """Code for any processor of this kind, with short vectors and nothing fused, draws what this machine's own does."""
    code = "import test_render_soft as t; print(t.digest())"
    plain = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    made = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, env=os.environ | plain, capture_output=True, text=True
    )
    assert made.stdout.strip() == digest(), made.stderr


def digest() -> str:
    """Hash of a standard and a fine frame."""
    face = textured_face()
    frames = [SoftRenderer(face, SIZE, SIZE, quality).frame(face.template) for quality in ("standard", "fine")]
    return hashlib.sha256(b"".join(frame.tobytes() for frame in frames)).hexdigest()


def test_picture_is_the_stored_one(dressed):
    """The reference was drawn by this renderer, looked at, and holds the drawing against later change."""
    stored = np.asarray(Image.open(REFERENCE).convert("RGB")).astype(int)
    difference = np.abs(dressed.frame(dressed.face.template).astype(int) - stored)
    assert difference.mean() < 0.5
    assert np.quantile(difference, 0.999) <= 6


def test_fine_is_the_same_picture_with_shadow_and_relief(dressed):
    fine = SoftRenderer(dressed.face, SIZE, SIZE, "fine", CAMERA).frame(dressed.face.template).astype(int)
    difference = np.abs(fine - dressed.frame(dressed.face.template))
    assert 0.2 < difference.mean() < 12


def test_bare_mesh_is_round_and_lit_from_the_key_light():
    face = bare_face()
    frame = SoftRenderer(face, SIZE, SIZE, background="transparent").frame(face.template)
    across = (frame[SIZE // 2, :, 3] > 127).sum()
    down = (frame[:, SIZE // 2, 3] > 127).sum()
    assert abs(int(across) - int(down)) <= 1
    light = frame[..., :3].sum(2)
    assert light[SIZE // 3, SIZE // 3] > light[2 * SIZE // 3, 2 * SIZE // 3]  # the key stands up on the viewer's left


def test_transparent_frames_have_soft_coverage():
    face = bare_face()
    alpha = SoftRenderer(face, SIZE, SIZE, background="transparent").frame(face.template)[..., 3]
    assert alpha[0, 0] == 0
    assert alpha[SIZE // 2, SIZE // 2] == 255
    assert ((alpha > 0) & (alpha < 255)).sum() > 40


def test_coloured_background_is_kept_exactly():
    face = bare_face()
    frame = SoftRenderer(face, SIZE, SIZE, background=(1.0, 0.0, 0.0)).frame(face.template)
    np.testing.assert_array_equal(frame[0, 0], (255, 0, 0))


def test_half_covered_pixels_mix_in_linear_light():
    """A white square that covers half of a column of pixels over black shows the sRGB of its half light."""
    vertices = np.array([(-1, -1, 0), (0.5 / 32, -1, 0), (0.5 / 32, 1, 0), (-1, 1, 0)], np.float32)
    face = Face("square", vertices, np.array([(0, 1, 2), (0, 2, 3)], np.int32))
    camera = Camera(distance=1.0, field_of_view=2 * np.degrees(np.arctan(0.5)))  # a metre across the picture
    frame = SoftRenderer(face, 32, 32, camera=camera, background=(0.0, 0.0, 0.0)).frame(vertices)
    whole, half = frame[16, 8] / 255, frame[16, 16] / 255
    np.testing.assert_allclose(half, to_srgb(to_linear(whole) / 2), atol=0.01)


def test_vertex_colours_are_seen():
    vertices, triangles, _ = sphere()
    colors = np.where(vertices[:, :1] > 0, (255, 0, 0), (0, 0, 255)).astype(np.uint8)
    face = Face("two", vertices, triangles, colors=colors)
    renderer = SoftRenderer(face, SIZE, SIZE)
    frame = renderer.frame(vertices).astype(int)
    assert frame[SIZE // 2, SIZE // 3, 2] > frame[SIZE // 2, SIZE // 3, 0]
    assert frame[SIZE // 2, 2 * SIZE // 3, 0] > frame[SIZE // 2, 2 * SIZE // 3, 2]
    swapped = renderer.frame(vertices, colors=to_linear(colors[:, ::-1] / 255)).astype(int)
    assert swapped[SIZE // 2, SIZE // 3, 0] > swapped[SIZE // 2, SIZE // 3, 2]


def test_head_motion_moves_the_picture():
    face = bare_face()
    renderer = SoftRenderer(face, SIZE, SIZE, background="transparent")
    head = np.eye(4, dtype=np.float32)
    head[0, 3] = 0.02  # towards the person's left, the viewer's right
    columns = np.arange(SIZE)
    rest, moved = (renderer.frame(face.template, motion)[..., 3].sum(0) for motion in (None, head))
    assert (moved * columns).sum() / moved.sum() > (rest * columns).sum() / rest.sum() + 5


def test_opaque_hair_hides_and_its_fringe_lets_through(dressed):
    bald = replace(dressed.face, attachments={})
    with_hair, without = (
        dressed.frame(dressed.face.template).astype(int),
        SoftRenderer(bald, SIZE, SIZE, camera=CAMERA).frame(bald.template),
    )
    changed = np.abs(with_hair - without).sum(2)
    hair = changed[SIZE // 3]
    assert (hair > 60).any()
    assert hair[-1] == 0


def test_views_turn_around_the_face():
    front = portrait_camera(bare_face())
    left, ahead = view_camera(front, "side").eye(), front.eye()
    assert left[0] > 5 * abs(left[2] - front.target[2])
    assert abs(ahead[0]) < 1e-6
    assert ahead[2] > 0
    assert view_camera(front, "turntable", 2.0).yaw == pytest.approx(90.0)
    with pytest.raises(RenderError, match="unknown view"):
        view_camera(front, "above")


def test_tone_keeps_what_is_dark_and_never_burns():
    light = np.linspace(0, 50, 1000)
    shown = tone_map(light)
    np.testing.assert_allclose(shown[light < 0.6], light[light < 0.6], rtol=1e-6)
    assert (np.diff(shown) >= 0).all()
    assert shown.max() <= 1
    np.testing.assert_allclose(to_srgb(to_linear(np.linspace(0, 1, 256))), np.linspace(0, 1, 256), atol=1e-5)


def test_a_normal_longer_than_one_by_rounding_gets_light():
    shadow_map = np.full((shadow.LAYERS, shadow.SIZE, shadow.SIZE), 0.5, np.float32)
    view = np.array([(1, 0, 0, 160), (0, 1, 0, 160), (0, 0, 1, 0.5)], np.float32)
    zero, past_one = np.float32(0), np.nextafter(np.float32(1), np.float32(2))
    assert shadow.sample_shadow(zero, zero, zero, past_one, view, shadow_map) == 1


def test_a_vertex_that_is_no_number_stops(dressed):
    broken = dressed.face.template.copy()
    broken[7, 1] = np.nan
    with pytest.raises(RenderError, match="vertex 7"):
        dressed.frame(broken)


def test_vertices_of_another_face_stop(dressed):
    with pytest.raises(RenderError, match="vertices for a face of"):
        dressed.frame(dressed.face.template[:-1])


def test_a_blank_frame_stops_if_the_face_is_in_view():
    face = bare_face()
    renderer = SoftRenderer(face, SIZE, SIZE)
    inside_out = face.template * np.array([1, 1, 1e-9], np.float32)  # all triangles edge-on or turned away
    inside_out[:, 0] = 0
    with pytest.raises(RenderError, match="blank"):
        renderer.frame(inside_out)


def test_a_face_out_of_view_is_an_empty_frame():
    face = bare_face()
    renderer = SoftRenderer(face, SIZE, SIZE, background=(0.0, 0.0, 0.0))
    assert renderer.frame(face.template + np.array([5, 0, 0], np.float32)).max() == 0


def test_importing_costs_little():
    """Neither a compiler nor what only other parts need is imported with the package."""
    assert _imported("import sedtalker.render", ("numba", "torch", "scipy", "trimesh", "pyrender", "av", "PIL")) == []
    others = ("torch", "scipy.signal", "scipy.spatial", "trimesh", "pyrender")
    assert _imported("from sedtalker.render import SoftRenderer, write_video", others) == []


def _imported(code: str, names: tuple[str, ...]) -> list[str]:
    """Which of the modules a process has after running a line of code."""
    code = f"import sys\n{code}\nprint(*[name for name in {names!r} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_a_closing_lid_covers_the_wet_eye():
    face = load_face()
    dry = replace(face, surfaces=tuple(surface for surface in face.surfaces if surface.name != "cornea"))
    wet_eyes, dry_eyes = (SoftRenderer(one, 512, 512, camera=portrait_camera(face)) for one in (face, dry))
    weights = np.zeros((2, 52), np.float32)
    weights[1, [face.blendshape_names.index(f"eyeBlink{side}") for side in ("Left", "Right")]] = 0.55
    shine = [
        np.abs(wet_eyes.frame(pose).astype(int) - dry_eyes.frame(pose)).max(axis=-1) for pose in face.pose(weights)
    ]
    assert (shine[0] > 100).any()
    assert shine[1].max() < 30
