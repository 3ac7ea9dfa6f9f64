"""Your own recordings: a folder of `name.wav` + `name.npy` pairs and one template mesh (`template.obj` or `.ply`).

The arrays are (T, V, 3) or (T, 3 V), in the template's vertex order, unit and axes. A `clips.csv` beside them may
say more of each clip, all columns but the first optional:

    name,subject,sentence,emotion,intensity,split
    take_01,anna,hello,happy,0.8,train

Without it every clip is neutral and spoken by one subject, and a tenth of the clips each becomes validation and test.
"""

from __future__ import annotations

import csv
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import AudioSource
from sedtalker.corpora.manifest import SPLITS
from sedtalker.corpora.preflight import COMMON_RATES
from sedtalker.corpora.sequences import UNUSED, Sequence, Source, Template
from sedtalker.corpora.templates import read_template_mesh
from sedtalker.emotion.labels import canonical
from sedtalker.errors import DataError, FaceError, TrackError
from sedtalker.face.assets import find_pose
from sedtalker.face.orientation import STATEMENT, UPRIGHT, Pose
from sedtalker.inputs import expand_inputs

TABLE = "clips.csv"
SUBJECT = "speaker"  # the subject of clips that no table describes
MESHES = ("template.obj", "template.ply")


def read_own(source: Path | str, template: Path | str | None = None) -> Source:
    """Find the pairs of a folder; `template` names the mesh where it lies elsewhere.

    Raises:
        DataError: there is no pair or no template, or the table is broken.
    """
    root = Path(source)
    if not root.is_dir():
        raise DataError(f"no such folder: {root}. Give the folder with name.wav + name.npy pairs")
    mesh = Path(template) if template else next((root / name for name in MESHES if (root / name).is_file()), None)
    if mesh is None:
        raise DataError(f"no template: {root} holds neither {' nor '.join(MESHES)}. Name the mesh with --templates")
    vertices, faces = read_template_mesh(mesh)
    sounds: dict[str, AudioSource] = {path.stem: path for path in expand_inputs([str(root)])}
    table = _table(root / TABLE)
    arrays = {path.stem: path for path in sorted(root.glob("*.npy"))}
    found = Source("own", root, (30.0, *COMMON_RATES), [], sounds, {}, faces)
    found.notes.append(f"layout: own recordings, {root}, template {mesh.name}")
    for name in sorted(set(arrays) & set(sounds)):
        try:
            found.sequences.append(_sequence(name, arrays[name], table.get(name, {})))
        except DataError as error:
            found.refused[name] = str(error)
    found.pose = _pose(mesh, vertices, faces, found.notes)
    found.templates = {sequence.subject: vertices for sequence in found.sequences}
    found.missing += [f"sound of {name}" for name in sorted(set(arrays) - set(sounds))]
    found.missing += [f"vertices of {name}" for name in sorted((set(sounds) | set(table)) - set(arrays))]
    return found


def _pose(mesh: Path, vertices: Template, faces: NDArray[np.int32], notes: list[str]) -> Pose:
    """Unit and axes of the recordings, which are those of their template.

    Raises:
        DataError: the template is the default head's mesh, but mirrored, shuffled or in no known unit.
    """
    try:
        pose = find_pose(mesh, vertices, faces)
    except FaceError as error:
        raise DataError(str(error)) from error
    if pose is None:
        notes.append(f"axes: not known from the shape of {mesh.name}; taken as {STATEMENT}")
        return UPRIGHT
    if not pose.unchanged:
        notes.append(f"axes: {mesh.name} is {pose.describe()}; everything is brought to {STATEMENT}")
    return pose


def _table(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return {row["name"]: {key: value for key, value in row.items() if value} for row in csv.DictReader(file)}
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"not a table of clips: {path} ({error}). Its first line is name,subject,...") from error


def _sequence(name: str, path: Path, row: dict[str, str]) -> Sequence:
    try:
        emotion = canonical(row.get("emotion", "neutral"))
        intensity = float(row.get("intensity", "0" if emotion == "neutral" else "1"))
    except (TrackError, ValueError) as error:
        raise DataError(f"{TABLE}, {name}: {error}") from error
    split = row.get("split") or _drawn_split(name)
    if not 0 <= intensity <= 1 or split not in (*SPLITS, UNUSED):
        raise DataError(f"{TABLE}, {name}: intensity is 0 to 1, split one of {', '.join(SPLITS)}")
    return Sequence(
        id=name,
        subject=row.get("subject", SUBJECT),
        sentence=row.get("sentence", name),
        vertices=path,
        sound=name,
        split=split,
        emotion=emotion,
        intensity=intensity,
    )


def _drawn_split(name: str) -> str:
    """A side that depends on the name alone, so that adding clips moves none of the others."""
    tenth = zlib.crc32(name.encode()) % 10
    return "test" if tenth == 0 else "validation" if tenth == 1 else "train"
