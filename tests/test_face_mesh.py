"""Reading mesh files, and normals against trimesh."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sedtalker.errors import FaceError
from sedtalker.face.assets import load_face
from sedtalker.face.mesh import format_obj, read_mesh, vertex_normals
from sedtalker.face.orientation import STATEMENT


def test_obj_is_written_and_read_back(tmp_path: Path) -> None:
    vertices = np.random.default_rng(0).uniform(-1, 1, (5, 3)).astype(np.float32)
    triangles = np.array([[0, 1, 2], [2, 3, 4]], np.int32)
    (tmp_path / "a.obj").write_bytes(format_obj(vertices, triangles, "a comment"))
    read = read_mesh(tmp_path / "a.obj")
    np.testing.assert_allclose(read[0], vertices, atol=1e-6)
    np.testing.assert_array_equal(read[1], triangles)


def test_normals_are_those_of_trimesh() -> None:
    trimesh = pytest.importorskip("trimesh")
    mesh = trimesh.creation.icosphere(subdivisions=2)
    mesh.vertices = mesh.vertices * (1.0, 0.5, 2.0)
    expected = trimesh.geometry.mean_vertex_normals(
        len(mesh.vertices), mesh.faces, mesh.face_normals * mesh.area_faces[:, None]
    )
    np.testing.assert_allclose(vertex_normals(mesh.vertices, np.asarray(mesh.faces, np.int32)), expected, atol=1e-5)


def test_normals_of_unused_vertices_point_forward() -> None:
    normals = vertex_normals(np.zeros((4, 3), np.float32), np.array([[0, 1, 2]], np.int32))
    np.testing.assert_array_equal(normals, np.tile((0, 0, 1), (4, 1)))


def test_ply_is_read(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    path = tmp_path / "box.ply"
    trimesh.creation.box((0.2, 0.2, 0.2)).export(path)
    path.write_bytes(path.read_bytes().replace(b"ply\n", f"ply\ncomment {STATEMENT}\n".encode(), 1))
    assert load_face(path).template.shape == (8, 3)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    (
        ("broken.obj", "v 0 0\nv one two three\nf 1 2 3\n", "cannot be read"),
        ("points.obj", "v 0 0 0\nv 1 0 0\n", "no triangles"),
        ("beyond.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "does not exist"),
        ("nan.obj", "v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "NaN or infinite"),
    ),
)
def test_broken_meshes_are_refused(tmp_path: Path, name: str, text: str, reason: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(FaceError, match=reason):
        load_face(path)


@pytest.mark.parametrize(
    "comment", ["Büste".encode("latin-1"), "头部模型".encode("gbk"), b"\x85f 1 2 9 \x0c v 1", b"\xe9\xff\x0b\x1c"]
)
def test_comments_of_meshes_may_be_in_any_encoding(tmp_path, comment):
    obj = b"# " + comment + b"\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"
    properties = b"".join(b"property float %c\n" % axis for axis in b"xyz")
    ply = (
        b"ply\nformat ascii 1.0\ncomment " + comment + b"\nelement vertex 3\n" + properties
        + b"element face 1\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"
    )  # fmt: skip
    for name, data in (("a.obj", obj), ("a.ply", ply)):
        (tmp_path / name).write_bytes(data)
        vertices, triangles = read_mesh(tmp_path / name)
        np.testing.assert_array_equal(vertices, [[0, 0, 0], [1, 0, 0], [0, 1, 0]])
        np.testing.assert_array_equal(triangles, [[0, 1, 2]])
