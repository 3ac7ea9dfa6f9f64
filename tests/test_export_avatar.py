"""Animations in copies of avatars (`--into`) and VRM animations, read back by pygltflib and Khronos' validator."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pygltflib
import pytest
from made_animation import made_animation
from made_avatar import as_mpfb, as_vrm, for_players, head_glb, join_glb, quantised, split_glb, write_gltf

from sedtalker.animation import Animation, load_animation
from sedtalker.cli.main import main
from sedtalker.errors import SEDTalkerError
from sedtalker.export.avatar import write_into
from sedtalker.export.vrma import write_for
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.avatar import load_avatar
from sedtalker.face.gltf import Gltf, local_matrix
from sedtalker.face.neck import move_head
from sedtalker.provenance.verify import INTACT, verify_file
from sedtalker.rotations import to_quaternions

COMPONENTS = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}


@pytest.fixture(scope="module")
def animation(tmp_path_factory: pytest.TempPathFactory) -> Animation:
    return made_animation(tmp_path_factory.mktemp("sound"), seconds=0.5)


@pytest.fixture(scope="module")
def glb() -> bytes:
    return head_glb()


@pytest.fixture(scope="module")
def avatar(glb: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree, data = split_glb(glb)
    turn = {"rotation": [0.0, 0.6, 0.0, 0.8], "translation": [1.0, 0.5, 0.0]}
    tree["nodes"].append({"name": "Scene", "children": tree["scenes"][0]["nodes"], **turn})
    tree["scenes"][0]["nodes"] = [len(tree["nodes"]) - 1]
    tree["extras"] = {"kept": [1, 2.5, "as it is"]}
    tree["animations"] = [{"name": "idle", "samplers": [], "channels": []}]
    del tree["animations"]
    path = tmp_path_factory.mktemp("avatar") / "avatar.glb"
    path.write_bytes(join_glb(tree, data))
    return path


def validate(path: Path) -> None:
    node = shutil.which("node")
    if not node or subprocess.run([node, "-e", 'require("gltf-validator")'], capture_output=True).returncode:
        pytest.skip("npm's gltf-validator is not installed (or not in NODE_PATH)")
    script = (
        'require("gltf-validator").validateBytes(new Uint8Array(require("fs").readFileSync(process.argv[1])))'
        ".then((report) => console.log(JSON.stringify(report.issues)))"
    )
    done = subprocess.run([node, "-e", script, str(path)], capture_output=True, text=True, check=True)
    issues = json.loads(done.stdout)
    assert issues["numErrors"] == 0, issues


def play(*files: Path, time: float) -> dict[str, Any]:
    """Weights by name and the head's rotation that three.js, or for a .vrma a VRM player, shows at a time."""
    node = shutil.which("node")
    packages = ("three", *(("@pixiv/three-vrm", "@pixiv/three-vrm-animation") if len(files) > 1 else ()))
    wanted = ";".join(f'require.resolve("{name}")' for name in packages)
    if not node or subprocess.run([node, "-e", wanted], capture_output=True).returncode:
        pytest.skip(f"npm's {' or '.join(packages)} is not installed (or not in NODE_PATH)")
    script = Path(__file__).with_name("play.mjs")
    done = subprocess.run([node, script, *files, str(time)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    frame: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])["frames"][0]
    return frame


@pytest.mark.parametrize("kind", ["plain", "mpfb", "meshopt"])
def test_three_js_shows_the_frames(animation: Animation, glb: bytes, tmp_path: Path, kind: str) -> None:
    if kind == "meshopt":
        pytest.importorskip("meshoptimizer")
    made = {"plain": lambda: glb, "mpfb": lambda: as_mpfb(glb), "meshopt": lambda: quantised(glb, True)}[kind]()
    (tmp_path / "a.glb").write_bytes(made)
    write_into(animation, tmp_path / "a.glb", tmp_path / "into.glb")
    validate(tmp_path / "into.glb")
    shown = play(tmp_path / "into.glb", time=6 / animation.fps)
    for name in ("jawOpen", "mouthFunnel", "mouthSmileLeft"):
        expected = animation.blendshapes[6, animation.blendshape_names.index(name)]
        assert shown["weights"][name] == pytest.approx(expected, abs=1e-4), name
    rest = Gltf(tmp_path / "a.glb").tree["nodes"]
    assert shown["head"] != next(node for node in rest if node["name"] == "head").get("rotation", [0, 0, 0, 1])


def test_a_vrm_player_shows_the_animation(animation: Animation, glb: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.vrm").write_bytes(for_players(as_vrm(glb, 1)))
    write_for(animation, tmp_path / "a.vrma", tmp_path / "a.vrm")
    shown = play(tmp_path / "a.vrm", tmp_path / "a.vrma", time=6 / animation.fps)
    motion = curves(tmp_path / "a.vrma")
    for name in ("aa", "oh", "blinkLeft"):
        assert shown["weights"][name] == pytest.approx(motion[name, "translation"][6, 0], abs=1e-4), name
    np.testing.assert_allclose(shown["head"], to_quaternions(animation.head[6:7, :3, :3])[0], atol=1e-4)


def curves(path: Path) -> dict[tuple[str, str], np.ndarray]:
    """Values of the last animation by name of the node and path, from pygltflib."""
    tree = pygltflib.GLTF2().load_binary(str(path))
    blob = tree.binary_blob()
    motion = tree.animations[-1]
    result = {}
    for channel in motion.channels:
        accessor = tree.accessors[motion.samplers[channel.sampler].output]
        start = tree.bufferViews[accessor.bufferView].byteOffset or 0
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor.type]
        values = np.frombuffer(blob, np.float32, accessor.count * width, start).reshape(accessor.count, width)
        result[tree.nodes[channel.target.node].name, channel.target.path] = values
    return result


def test_everything_else_is_untouched(animation: Animation, avatar: Path, tmp_path: Path) -> None:
    write_into(animation, avatar, tmp_path / "into.glb")
    validate(tmp_path / "into.glb")
    before, data = split_glb(avatar.read_bytes())
    after, more = split_glb((tmp_path / "into.glb").read_bytes())
    assert more.startswith(data[: before["buffers"][0]["byteLength"]])
    assert [motion["name"] for motion in after.pop("animations")] == ["speech"]
    for kind in ("accessors", "bufferViews"):
        assert after[kind][: len(before[kind])] == before[kind]
        after[kind] = before[kind]
    after["buffers"] = before["buffers"]
    assert after == before
    assert json.dumps(after) == json.dumps(before)  # the order of the keys too


def test_the_file_shows_the_frames_of_the_face(animation: Animation, avatar: Path, tmp_path: Path) -> None:
    write_into(animation, avatar, tmp_path / "into.glb")
    motion = curves(tmp_path / "into.glb")
    loaded = load_avatar(avatar)
    frame = 11
    names = loaded.gltf.tree["meshes"][0]["extras"]["targetNames"]
    stored = motion["face", "weights"].reshape(len(animation), len(names))[frame]
    for index, name in enumerate(names):
        expected = animation.blendshapes[frame, animation.blendshape_names.index(name)]
        assert stored[index] == pytest.approx(expected, abs=0.02), name  # mouthClose is scaled to close the lips
    # Pose the head's node as a viewer does, and compare a point that moves with it.
    world = loaded.gltf.matrices()
    number = loaded.rig.head
    node = {**loaded.gltf.tree["nodes"][number], "rotation": motion["head", "rotation"][frame]}
    assert ("head", "translation") not in motion  # it turns about its own node
    moved = world[loaded.gltf.parents[number]] @ local_matrix(node) @ np.linalg.inv(world[number])
    face = loaded.face
    top = int(face.template[:, 1].argmax())
    in_file = face.template[top] @ loaded.rig.rotation / loaded.rig.metres
    in_viewer = (moved[:3, :3] @ in_file + moved[:3, 3]) @ loaded.rig.rotation.T * loaded.rig.metres
    head = animation.head[frame].copy()  # of another neck: the same turn about the avatar's
    head[:3, 3] = face.neck - head[:3, :3] @ face.neck
    ours = move_head(face.template[[top]], head, np.ones(1, np.float32))[0]
    assert np.abs(in_viewer - ours).max() < 1e-4


def test_a_file_without_bones_turns_as_a_whole(animation: Animation, glb: bytes, tmp_path: Path) -> None:
    tree, data = split_glb(glb)
    tree["scenes"][0]["nodes"] = [n for n in tree["scenes"][0]["nodes"] if "mesh" in tree["nodes"][n]]
    for node in tree["nodes"]:
        node.pop("skin", None)
    del tree["skins"]
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            del primitive["attributes"]["JOINTS_0"], primitive["attributes"]["WEIGHTS_0"]
    bare = [index for index, node in enumerate(tree["nodes"]) if "mesh" in node]
    assert bare == list(range(len(bare)))
    tree["nodes"] = tree["nodes"][: len(bare)]
    tree["nodes"][0]["matrix"] = np.eye(4).ravel().tolist()
    (tmp_path / "bare.glb").write_bytes(join_glb(tree, data))
    write_into(animation, tmp_path / "bare.glb", tmp_path / "into.glb")
    validate(tmp_path / "into.glb")
    motion = curves(tmp_path / "into.glb")
    assert {path for _, path in motion} == {"weights", "rotation", "translation"}
    turned = motion["face", "rotation"]
    np.testing.assert_allclose(turned, motion["lashes", "rotation"])
    assert np.ptp(turned[:, 1]) > 0.01


def test_gltf_with_files_becomes_one_file(animation: Animation, glb: bytes, tmp_path: Path) -> None:
    source = write_gltf(glb, tmp_path / "folder")
    write_into(animation, source, tmp_path / "into.glb")
    validate(tmp_path / "into.glb")
    assert not any("uri" in entry for kind in ("buffers", "images") for entry in Gltf(tmp_path / "into.glb").tree[kind])
    first, second = load_avatar(source).face, load_avatar(tmp_path / "into.glb").face
    np.testing.assert_array_equal(first.blendshapes, second.blendshapes)


def test_the_avatar_is_not_replaced(animation: Animation, avatar: Path) -> None:
    before = avatar.read_bytes()
    with pytest.raises(SEDTalkerError, match="would replace the avatar"):
        write_into(animation, avatar, avatar)
    assert avatar.read_bytes() == before


def test_vrm_animation(animation: Animation, tmp_path: Path) -> None:
    write_for(animation, tmp_path / "a.vrma", None)
    validate(tmp_path / "a.vrma")
    tree, _ = split_glb((tmp_path / "a.vrma").read_bytes())
    extension = tree["extensions"]["VRMC_vrm_animation"]
    assert extension["specVersion"] == "1.0" and len(extension["humanoid"]["humanBones"]) >= 15
    assert {*extension["expressions"]["preset"]} >= {"aa", "ou", "oh", "blinkLeft", "blinkRight", "happy"}
    motion = curves(tmp_path / "a.vrma")
    columns = {name: animation.blendshapes[:, ARKIT_NAMES.index(name)] for name in ("jawOpen", "mouthClose")}
    opening = np.clip(columns["jawOpen"] - columns["mouthClose"], 0, 1)
    np.testing.assert_allclose(motion["aa", "translation"][:, 0], opening, atol=1e-5)
    assert not motion["aa", "translation"][:, 1:].any()
    assert ("head", "rotation") in motion and ("lookAt", "rotation") in motion
    # Both eyes look out, so that the gaze is straight: it turns about neither axis.
    assert np.abs(motion["lookAt", "rotation"][:, :2]).max() < 0.01


def test_vrm_animation_for_an_avatar_with_arkit_expressions(animation: Animation, glb: bytes, tmp_path: Path) -> None:
    tree, data = split_glb(as_vrm(glb, 1))
    face = next(index for index, node in enumerate(tree["nodes"]) if node.get("name") == "face")
    bind = {"morphTargetBinds": [{"node": face, "index": 3, "weight": 1.0}]}
    tree["extensions"]["VRMC_vrm"]["expressions"]["custom"] = {"BrowDownLeft": bind, "unknown": bind}
    (tmp_path / "a.vrm").write_bytes(join_glb(tree, data))
    write_for(animation, tmp_path / "a.vrma", tmp_path / "a.vrm")
    written, _ = split_glb((tmp_path / "a.vrma").read_bytes())
    expressions = written["extensions"]["VRMC_vrm_animation"]["expressions"]
    assert {*expressions["custom"]} == {"BrowDownLeft"}
    assert {*expressions["preset"]} == {"aa", "ou", "oh", "ih", "blinkLeft", "blinkRight"}


def test_a_vrm_with_an_animation_states_its_origin(animation: Animation, glb: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.vrm").write_bytes(as_vrm(glb, 1))
    animation.save(tmp_path / "a.npz")
    arguments = ["export", str(tmp_path / "a.npz"), "--to", "glb", "--into", str(tmp_path / "a.vrm")]
    assert main([*arguments, "-o", str(tmp_path / "b.vrm")]) == 0
    assert verify_file(tmp_path / "b.vrm").status == INTACT


def test_command_line(animation: Animation, avatar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dataclasses import replace

    face = load_avatar(avatar).face
    meta = {**animation.meta, "face": face.name, "face_source": str(avatar)}
    on_avatar = replace(
        animation, template=face.template, faces=face.faces, blendshapes=animation.blendshapes, rig=face, meta=meta
    )
    on_avatar.save(tmp_path / "a.npz", dense=False)
    assert load_animation(tmp_path / "a.npz").face.surfaces  # the avatar is found again
    assert main(["export", str(tmp_path / "a.npz"), "--to", "glb", "--into", str(avatar)]) == 0
    assert (tmp_path / "a.glb").is_file() and (tmp_path / "a.wav").is_file()
    assert main(["export", str(tmp_path / "a.npz"), "--to", "csv", "--into", str(avatar)]) == 2
    assert "--into does not work with --to csv" in capsys.readouterr().err
    moved = avatar.with_name("other.glb")
    avatar.rename(moved)
    try:
        assert main(["export", str(tmp_path / "a.npz"), "--to", "html"]) == 1
        assert "the face of this animation was moved" in capsys.readouterr().err
    finally:
        moved.rename(avatar)
