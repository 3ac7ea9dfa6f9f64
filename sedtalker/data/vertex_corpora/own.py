"""Your own recordings: a folder of `name.wav` + `name.npy` pairs and one template mesh (`template.obj` or `.ply`).

The arrays are (T, V, 3) or (T, 3 V), in the template's vertex order, unit and axes. An optional
`clips.csv` (or `clips.tsv`) describes each clip; all its columns but the first are optional:

    name,subject,sentence,emotion,intensity,split
    take_01,anna,hello,happy,0.8,train

Rows name their clips with or without an ending, and a table has a row for every clip. Without a table every clip is
neutral and spoken by one subject, and a tenth of the clips each becomes validation and test.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import AudioSource
from sedtalker.data.manifest import SPLITS
from sedtalker.data.preflight import COMMON_RATES
from sedtalker.data.tables import Row, index_rows, match_names, read_table
from sedtalker.data.vertex_corpora.sequences import UNUSED, Template, VertexSequence, VertexSource
from sedtalker.data.vertex_corpora.templates import read_template_mesh
from sedtalker.errors import DataError, FaceError, TrackError
from sedtalker.face.assets import find_pose
from sedtalker.face.orientation import STATEMENT, UPRIGHT, Pose
from sedtalker.inputs import expand_inputs
from sedtalker.labels import canonical_label

TABLE = "clips.csv"
TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx", ".xls", ".ods")
COLUMNS = ("subject", "sentence", "emotion", "intensity", "split")  # besides the name
SUBJECT = "speaker"  # the subject of clips that no table describes
MESHES = ("template.obj", "template.ply")


def read_own(source: Path | str, template: Path | str | None = None) -> VertexSource:
    """Find the pairs of a folder; `template` is the path of the mesh if it is in another folder.

    Raises:
        DataError: pairs or template are missing, or the table is broken or does not name every clip.
    """
    root = Path(source)
    if not root.is_dir():
        raise DataError(f"no such folder: {root}. Give the folder with name.wav + name.npy pairs")
    mesh = Path(template) if template else next((root / name for name in MESHES if (root / name).is_file()), None)
    if mesh is None:
        raise DataError(f"no template: {root} holds neither {' nor '.join(MESHES)}. Name the mesh with --templates")
    vertices, faces = read_template_mesh(mesh)
    sounds = _index_sounds(expand_inputs([str(root)]))
    arrays = {path.stem: path for path in sorted(root.glob("*.npy"))}
    clips = sorted(set(arrays) | set(sounds))
    table_path = _find_table(root, clips)
    table = _table(table_path, clips)
    found = VertexSource("own", root, (30.0, *COMMON_RATES), [], sounds, {}, faces)
    found.notes.append(f"layout: own recordings, {root}, template {mesh.name}")
    for name in sorted(set(arrays) & set(sounds)):
        found.sequences.append(_sequence(name, arrays[name], table.get(name, {}), table_path))
    found.pose = _pose(mesh, vertices, faces, found.notes)
    found.templates = {sequence.subject: vertices for sequence in found.sequences}
    found.missing += [f"sound of {name}" for name in sorted(set(arrays) - set(sounds))]
    found.missing += [f"vertices of {name}" for name in sorted(set(sounds) - set(arrays))]
    return found


def _pose(mesh: Path, vertices: Template, faces: NDArray[np.int32], notes: list[str]) -> Pose:
    """Unit and axes of the recordings, which are those of their template."""
    try:
        pose = find_pose(mesh, vertices, faces)
    except FaceError as error:
        raise DataError(str(error)) from error
    if pose is None:
        notes.append(f"axes: not known from the shape of {mesh.name}; taken as {STATEMENT}")
        return UPRIGHT
    if not pose.is_identity:
        notes.append(f"axes: {mesh.name} is {pose.describe()}; everything is brought to {STATEMENT}")
    return pose


def _index_sounds(paths: Iterable[Path]) -> dict[str, AudioSource]:
    """Recordings by name.

    Raises:
        DataError: two recordings have the same name.
    """
    sounds: dict[str, AudioSource] = {}
    for path in paths:
        if path.stem in sounds:
            raise DataError(f"two recordings of {path.stem}: {sounds[path.stem]} and {path}. Keep one")
        sounds[path.stem] = path
    return sounds


def _find_table(root: Path, clips: Collection[str]) -> Path:
    """The table of a folder, `clips.csv` or `clips.tsv` in any case; a path that does not exist if there is none.

    Raises:
        DataError: there are tables of other names, which would be left out without notice.
    """
    files = sorted(path for path in root.iterdir() if path.suffix.lower() in TABLE_SUFFIXES and path.name[0] != ".")
    tables = [path for path in files if path.name.split(".")[0] not in clips]  # a clip's own table is an export
    named = [path for path in tables if path.stem.lower() == Path(TABLE).stem]
    if len(named) > 1 or (tables and not named):
        listed = ", ".join(path.name for path in named or tables)
        raise DataError(f"no table {TABLE}, but {listed}: {root}. Name the table of the clips {TABLE}, remove others")
    return named[0] if named else root / TABLE


def _table(path: Path, names: list[str]) -> dict[str, Row]:
    """Rows by the name of a clip, without empty values; an empty dict without a table."""
    if not path.is_file():
        return {}
    rows = index_rows(read_table(path, ("name",), COLUMNS), "name", path)
    return {name: {key: x for key, x in row.items() if x} for name, row in match_names(rows, names, path).items()}


def _sequence(name: str, path: Path, row: Row, table: Path) -> VertexSequence:
    emotion = _emotion(row, name, table)
    try:
        # a table that ; delimits may write 0,8
        intensity = float(row.get("intensity", "0" if emotion == "neutral" else "1").replace(",", "."))
    except ValueError as error:
        raise DataError(f"intensity {row['intensity']!r} of {name}: {table}. Write a number from 0 to 1") from error
    split = row.get("split", "").lower() or _random_split(name)
    if not 0 <= intensity <= 1:
        raise DataError(f"intensity {intensity:g} of {name}: {table}. Write a number from 0 to 1")
    if split not in (*SPLITS, UNUSED):
        raise DataError(f"split {split!r} of {name}: {table}. Write one of {', '.join((*SPLITS, UNUSED))}")
    return VertexSequence(
        id=name,
        subject=row.get("subject", SUBJECT),
        sentence=row.get("sentence", name),
        vertices=path,
        sound=name,
        split=split,
        emotion=emotion,
        intensity=intensity,
    )


def _emotion(row: Row, name: str, table: Path) -> str:
    try:
        return canonical_label(row.get("emotion", "neutral"))
    except TrackError as error:
        raise DataError(f"emotion of {name}: {table} ({error})") from error


def _random_split(name: str) -> str:
    """Split that depends only on the name, so added clips do not change the others' splits."""
    tenth = zlib.crc32(name.encode()) % 10
    return "test" if tenth == 0 else "validation" if tenth == 1 else "train"
