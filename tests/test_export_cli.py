"""The command `sedtalker export`."""

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
def animation_file(tmp_path: Path) -> Path:
    made_animation(tmp_path, 0.5).save(tmp_path / "clip.npz")
    return tmp_path / "clip.npz"


def test_the_help_describes_every_format(run_cli) -> None:
    text = " ".join(run_cli("export", "--help").stdout.split())
    described = text[text.index("glb: glTF") : text.index("vertices -o")]
    assert [name for name in FORMATS if not re.search(rf"\b{name}\b", described)] == []


def test_glb_and_sound_are_written_next_to_the_animation(run_cli, animation_file: Path) -> None:
    done = run_cli("export", animation_file, "--to", "glb")
    assert done.returncode == 0 and done.stdout.split() == [
        str(animation_file.with_suffix(".glb")),
        str(animation_file.with_suffix(".wav")),
    ]
    assert (
        animation_file.with_suffix(".glb").stat().st_size > 1e6
        and animation_file.with_suffix(".wav").stat().st_size > 16_000
    )


def test_vertices_are_solved_for_a_csv_at_60_fps(run_cli, animation_file: Path) -> None:
    animation = made_animation(animation_file.parent, 0.5)
    bare = replace(animation, dense=animation.vertices, blendshapes=None, blendshape_names=(), meta={}, rig=None)
    bare.save(animation_file.parent / "bare.npz")
    done = run_cli("export", animation_file.parent / "bare.npz", "--to", "csv", "--basis", "default", "--fps", "60")
    assert done.returncode == 0 and "52 shapes solved" in done.stderr
    with (animation_file.parent / "bare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30 and rows[-1]["Timecode"] == "00:00:00:29.000"
    jaw = animation.blendshapes[:, animation.blendshape_names.index("jawOpen")]
    values = np.array([float(row["JawOpen"]) for row in rows])
    np.testing.assert_allclose((values[0::2] + values[1::2])[1:-1] / 2, jaw[1:-1], atol=0.02)


def test_another_sound_and_a_missing_one(run_cli, animation_file: Path, speech_file: Path) -> None:
    other = shutil.copy(speech_file, animation_file.parent / "other.opus")
    done = run_cli("export", animation_file, "--to", "glb", "--audio", other, "-o", animation_file.parent / "b.glb")
    assert done.returncode == 0 and (animation_file.parent / "b.wav").is_file()
    missing = run_cli("export", animation_file, "--to", "html", "--audio", "nowhere.wav")
    assert missing.returncode == 1 and "nowhere.wav" in missing.stderr and missing.stderr.count("\n") == 1
    assert not animation_file.with_suffix(".html").exists()


def test_another_skin_is_in_the_glb(run_cli, animation_file: Path) -> None:
    Image.new("RGB", (64, 64), (10, 200, 30)).save(animation_file.parent / "green.png")
    done = run_cli("export", animation_file, "--to", "glb", "--texture", animation_file.parent / "green.png")
    assert done.returncode == 0, done.stderr
    tree = pygltflib.GLTF2().load(animation_file.with_suffix(".glb"))
    image = next(image for image in tree.images if image.name == "skin")
    view = tree.bufferViews[image.bufferView]
    data = tree.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]
    middle = Image.open(io.BytesIO(data)).convert("RGB").getpixel((32, 32))
    assert np.abs(np.subtract(middle, (10, 200, 30))).max() < 6
