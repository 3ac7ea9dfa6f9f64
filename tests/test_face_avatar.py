"""Rigged avatars as faces: names, fallbacks, formats, axes, bones."""

from __future__ import annotations

import io
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from lids import exposed_eye, lid_gaps, lip_gaps, moving_weights
from made_avatar import as_mpfb, as_vrm, head_glb, join_glb, quantised, rename, small_head, snake, split_glb, write_gltf
from PIL import Image

from sedtalker.errors import FaceError, FaceWarning, SEDTalkerError
from sedtalker.face import mouth_detection
from sedtalker.face.arkit import ARKIT_NAMES, JAW_OPEN, MOUTH_CLOSE
from sedtalker.face.assets import load_face
from sedtalker.face.avatar import _closing_factor, is_rigged, load_avatar
from sedtalker.face.avatar_bones import find_axes, turn_matrix
from sedtalker.face.mouth_measures import GAP, mouth_measures
from sedtalker.face.rig import Face
from sedtalker.face.shape_names import arkit_shares, canonical_name, control_weights

GIVEN = Path(os.environ.get("SEDTALKER_AVATAR", "brunette-t.glb"))  # a full avatar, for the test of its lids
LEFT = ARKIT_NAMES.index("eyeBlinkLeft")


@pytest.fixture(scope="module")
def head() -> Face:
    return small_head()


@pytest.fixture(scope="module")
def glb() -> bytes:
    return head_glb()


@pytest.fixture(scope="module")
def plain(glb: bytes, tmp_path_factory: pytest.TempPathFactory) -> Face:
    return load(glb, tmp_path_factory.mktemp("plain"))


def load(glb: bytes, folder: Path, name: str = "a.glb") -> Face:
    (folder / name).write_bytes(glb)
    return load_face(folder / name)


def nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each point the index of the nearest other one."""
    return np.array([np.square(others - point).sum(axis=1).argmin() for point in points])


def weights(**values: float) -> np.ndarray:
    return np.array([values.get(name, 0.0) for name in ARKIT_NAMES], np.float32)


def test_the_exported_head_moves_as_the_head(head: Face, plain: Face) -> None:
    sample = np.arange(0, len(head.template), 97)
    sample = sample[np.isin(sample, head.faces)]
    own = nearest(head.template[sample], plain.template)
    assert np.abs(plain.template[own] - head.template[sample]).max() < 1e-6
    for name in ("jawOpen", "mouthSmileLeft", "eyeBlinkRight", "eyeLookUpLeft"):
        column = ARKIT_NAMES.index(name)
        moved, expected = plain.blendshapes[column, own], head.blendshapes[column, sample]
        assert np.median(np.abs(moved - expected)) < 2e-5, name


def test_lips_are_found_and_close(plain: Face) -> None:
    measures = mouth_measures(plain)
    assert abs(measures.rest[GAP]) < 2.5
    assert measures.matrix[JAW_OPEN, GAP] > 25
    closed = measures.of_weights(weights(jawOpen=0.3, mouthClose=0.3))[GAP]
    assert abs(closed - measures.rest[GAP]) < 0.3


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("EyeBlink_L", "eyeblinkleft"), ("left_eyeBlink", "eyeblinkleft"), ("blendShape1.jawOpen", "jawopen"),
        ("MOUTH_SMILE_R", "mouthsmileright"), ("mouthLeft", "mouthleft"), ("Jaw_Right", "jawright"),
        ("viseme_PP", "visemepp"), ("Fcl_MTH_A", "aa"), ("blink_l", "blinkleft"), ("eyeBlinkR", "eyeblinkright"),
        ("browInnerUp_R", "browinnerupright"), ("hair_l", None), ("Basis", None), ("CTRL_jawOpen", "jawopen"),
    ],
)  # fmt: skip
def test_names(title: str, name: str | None) -> None:
    assert canonical_name(title) == name


def test_other_names_of_the_same_shapes(glb: bytes, plain: Face, tmp_path: Path) -> None:
    face = load(rename(glb, snake), tmp_path)
    np.testing.assert_array_equal(face.blendshapes, plain.blendshapes)


def test_visemes_replace_missing_shapes() -> None:
    shares = arkit_shares({"visemeaa", "visemeou", "eyeblinkleft", "blink", "mouthsmile", "browinnerupleft"})
    assert shares["jawOpen"] == {"visemeaa": 1.0} and shares["mouthClose"] == {"visemeaa": -1.0}
    assert shares["eyeBlinkLeft"] == {"eyeblinkleft": 1.0} and shares["eyeBlinkRight"] == {"blink": 0.5}
    assert shares["mouthSmileLeft"] == {"mouthsmile": 0.5} and shares["browInnerUp"] == {"browinnerupleft": 1.0}
    assert "tongueOut" not in shares
    driven = control_weights(shares, weights(jawOpen=0.4, mouthClose=0.4, mouthSmileLeft=1.0)[None])
    assert driven["visemeaa"] == pytest.approx([0.0]) and driven["mouthsmile"] == pytest.approx([0.5])


@pytest.mark.parametrize("version", [0, 1])
def test_vrm_expressions(glb: bytes, plain: Face, tmp_path: Path, version: int) -> None:
    face = load(as_vrm(glb, version), tmp_path, "a.vrm")
    moved = np.linalg.norm(face.blendshapes[JAW_OPEN], axis=1)
    whole = np.linalg.norm(plain.blendshapes[JAW_OPEN], axis=1)
    assert moved.max() == pytest.approx(0.6 * whole.max(), rel=0.01)
    np.testing.assert_allclose(face.blendshapes[MOUTH_CLOSE], -face.blendshapes[JAW_OPEN], rtol=0.01, atol=1e-5)
    assert face.blendshapes[LEFT].any() and not face.blendshapes[ARKIT_NAMES.index("tongueOut")].any()
    # It faces +z, and its left eye is on the left.
    assert np.abs(face.template.max(0) - plain.template.max(0)).max() < 2e-3
    blink = np.linalg.norm(face.blendshapes[LEFT], axis=1)
    assert (face.template[:, 0] * blink).sum() > 0


@pytest.mark.parametrize("compress", [False, True])
def test_quantised_and_compressed(glb: bytes, plain: Face, tmp_path: Path, compress: bool) -> None:
    if compress:
        pytest.importorskip("meshoptimizer")
    face = load(quantised(glb, compress), tmp_path)
    assert np.abs(face.template.min(0) - plain.template.min(0)).max() < 1e-4
    assert len(face.faces) == len(plain.faces)
    travel = [np.linalg.norm(own.blendshapes[JAW_OPEN], axis=1).max() for own in (face, plain)]
    assert travel[0] == pytest.approx(travel[1], abs=1e-4)


def test_gltf_with_files_and_webp(glb: bytes, plain: Face, tmp_path: Path) -> None:
    face = load_face(write_gltf(glb, tmp_path / "folder"))
    np.testing.assert_array_equal(face.template, plain.template)
    first, second = (own.textures[own.surfaces[0].material.texture] for own in (face, plain))
    assert np.abs(first.astype(int) - second).mean() < 8


def test_centimetres_and_z_up(glb: bytes, plain: Face, tmp_path: Path) -> None:
    tree, data = split_glb(glb)
    nodes = tree["nodes"]
    turn = {"rotation": [2**-0.5, 0.0, 0.0, 2**-0.5], "scale": [100.0, 100.0, 100.0]}  # y up becomes z up
    nodes.append({"name": "Scene", "children": tree["scenes"][0]["nodes"], **turn})
    tree["scenes"][0]["nodes"] = [len(nodes) - 1]
    face = load(join_glb(tree, data), tmp_path)
    assert np.abs(face.template.max(0) - plain.template.max(0)).max() < 2e-3
    assert face.blendshapes[JAW_OPEN].min() == pytest.approx(plain.blendshapes[JAW_OPEN].min(), abs=1e-3)


def test_eye_bones_turn_where_no_shape_does(glb: bytes, head: Face, tmp_path: Path) -> None:
    def unknown(name: str) -> str:
        return f"x{ARKIT_NAMES.index(name):02d}" if name.startswith("eyeLook") else name

    tree, data = split_glb(rename(glb, unknown))
    nodes, skin = tree["nodes"], tree["skins"][0]
    eye = head.template[head.parts["eye_left"]]
    centre = (eye.max(0) + eye.min(0)) / 2
    parent = next(index for index, node in enumerate(nodes) if node["name"] == "head")
    offset = centre - np.array(nodes[parent]["translation"])
    nodes.append({"name": "Eye.L", "translation": offset.astype(float).tolist()})
    nodes[parent]["children"] = [len(nodes) - 1]
    skin["joints"].append(len(nodes) - 1)
    bind = np.tile(np.eye(4, dtype=np.float32), (3, 1, 1))
    bind[1, 3, :3] = -np.array(nodes[parent]["translation"])
    bind[2, 3, :3] = -centre
    primitive = next(
        p for mesh in tree["meshes"] for p in mesh["primitives"] if tree["materials"][p["material"]]["name"] == "eyes"
    )
    positions = tree["accessors"][primitive["attributes"]["POSITION"]]
    view = tree["bufferViews"][positions["bufferView"]]
    points = np.frombuffer(data[view["byteOffset"] :][: view["byteLength"]], np.float32).reshape(-1, 3)
    joints = tree["accessors"][primitive["attributes"]["JOINTS_0"]]
    at = tree["bufferViews"][joints["bufferView"]]["byteOffset"]
    ids = np.frombuffer(data[at : at + 4 * len(points)], np.uint8).reshape(-1, 4).copy()
    ids[points[:, 0] > 0] = (2, 0, 0, 0)
    inverse = tree["accessors"][skin["inverseBindMatrices"]]
    inverse["count"] = 3
    shared = tree["accessors"][primitive["attributes"]["WEIGHTS_0"]]
    full = np.zeros((len(points), 4), np.uint16)
    full[:, 0] = 65535
    blob = data[:at] + ids.tobytes() + data[at + ids.nbytes :]
    tree["bufferViews"] += [
        {"buffer": 0, "byteOffset": len(blob), "byteLength": bind.nbytes},
        {"buffer": 0, "byteOffset": len(blob) + bind.nbytes, "byteLength": full.nbytes},
    ]
    inverse["bufferView"] = len(tree["bufferViews"]) - 2
    tree["accessors"].append({**shared, "count": len(points), "bufferView": len(tree["bufferViews"]) - 1})
    primitive["attributes"]["WEIGHTS_0"] = len(tree["accessors"]) - 1
    blob += bind.tobytes() + full.tobytes()
    tree["buffers"][0]["byteLength"] = len(blob)
    path = tmp_path / "eyes.glb"
    path.write_bytes(join_glb(tree, blob))
    avatar = load_avatar(path)
    assert {(turn.shape, turn.yaw) for turn in avatar.rig.turns if turn.yaw} == {
        ("eyeLookInLeft", -15.0), ("eyeLookOutLeft", 15.0)
    }  # fmt: skip
    face = avatar.face
    ball = face.parts["eye_left"]
    moved = face.template[ball] + face.blendshapes[ARKIT_NAMES.index("eyeLookOutLeft"), ball]
    expected = (face.template[ball] - centre) @ turn_matrix(0, 15).T + centre
    assert np.abs(moved - expected).max() < 1e-4
    front = ball[face.template[ball, 2].argmax()]
    assert face.blendshapes[ARKIT_NAMES.index("eyeLookOutLeft"), front, 0] > 0.002  # outwards is to the left
    assert face.blendshapes[ARKIT_NAMES.index("eyeLookUpLeft"), front, 1] > 0.001
    assert not face.blendshapes[ARKIT_NAMES.index("eyeLookOutRight"), ball].any()


def test_an_mpfb_export(glb: bytes, plain: Face, tmp_path: Path) -> None:
    (tmp_path / "mpfb.glb").write_bytes(as_mpfb(glb))
    avatar = load_avatar(tmp_path / "mpfb.glb")
    face = avatar.face
    assert np.abs(face.template.max(0) - plain.template.max(0)).max() < 1e-4
    assert avatar.gltf.tree["nodes"][avatar.rig.head]["name"] == "head"
    np.testing.assert_allclose(face.blendshapes[JAW_OPEN], plain.blendshapes[JAW_OPEN], atol=1e-5)
    kinds = {surface.material.kind: surface.material.mode for surface in face.surfaces}
    assert kinds["skin"] == "opaque"  # in the file it blends, but has no holes
    assert {"eye", "teeth", "tongue", "card"} <= {*kinds}
    lids_and_lips_stay_apart(face)


def lids_and_lips_stay_apart(face: Face, bordered: bool = True) -> None:
    """Check frame by frame that neither the lids nor the lips pass through each other, and that the eyes close."""
    points = face.pose(moving_weights())
    rest = lip_gaps(face, face.template[None]).min()
    assert lip_gaps(face, points).min() > min(rest, 0) - 0.002
    closed = points[moving_weights()[:, LEFT].argmax()]
    for side in ("left", "right"):
        assert exposed_eye(face, closed, side) <= 0.15 * exposed_eye(face, face.template, side)
        if not bordered:
            continue
        gaps, opening = lid_gaps(face, points, side), lid_gaps(face, face.template[None], side)
        assert gaps.min() > -0.002  # the thickness of a lid
        assert np.median(gaps, axis=1).min() < 0.15 * np.median(opening)


def test_lids_and_lips_stay_apart(plain: Face) -> None:
    lids_and_lips_stay_apart(plain)


@pytest.mark.skipif(not GIVEN.is_file(), reason="the given avatar is not here")
def test_lids_and_lips_of_the_given_avatar() -> None:
    lids_and_lips_stay_apart(load_face(GIVEN), bordered=False)  # its lids go on behind the eyes


def test_empty_morph_targets_do_not_hide_visemes(glb: bytes, plain: Face, tmp_path: Path) -> None:
    names = {"jawOpen": "viseme_aa", "cheekPuff": "jawOpen", "mouthClose": "unused", "noseSneerLeft": "mouthClose"}
    tree, data = split_glb(rename(glb, lambda name: names.get(name, name)))
    for mesh in tree["meshes"]:
        titles = mesh.get("extras", {}).get("targetNames", [])
        for primitive in mesh["primitives"]:
            for title, target in zip(titles, primitive.get("targets", []), strict=True):
                if title in ("jawOpen", "mouthClose"):  # as exporters write shapes that a head lacks
                    old = tree["accessors"][target["POSITION"]]
                    empty = {"componentType": 5126, "type": "VEC3", "count": old["count"]}
                    tree["accessors"].append(empty)
                    target["POSITION"] = len(tree["accessors"]) - 1
    face = load(join_glb(tree, data), tmp_path)
    assert face.blendshapes[JAW_OPEN].min() == pytest.approx(plain.blendshapes[JAW_OPEN].min(), abs=1e-5)
    measures = mouth_measures(face)
    closed = measures.of_weights(weights(jawOpen=0.4, mouthClose=0.4))[GAP]
    assert abs(closed - measures.rest[GAP]) < 0.3


@pytest.mark.parametrize(
    ("opacity", "mode"), [((255, 255), "opaque"), ((255, 0), "hair"), ((255, 100), "blend"), ((90, 90), "blend")]
)
def test_layers_with_holes_are_solid(glb: bytes, tmp_path: Path, opacity: tuple[int, int], mode: str) -> None:
    """A layer that blends is drawn solid where its texture is opaque: blended triangles show their borders."""
    tree, data = split_glb(glb)
    number = next(n for n, material in enumerate(tree["materials"]) if material["name"] == "eyes")
    picture = np.full((8, 8, 4), 255, np.uint8)
    picture[..., 3] = opacity[0]
    picture[::2, :, 3] = opacity[1]
    packed = io.BytesIO()
    Image.fromarray(picture).save(packed, "PNG")
    tree["bufferViews"].append({"buffer": 0, "byteOffset": len(data), "byteLength": len(packed.getvalue())})
    tree["images"].append({"bufferView": len(tree["bufferViews"]) - 1, "mimeType": "image/png"})
    tree["textures"].append({"source": len(tree["images"]) - 1})
    texture = {"index": len(tree["textures"]) - 1}
    tree["materials"][number] = {
        "name": "eyes", "alphaMode": "BLEND", "pbrMetallicRoughness": {"baseColorTexture": texture}
    }  # fmt: skip
    tree["buffers"][0]["byteLength"] = len(data) + len(packed.getvalue())
    face = load(join_glb(tree, data + packed.getvalue()), tmp_path)
    assert next(surface.material.mode for surface in face.surfaces if surface.material.kind == "eye") == mode


def test_missing_shapes_are_named(glb: bytes, tmp_path: Path) -> None:
    with pytest.warns(
        FaceWarning, match=r"3 of ARKit's 52 shapes move nothing on this avatar: .*\(eyeBlink, tongueOut\)"
    ):
        load(rename(glb, lambda name: "x" if name.startswith("eyeBlink") or name == "tongueOut" else name), tmp_path)


def test_a_mouth_close_that_closes_too_little_is_replaced() -> None:
    template = np.array([(0, 0.001, 0), (0, 0, 0)] * 4, np.float32)
    shapes = np.zeros((52, 8, 3), np.float32)
    shapes[JAW_OPEN, 1::2, 1] = -0.03
    pairs = np.arange(8, dtype=np.int32).reshape(4, 2)
    for closing, expected in ((0.03, 1.0), (0.02, 1.5), (0.001, None), (0.0, None)):
        shapes[MOUTH_CLOSE, 1::2, 1] = closing
        assert _closing_factor(template, shapes, pairs) == (None if expected is None else pytest.approx(expected))


def test_deep_eye_bones_do_not_turn_the_head() -> None:
    """VRoid's eye bones are as far behind the mouth as they are above it."""
    points = np.array([(x, y, z) for x in (-0.1, 0.1) for y in (1.4, 1.7) for z in (-0.1, 0.09)], np.float32)
    shapes = np.zeros((52, len(points) + 1, 3), np.float32)
    shapes[JAW_OPEN, -1] = 0.01
    points = np.concatenate([points, [(0, 1.51, 0.08)]]).astype(np.float32)
    piece = SimpleNamespace(points=points, shapes=shapes, primitive={"targets": [1]}, share_of=lambda nodes: 0)
    world = np.tile(np.eye(4), (2, 1, 1))
    world[:, :3, 3] = (0.016, 1.585, 0.002), (-0.016, 1.585, 0.002)
    bones = SimpleNamespace(left_eye=0, right_eye=1, nodes_of_head=set())
    rotation, metres = find_axes([piece], bones, world)
    np.testing.assert_array_equal(rotation, np.eye(3))
    assert metres == 1.0


def test_a_skeleton_with_a_jaw_is_an_avatar(glb: bytes, tmp_path: Path) -> None:
    tree, data = split_glb(glb)
    for mesh in tree["meshes"]:
        mesh.pop("extras", None)
        for primitive in mesh["primitives"]:
            primitive.pop("targets", None)
        mesh.pop("weights", None)
    for node in tree["nodes"]:
        node.pop("weights", None)
    (tmp_path / "still.glb").write_bytes(join_glb(tree, data))
    assert not is_rigged(tmp_path / "still.glb")
    next(node for node in tree["nodes"] if node["name"] == "head")["name"] = "Jaw"
    (tmp_path / "jaw.glb").write_bytes(join_glb(tree, data))
    assert is_rigged(tmp_path / "jaw.glb")
    face = load_face(tmp_path / "jaw.glb")
    assert face.blendshapes[JAW_OPEN].any()
    tree["extensions"] = {"VRM": {}}
    next(node for node in tree["nodes"] if node["name"] == "Jaw")["name"] = "head"
    (tmp_path / "still.vrm").write_bytes(join_glb(tree, data))
    with pytest.raises(FaceError, match="nothing opens the mouth"):
        load_face(tmp_path / "still.vrm")


def test_textures_in_ktx2_are_left_out(glb: bytes, plain: Face, tmp_path: Path) -> None:
    tree, data = split_glb(glb)
    tree["textures"] = [{"extensions": {"KHR_texture_basisu": {"source": t["source"]}}} for t in tree["textures"]]
    tree["extensionsRequired"] = ["KHR_texture_basisu"]
    with pytest.warns(FaceWarning, match="KTX2"):
        face = load(join_glb(tree, data), tmp_path)
    np.testing.assert_array_equal(face.template, plain.template)
    skin = next(surface.material for surface in face.surfaces if surface.material.kind == "skin")
    assert skin.texture is None and max(skin.tint) < 0.6


def test_a_head_without_a_mouth_is_refused(glb: bytes, tmp_path: Path) -> None:
    with pytest.raises(FaceError, match="nothing opens the mouth"):
        load(rename(glb, lambda name: f"x{ARKIT_NAMES.index(name)}"), tmp_path)


def test_a_mouth_that_no_shape_opens_is_named(glb: bytes, tmp_path: Path) -> None:
    tree, data = split_glb(glb)
    skin = next(mesh for mesh in tree["meshes"] if "mouthPucker" in mesh["extras"]["targetNames"])
    names = skin["extras"]["targetNames"]
    skin["extras"]["targetNames"] = ["other" if name == "jawOpen" else name for name in names]
    with pytest.warns(FaceWarning, match="jawOpen parts no lips of this avatar"):
        assert load(join_glb(tree, data), tmp_path).lip_pairs is None


def test_partners_of_dense_lips_are_found_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    upper, lower = random.random((50, 3), np.float32), random.random((40, 3), np.float32)
    whole = mouth_detection._find_partners(upper, lower)
    monkeypatch.setattr(mouth_detection, "_BLOCK", 120)
    for expected, found in zip(whole, mouth_detection._find_partners(upper, lower), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_head_motion_leaves_the_shoulders(plain: Face) -> None:
    assert plain.head_weights is not None and plain.neck is not None
    top = plain.template[:, 1].argmax()
    bottom = plain.template[:, 1].argmin()
    assert plain.head_weights[top] == pytest.approx(1) and plain.head_weights[bottom] == pytest.approx(0)


def test_a_missing_avatar(tmp_path: Path) -> None:
    with pytest.raises(SEDTalkerError, match="no such avatar"):
        load_face(tmp_path / "none.vrm")
