"""Rigs for meshes of other topologies: correspondence, transferred shapes, folder, retargeting, wrong inputs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from made_avatar import head_glb, split_glb
from made_face import sphere
from PIL import Image

from sedtalker.animation import Animation
from sedtalker.emotion.track import EmotionTrack
from sedtalker.errors import FaceError, FaceWarning
from sedtalker.export.glb import encode_glb
from sedtalker.export.retarget import mesh_of, retarget
from sedtalker.face import fit
from sedtalker.face.arkit import ARKIT_NAMES, JAW_OPEN
from sedtalker.face.asset_io import write_faces
from sedtalker.face.assets import load_face
from sedtalker.face.deformation_transfer import transfer
from sedtalker.face.fit import fit_mesh
from sedtalker.face.fit_assembly import _EYE_IN_TEXTURE, _IRIS, FitReport, _covers, _is_sphere, _paint_eyes
from sedtalker.face.fit_landmarks import read_landmarks
from sedtalker.face.fit_transfer import _check_lips
from sedtalker.face.fit_types import read_source
from sedtalker.face.mesh import format_obj, read_mesh, vertex_normals
from sedtalker.face.mesh_looks import read_looks
from sedtalker.face.mouth_measures import GAP, mouth_measures
from sedtalker.face.registration import SurfaceIndex
from sedtalker.face.rig import Face, Material, Surface

pytest.importorskip("scipy")


def remeshed(face: Face) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Skin and mouth of a head with four triangles for each one, vertices shuffled: points, triangles, blendshapes."""
    skin = np.concatenate([surface.triangles for surface in face.surfaces if surface.name in ("skin", "mouth")])
    used, inverse = np.unique(skin.ravel(), return_inverse=True)
    triangles = inverse.reshape(-1, 3)
    points, shapes = face.template[used], face.blendshapes[:, used]
    sides = np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    edges, middle = np.unique(sides, axis=0, return_inverse=True)
    middle = middle.reshape(-1, 3) + len(points)
    points = np.concatenate([points, points[edges].mean(axis=1)])
    shapes = np.concatenate([shapes, shapes[:, edges].mean(axis=2)], axis=1)
    (a, b, c), (ab, bc, ca) = triangles.T, middle.T
    quarters = ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))
    triangles = np.concatenate([np.stack(quarter, axis=1) for quarter in quarters])
    order = np.random.default_rng(0).permutation(len(points))
    return points[order], np.argsort(order)[triangles], shapes[:, order]


@pytest.fixture(scope="module")
def head() -> Face:
    return load_face("default:age=60,sex=0.2,weight=0.7")  # a person whom the fit has not seen


@pytest.fixture(scope="module")
def truth(head: Face) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return remeshed(head)


def textured_obj(points: np.ndarray, triangles: np.ndarray, folder: Path) -> Path:
    """An OBJ file with a material library and a picture, texture coordinates from the front, and flaws of scans.

    The triangles face inwards, some of them are degenerate, and some occur twice.
    """
    rng = np.random.default_rng(1)
    picture = np.full((64, 64, 3), (70, 160, 90), np.uint8)
    picture[:, 32:] = (160, 90, 70)
    Image.fromarray(picture).save(folder / "skin 1.png")
    (folder / "head.mtl").write_text("newmtl Skin 1\nKd 0.8 0.8 0.8\nmap_Kd -s 1 1 1 skin 1.png\n")
    low, high = points.min(axis=0), points.max(axis=0)
    uv = (points - low)[:, :2] / (high - low)[:2]
    chosen = triangles[rng.integers(0, len(triangles), 20)]
    faces = np.concatenate([triangles[:, [0, 2, 1]], chosen[:, [0, 0, 1]], chosen[:10]])
    stored = points[:, [0, 2, 1]] * [100, -100, 100]  # centimetres, z up
    lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in stored] + [f"vt {u:.6f} {v:.6f}" for u, v in uv]
    lines += ["f " + " ".join(f"{corner}/{corner}" for corner in face) for face in (faces + 1).tolist()]
    (folder / "head.obj").write_text("\n".join(["mtllib head.mtl", "usemtl Skin 1", *lines]) + "\n")
    return folder / "head.obj"


@pytest.fixture(scope="module")
def fitted(
    truth: tuple[np.ndarray, np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Face, FitReport]:
    points, triangles, _ = truth
    return fit_mesh(textured_obj(points, triangles, tmp_path_factory.mktemp("mesh")))


def test_the_mesh_is_fitted(fitted: tuple[Face, FitReport], truth: tuple[np.ndarray, ...], head: Face) -> None:
    face, report = fitted
    assert report.pose == "in centimetres, +z up, facing -y"
    assert report.face_mean < 0.5 and report.lips_mean < 0.5  # mm; the goal is 1
    assert any("face inwards" in note for note in report.notes)
    assert report.kept == ("mouth",) and {*report.added} == {"eyes", "cornea", "teeth", "tongue"}
    np.testing.assert_allclose(face.template[: len(truth[0])], truth[0], atol=1e-5)
    for name in ("nose_tip", "mouth_left", "lid_left_upper"):
        assert np.linalg.norm(face.template[face.landmarks[name]] - head.template[head.landmarks[name]]) < 0.004, name


def test_transferred_shapes_are_those_of_the_head(
    fitted: tuple[Face, FitReport], truth: tuple[np.ndarray, ...]
) -> None:
    face, expected = fitted[0], truth[2]
    errors = np.linalg.norm(face.blendshapes[:, : expected.shape[1]] - expected, axis=2)
    travel = np.linalg.norm(expected, axis=2)
    medians = {}
    for column, name in enumerate(ARKIT_NAMES):
        moving = travel[column] > max(0.2 * travel[column].max(), 5e-4)
        if moving.sum() > 50:
            medians[name] = float(np.median(errors[column, moving] / travel[column, moving]))
    assert len(medians) > 45
    assert np.mean(list(medians.values())) < 0.1, medians
    assert medians["jawOpen"] < 0.1 and medians["mouthClose"] < 0.1, medians


def test_lips_close_and_lids_too(fitted: tuple[Face, FitReport]) -> None:
    face = fitted[0]
    measures = mouth_measures(face)
    assert measures.matrix[JAW_OPEN, GAP] > 25
    weights = np.zeros(52, np.float32)
    weights[[JAW_OPEN, ARKIT_NAMES.index("mouthClose")]] = 0.3
    assert abs(measures.of_weights(weights)[GAP] - measures.rest[GAP]) < 0.4
    for side in ("left", "right"):
        shape = face.blendshapes[ARKIT_NAMES.index(f"eyeBlink{side.title()}")]
        upper, lower = (face.landmarks[f"lid_{side}_{half}"] for half in ("upper", "lower"))
        gap = face.template[upper, 1] - face.template[lower, 1]
        assert abs(gap + shape[upper, 1] - shape[lower, 1]) < 0.35 * gap


def test_the_texture_of_the_mesh_is_kept(fitted: tuple[Face, FitReport], tmp_path: Path) -> None:
    write_faces(tmp_path / "rig", [lit(fitted[0])])
    face = load_face(tmp_path / "rig")
    skin = face.surfaces[0]
    assert skin.material.kind == "skin" and skin.material.mode == "opaque"
    texture = face.textures[skin.material.texture]
    assert texture.shape == (64, 64, 4) and np.abs(texture[5, 5, :3].astype(int) - (70, 160, 90)).max() < 12
    # The corners of the triangles keep their own coordinates, though the triangles were turned.
    at = face.template[skin.triangles]
    low, high = face.template[face.parts["mesh"]].min(axis=0), face.template[face.parts["mesh"]].max(axis=0)
    np.testing.assert_allclose(skin.uv[skin.uv_triangles], ((at - low) / (high - low))[..., :2], atol=1e-3)
    still = Animation(
        face.template, face.faces, 30.0, EmotionTrack.neutral(1 / 30), np.zeros((1, 52), np.float32), ARKIT_NAMES,
        rig=face,
    )  # fmt: skip
    tree, _ = split_glb(b"".join(encode_glb(still)))
    material = next(material for material in tree["materials"] if material["name"] == skin.name)
    assert "baseColorTexture" in material["pbrMetallicRoughness"]


def test_a_textured_glb_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(head_glb())
    _, triangles = read_mesh(tmp_path / "a.glb")
    looks = read_looks(tmp_path / "a.glb")
    rows = np.concatenate([part.triangles for part in looks.parts])
    assert len(rows) == len(triangles) and len(np.unique(rows)) == len(rows)
    skin = next(part for part in looks.parts if part.kind == "skin")
    assert looks.textures[skin.look.material.texture].ndim == 3
    assert len(skin.look.uv_triangles) == len(skin.triangles)


@pytest.mark.parametrize("name", ["../skin.png", "/etc/skin.png", "missing.png"])
def test_pictures_outside_of_the_folder_are_not_read(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "mesh"
    folder.mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "skin.png")
    (folder / "a.mtl").write_text(f"newmtl m\nmap_Kd {name}\n")
    (folder / "a.obj").write_text("mtllib a.mtl\nusemtl m\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nf 1/1 2/1 3/1\n")
    with pytest.warns(FaceWarning, match="has no texture"):
        assert not read_looks(folder / "a.obj").textures


def test_a_wrong_landmark_is_corrected(head: Face, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of the lips that was found 9 mm too high spoils the fit of the lips; the given one repairs it."""
    skin = np.concatenate([surface.triangles for surface in head.surfaces if surface.name in ("skin", "mouth")])
    used, inverse = np.unique(skin.ravel(), return_inverse=True)
    points = head.template[used]
    (tmp_path / "a.obj").write_bytes(format_obj(points, inverse.reshape(-1, 3)))
    upper, lower = head.lip_pairs[len(head.lip_pairs) // 2]
    line = head.template[[upper, lower]].mean(axis=0)
    wrong = {"mouth_middle": line + np.array([0, 0.009, 0.001], np.float32)}
    monkeypatch.setattr(fit, "find_landmarks", lambda *_: wrong)

    def misplaced(landmarks: dict[str, int]) -> float:
        """Metres between the lips of the fitted rig and those of the head."""
        face, _ = fit_mesh(tmp_path / "a.obj", landmarks)
        middle = face.lip_pairs[len(face.lip_pairs) // 2]
        return float(np.linalg.norm(face.template[middle].mean(axis=0) - line))

    assert misplaced({"mouth_middle": int(np.searchsorted(used, upper))}) < 0.003
    with contextlib.suppress(FaceError):  # it may also be refused
        assert misplaced({}) > 0.004


def test_landmarks_state_the_axes(head: Face, tmp_path: Path) -> None:
    names = ("nose_tip", "mouth_left", "mouth_right", "eye_left_inner")
    turned = head.template[:, [1, 2, 0]] / 0.0254  # inches, other axes
    given = {name: tuple(turned[head.landmarks[name]].tolist()) for name in names}
    source = read_source()
    pose, _ = fit._find_pose(tmp_path / "a.stl", turned, head.faces, source, given)
    assert pose.unit == "inches"
    moved = pose.apply(turned)
    np.testing.assert_allclose(moved - moved.mean(axis=0), head.template - head.template.mean(axis=0), atol=1e-4)
    swapped = {**given, "mouth_left": given["nose_tip"], "nose_tip": given["eye_left_inner"], "mouth_right": (0, 0, 9)}
    with pytest.raises(FaceError, match="not those of a face"):
        fit._find_pose(tmp_path / "a.stl", turned, head.faces, source, swapped)


def skin_of(face: Face) -> tuple[np.ndarray, np.ndarray]:
    used, inverse = np.unique(face.surfaces[0].triangles.ravel(), return_inverse=True)
    return face.template[used], inverse.reshape(-1, 3)


def write_two_heads(head: Face, path: Path) -> None:
    points, triangles = skin_of(head)
    both = np.concatenate([points, points + np.array([0.35, 0, 0])])
    path.write_bytes(format_obj(both, np.concatenate([triangles, triangles + len(points)])))


def write_body(head: Face, path: Path) -> None:
    points, triangles = skin_of(head)
    ball, sides, _ = sphere()
    body = ball * [2.5, 8, 2] + [0, points[:, 1].min() - 0.75, 0]
    path.write_bytes(format_obj(np.concatenate([points, body]), np.concatenate([triangles, sides + len(points)])))


def write_back(head: Face, path: Path) -> None:
    points, triangles = skin_of(head)
    behind = (points[triangles][..., 2] < 0.02).all(axis=1)
    path.write_bytes(format_obj(points, triangles[behind]))


def write_cloud(head: Face, path: Path) -> None:
    points, _ = skin_of(head)
    path.write_text("\n".join(f"v {x} {y} {z}" for x, y, z in points.tolist()))


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (write_two_heads, r"two heads|no single head"), (write_body, "no single head"),
        (write_back, r"no single head|does not fit|no mouth"), (write_cloud, "no triangles"),
    ],
)  # fmt: skip
def test_meshes_that_are_not_one_head(
    write: Callable[[Face, Path], None], words: str, head: Face, tmp_path: Path
) -> None:
    write(head, tmp_path / "a.obj")
    with pytest.raises(FaceError, match=words) as caught:
        fit_mesh(tmp_path / "a.obj")
    assert "\n" not in str(caught.value)


def test_vertices_without_triangles_do_not_hide_the_head(head: Face) -> None:
    triangles = head.surfaces[0].triangles
    points = np.concatenate([head.template, [(0, 40, 0), (-900, 0, 7)]]).astype(np.float32)
    gathered, strays = fit._gather_strays(points, triangles)
    assert strays == len(points) - len(np.unique(triangles))
    np.testing.assert_array_equal(gathered[triangles], points[triangles])
    pose, _ = fit._find_pose(Path("a.obj"), gathered, triangles, read_source(), {})
    assert pose.describe() == "in metres, +y up, facing +z"


def test_back_sides_are_found() -> None:
    points = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0)] * 2, np.float32)  # the back has its own vertices
    triangles = np.array([(0, 1, 2), (1, 3, 2), (4, 6, 5), (2, 0, 1)], np.int32)
    assert fit._first_of_each(points, triangles).tolist() == [True, True, False, False]


def test_a_very_dense_mesh_is_refused(head: Face, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "_MAX_VERTICES", 1000)
    (tmp_path / "a.obj").write_bytes(format_obj(*skin_of(head)))
    with pytest.raises(FaceError, match="Reduce it to at most 1000"):
        fit_mesh(tmp_path / "a.obj")


def lit(face: Face) -> Face:
    """The face with light that takes no time to bake."""
    light = np.ones(len(face.template), np.float32)
    return replace(face, surfaces=tuple(replace(surface, occlusion=light) for surface in face.surfaces))


def test_the_folder_is_a_face(fitted: tuple[Face, FitReport], tmp_path: Path) -> None:
    write_faces(tmp_path / "my head", [lit(fitted[0])])
    face = load_face(tmp_path / "my head")
    assert face.name == "my head" and face.source == str(tmp_path / "my head")
    np.testing.assert_array_equal(face.template, fitted[0].template)
    np.testing.assert_allclose(face.blendshapes, fitted[0].blendshapes, atol=4e-5)


def test_vertices_of_the_mesh_become_weights_and_back(fitted: tuple[Face, FitReport], tmp_path: Path) -> None:
    write_faces(tmp_path / "rig", [lit(fitted[0])])
    mesh = mesh_of(load_face(tmp_path / "rig"))
    weights = np.zeros((6, 52), np.float32)
    weights[:, JAW_OPEN] = np.linspace(0, 0.5, 6)
    weights[:, ARKIT_NAMES.index("mouthSmileLeft")] = 0.4
    dense = mesh.pose(weights).astype(np.float32)
    talker = Animation(mesh.template, mesh.faces, 30.0, EmotionTrack.neutral(0.2), dense=dense)
    rigged, solution = retarget(talker, tmp_path / "rig")
    assert solution.worst_mm < 0.05
    assert np.abs(rigged.blendshapes[:, JAW_OPEN] - weights[:, JAW_OPEN]).max() < 0.03
    assert rigged.face.surfaces and len(rigged.template) > len(mesh.template)  # with eyes and teeth
    default = load_face()
    spoken = Animation(
        default.template, default.faces, 30.0, EmotionTrack.neutral(0.2), weights, ARKIT_NAMES, rig=default
    )
    vertices, solution = retarget(spoken, tmp_path / "rig")
    assert solution.worst_mm < 0.05
    np.testing.assert_allclose(vertices.vertices, dense, atol=1e-6)


def test_eyeballs_without_colours_get_an_iris() -> None:
    points, triangles, _ = sphere(13, 24, 0.012)
    mesh = SimpleNamespace(points=points, unique=np.arange(len(points)))
    bare = Surface("own_eyes", triangles, np.zeros((1, 2), np.float32), 0 * triangles, Material("eye"), None)
    painted = _paint_eyes(bare, mesh, {"eye_left": np.arange(len(points))}, Material("eye", texture="eyes"))
    corners, uv = points[painted.triangles].reshape(-1, 3), painted.uv[painted.uv_triangles].reshape(-1, 2)
    front, side = corners[:, 2].argmax(), corners[:, 0].argmax()
    np.testing.assert_allclose(uv[front], _IRIS, atol=1e-3)
    np.testing.assert_allclose(uv[side] - uv[front], (_EYE_IN_TEXTURE, 0), atol=1e-3)
    assert painted.material.texture == "eyes"


def test_eyeballs_are_spheres() -> None:
    ball, _, _ = sphere(13, 24, 0.012)
    bulging = np.where(ball[:, 2:] > 0.010, ball * 1.15, ball)
    assert _is_sphere(ball) and _is_sphere(bulging) and _is_sphere(ball[ball[:, 2] > 0])
    lashes = np.concatenate([ball[(ball[:, 2] > 0.004) & (ball[:, 1] > 0)] * scale for scale in (1.0, 1.4, 1.8)])
    assert not _is_sphere(lashes)


def test_tears_are_layers_on_an_eyeball() -> None:
    ball, _, _ = sphere(13, 24, 0.012)
    front = ball[ball[:, 2] > 0.006]
    assert _covers(1.1 * front, ball)
    lashes = front + np.array([0, 0.004, 0.008], np.float32)
    assert not _covers(lashes, ball) and not _covers(1.6 * front, ball)


def test_sheets_that_touch_a_surface_are_not_joined_to_it() -> None:
    points, triangles, _ = sphere(9, 12)  # its first and last column are at the same positions: a seam
    rim = triangles[60, :2]
    outside = points[rim] * 1.4
    count = len(points)
    with_sheet = np.concatenate([points, points[rim], outside])
    sheet = np.array([[count, count + 1, count + 2], [count + 1, count + 3, count + 2]])
    whole, joined = fit._weld(with_sheet, np.concatenate([triangles, sheet]))
    assert len(np.unique(joined[:count])) == len(np.unique(np.round(points, 6), axis=0))  # the seam is closed
    assert not np.isin(joined[count:], joined[:count]).any()
    np.testing.assert_allclose(whole[joined], with_sheet, atol=1e-6)
    apart = points[triangles].reshape(-1, 3)  # as in STL, where no triangles share a vertex
    _, joined = fit._weld(apart, np.arange(len(apart)).reshape(-1, 3))
    assert len(np.unique(joined)) == len(np.unique(np.round(points, 6), axis=0))


def test_transfer_to_the_same_surface_is_exact() -> None:
    points, triangles, _ = sphere(12, 24)
    keep, inverse = np.unique(np.round(points, 6), axis=0, return_inverse=True)
    triangles = inverse.ravel()[triangles].astype(np.int32)
    triangles = triangles[[len({*corner}) == 3 for corner in triangles.tolist()]]
    points = keep.astype(np.float32)
    shape = (np.sin(30 * points[:, [1, 2, 0]]) * 0.01).astype(np.float32)[None]
    index = SurfaceIndex(points, triangles)
    match = index.closest(points, vertex_normals(points, triangles), facing=0.2)
    middles = index.closest(points[triangles].mean(axis=1))
    confidence = np.ones(len(points))
    moved = transfer(points, triangles, shape, points, triangles, match, middles, confidence, 1.0, 1.0)
    assert np.abs(moved - shape).max() < 1e-4


def test_lips_of_one_surface_are_refused() -> None:
    rows, columns = np.mgrid[0:21, 0:21]
    points = np.stack([columns.ravel() * 0.002, rows.ravel() * 0.002, 0 * rows.ravel()], axis=1).astype(np.float32)
    index = np.arange(21 * 21).reshape(21, 21)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    quads = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    lower, upper = index[10, 4:17], index[11, 4:17]
    with pytest.raises(FaceError, match="one closed surface"):
        _check_lips(Path("scan.obj"), points, quads.astype(np.int32), upper, lower)
    between = (quads[:, :, None] == lower).any(axis=(1, 2)) & (quads[:, :, None] == upper).any(axis=(1, 2))
    _check_lips(Path("scan.obj"), points, quads[~between].astype(np.int32), upper, lower)  # cut open


@pytest.mark.parametrize(
    ("content", "words"),
    [("[1]", "unknown landmark"), ('{"ear": 3}', "unknown landmark"), ('{"chin": "a"}', "no vertex and no position"),
     ('{"chin": [1, 2]}', "no vertex and no position"), ("{", "no landmarks"), ('{"chin": -1}', "no vertex")],
)  # fmt: skip
def test_wrong_landmarks(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(FaceError, match=words):
        read_landmarks(tmp_path / "a.json")


def test_landmarks_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"chin": 12, "nose_tip": [1, 2.5, 3]}))
    assert read_landmarks(tmp_path / "a.json") == {"chin": 12, "nose_tip": (1.0, 2.5, 3.0)}


def test_a_mesh_that_is_no_head(tmp_path: Path) -> None:
    points, triangles, _ = sphere()
    (tmp_path / "ball.obj").write_bytes(format_obj(points, triangles))
    with pytest.raises(FaceError, match=r"no single head|does not fit"):
        fit_mesh(tmp_path / "ball.obj")
