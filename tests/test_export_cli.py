"""`sedtalker export` as a user runs it."""

from __future__ import annotations

import csv
import io
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pygltflib
import pytest
from made_animation import made_animation
from PIL import Image

from sedtalker.export import FORMATS


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    made_animation(tmp_path, 0.5).save(tmp_path / "clip.npz")
    return tmp_path / "clip.npz"


def test_the_command_says_what_every_format_is(run_cli) -> None:
    said = " ".join(run_cli("export", "--help").stdout.split())
    described = said[said.index("glb: glTF") : said.index("vertices -o")]
    assert [name for name in FORMATS if not re.search(rf"\b{name}\b", described)] == []


def test_glb_goes_beside_the_animation_with_its_sound(run_cli, saved: Path) -> None:
    done = run_cli("export", saved, "--to", "glb")
    assert done.returncode == 0 and done.stdout.split() == [
        str(saved.with_suffix(".glb")),
        str(saved.with_suffix(".wav")),
    ]
    assert saved.with_suffix(".glb").stat().st_size > 1e6 and saved.with_suffix(".wav").stat().st_size > 16_000


def test_vertices_alone_become_a_csv_at_60_fps(run_cli, saved: Path) -> None:
    animation = made_animation(saved.parent, 0.5)
    bare = replace(animation, dense=animation.vertices, blendshapes=None, blendshape_names=(), meta={}, rig=None)
    bare.save(saved.parent / "bare.npz")
    done = run_cli("export", saved.parent / "bare.npz", "--to", "csv", "--basis", "default", "--fps", "60")
    assert done.returncode == 0 and "52 shapes solved" in done.stderr
    with (saved.parent / "bare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30 and rows[-1]["Timecode"] == "00:00:00:29.000"
    jaw = animation.blendshapes[:, animation.blendshape_names.index("jawOpen")]
    told = np.array([float(row["JawOpen"]) for row in rows])
    np.testing.assert_allclose((told[0::2] + told[1::2])[1:-1] / 2, jaw[1:-1], atol=0.02)


def test_another_sound_and_what_is_not_there(run_cli, saved: Path, speech_file: Path) -> None:
    other = shutil.copy(speech_file, saved.parent / "other.opus")
    done = run_cli("export", saved, "--to", "glb", "--audio", other, "-o", saved.parent / "b.glb")
    assert done.returncode == 0 and (saved.parent / "b.wav").is_file()
    missing = run_cli("export", saved, "--to", "html", "--audio", "nowhere.wav")
    assert missing.returncode == 1 and "nowhere.wav" in missing.stderr and missing.stderr.count("\n") == 1
    assert not saved.with_suffix(".html").exists()


def test_another_skin_is_in_the_file(run_cli, saved: Path) -> None:
    Image.new("RGB", (64, 64), (10, 200, 30)).save(saved.parent / "green.png")
    done = run_cli("export", saved, "--to", "glb", "--texture", saved.parent / "green.png")
    assert done.returncode == 0, done.stderr
    tree = pygltflib.GLTF2().load(saved.with_suffix(".glb"))
    image = next(image for image in tree.images if image.name == "skin")
    view = tree.bufferViews[image.bufferView]
    data = tree.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]
    middle = Image.open(io.BytesIO(data)).convert("RGB").getpixel((32, 32))
    assert np.abs(np.subtract(middle, (10, 200, 30))).max() < 6
