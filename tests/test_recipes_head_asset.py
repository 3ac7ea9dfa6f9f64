"""The steps of the head asset's build, on small generated files and meshes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sedtalker.errors import FaceError

pytest.importorskip("scipy")

from sedtalker.face.arkit import JAW_OPEN, MOUTH_CLOSE
from sedtalker.face.assets import identities, load_face
from sedtalker.face.mesh import vertex_normals
from sedtalker.recipes.head_asset.attachments import largest_parts
from sedtalker.recipes.head_asset.bind import bind_points
from sedtalker.recipes.head_asset.blendshapes import diffuse, round_lips, symmetrize
from sedtalker.recipes.head_asset.build import LINING_DEPTH, LINING_LIGHT, light_from_front, light_lining
from sedtalker.recipes.head_asset.identities import IDENTITIES, _axis_weights
from sedtalker.recipes.head_asset.occlusion import ambient_occlusion, average_nearby, sphere, visible_triangles
from sedtalker.recipes.head_asset.sources import Sources, read_faces, read_obj, read_proxy, read_target
from sedtalker.recipes.head_asset.textures import crop_to_used, draw_strands

OBJ = """# two quads
v 0 0 0
v 1 0 0
v 1 1 0
v 0 1 0
v 2 0 0
v 2 1 0
vt 0 0
vt 1 0
vt 1 1
vt 0 1
g body
f 1/1 2/2 3/3 4/4
g helper-l-eye
f 2/1 5/2 6/3 3/4
"""


def proxy_text(name: str = "tongue01") -> str:
    return json.dumps(
        {
            "faces": [11, 0, 1, 2, 3, 0, 0, 1, 2, 3],
            "uvs": [[0, 0, 1, 0, 1, 1, 0, 1]],
            "ref_vIdxs": [[0, 1, 2]] * 4,
            "weights": [[0.5, 0.25, 0.25]] * 4,
            "offsets": [[0, 0, 1]] * 4,
            "metadata": {"name": name, "deleteVerts": [0, 1, 0, 0, 0, 0]},
        }
    )


def test_obj_is_converted_to_metres() -> None:
    mesh = read_obj(OBJ)
    np.testing.assert_allclose(mesh.vertices[4], (0.2, 0, 0))
    np.testing.assert_array_equal(mesh.quads, [[0, 1, 2, 3], [1, 4, 5, 2]])
    np.testing.assert_array_equal(mesh.uv_quads[1], [0, 1, 2, 3])
    assert mesh.groups.tolist() == ["body", "helper-l-eye"]


def test_target_is_converted_to_metres() -> None:
    displacements = read_target("# comment\n2 .5 -1 0\n\n0 0 0 .25\n", 4)
    np.testing.assert_allclose(displacements, [[0, 0, 0.025], [0, 0, 0], [0.05, -0.1, 0], [0, 0, 0]])
    assert not read_target("# nothing moves\n", 3).any()


def test_face_stream_skips_materials_normals_and_colours() -> None:
    with_material = [11, 0, 1, 2, 3, 7, 4, 5, 6, 7]
    with_normals_and_colours = [9 + 16 + 32 + 64 + 128, 3, 2, 1, 0, 0, 1, 2, 3, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]
    quads, uv_quads = read_faces([*with_material, *with_normals_and_colours, *with_material])
    np.testing.assert_array_equal(quads, [[0, 1, 2, 3], [3, 2, 1, 0], [0, 1, 2, 3]])
    np.testing.assert_array_equal(uv_quads, [[4, 5, 6, 7], [0, 1, 2, 3], [4, 5, 6, 7]])


def test_face_stream_of_triangles_is_refused() -> None:
    with pytest.raises(FaceError, match="textured quad"):
        read_faces([8, 0, 1, 2, 0, 1, 2])


def test_proxy_is_fitted_by_references_offsets_and_spans() -> None:
    proxy = read_proxy(proxy_text("coat"), "clothes")
    base = np.array([[0.0, 0, 0], [4, 0, 0], [0, 8, 0]])
    np.testing.assert_allclose(proxy.fit(base)[0], (1, 2, 0.1))
    np.testing.assert_allclose(proxy.transfer(np.stack([base, 2 * base]))[1, 0], (2, 4, 0))
    assert proxy.hidden.tolist() == [False, True, False, False, False, False]
    head = np.zeros((12_000, 3))
    head[962, 2], head[5320, 2] = 0.1, 0.1 - 2 * 0.19221
    head[5399, 0], head[791, 1] = 0.148, 0.23298
    np.testing.assert_allclose(read_proxy(proxy_text(), "tongue").scale(head), (1, 1, 2), rtol=1e-6)


def test_missing_packages_are_reported(tmp_path: Path) -> None:
    with pytest.raises(FaceError, match="no such package data"):
        Sources(tmp_path, tmp_path)


@pytest.mark.parametrize("identity", IDENTITIES, ids=[identity.name for identity in IDENTITIES])
def test_phenotype_shares_sum_to_one(identity) -> None:
    for axis, shares in _axis_weights(identity.phenotype).items():
        assert sum(shares.values()) == pytest.approx(1), axis
        assert min(shares.values()) > 0


def test_symmetrize_mirrors_the_left_side_and_averages_the_middle() -> None:
    mirror = np.array([1, 0])
    asymmetric = np.array([[1.0, 2, 0], [0, 4, 0]])
    even = symmetrize({"mouthSmileLeft": asymmetric, "mouthSmileRight": 9 * asymmetric, "jawOpen": asymmetric}, mirror)
    np.testing.assert_allclose(even["mouthSmileRight"], [[0, 4, 0], [-1, 2, 0]])
    np.testing.assert_allclose(even["jawOpen"], [[0.5, 3, 0], [-0.5, 3, 0]])


def test_diffusion_keeps_pinned_values_and_decays() -> None:
    chain = np.stack([np.arange(20), np.arange(1, 21)], axis=1)
    field = diffuse(chain, 21, np.array([0, 20]), np.array([[1.0], [0.0]]), reach=3)[:, 0]
    assert field[0] == 1
    assert field[20] == 0
    assert (np.diff(field) < 0).all()
    assert field[10] < 0.1


def test_points_are_bound_to_the_triangle_of_similar_motion() -> None:
    """A point between two triangles is bound to the one with its motion, and reproduces that motion exactly."""
    template = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [0, 1, 1]])
    blendshapes = np.zeros((1, 6, 3))
    blendshapes[0, 3:, 0] = (1.0, 1.0, 3.0)
    point, motion = np.array([[0.3, 0.3, 0.4]]), np.array([[[2.0, 0, 0]]])
    indices, weights, offsets = bind_points(point, motion, template, blendshapes, np.array([[0, 1, 2], [3, 4, 5]]))
    np.testing.assert_array_equal(indices, [[3, 4, 5]])
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights[0] @ template[indices[0]] + offsets[0], point[0], atol=1e-12)
    np.testing.assert_allclose(weights[0] @ blendshapes[0, indices[0]], (2, 0, 0), atol=1e-4)


def test_occlusion_of_a_floor_under_a_roof() -> None:
    """Open ground is unoccluded; ground under a wide low roof is occluded almost completely."""

    def square(x: float, y: float, half: float) -> np.ndarray:
        return np.array([(x + dx * half, y, dz * half) for dx, dz in ((-1, -1), (-1, 1), (1, 1), (1, -1))])

    vertices = np.concatenate([square(0, 0, 2.0), square(-1, 0.2, 0.9)])
    triangles = np.array([(0, 1, 2), (0, 2, 3), (4, 5, 6), (4, 6, 7)], np.int32)
    points = np.array([(1.5, 0.0, 0.0), (-1.0, 0.0, 0.0)])
    up = np.tile((0.0, 1.0, 0.0), (2, 1))
    light = ambient_occlusion(points, up, vertices, triangles)
    assert light[0] > 0.9
    assert light[1] < 0.25


def test_the_inside_of_lips_and_cheeks_is_not_black_beside_the_teeth() -> None:
    """A far cheek that is black between lips and teeth looks like a hole in three-quarter views."""
    for name in identities():
        face = load_face(name)
        (surface,) = (surface for surface in face.surfaces if surface.name == "mouth")
        mouth = face.parts["mouth"]
        assert surface.occlusion is not None
        depth, light = face.template[mouth, 2], surface.occlusion[mouth]
        np.testing.assert_allclose(light, light_from_front(depth, light, LINING_LIGHT, LINING_DEPTH), atol=1 / 255)
        assert light[depth > depth.max() - 0.02].min() > 0.2


def test_the_cheeks_behind_the_corners_of_a_smile_get_light_and_the_throat_none() -> None:
    lining = np.array([[0.0, 0, 0], [0.03, 0, 0], [0, 0, -0.06], [0.03, 0, -0.06], [-0.03, 0, -0.06], [0.03, 0, -0.2]])
    light = light_lining(lining, np.zeros(len(lining)))
    assert light[1] > light[0] > 0
    assert light[3] == light[4] > 0.2
    assert light[2] == light[5] == 0


@pytest.mark.parametrize("name", identities())
def test_the_packaged_heads_have_lit_cheeks(name: str) -> None:
    face = load_face(name)
    mouth = face.parts["mouth"]
    lining = next(surface for surface in face.surfaces if surface.name == "mouth")
    assert lining.occlusion is not None
    baked = lining.occlusion[mouth]
    np.testing.assert_allclose(baked, light_lining(face.template[mouth].astype(float), baked), atol=0.003)


def test_a_wedge_becomes_round_with_the_same_gap() -> None:
    face = load_face()
    assert face.lip_pairs is not None and face.blendshapes is not None
    lower = face.lip_pairs[:, 1]
    wedge = np.zeros(face.blendshapes.shape)
    across = face.template[lower, 0]
    wedge[JAW_OPEN, lower, 1] = -0.03 * (1 - np.abs(across) / across.max())
    sides = face.surfaces[0].triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    change = round_lips(face.template, wedge, face.lip_pairs, np.unique(np.sort(sides, 1), axis=0))
    depth = -(wedge + change)[JAW_OPEN, lower, 1]
    assert depth[5:8].mean() == pytest.approx(-wedge[JAW_OPEN, lower[5:8], 1].mean())
    assert depth[6] < 1.08 * depth[5]
    assert depth[[0, -1]] == pytest.approx(0)
    np.testing.assert_array_equal(change[JAW_OPEN] + change[MOUTH_CLOSE], 0)
    assert not change[:, face.lip_pairs[:, 0]].any()


def test_the_packaged_mouth_opens_round() -> None:
    face = load_face()
    assert face.lip_pairs is not None and face.blendshapes is not None
    depth = -face.blendshapes[JAW_OPEN, face.lip_pairs[:, 1], 1]
    depth = (depth - depth[0]) / (depth[6] - depth[0])
    assert depth[5] > 0.94
    assert depth[4] > 0.78  # at half of the width; a wedge has .5


def test_triangles_behind_others_are_not_visible() -> None:
    near = np.array([(-1.0, -1, 1), (1, -1, 1), (0, 1, 1)])
    vertices = np.concatenate([near, near * (0.5, 0.5, 0)])
    triangles = np.array([(0, 1, 2), (3, 4, 5)], np.int32)
    assert visible_triangles(vertices, triangles, [np.array([0.0, 0, 1])], 64).tolist() == [True, False]
    assert visible_triangles(vertices, triangles, [np.array([0.0, 0, -1])], 64).tolist() == [True, True]


def test_occlusion_is_averaged_over_unconnected_points_within_the_radius() -> None:
    points = np.array([[0, 0, 0], [0.01, 0, 0], [0.05, 0, 0]])
    values = np.array([0.2, 0.8, 0.5], np.float32)
    np.testing.assert_allclose(average_nearby(values, points, 0.012), [0.5, 0.5, 0.5])
    np.testing.assert_allclose(average_nearby(values, points, 0.005), values)


def test_directions_and_normals_have_unit_length() -> None:
    directions = sphere(96)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    assert np.abs(directions.mean(0)).max() < 0.02
    flat = np.array([(0.0, 0, 0), (1, 0, 0), (0, 1, 0)])
    np.testing.assert_allclose(vertex_normals(flat, np.array([(0, 1, 2)])), np.tile((0, 0, 1), (3, 1)))


def test_the_largest_connected_parts_of_a_proxy_are_kept() -> None:
    quads = [[0, 1, 2, 3], [1, 4, 5, 2], [6, 7, 8, 9], [10, 11, 12, 13], [11, 14, 15, 12], [14, 16, 17, 15]]
    proxy = replace(read_proxy(proxy_text(), "tongue"), quads=np.array(quads), refs=np.zeros((18, 3), np.int32))
    assert largest_parts(proxy, 0).all()
    assert largest_parts(proxy, 1).tolist() == [False, False, False, True, True, True]
    assert largest_parts(proxy, 2).tolist() == [True, True, False, True, True, True]


def test_a_cropped_texture_shows_the_same_texels() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (64, 128, 4), np.uint8)
    uv = np.array([[40.5 / 128, 0.1], [80.5 / 128, 0.9]], np.float32)
    cropped, moved = crop_to_used(picture, uv)
    assert cropped.shape[1] < 128
    np.testing.assert_allclose(moved[:, 1], uv[:, 1])
    columns = (moved[:, 0] * cropped.shape[1]).astype(int)
    np.testing.assert_array_equal(cropped[:, columns], picture[:, [40, 80]])


def test_strands_are_vertical_or_meet_at_the_knot_of_their_region() -> None:
    alpha = np.zeros((300, 300))
    alpha[:, :200] = 1  # the largest region, whose strands meet at its left edge
    alpha[:, 220:] = 1
    strands = draw_strands(alpha, ((0.0, 0.5),), np.random.default_rng(0))
    down, right = np.gradient(strands)
    assert np.abs(right[:, 240:]).mean() > 4 * np.abs(down[:, 240:]).mean()
    y, x = np.mgrid[0:300, 60:180]
    radius = np.hypot(x, y - 150)
    along = np.abs(right[:, 60:180] * x + down[:, 60:180] * (y - 150)) / radius
    across = np.abs(right[:, 60:180] * (y - 150) - down[:, 60:180] * x) / radius
    assert across.mean() > 4 * along.mean()
