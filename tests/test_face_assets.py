"""The head asset, `load_face` and `replace_skin`: shapes, motion, lips and lids, and refused meshes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_face import sphere
from PIL import Image

from sedtalker import resources
from sedtalker.errors import FaceError, FaceWarning
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.assets import identities, load_face, replace_skin
from sedtalker.face.mesh import format_obj
from sedtalker.face.orientation import STATEMENT
from sedtalker.face.rig import Face
from sedtalker.recipes.head_asset.blendshapes import sphere_centre

NAMES = ("default", "man", "woman_african", "man_old", "woman_asian")
MILLIMETRE = 0.001
CLOSED_MOUTH = (
    "mouthSmile", "mouthFrown", "mouthDimple", "mouthStretch", "mouthPress", "mouthRollLower", "mouthRollUpper",
    "mouthShrugLower", "mouthShrugUpper", "mouthPucker", "mouthLeft", "mouthRight", "jawLeft", "jawRight", "cheekPuff",
)  # fmt: skip


@pytest.fixture(scope="module")
def face() -> Face:
    return load_face()


@pytest.fixture(scope="module", params=NAMES)
def identity(request: pytest.FixtureRequest) -> Face:
    return load_face(request.param)


def weights(**named: float) -> np.ndarray:
    """Weights (52,); a name without side sets both sides."""
    row = np.zeros(52, np.float32)
    for name, value in named.items():
        full_names = [full for full in (name, f"{name}Left", f"{name}Right") if full in ARKIT_NAMES]
        assert full_names, name
        row[[ARKIT_NAMES.index(full) for full in full_names]] = value
    return row


def lip_gaps(face: Face, vertices: np.ndarray) -> np.ndarray:
    """Height (N,) of the upper over the lower lip in metres."""
    upper, lower = face.lip_pairs.T
    return vertices[upper, 1] - vertices[lower, 1]


def write_obj(path: Path, vertices: np.ndarray, faces: np.ndarray) -> Path:
    lines = [f"v {x:.7f} {y:.7f} {z:.7f}" for x, y, z in vertices]
    lines += [f"f {a} {b} {c}" for a, b, c in faces + 1]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_five_identities_share_one_topology() -> None:
    assert identities() == NAMES
    faces = [load_face(name) for name in NAMES]
    for other in faces[1:]:
        np.testing.assert_array_equal(other.faces, faces[0].faces)
        assert np.abs(other.template - faces[0].template).max() > 10 * MILLIMETRE


def test_contract(identity: Face) -> None:
    count = len(identity.template)
    assert 5_000 <= count <= 8_000
    assert identity.template.dtype == np.float32
    assert identity.faces.dtype == np.int32
    assert identity.faces.min() == 0
    assert identity.faces.max() == count - 1
    assert identity.blendshapes.shape == (52, count, 3)
    assert identity.blendshape_names == ARKIT_NAMES
    assert identity.colors.shape == (count, 3)
    assert set(identity.attachments) == {"brows", "lashes", "hair", "cloth"}
    assert {"lips", "upper_face", "lower_face", "eyes", "emotion"} <= set(identity.masks)
    height, depth = np.ptp(identity.template, axis=0)[1:]
    assert 0.2 < depth < height < 0.6


def test_parts_cover_each_vertex_once(face: Face) -> None:
    everything = np.concatenate(list(face.parts.values()))
    np.testing.assert_array_equal(np.sort(everything), np.arange(len(face.template)))
    assert np.isin(
        np.concatenate(list(face.masks.values())), np.concatenate([face.parts["skin"], face.parts["lips"]])
    ).all()
    assert not np.intersect1d(face.masks["upper_face"], face.masks["lower_face"]).size


def test_landmarks_are_at_their_places(identity: Face) -> None:
    at = {name: identity.template[index] for name, index in identity.landmarks.items()}
    assert at["mouth_left"][0] > 15 * MILLIMETRE > -15 * MILLIMETRE > at["mouth_right"][0]
    front = identity.template[identity.masks["lower_face"], 2].max()
    assert at["nose_tip"][2] >= front - MILLIMETRE
    heights = [
        at[name][1] for name in ("brow_left_inner", "lid_left_upper", "lid_left_lower", "nose_tip", "lip_upper", "chin")
    ]
    assert heights == sorted(heights, reverse=True)
    assert at["eye_left_inner"][0] < at["eye_left_outer"][0]
    for row in ("teeth_upper", "teeth_lower"):
        assert identity.landmarks[row] in identity.parts[row]
        assert abs(at[row][0]) < 2 * MILLIMETRE


def test_surface_indices_are_within_their_arrays(identity: Face) -> None:
    attached = [(a.surface, len(a.indices)) for a in identity.attachments.values()]
    for surface, count in [(s, len(identity.template)) for s in identity.surfaces] + attached:
        assert surface.triangles.max() < count
        assert surface.uv_triangles.shape == surface.triangles.shape
        assert surface.uv_triangles.max() < len(surface.uv)
        assert surface.occlusion.shape == (count,)
        assert 0 <= surface.occlusion.min() <= surface.occlusion.max() <= 1
    for attachment in identity.attachments.values():
        assert attachment.indices.max() < len(identity.template)


def test_textures_are_decoded_once_at_first_access(identity: Face) -> None:
    materials = [s.material for s in identity.surfaces] + [a.surface.material for a in identity.attachments.values()]
    for material in materials:
        if material.texture:
            picture = identity.textures[material.texture]
            assert picture.dtype == np.uint8
            assert picture.shape[2] == 4
        if material.bump:
            assert identity.textures[material.bump].shape[2] == 1
    assert identity.textures["teeth"] is identity.textures["teeth"]
    with pytest.raises(KeyError):
        identity.textures["missing"]


def test_sides_mirror_each_other(face: Face) -> None:
    """Right and left blendshapes move the skin by the same distances."""
    skin = np.concatenate([face.parts["skin"], face.parts["lips"]])
    for name in ARKIT_NAMES:
        if not name.endswith("Left") or name in ("jawLeft", "mouthLeft"):
            continue
        left = np.sort(np.linalg.norm(face.blendshapes[ARKIT_NAMES.index(name)][skin], axis=1))
        right = np.sort(np.linalg.norm(face.blendshapes[ARKIT_NAMES.index(name[:-4] + "Right")][skin], axis=1))
        np.testing.assert_allclose(left, right, atol=0.4 * MILLIMETRE, err_msg=name)


def test_every_blendshape_moves_the_head(identity: Face) -> None:
    reach = np.linalg.norm(identity.blendshapes, axis=2).max(1)
    assert reach.min() > 0.8 * MILLIMETRE
    assert reach.max() < 60 * MILLIMETRE


def test_lips_are_shut_at_rest(identity: Face) -> None:
    upper, lower = identity.lip_pairs.T
    assert len(identity.lip_pairs) >= 11
    assert len(np.unique(identity.lip_pairs)) == identity.lip_pairs.size
    assert np.abs(lip_gaps(identity, identity.template)).max() < 0.5 * MILLIMETRE
    apart = np.linalg.norm(identity.template[upper] - identity.template[lower], axis=1)
    assert apart[len(apart) // 2] < MILLIMETRE
    assert apart.mean() < 1.2 * MILLIMETRE


def test_lip_pairs_face_each_other_from_corner_to_corner(identity: Face) -> None:
    upper, lower = (identity.template[side] for side in identity.lip_pairs.T)
    assert np.abs(upper[:, 0] - lower[:, 0]).max() < 1.5 * MILLIMETRE
    assert (np.diff(upper[:, 0]) > 0).all()
    corners = identity.template[[identity.landmarks["mouth_right"], identity.landmarks["mouth_left"]], 0]
    assert np.abs(upper[[0, -1], 0] - corners).max() < 2.5 * MILLIMETRE
    gaps = lip_gaps(identity, identity.pose(weights(jawOpen=1)))
    assert gaps[len(gaps) // 2] > 25 * MILLIMETRE
    assert gaps[len(gaps) // 2] == gaps.max()


@pytest.mark.parametrize("jaw", (0.1, 0.5, 1.0))
def test_mouth_close_seals_an_open_jaw(identity: Face, jaw: float) -> None:
    gaps = lip_gaps(identity, identity.pose(weights(jawOpen=jaw, mouthClose=jaw)))
    assert np.abs(gaps).max() < 0.5 * MILLIMETRE


@pytest.mark.parametrize("name", CLOSED_MOUTH)
def test_closed_mouth_blendshapes_keep_the_lips_shut(identity: Face, name: str) -> None:
    assert np.abs(lip_gaps(identity, identity.pose(weights(**{name: 1.0})))).max() < 1.3 * MILLIMETRE


def test_blink_closes_the_lid_at_one_and_not_before(identity: Face) -> None:
    for side in ("left", "right"):
        upper, lower = (identity.landmarks[f"lid_{side}_{rim}"] for rim in ("upper", "lower"))
        gaps = [identity.pose(weights(eyeBlink=w))[[upper, lower], 1] @ (1, -1) for w in (0.0, 0.5, 1.0)]
        assert gaps[0] > 4 * MILLIMETRE
        assert gaps[1] == pytest.approx(gaps[0] / 2, abs=MILLIMETRE)
        assert abs(gaps[2]) < MILLIMETRE


def test_a_look_rotates_the_eye_about_its_centre(face: Face) -> None:
    ball = face.parts["eye_left"]
    before = face.template[ball]
    after = face.pose(weights(eyeLookOutLeft=1))[ball]
    centre = np.linalg.lstsq(np.c_[2 * before, np.ones(len(before))], (before**2).sum(1), rcond=None)[0][:3]
    radius = np.linalg.norm(before - centre, axis=1)
    np.testing.assert_allclose(np.linalg.norm(after - centre, axis=1), radius, atol=0.6 * MILLIMETRE)
    front = before[:, 2] > before[:, 2].max() - 2 * MILLIMETRE
    assert (after - before)[front, 0].mean() > 2 * MILLIMETRE


def test_teeth_stay_behind_shut_lips(identity: Face) -> None:
    teeth = np.concatenate([identity.parts["teeth_upper"], identity.parts["teeth_lower"]])
    lip = identity.template[identity.landmarks["lip_upper"]]
    assert identity.template[teeth, 2].max() < lip[2] - 5 * MILLIMETRE
    upper_edge = identity.template[identity.landmarks["teeth_upper"], 1]
    assert 0 < lip[1] - upper_edge < 3 * MILLIMETRE


def test_jaw_moves_only_the_lower_teeth(face: Face) -> None:
    jaw = face.blendshapes[ARKIT_NAMES.index("jawOpen")]
    assert np.linalg.norm(jaw[face.parts["teeth_lower"]], axis=1).min() > 5 * MILLIMETRE
    assert np.linalg.norm(jaw[face.parts["teeth_upper"]], axis=1).max() < MILLIMETRE


def test_raised_cheeks_stay_in_front_of_the_eyeballs(identity: Face) -> None:
    skin = np.unique(next(s.triangles for s in identity.surfaces if s.material.kind == "skin"))
    smile = identity.pose(weights(cheekSquint=1.0, eyeSquint=0.55))
    for side in ("left", "right"):
        ball = identity.template[identity.parts[f"eye_{side}"]]
        centre = sphere_centre(ball)
        radius = np.linalg.norm(ball - centre, axis=1).mean()
        rest, raised = (np.linalg.norm(points[skin] - centre, axis=1) - radius for points in (identity.template, smile))
        front = (rest > MILLIMETRE) & (identity.template[skin, 2] > centre[2])
        assert raised[front].min() > 0.8 * MILLIMETRE


def test_lashes_follow_a_blink_and_hair_does_not(identity: Face) -> None:
    posed = identity.pose(weights(eyeBlink=1, jawOpen=1))
    travel = {
        name: np.linalg.norm(attachment.place(posed) - attachment.place(identity.template), axis=1)
        for name, attachment in identity.attachments.items()
    }
    assert travel["lashes"].max() > 5 * MILLIMETRE
    assert travel["lashes"].max() < 16 * MILLIMETRE
    assert travel["hair"].max() < 6 * MILLIMETRE
    assert np.median(travel["cloth"]) < 0.1 * MILLIMETRE


def test_asset_is_small() -> None:
    assert sum(path.stat().st_size for path in resources.asset("face").iterdir()) < 8e6


def test_loading_imports_only_numpy_and_pillow() -> None:
    script = (
        "import sys; from sedtalker.face.assets import load_face; load_face();"
        "print([m for m in ('anny', 'scipy', 'trimesh', 'torch', 'numba') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_another_skin_keeps_the_gloss(tmp_path: Path, face: Face) -> None:
    Image.new("RGB", (64, 128), (10, 200, 30)).save(tmp_path / "green.png")
    changed = replace_skin(face, tmp_path / "green.png")
    own, skin = face.textures["default_skin"], changed.textures["default_skin"]
    assert skin.shape == (128, 64, 4) and (skin[..., :3] == (10, 200, 30)).all()
    assert abs(skin[..., 3].mean() - own[..., 3].mean()) < 2
    assert set(changed.textures) == set(face.textures)


def test_unusable_skins_are_refused(tmp_path: Path, face: Face) -> None:
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(FaceError, match="no picture for a skin"):
        replace_skin(face, tmp_path / "text.png")
    with pytest.raises(FaceError, match="no texture coordinates"):
        replace_skin(Face("bare", face.template, face.faces), tmp_path / "text.png")


def test_mesh_of_another_topology_has_no_rig(tmp_path: Path) -> None:
    quad = np.array([[0, 0, 0], [0.2, 0, 0], [0.2, 0.2, 0], [0, 0.2, 0]], np.float32)
    path = tmp_path / "plate.obj"
    path.write_text(f"# {STATEMENT}\nv 0 0 0\nv .2 0 0\nv .2 .2 0\nv 0 .2 0\nvt 0 0\nf 1/1 2/1 3/1 -1/1\n")
    mesh = load_face(path)
    assert mesh.name == "plate"
    np.testing.assert_allclose(mesh.template, quad)
    np.testing.assert_array_equal(mesh.faces, [[0, 1, 2], [0, 2, 3]])
    assert mesh.blendshapes is None
    assert not mesh.surfaces


def test_mesh_of_the_same_topology_gets_the_rig(tmp_path: Path, face: Face) -> None:
    taller = face.template * np.float32([1, 1.05, 1])
    mesh = load_face(write_obj(tmp_path / "taller.obj", taller, face.faces))
    np.testing.assert_allclose(mesh.template, taller, atol=1e-6)
    np.testing.assert_array_equal(mesh.blendshapes, face.blendshapes)
    assert len(mesh.surfaces) == len(face.surfaces)
    assert len(mesh.textures) == len(face.textures)


@pytest.mark.parametrize(
    ("change", "reason"),
    (
        (lambda v, f: (v * 0.001, f), "fits no known unit"),
        (lambda v, f: (v, f[::-1]), "other triangles"),
        (lambda v, f: (v[::-1], f), "another order"),
        (lambda v, f: (v * np.float32([1, 1, -1]), f), "mirror image"),
    ),
    ids=("too small", "triangles", "vertices", "mirrored"),
)
def test_meshes_of_wrong_unit_or_order_are_refused(tmp_path: Path, face: Face, change, reason: str) -> None:
    path = write_obj(tmp_path / "head.obj", *change(face.template, face.faces))
    with pytest.raises(FaceError, match=reason) as refused:
        load_face(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FaceError, match="Choose one of default, man"):
        load_face("unknown")
    with pytest.raises(FaceError, match="no such mesh"):
        load_face(tmp_path / "missing.obj")


def test_flame_is_recognised_by_its_counts(tmp_path: Path) -> None:
    points, triangles, _ = sphere(60, 84)
    points = (points * [1.0, 1.3, 1.1]).astype(np.float32)[:5023]
    triangles = triangles[(triangles < 5023).all(axis=1)][:9976]
    triangles = np.concatenate([triangles, np.tile(triangles[:1], (9976 - len(triangles), 1))])
    (tmp_path / "flame.obj").write_bytes(format_obj(points, triangles))
    with pytest.warns(FaceWarning, match="FLAME's topology"):
        face = load_face(tmp_path / "flame.obj")
    np.testing.assert_allclose(face.template, points, atol=1e-5)
