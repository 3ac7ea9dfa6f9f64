"""Rigs for meshes of other topologies: correspondence, transferred shapes, folder, retargeting, wrong inputs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_face import sphere

from sedtalker.animation import Animation
from sedtalker.emotion.track import EmotionTrack
from sedtalker.errors import FaceError
from sedtalker.export.retarget import mesh_of, retarget
from sedtalker.face.arkit import ARKIT_NAMES, JAW_OPEN
from sedtalker.face.asset_io import write_faces
from sedtalker.face.assets import load_face
from sedtalker.face.deformation_transfer import transfer
from sedtalker.face.fit import FitReport, _check_lips, fit_mesh
from sedtalker.face.fit_landmarks import read_landmarks
from sedtalker.face.mesh import format_obj, vertex_normals
from sedtalker.face.mouth_measures import GAP, mouth_measures
from sedtalker.face.registration import SurfaceIndex
from sedtalker.face.rig import Face

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


@pytest.fixture(scope="module")
def fitted(
    truth: tuple[np.ndarray, np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Face, FitReport]:
    points, triangles, _ = truth
    path = tmp_path_factory.mktemp("mesh") / "head.obj"
    path.write_bytes(format_obj(points[:, [0, 2, 1]] * [100, -100, 100], triangles))  # centimetres, z up
    return fit_mesh(path)


def test_the_mesh_is_fitted(fitted: tuple[Face, FitReport], truth: tuple[np.ndarray, ...], head: Face) -> None:
    face, report = fitted
    assert report.pose == "in centimetres, +z up, facing -y"
    assert report.face_mean < 0.5 and report.lips_mean < 0.5  # mm; the goal is 1
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
    trust = np.ones(len(points))
    moved = transfer(points, triangles, shape, points, triangles, match, middles, trust, 1.0, 1.0)
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
