"""Unit and orientation of meshes: all axis permutations, units, rotations and identities; refused meshes."""

from __future__ import annotations

import warnings
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from made_face import sphere
from vertex_corpora import write_wav

from sedtalker.data.prepare import prepare
from sedtalker.data.vertex_corpora.own import read_own
from sedtalker.data.vertex_store import open_store
from sedtalker.errors import DataError, FaceError, FaceWarning
from sedtalker.face.assets import identities, load_face
from sedtalker.face.mesh import format_obj
from sedtalker.face.orientation import (
    STATEMENT,
    UNITS,
    AlignmentError,
    align_vertices,
    axis_rotations,
    match_surface,
    pose_of_landmarks,
)
from sedtalker.face.rig import Face

PERMUTATIONS = [
    (order, signs) for order in permutations(range(3)) for signs in product((1.0, -1.0), repeat=3)
]  # all 48, half of them mirrored


@pytest.fixture(scope="module")
def templates() -> list[np.ndarray]:
    return [load_face(name).template for name in identities()]


@pytest.fixture(scope="module")
def man() -> Face:
    return load_face("man")


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def write(path: Path, vertices: np.ndarray, faces: np.ndarray, comment: str = "") -> Path:
    path.write_bytes(format_obj(vertices, faces, comment))
    return path


@pytest.mark.parametrize("unit", UNITS)
def test_all_axis_permutations_in_every_unit(templates: list[np.ndarray], unit: str) -> None:
    face = load_face("man_old")
    rng = np.random.default_rng(0)
    head = (face.template + rng.normal(0, 2e-4, face.template.shape)).astype(np.float32)
    aligned = mirrored = 0
    for order, signs in PERMUTATIONS:
        matrix = np.zeros((3, 3))
        matrix[range(3), order] = signs
        permuted = (head @ matrix.T / UNITS[unit]).astype(np.float32)
        if np.linalg.det(matrix) < 0:
            with pytest.raises(AlignmentError, match="mirror image"):
                align_vertices(permuted, face.faces, templates)
            mirrored += 1
            continue
        pose = align_vertices(permuted, face.faces, templates)
        assert pose.unit == unit
        np.testing.assert_allclose(pose.apply(permuted), head, atol=1e-5)
        assert pose.is_identity == (unit == "metres" and np.array_equal(matrix, np.eye(3)))
        aligned += 1
    assert (aligned, mirrored) == (24, 24)


def test_random_rotations_of_all_identities(templates: list[np.ndarray], man: Face) -> None:
    rng = np.random.default_rng(1)
    for index, template in enumerate(templates * 4):
        rotation, unit = random_rotation(rng), list(UNITS)[index % len(UNITS)]
        rotated = ((template @ rotation.T + rng.normal(0, 1, 3)) / UNITS[unit]).astype(np.float32)
        pose = align_vertices(rotated, man.faces, templates)
        back = pose.apply(rotated)
        assert pose.unit == unit
        centred = back - back.mean(axis=0) - (template - template.mean(axis=0))
        assert np.abs(centred).max() < 1e-4


def test_an_identity_that_is_not_among_the_templates(templates: list[np.ndarray], man: Face) -> None:
    """Each identity is aligned with the other ones, in any rotation, to within 5 degrees."""
    rng = np.random.default_rng(2)
    for index, template in enumerate(templates):
        others = templates[:index] + templates[index + 1 :]
        assert align_vertices(template, man.faces, others).is_identity
        rotation = random_rotation(rng)
        pose = align_vertices((template @ rotation.T * 100).astype(np.float32), man.faces, others)
        cosine = (np.trace(pose.rotation @ rotation) - 1) / 2
        assert pose.unit == "centimetres" and np.degrees(np.arccos(min(1.0, cosine))) < 5


def test_wrong_vertex_orders_are_refused(templates: list[np.ndarray], man: Face) -> None:
    rng = np.random.default_rng(3)
    count = len(man.template)
    some = np.arange(count)
    swapped = rng.choice(count, 20, replace=False)
    some[swapped] = np.roll(swapped, 1)
    orders = (rng.permutation(count), np.arange(count)[::-1], np.roll(np.arange(count), 1), some)
    for order in orders:
        with pytest.raises(AlignmentError, match="another order"):
            align_vertices(man.template[order], man.faces, templates)


@pytest.mark.parametrize("scale", (2.2, 0.2, 1e4, 1e-4))
def test_unknown_units_are_refused(templates: list[np.ndarray], man: Face, scale: float) -> None:
    with pytest.raises(AlignmentError, match="fits no known unit"):
        align_vertices(man.template * np.float32(scale), man.faces, templates)


def test_a_mesh_that_is_rounded_far_from_the_origin_is_refused(templates: list[np.ndarray], man: Face) -> None:
    assert align_vertices(man.template + np.float32((0, 1.6, 100)), man.faces, templates).is_identity
    with pytest.raises(AlignmentError, match="too far from the origin"):
        align_vertices(man.template + np.float32((1e5, 0, 0)), man.faces, templates)


@pytest.mark.parametrize("values", (0.0, 1.0))
def test_a_collapsed_head_is_refused(templates: list[np.ndarray], man: Face, values: float) -> None:
    with pytest.raises(AlignmentError, match="another order"):
        align_vertices(np.full_like(man.template, values), man.faces, templates)


def test_axes_of_blender_are_converted_and_reported(tmp_path: Path, man: Face) -> None:
    x, y, z = man.template.T
    path = write(tmp_path / "blender.obj", np.stack([x, -z, y], axis=1) * 100, man.faces)
    with pytest.warns(FaceWarning, match=r"in centimetres, \+z up, facing -y: .*blender\.obj") as caught:
        face = load_face(path)
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    np.testing.assert_allclose(face.template, man.template, atol=1e-6)
    assert face.blendshapes is not None


def test_an_upright_head_is_unchanged(tmp_path: Path, man: Face) -> None:
    path = write(tmp_path / "man.obj", man.template, man.faces)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        face = load_face(path)
    np.testing.assert_allclose(face.template, man.template, atol=1e-6)


def other_topology(face: Face) -> tuple[np.ndarray, np.ndarray]:
    """The skin alone, renumbered, so that no vertex corresponds."""
    triangles = face.surfaces[0].triangles
    used, ids = np.unique(triangles, return_inverse=True)
    return face.template[used], ids.reshape(-1, 3).astype(np.int32)


@pytest.mark.parametrize(("rotation", "unit"), ((0, "metres"), (5, "centimetres"), (14, "inches"), (22, "millimetres")))
def test_another_topology_is_aligned_by_its_surface(tmp_path: Path, man: Face, rotation: int, unit: str) -> None:
    vertices, triangles = other_topology(man)
    rotated = vertices @ axis_rotations()[rotation] / UNITS[unit]
    path = write(tmp_path / "head.obj", rotated, triangles)
    with warnings.catch_warnings():
        warnings.simplefilter("error" if rotation == 0 else "ignore", FaceWarning)
        face = load_face(path)
    np.testing.assert_allclose(face.template, vertices, atol=1e-5)
    assert face.blendshapes is None


def test_landmarks_of_a_mesh_in_no_known_unit(man: Face) -> None:
    places = man.template[[man.landmarks[name] for name in ("nose_tip", "mouth_left", "mouth_right", "chin")]]
    pose = pose_of_landmarks(places[:, [0, 2, 1]] * np.array([1, -1, 1]) * 4.3, places)
    assert pose is not None and pose.describe() == "in units of 0.233 m, +z up, facing -y"
    np.testing.assert_allclose(pose.apply(places[:, [0, 2, 1]] * np.array([1, -1, 1]) * 4.3), places, atol=1e-6)
    assert pose_of_landmarks(places[[1, 0, 2, 3]], places) is None


@pytest.mark.parametrize("back", [1, -1])
def test_a_bust_with_shoulders_is_aligned_by_its_head(man: Face, back: int) -> None:
    woman = load_face("woman_african")
    ball, sides, _ = sphere()
    shoulders = ball * np.array([2.3, 0.8, 1.2], np.float32) + np.array([0, woman.template[:, 1].min() - 0.06, -0.05])
    points = np.concatenate([woman.template, shoulders]) * np.array([back, 1, back])
    triangles = np.concatenate([woman.faces, sides + len(woman.template)])
    assert np.ptp(points, axis=0)[1] > 0.42
    pose = match_surface(points.astype(np.float32), triangles, man.template, man.surfaces[0].triangles, 0.032)
    assert pose is not None
    assert pose.describe() == f"in metres, +y up, facing {'+' if back > 0 else '-'}z"


def test_uncertain_shapes_are_refused_until_the_file_states_its_axes(tmp_path: Path, man: Face) -> None:
    vertices, triangles = other_topology(man)
    mask = triangles[(vertices[triangles, 2] > vertices[:, 2].max() - 0.08).all(axis=1)]
    assert match_surface(vertices, mask, man.template, man.surfaces[0].triangles) is None
    path = write(tmp_path / "mask.obj", vertices, mask)
    with pytest.raises(FaceError, match=rf"not known: .*mask\.obj.*# {STATEMENT.replace('+', '.')}"):
        load_face(path)
    stated = write(tmp_path / "stated.obj", vertices, mask, comment=STATEMENT)
    np.testing.assert_allclose(load_face(stated).template, vertices, atol=1e-6)
    tiny = write(tmp_path / "tiny.obj", vertices * 0.01, mask, comment=STATEMENT)
    with pytest.raises(FaceError, match="m large"):
        load_face(tiny)


def own_recordings(folder: Path, face: Face, matrix: np.ndarray) -> tuple[Path, np.ndarray]:
    """Write a recording of an opening mouth in other axes and units; returns folder and motion in metres."""
    folder.mkdir()
    weights = np.zeros((30, 52), np.float32)
    weights[:, face.blendshape_names.index("jawOpen")] = np.linspace(0, 0.5, 30)
    motion = face.pose(weights)
    write(folder / "template.obj", face.template @ matrix.T, face.faces)
    np.save(folder / "take.npy", (motion @ matrix.T).astype(np.float32))
    write_wav(folder / "take.wav", 1.0)
    return folder, motion


def test_own_recordings_are_rotated_with_their_template(tmp_path: Path, man: Face) -> None:
    blender = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]) * 1000.0
    folder, motion = own_recordings(tmp_path / "own", man, blender)
    source = read_own(folder)
    assert any("millimetres, +z up, facing -y" in note for note in source.notes)
    outcome = prepare(source, tmp_path / "store")
    assert not outcome.refused
    store = open_store(tmp_path / "store")
    template = store.templates["speaker"]
    np.testing.assert_allclose(template, man.template, atol=1e-5)
    clip = next(iter(store))
    np.testing.assert_allclose(store.memmap(clip) + template, motion, atol=1e-4)


def test_a_mirrored_template_of_own_recordings_is_refused(tmp_path: Path, man: Face) -> None:
    folder, _ = own_recordings(tmp_path / "own", man, np.diag([-1.0, 1, 1]))
    with pytest.raises(DataError, match="mirror image"):
        read_own(folder)
