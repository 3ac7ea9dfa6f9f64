"""Damaged meshes, animations and checkpoints: one-line errors, bounded memory, and no other exception."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sedtalker.animation import Animation, load_animation
from sedtalker.checkpoint import load_checkpoint
from sedtalker.emotion.track import EmotionTrack
from sedtalker.errors import SEDTalkerError
from sedtalker.face.assets import load_face
from sedtalker.face.mesh import format_obj, read_mesh

QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
NIGHTLY = settings(max_examples=100_000, deadline=None, suppress_health_check=list(HealthCheck))
EDITS = st.lists(
    st.tuples(st.sampled_from(("flip", "cut", "insert", "repeat")), st.floats(0, 1), st.binary(min_size=1, max_size=8)),
    min_size=1,
    max_size=4,
)

TRIANGLE = np.float32([[0, 0, 0], [0.2, 0, 0], [0, 0.2, 0]]), np.int32([[0, 1, 2]])
PLY = (
    b"ply\nformat binary_little_endian 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    b"element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    + TRIANGLE[0].tobytes()
    + struct.pack("<Biii", 3, 0, 1, 2)
)


def damage(data: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    for kind, share, piece in edits:
        at = int(share * len(data))
        if kind == "flip":
            data = data[:at] + piece + data[at + len(piece) :]
        elif kind == "cut":
            data = data[:at]
        elif kind == "insert":
            data = data[:at] + piece + data[at:]
        else:
            data = data[:at] + data[at // 2 : at] + data[at:]
    return data


def check(read: Callable[[Path], object], path: Path) -> None:
    """Reading works, or raises a SEDTalkerError of one line that names the file or its folder."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(path)
    except SEDTalkerError as error:
        assert "\n" not in str(error)
        assert str(path) in str(error) or str(path.parent) in str(error)


@pytest.fixture(scope="module")
def animation_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("fuzz") / "made.npz"
    curves, head = np.zeros((3, 2), np.float32), np.tile(np.eye(4, dtype=np.float32), (3, 1, 1))
    track = EmotionTrack.neutral(0.1, frame_rate=30.0)
    dense = np.tile(TRIANGLE[0], (3, 1, 1))
    Animation(*TRIANGLE, 30.0, track, curves, ("jawOpen", "mouthClose"), dense, head, {"audio": "a.wav"}).save(path)
    return path.read_bytes()


def _fuzz_mesh(tmp_path: Path, ending: str, data: bytes) -> None:
    path = tmp_path / f"mesh{ending}"
    path.write_bytes(data)
    check(read_mesh, path)


MESHES = {".obj": format_obj(*TRIANGLE, comment="made"), ".ply": PLY}


@pytest.mark.parametrize("ending", MESHES)
@QUICK
@given(edits=EDITS)
def test_damaged_meshes(tmp_path: Path, ending: str, edits: list) -> None:
    _fuzz_mesh(tmp_path, ending, damage(MESHES[ending], edits))


@pytest.mark.nightly
@pytest.mark.parametrize("ending", MESHES)
@NIGHTLY
@given(edits=EDITS)
def test_damaged_meshes_nightly(tmp_path: Path, ending: str, edits: list) -> None:
    _fuzz_mesh(tmp_path, ending, damage(MESHES[ending], edits))


OBJ_WORDS = st.sampled_from(
    ("v", "f", "vt", "vn", "o", "#", "1", "-1", "0", "99999999999999999999", "1e400", "nan", "1/2/3", "//", "x", "\\")
)


@QUICK
@given(lines=st.lists(st.lists(OBJ_WORDS, max_size=6).map(" ".join), max_size=12))
def test_obj_of_random_words(tmp_path: Path, lines: list[str]) -> None:
    _fuzz_mesh(tmp_path, ".obj", "\n".join(lines).encode())


@QUICK
@given(edits=EDITS)
def test_damaged_animations(tmp_path: Path, animation_bytes: bytes, edits: list) -> None:
    path = tmp_path / "made.npz"
    path.write_bytes(damage(animation_bytes, edits))
    check(load_animation, path)


@pytest.mark.nightly
@NIGHTLY
@given(edits=EDITS)
def test_damaged_animations_nightly(tmp_path: Path, animation_bytes: bytes, edits: list) -> None:
    path = tmp_path / "made.npz"
    path.write_bytes(damage(animation_bytes, edits))
    check(load_animation, path)


ARRAYS = st.sampled_from(
    (
        np.zeros(0), np.float64(0), np.float64("nan"), np.float64(-1), np.array("text"), np.array(["a", "b"]),
        np.zeros((3, 52)), np.zeros((2, 3, 3), complex), np.full((3, 8), np.inf), np.array(b"\xff"), np.array(True),
        np.array("[1]"), np.array("null"), np.array("{"), np.zeros((3, 4, 4)), np.int64(7),
    )
)  # fmt: skip


@QUICK
@given(name=st.sampled_from(("template", "faces", "fps", "posterior", "intensity", "labels", "meta", "blendshapes",
                             "blendshape_names", "head", "vertices")), value=ARRAYS)  # fmt: skip
def test_animations_with_another_array(tmp_path: Path, animation_bytes: bytes, name: str, value: np.ndarray) -> None:
    with np.load(io.BytesIO(animation_bytes)) as stored:
        arrays = dict(stored)
    path = tmp_path / "made.npz"
    np.savez(path, **{**arrays, name: value})
    check(load_animation, path)


def test_headers_with_gigabytes_are_refused(tmp_path: Path) -> None:
    claimed = tmp_path / "claims.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 3)})
    with zipfile.ZipFile(claimed, "w") as archive:
        archive.writestr("template.npy", header.getvalue())
    with pytest.raises(SEDTalkerError, match="claims"):
        load_animation(claimed)
    ply = tmp_path / "claims.ply"
    ply.write_bytes(PLY.replace(b"vertex 3", b"vertex 2000000000"))
    with pytest.raises(SEDTalkerError, match="count in its header exceeds"):
        load_face(ply)


@pytest.fixture(scope="module")
def checkpoint_files() -> dict[str, bytes]:
    from safetensors.numpy import save

    config = {"version": 1, "kind": "talker", "config": {"width": 8}}
    return {"config.json": json.dumps(config).encode(), "model.safetensors": save({"a": np.zeros((2, 3), np.float32)})}


def _fuzz_checkpoint(folder: Path, files: dict[str, bytes], name: str, edits: list) -> None:
    for file, data in files.items():
        (folder / file).write_bytes(damage(data, edits) if file == name else data)
    check(lambda path: load_checkpoint(path, "talker"), folder)


@pytest.mark.parametrize("name", ("config.json", "model.safetensors"))
@QUICK
@given(edits=EDITS)
def test_damaged_checkpoints(tmp_path: Path, checkpoint_files: dict[str, bytes], name: str, edits: list) -> None:
    _fuzz_checkpoint(tmp_path, checkpoint_files, name, edits)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ("config.json", "model.safetensors"))
@NIGHTLY
@given(edits=EDITS)
def test_damaged_checkpoints_nightly(
    tmp_path: Path, checkpoint_files: dict[str, bytes], name: str, edits: list
) -> None:
    _fuzz_checkpoint(tmp_path, checkpoint_files, name, edits)
