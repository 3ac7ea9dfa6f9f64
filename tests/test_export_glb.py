"""The glTF file, read by pygltflib, trimesh and Khronos' validator."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pygltflib
import pytest
import trimesh
from made_animation import made_animation

from sedtalker.animation import Animation
from sedtalker.emotion.track import EmotionTrack
from sedtalker.export import export_animation, export_sound
from sedtalker.export.parts import split_face
from sedtalker.face.neck import head_joint_weights, move_head

COMPONENTS = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


@pytest.fixture(scope="module")
def animation(tmp_path_factory: pytest.TempPathFactory) -> Animation:
    return made_animation(tmp_path_factory.mktemp("sound"))


@pytest.fixture(scope="module")
def glb(animation: Animation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("glb") / "a.glb"
    export_animation(animation, "glb", path)
    return path


class Reader:
    """Decode the arrays of a glTF file from pygltflib's tree, by the rules of the format."""

    def __init__(self, path: Path) -> None:
        self.tree = pygltflib.GLTF2().load_binary(str(path))
        self.blob = self.tree.binary_blob()

    def _read(self, view: int, dtype: type, count: int, width: int) -> np.ndarray:
        start = self.tree.bufferViews[view].byteOffset or 0
        return np.frombuffer(self.blob, dtype, count * width, start).reshape(count, width)

    def array(self, index: int) -> np.ndarray:
        accessor = self.tree.accessors[index]
        dtype, width = COMPONENTS[accessor.componentType], WIDTHS[accessor.type]
        values = np.zeros((accessor.count, width), dtype)
        if accessor.bufferView is not None:
            values[:] = self._read(accessor.bufferView, dtype, accessor.count, width)
        if accessor.sparse is not None:
            sparse = accessor.sparse
            rows = self._read(sparse.indices.bufferView, COMPONENTS[sparse.indices.componentType], sparse.count, 1)
            values[rows[:, 0]] = self._read(sparse.values.bufferView, dtype, sparse.count, width)
        return values / np.iinfo(dtype).max if accessor.normalized else values

    def channels(self) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
        """Times and values by name of the node and path."""
        motion = self.tree.animations[0]
        result = {}
        for channel in motion.channels:
            sampler = motion.samplers[channel.sampler]
            name = self.tree.nodes[channel.target.node].name
            result[name, channel.target.path] = self.array(sampler.input)[:, 0], self.array(sampler.output)
        return result

    def pose(self, node: str, frame: int) -> list[np.ndarray]:
        """Positions of each primitive of a node at a frame: morphed, then skinned."""
        mesh = self.tree.meshes[next(n.mesh for n in self.tree.nodes if n.name == node)]
        channels = self.channels()
        weights = np.zeros(0)
        if (node, "weights") in channels:
            weights = channels[node, "weights"][1].reshape(-1, len(mesh.weights))[frame]
        result = []
        for primitive in mesh.primitives:
            points = self.array(primitive.attributes.POSITION).astype(float)
            for weight, target in zip(weights, primitive.targets or [], strict=True):
                points += weight * self.array(target["POSITION"])
            result.append(self._skin(points, primitive, frame))
        return result

    def _skin(self, points: np.ndarray, primitive: pygltflib.Primitive, frame: int) -> np.ndarray:
        channels = self.channels()
        transform = np.eye(4)
        x, y, z, w = channels["head", "rotation"][1][frame].astype(float)
        transform[:3, :3] = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
        transform[:3, 3] = channels["head", "translation"][1][frame]
        bind = self.array(self.tree.skins[0].inverseBindMatrices)[1].reshape(4, 4).T
        joints = np.stack([np.eye(4), transform @ bind])
        share = self.array(primitive.attributes.WEIGHTS_0)
        matrices = joints[self.array(primitive.attributes.JOINTS_0)]
        homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1)
        return np.einsum("nj,njab,nb->na", share, matrices, homogeneous)[:, :3]


def test_parts_have_the_positions_of_the_animation(animation: Animation, glb: Path) -> None:
    gltf, face = Reader(glb), animation.face
    share = head_joint_weights(face, face.all_points(face.template))
    parts = split_face(face)
    for frame in (0, 11, len(animation) - 1):
        points = face.all_points(next(animation.frames(frame, frame + 1)))
        points = move_head(points, animation.head[frame], share)
        for node in ("face", *face.attachments):
            own = [part for part in parts if (part.attachment or "face") == node]
            for part, result in zip(own, gltf.pose(node, frame), strict=True):
                np.testing.assert_allclose(result, points[part.points], atol=5e-5)


def test_names_rate_and_materials(animation: Animation, glb: Path) -> None:
    gltf = Reader(glb)
    names = gltf.tree.meshes[0].extras["targetNames"]
    assert names == [name for name in animation.blendshape_names if name in names] and len(names) == 52
    times, weights = gltf.channels()["face", "weights"]
    np.testing.assert_allclose(times, np.arange(len(animation)) / animation.fps, atol=1e-6)
    np.testing.assert_allclose(weights.reshape(-1, 52), animation.blendshapes, atol=1e-5)
    assert {m.name for m in gltf.tree.materials} >= {"skin", "eyes", "teeth", "hair", "brows", "lashes"}
    assert {image.mimeType for image in gltf.tree.images} == {"image/jpeg", "image/png"}
    lashes = next(mesh for mesh in gltf.tree.meshes if mesh.name == "lashes")
    assert {"eyeBlinkLeft", "eyeBlinkRight"} <= set(lashes.extras["targetNames"])


def test_trimesh_reads_the_whole_head(animation: Animation, glb: Path) -> None:
    scene = trimesh.load(glb)
    triangles = sum(len(mesh.faces) for mesh in scene.geometry.values())
    attached = sum(len(attachment.surface.triangles) for attachment in animation.face.attachments.values())
    assert triangles == len(animation.faces) + attached
    np.testing.assert_allclose(scene.bounds[:, 0], _across(animation.face.all_points(animation.template)), atol=1e-3)


def _across(points: np.ndarray) -> list[float]:
    return [points[:, 0].min(), points[:, 0].max()]


def test_size_without_textures(animation: Animation, glb: Path) -> None:
    gltf = Reader(glb)
    pictures = sum(gltf.tree.bufferViews[image.bufferView].byteLength for image in gltf.tree.images)
    ten_seconds_more = (300 - len(animation)) * (52 * 2 + 4 + 7 * 4)
    assert glb.stat().st_size - pictures + ten_seconds_more < 3e6


def test_vertices_without_a_rig_become_components(animation: Animation, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    template = animation.template[:400]
    shapes = rng.standard_normal((3, 400, 3)) * 0.004
    dense = template + np.einsum("tk,kvc->tvc", rng.standard_normal((20, 3)), shapes).astype(np.float32)
    triangles = np.arange(399, dtype=np.int32).reshape(-1, 3)
    bare = Animation(template, triangles, 25.0, EmotionTrack.neutral(0.8), dense=dense)
    export_animation(bare, "glb", tmp_path / "b.glb")
    gltf = Reader(tmp_path / "b.glb")
    mesh = gltf.tree.meshes[0]
    assert mesh.extras["targetNames"] == ["motion_00", "motion_01", "motion_02"]
    weights = gltf.channels()["face", "weights"][1].reshape(20, 3)
    points = gltf.array(mesh.primitives[0].attributes.POSITION)[None] + np.einsum(
        "tk,kvc->tvc", weights, [gltf.array(target["POSITION"]) for target in mesh.primitives[0].targets]
    )
    used = np.unique(triangles)
    np.testing.assert_allclose(points, dense[:, used], atol=3e-5)


def test_an_animation_of_no_frames_is_a_still_head(animation: Animation, tmp_path: Path) -> None:
    still = replace(animation, blendshapes=animation.blendshapes[:0], head=animation.head[:0])
    export_animation(still, "glb", tmp_path / "still.glb")
    gltf = Reader(tmp_path / "still.glb")
    assert not gltf.tree.animations and len(gltf.tree.meshes) == 1 + len(animation.face.attachments)
    assert all(primitive.attributes.JOINTS_0 is None for mesh in gltf.tree.meshes for primitive in mesh.primitives)


def test_the_sound_is_written_next_to_it(animation: Animation, glb: Path, tmp_path: Path) -> None:
    from sedtalker.audio import load_audio

    wav = export_sound(animation, "glb", tmp_path / "a.glb")
    assert wav == tmp_path / "a.wav"
    np.testing.assert_allclose(load_audio(wav), load_audio(animation.meta["audio"]), atol=1e-4)
    assert export_sound(replace(animation, meta={}), "glb", tmp_path / "b.glb") is None
    assert export_sound(animation, "html", tmp_path / "a.html") is None


def test_an_existing_sound_is_not_replaced(animation: Animation, tmp_path: Path) -> None:
    first = export_sound(animation, "glb", tmp_path / "a.glb")
    assert export_sound(animation, "glb", tmp_path / "a.glb") == first  # written by the first export
    first.write_bytes(b"a user's recording")
    assert export_sound(animation, "glb", tmp_path / "a.glb") == tmp_path / "a.sound.wav"
    assert first.read_bytes() == b"a user's recording"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.sound.wav", "a.wav"]


VALIDATE = """
const validator = require("gltf-validator");
validator.validateBytes(new Uint8Array(require("fs").readFileSync(process.argv[1])))
  .then((report) => console.log(JSON.stringify(report.issues)));
"""


@pytest.mark.parametrize("moving_head", [True, False])
def test_khronos_validator_finds_no_issues(animation: Animation, tmp_path: Path, moving_head: bool) -> None:
    node = shutil.which("node")
    if not node or subprocess.run([node, "-e", 'require("gltf-validator")'], capture_output=True).returncode:
        pytest.skip("npm's gltf-validator is not installed (or not in NODE_PATH)")
    path = tmp_path / "a.glb"
    export_animation(animation if moving_head else replace(animation, head=None), "glb", path)
    done = subprocess.run([node, "-e", VALIDATE, str(path)], capture_output=True, text=True, check=True)
    issues = json.loads(done.stdout)
    assert issues["numErrors"] == 0 and issues["numWarnings"] == 0, issues
