"""The software renderer: deterministic bytes, correct shading and coverage, and errors instead of wrong frames."""

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
from scipy import ndimage

from sedtalker.errors import RenderError
from sedtalker.face.assets import load_face
from sedtalker.face.rig import Face, Material, Surface
from sedtalker.render import shade, shadow
from sedtalker.render.camera import Camera, portrait_camera, view_camera
from sedtalker.render.scene import prepare_face
from sedtalker.render.shade import to_linear, to_srgb, tone_map
from sedtalker.render.soft import SoftRenderer

SIZE = 96
CAMERA = Camera(distance=0.75)


@pytest.fixture(scope="module")
def dressed() -> SoftRenderer:
    return SoftRenderer(textured_face(), SIZE, SIZE, camera=CAMERA)


@pytest.mark.parametrize("quality", ["standard", "fine"])
def test_frames_do_not_depend_on_the_threads(quality):
    face = textured_face()
    moves = [face.template * (1 + 0.02 * k) for k in range(8)]
    alone = SoftRenderer(face, SIZE, SIZE, quality)
    expected = [alone.frame(vertices).tobytes() for vertices in moves]
    renderer = SoftRenderer(face, SIZE, SIZE, quality)
    for threads in (1, 4):
        with ThreadPoolExecutor(threads) as pool:
            assert [frame.tobytes() for frame in pool.map(renderer.frame, moves)] == expected


@pytest.mark.slow
def test_frames_do_not_depend_on_the_processor():
    """Code for a generic processor, with short vectors and without fused operations, draws the same bytes."""
    code = "import test_render_soft as t; print(t.digest())"
    plain = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, env=os.environ | plain, capture_output=True, text=True
    )
    assert process.stdout.strip() == digest(), process.stderr


def digest() -> str:
    """Hash of a standard and a fine frame."""
    face = textured_face()
    frames = [SoftRenderer(face, SIZE, SIZE, quality).frame(face.template) for quality in ("standard", "fine")]
    return hashlib.sha256(b"".join(frame.tobytes() for frame in frames)).hexdigest()


@pytest.mark.parametrize("yaw", [120.0, 240.0])
def test_matt_sphere_has_the_colors_of_the_lighting_model(yaw):
    """Every pixel inside the outline against the shading of an exact sphere, computed here by ray casting."""
    renderer = SoftRenderer(_matt_ball(), SIZE, SIZE, camera=replace(CAMERA, yaw=yaw), background=(0.0, 0.0, 0.0))
    frame = renderer.frame(renderer.face.template)
    normals, hit = _cast_rays_at_sphere(renderer.camera, radius=0.1)
    light = shade.GROUND + (shade.SKY - shade.GROUND) * (0.5 + 0.5 * normals[..., 1:2])  # hemisphere light
    for direction, color in zip(shade.LIGHT_DIRECTIONS, shade.LIGHT_COLORS, strict=True):
        light = light + color * np.maximum(0, normals @ direction)[..., None]
    expected = to_srgb(tone_map(np.array(TINT) * light)) * 255
    inside = ndimage.binary_erosion(hit, iterations=2)
    assert inside.sum() > 3000
    assert np.abs(frame - expected)[inside].max() < 4
    assert frame[~ndimage.binary_dilation(hit, iterations=2)].max() == 0


TINT = (0.5, 0.3, 0.2)


def _matt_ball() -> Face:
    """A sphere of 0.1 m with a Lambertian material that casts no shadow."""
    vertices, triangles, uv = sphere(48, 96)
    material = Material("card", tint=TINT, wrap=(0.0, 0.0, 0.0), specular=0.0, sheen=0.0)
    surface = Surface("ball", triangles, uv, triangles, material, np.ones(len(vertices), np.float32))
    return Face("ball", vertices, triangles, surfaces=(surface,))


def _cast_rays_at_sphere(camera: Camera, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Unit normals (SIZE, SIZE, 3) where the pixels' rays hit a sphere at the origin, and whether they do."""
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    focal = camera.focal(SIZE, SIZE)
    local = np.stack([(columns - SIZE / 2) / focal, (SIZE / 2 - rows) / focal, np.full(rows.shape, -1.0)], -1)
    rays = local @ camera.axes().astype(float)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    eye = camera.eye().astype(float)
    half = rays @ eye
    discriminant = half**2 - (eye @ eye - radius**2)
    hit = discriminant > 0
    distance = -half - np.sqrt(np.maximum(discriminant, 0))
    return (eye + distance[..., None] * rays) / radius, hit


def test_texture_is_drawn_at_its_coordinates():
    """The upper half of the picture is red, its right half has green: v points up and u to the person's left."""
    texture = np.zeros((64, 64, 3), np.uint8)
    texture[:32, :, 0] = texture[:, 32:, 1] = 255
    vertices = np.array([(-0.1, -0.1, 0), (0.1, -0.1, 0), (0.1, 0.1, 0), (-0.1, 0.1, 0)], np.float32)
    uv = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32)
    face = Face("square", vertices, np.array([(0, 1, 2), (0, 2, 3)], np.int32), uv=uv, textures={"t": texture})
    frame = SoftRenderer(face, SIZE, SIZE, camera=CAMERA).frame(vertices).astype(int)
    upper_left, lower_right = frame[SIZE // 3, SIZE // 3], frame[2 * SIZE // 3, 2 * SIZE // 3]
    assert upper_left[0] > upper_left[1] + 60
    assert lower_right[1] > lower_right[0] + 60


@pytest.mark.parametrize("quality", ["standard", "fine"])
def test_only_fine_frames_have_a_shadow_of_their_own(quality):
    """A plate between the key light and the ball moves away: its shadow goes with it if the quality is fine."""
    ball, triangles, _ = sphere()
    toward_light = shade.LIGHT_DIRECTIONS[shade.KEY_LIGHT].astype(float)
    across = np.cross((0.0, 1.0, 0.0), toward_light) / np.linalg.norm(np.cross((0.0, 1.0, 0.0), toward_light))
    up = np.cross(toward_light, across)
    spot = 0.1 * toward_light  # of the ball, faces the light
    plate = np.array([spot + 0.1 * toward_light + 0.03 * (a * across + b * up) for a, b in CORNERS])
    sides = np.array([(0, 1, 2), (0, 2, 3)], np.int32) + len(ball)
    vertices = np.concatenate([ball, plate]).astype(np.float32)
    face = Face("ball and plate", vertices, np.concatenate([triangles, sides]))
    camera = Camera(distance=0.75, yaw=20.0)  # sees the spot past the plate
    renderer = SoftRenderer(face, SIZE, SIZE, quality, camera)
    away = vertices.copy()
    away[len(ball) :] += (0.4 * across).astype(np.float32)
    column, row, _ = camera.project(spot[None].astype(np.float32), SIZE, SIZE)[0]
    shadowed, lit = (int(renderer.frame(moved)[int(row), int(column)].sum()) for moved in (vertices, away))
    if quality == "fine":
        assert shadowed < 0.8 * lit
    else:
        assert shadowed == lit


CORNERS = ((-1, -1), (1, -1), (1, 1), (-1, 1))


def test_only_fine_frames_have_relief_and_sixteen_samples(dressed):
    smooth = replace(dressed.face, surfaces=tuple(_without_bump(surface) for surface in dressed.face.surfaces))
    for quality, has_relief in (("standard", False), ("fine", True)):
        frames = [SoftRenderer(one, SIZE, SIZE, quality, CAMERA).frame(one.template) for one in (dressed.face, smooth)]
        assert (frames[0] != frames[1]).any() == has_relief
    bare = bare_face()
    levels = [
        len(np.unique(SoftRenderer(bare, SIZE, SIZE, quality, background="transparent").frame(bare.template)[..., 3]))
        for quality in ("standard", "fine")
    ]
    assert levels[0] <= 5 < levels[1]  # four coverage samples in a pixel, and sixteen


def _without_bump(surface: Surface) -> Surface:
    return replace(surface, material=replace(surface.material, bump=None))


def test_bare_mesh_is_round_and_lit_from_the_key_light():
    face = bare_face()
    frame = SoftRenderer(face, SIZE, SIZE, background="transparent").frame(face.template)
    across = (frame[SIZE // 2, :, 3] > 127).sum()
    down = (frame[:, SIZE // 2, 3] > 127).sum()
    assert abs(int(across) - int(down)) <= 1
    light = frame[..., :3].sum(2)
    assert (
        light[SIZE // 3, SIZE // 3] > light[2 * SIZE // 3, 2 * SIZE // 3]
    )  # the key light is at the viewer's upper left


def test_transparent_frames_have_soft_coverage():
    face = bare_face()
    alpha = SoftRenderer(face, SIZE, SIZE, background="transparent").frame(face.template)[..., 3]
    assert alpha[0, 0] == 0
    assert alpha[SIZE // 2, SIZE // 2] == 255
    assert ((alpha > 0) & (alpha < 255)).sum() > 40


def test_background_color_is_exact():
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


def test_vertex_colors_are_drawn():
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


def test_hair_is_blended_over_the_face(dressed):
    bald = replace(dressed.face, attachments={})
    with_hair, without = (
        dressed.frame(dressed.face.template).astype(int),
        SoftRenderer(bald, SIZE, SIZE, camera=CAMERA).frame(bald.template),
    )
    changed = np.abs(with_hair - without).sum(2)
    hair = changed[SIZE // 3]
    assert (hair > 60).any()
    assert hair[-1] == 0


def test_the_edge_of_hair_is_smooth():
    face = textured_face()
    strands = np.full((8, 8, 4), 90, np.uint8)
    strands[..., 3] = np.where(np.indices((8, 8)).sum(0) < 7, 255, 0)  # a diagonal edge
    face = replace(face, textures={**face.textures, "strands": strands}, surfaces=face.surfaces[1:])
    opaque = SoftRenderer(face, SIZE, SIZE, camera=CAMERA, background="transparent").frame(face.template)[..., 3] > 240
    rows = opaque.sum(0)[opaque.any(0)]  # of each column
    assert len(rows) > 40 and rows.max() - rows.min() > 30
    assert np.abs(np.diff(rows[3:-3])).max() <= 3  # a texel is drawn larger


def test_smooth_hair_is_tessellated_in_standard():
    face = textured_face()
    hair = face.attachments["hair"]
    background = np.zeros((SIZE, SIZE, 3), np.float32)
    counts = []
    for smooth in (False, True):
        shell = replace(hair, surface=replace(hair.surface, smooth=smooth))
        dressed = replace(face, attachments={"hair": shell})
        prepared = prepare_face(dressed, CAMERA, SIZE, SIZE, fine=False, background=background)
        counts.append(len(prepared.scene.triangles))
    assert counts[1] == counts[0] + 3 * len(hair.surface.triangles)


def test_hair_beyond_the_right_edge_is_not_drawn_on_the_next_row():
    """Pixels are tested eight at a time: the last group of a row extends beyond a width that is not a multiple of 8."""
    face = textured_face()
    hair = face.attachments["hair"]
    wide = replace(hair, offsets=hair.offsets * np.float32([5, 5, 1]))
    strands = face.textures["strands"].copy()
    strands[..., 3] = 120
    face = replace(face, attachments={"hair": wide}, textures={**face.textures, "strands": strands})
    frames = [
        SoftRenderer(face, width, 56, camera=CAMERA, background=(0, 0, 0)).frame(face.template).astype(int)
        for width in (60, 64)
    ]
    assert frames[0][10, -1].any()
    np.testing.assert_array_equal(frames[0], frames[1][:, 2:-2])


def test_views_turn_around_the_face():
    front = portrait_camera(bare_face())
    left, ahead = view_camera(front, "side").eye(), front.eye()
    assert left[0] > 5 * abs(left[2] - front.target[2])
    assert abs(ahead[0]) < 1e-6
    assert ahead[2] > 0
    assert view_camera(front, "turntable", 2.0).yaw == pytest.approx(90.0)
    with pytest.raises(RenderError, match="unknown view"):
        view_camera(front, "above")


def test_tone_mapping_keeps_dark_colors_and_never_clips():
    light = np.linspace(0, 50, 1000)
    mapped = tone_map(light)
    np.testing.assert_allclose(mapped[light < 0.6], light[light < 0.6], rtol=1e-6)
    assert (np.diff(mapped) >= 0).all()
    assert mapped.max() <= 1
    np.testing.assert_allclose(to_srgb(to_linear(np.linspace(0, 1, 256))), np.linspace(0, 1, 256), atol=1e-5)


def test_a_normal_longer_than_one_by_rounding_is_lit():
    shadow_map = np.full((shadow.LAYERS, shadow.SIZE, shadow.SIZE), 0.5, np.float32)
    view = np.array([(1, 0, 0, 160), (0, 1, 0, 160), (0, 0, 1, 0.5)], np.float32)
    zero, past_one = np.float32(0), np.nextafter(np.float32(1), np.float32(2))
    assert shadow.sample_shadow(zero, zero, zero, past_one, view, shadow_map) == 1


@pytest.mark.parametrize("facing", [0.02, 0.1, 0.3, 1.0])
def test_a_point_eleven_millimetres_behind_an_edge_is_dark_however_steep_its_surface(facing: float) -> None:
    """With a bias that grows with the slope without a limit, light leaked between a lip and its shadow."""
    view = np.eye(3, 4, dtype=np.float32)
    shadow_map = np.full((shadow.LAYERS, shadow.SIZE, shadow.SIZE), 0.5, np.float32)
    middle = np.float32(shadow.SIZE / 2)
    behind, before = (
        shadow.sample_shadow(middle, middle, np.float32(z), np.float32(facing), view, shadow_map) for z in (0.511, 0.5)
    )
    assert behind == 0 and before == 1


def test_a_vertex_with_nan_is_rejected(dressed):
    broken = dressed.face.template.copy()
    broken[7, 1] = np.nan
    with pytest.raises(RenderError, match="vertex 7"):
        dressed.frame(broken)


def test_vertices_of_another_face_are_rejected(dressed):
    with pytest.raises(RenderError, match="vertices for a face of"):
        dressed.frame(dressed.face.template[:-1])


def test_a_blank_frame_with_the_face_in_view_is_an_error():
    face = bare_face()
    renderer = SoftRenderer(face, SIZE, SIZE)
    inside_out = face.template * np.array([1, 1, 1e-9], np.float32)  # all triangles edge-on or turned away
    inside_out[:, 0] = 0
    with pytest.raises(RenderError, match="blank"):
        renderer.frame(inside_out)


def test_a_face_out_of_view_gives_an_empty_frame():
    face = bare_face()
    renderer = SoftRenderer(face, SIZE, SIZE, background=(0.0, 0.0, 0.0))
    assert renderer.frame(face.template + np.array([5, 0, 0], np.float32)).max() == 0


def test_import_loads_no_compiler_and_no_unused_package():
    """The package imports neither the compiler nor packages of other parts."""
    assert _imported("import sedtalker.render", ("numba", "torch", "scipy", "trimesh", "pyrender", "av", "PIL")) == []
    others = ("torch", "scipy.signal", "scipy.spatial", "trimesh", "pyrender")
    assert _imported("import sedtalker.render.soft, sedtalker.render.video", others) == []


def _imported(code: str, names: tuple[str, ...]) -> list[str]:
    """The names of those modules that a line of code imports in a new process."""
    code = f"import sys\n{code}\nprint(*[name for name in {names!r} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_a_closing_lid_covers_the_cornea():
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
