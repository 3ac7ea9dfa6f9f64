"""The head asset's files are read as they were written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sedtalker.errors import FaceError
from sedtalker.face.asset_io import MATERIALS, face_names, read_face, write_faces
from sedtalker.face.assets import load_face
from sedtalker.face.rig import Face


@pytest.fixture(scope="module")
def face() -> Face:
    return load_face()


def test_written_faces_are_read_back(tmp_path: Path, face: Face) -> None:
    small = {name: face.textures[name][:8, :8] for name in ("teeth", "default_skin_bump")}
    stored = Face(**{**vars(face), "textures": small})
    write_faces(tmp_path, [stored])
    back = read_face(tmp_path, "default")
    np.testing.assert_array_equal(back.template, face.template)
    np.testing.assert_array_equal(back.blendshapes, face.blendshapes)
    np.testing.assert_array_equal(back.lip_pairs, face.lip_pairs)
    assert back.surfaces[0].material == face.surfaces[0].material
    np.testing.assert_array_equal(back.attachments["hair"].offsets, face.attachments["hair"].offsets)
    assert dict(back.landmarks) == dict(face.landmarks)
    assert back.textures["default_skin_bump"].shape == (8, 8, 1)


def test_missing_and_newer_heads_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FaceError, match="no head"):
        face_names(tmp_path)
    (tmp_path / MATERIALS).write_text(json.dumps({"version": 99, "faces": {}}))
    with pytest.raises(FaceError, match="version 99"):
        face_names(tmp_path)
