"""Preparation of a vertex corpus: checks every file and streams it into a store; clips that are there are kept."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from sedtalker.audio import SAMPLE_RATE, load_audio, write_wav
from sedtalker.data.preflight import (
    LEAST_MOTION,
    as_frames,
    likeliest_rate,
    motion_problem,
    sound_problem,
    template_problem,
    within_bounds,
)
from sedtalker.data.safe_files import open_array
from sedtalker.data.vertex_corpora.sequences import UNUSED, Template, VertexSequence, VertexSource
from sedtalker.data.vertex_store import DTYPES, Store, VertexClip, is_store, read_manifest, write_manifest
from sedtalker.errors import AudioError, DataError
from sedtalker.face.motion_bounds import MotionBounds, motion_bounds
from sedtalker.files import atomic_write, remove_temporary

PREFERRED_FPS = 30.0
BLOCK = 256  # most frames in memory at a time
BLOCK_BYTES = 16_000_000  # most bytes of an array of a block; for larger ones the system maps new pages every time
PROBES = 12  # sequences whose lengths are compared with their sounds to find the rate

Read = NDArray[np.floating]  # (T, V, 3), a memory map


@dataclass(frozen=True)
class PrepareOptions:
    """Options of the preparation of a corpus."""

    fps: float | None = None  # of the store; None: 30 where it divides the corpus's rate, else that rate
    source_fps: float | None = None  # of the corpus; None: from the lengths of the sounds
    dtype: str = "float16"
    scale: float = 1.0  # metres per unit of the corpus; 1: the unit that its reader found


@dataclass
class PrepareReport:
    """Findings and results of a preparation."""

    fps: float
    source_fps: float
    clips: list[VertexClip] = field(default_factory=list)
    kept: int = 0  # clips that an earlier run had finished
    rounding: float = 0.0  # metres, the largest error of the store's type
    missing: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)  # sequence -> problem
    notes: list[str] = field(default_factory=list)
    run_notes: list[str] = field(default_factory=list)  # on this run, not on the store; they are not stored


def prepare(source: VertexSource, destination: Path | str, options: PrepareOptions | None = None) -> PrepareReport:
    """Write the store of a corpus to a folder; a run that was stopped continues.

    Sequences with a problem are left out and named in the report.

    Raises:
        DataError: no sequence can be used, or the folder holds a store with other settings.
    """
    root, options = Path(destination), _set_unit(options or PrepareOptions(), source)
    report = _plan(source, options)
    settings = _settings(source, options, report)
    for folder in (root, root / "clips", root / "audio"):
        remove_temporary(folder)  # of a run that was killed
    _check_same_settings(root, settings)
    is_new = not is_store(root)
    write_manifest(root, settings, [], complete=False)
    _write_shared(root, source, options)
    try:
        _add_all(source, root, options, report)
    except DataError:  # no sequence can be used; the rest would refuse a second run with other settings
        if is_new:
            shutil.rmtree(root, ignore_errors=True)
        raise
    findings = {"missing": report.missing, "refused": report.refused, "notes": report.notes}
    write_manifest(root, {**settings, **findings}, report.clips, complete=True)
    return report


def check_source(source: VertexSource, options: PrepareOptions | None = None) -> PrepareReport:
    """Check a corpus as `prepare` does, without writing anything."""
    options = _set_unit(options or PrepareOptions(), source)
    report = _plan(source, options)
    _add_all(source, None, options, report)
    return report


def check_store(store: Store) -> dict[str, str]:
    """Check every clip of a store; returns clip -> problem for those that cannot be used."""
    wrong = {}
    seconds: dict[str, float] = {}
    for clip in tqdm(store, desc=f"checking {store.root}", unit="clip"):
        try:
            frames, template = store.memmap(clip), store.templates[clip.subject]
            if clip.audio not in seconds:
                seconds[clip.audio] = len(load_audio(store.sound(clip))) / SAMPLE_RATE
            problem = sound_problem(clip.frames, store.fps, seconds[clip.audio])
            for _, before, after in _blocks(clip.frames, store.vertices):
                stored = torch.from_numpy(np.array(frames[before:after]))
                _check_block(stored.float().numpy() + template, template)
        except KeyError:
            problem = f"no template of subject {clip.subject}. Prepare the store again"
        except (DataError, AudioError) as error:
            problem = str(error)
        if problem:
            wrong[clip.id] = problem
    return wrong


def _set_unit(options: PrepareOptions, source: VertexSource) -> PrepareOptions:
    """Options with the corpus's own unit if none is given."""
    return replace(options, scale=source.pose.metres) if options.scale == 1 else options


def _in_metres(points: NDArray[np.floating], source: VertexSource, options: PrepareOptions) -> NDArray[np.float32]:
    """Points (..., 3) of a corpus in metres, y up, facing +z."""
    return source.pose.rotate(points * np.float32(options.scale) if options.scale != 1 else points)


def _plan(source: VertexSource, options: PrepareOptions) -> PrepareReport:
    """Check templates and settings, and choose the rates."""
    if options.dtype not in DTYPES:
        raise DataError(f"unknown type {options.dtype!r}: choose {' or '.join(DTYPES)}")
    if not source.sequences:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(source.refused.items())[:3])
        raise DataError(f"no sequence in: {source.root} ({reasons or 'no .npy file'}). Check the name of the corpus")
    sizes = {template.shape for template in source.templates.values()}
    if len(sizes) != 1:
        raise DataError(f"templates of different topologies: {sorted(sizes)} in {source.root}. Prepare each alone")
    for subject, template in source.templates.items():
        problem = template_problem(_in_metres(template, source, options))
        if problem:
            raise DataError(f"template of {subject}, {source.root}: {problem}")
    rate = options.source_fps or _rate(source)
    fps = options.fps or (PREFERRED_FPS if (rate / PREFERRED_FPS).is_integer() else rate)
    if not (rate / fps).is_integer():
        raise DataError(f"{rate:g} Hz does not divide into {fps:g} fps: {source.root}. Choose --fps {rate:g} or a part")
    report = PrepareReport(
        fps, rate, refused=dict(source.refused), missing=list(source.missing), notes=list(source.notes)
    )
    measured = "by the length of the sounds" if len(source.rates) > 1 else "by corpus"
    origin = "as given" if options.source_fps else measured
    step = round(rate / fps)
    ordinal = {1: "", 2: "second ", 3: "third ", 4: "fourth "}.get(step, f"{step}th ")
    rule = f"every {ordinal}frame is kept"
    report.notes.append(f"rate: {rate:g} Hz ({origin}) -> {fps:g} fps, {rule}")
    return report


def _rate(source: VertexSource) -> float:
    """The rate in Hz at which the first sequences last as long as their sounds."""
    if len(source.rates) == 1:
        return source.rates[0]
    lengths = []
    for sequence in source.sequences:
        try:
            frames = len(sequence.rows) if sequence.rows is not None else len(open_array(sequence.vertices))
            lengths.append((frames, len(load_audio(source.sounds[sequence.sound])) / SAMPLE_RATE))
        except (DataError, AudioError, KeyError, TypeError):
            continue  # `_add` reports it
        if len(lengths) == PROBES:
            break
    return likeliest_rate(lengths, source.rates)


def _settings(source: VertexSource, options: PrepareOptions, report: PrepareReport) -> dict[str, Any]:
    template = next(iter(source.templates.values()))
    return {
        "corpus": source.corpus,
        "source": str(source.root.resolve()),
        "fps": report.fps,
        "source_fps": report.source_fps,
        "dtype": options.dtype,
        "scale": options.scale,
        **({"rotation": source.pose.rotation.tolist()} if not np.array_equal(source.pose.rotation, np.eye(3)) else {}),
        "vertices": len(template),
        "unit": "metres",
        "values": "displacements from the subject's template",
    }


def _check_same_settings(root: Path, settings: dict[str, Any]) -> None:
    """Check that a store in the folder has the same settings."""
    if not is_store(root):
        if root.is_dir() and any(root.iterdir()):
            raise DataError(f"not empty and not a store: {root}. Choose another folder with -o")
        return
    earlier = read_manifest(root)
    other = [name for name, value in settings.items() if json.loads(json.dumps(value)) != earlier.get(name)]
    if other:
        name = other[0]
        raise DataError(
            f"the folder contains a store made with {name} {earlier.get(name)!r}, not {settings[name]!r}: {root}. "
            "Choose another folder with -o, or delete it"
        )


def _write_shared(root: Path, source: VertexSource, options: PrepareOptions) -> None:
    if source.faces is not None:
        with atomic_write(root / "faces.npy") as temp_path:
            np.save(temp_path, source.faces.astype(np.int32))
    templates: dict[str, Any] = {
        name: _in_metres(template, source, options) for name, template in source.templates.items()
    }
    with atomic_write(root / "templates.npz") as temp_path:
        np.savez(temp_path, **templates)


class _Sounds:
    """Writes each sound once, as mono 16 kHz, and keeps its length in seconds."""

    def __init__(self, source: VertexSource, folder: Path | None) -> None:
        self.source, self.folder = source, folder
        self.seconds: dict[str, float] = {}

    def length(self, key: str) -> float:
        """Length of a sound in seconds; the sound is written to the store if it is not there.

        Raises:
            DataError: the corpus has no such sound.
            AudioError: it cannot be read.
        """
        if key not in self.seconds:
            if key not in self.source.sounds:
                raise DataError(f"no audio file {key} in wav/. Copy it there")
            path = self.folder / f"{key}.wav" if self.folder else None
            samples = load_audio(path if path and path.is_file() else self.source.sounds[key])
            if path and not path.is_file():
                write_wav(path, [samples])
            self.seconds[key] = len(samples) / SAMPLE_RATE
        return self.seconds[key]


def _add_all(source: VertexSource, root: Path | None, options: PrepareOptions, report: PrepareReport) -> None:
    """Check every sequence, write the valid ones, and add notes to the report."""
    sounds = _Sounds(source, root / "audio" if root else None)
    reader = f"{source.corpus} -> {root}" if root else f"checking {source.root}"
    for number, sequence in enumerate(tqdm(source.sequences, desc=reader, unit="clip")):
        _read_ahead(source.sequences[number + 1 : number + 2])
        try:
            report.clips.append(_add(sequence, source, root, options, report, sounds))
        except (DataError, AudioError) as error:
            report.refused[sequence.id] = str(error)
    if not report.clips:
        name, reason = next(iter(report.refused.items()))
        raise DataError(f"no valid sequence: {source.root} (the first, {name}: {reason})")
    assigned = {clip.subject for clip in report.clips if clip.split != UNUSED}
    if unassigned := sorted({clip.subject for clip in report.clips} - assigned):
        report.notes.append(f"subjects without a split, kept as {UNUSED!r}: {', '.join(unassigned)}")
    if report.kept:
        report.run_notes.append(f"{report.kept} clips were there from an earlier run")
    if report.rounding:
        report.run_notes.append(f"{options.dtype} moves a coordinate by at most {report.rounding:.1e} m")


def _read_ahead(sequences: Sequence[VertexSequence]) -> None:
    """Let the operating system read the files of the next sequences while this one is converted."""
    if not hasattr(os, "posix_fadvise"):
        return
    for sequence in sequences:
        if sequence.rows is None:
            with suppress(OSError), sequence.vertices.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def _add(
    sequence: VertexSequence,
    source: VertexSource,
    root: Path | None,
    options: PrepareOptions,
    report: PrepareReport,
    sounds: _Sounds,
) -> VertexClip:
    """Check one sequence, and write it unless an earlier run did."""
    if sequence.subject not in source.templates:
        raise DataError(f"no template of subject {sequence.subject} in templates.pkl. Copy the corpus's own")
    template = _in_metres(source.templates[sequence.subject], source, options)
    frames = _open(sequence, len(template), round(report.source_fps / report.fps))
    seconds = sounds.length(sequence.sound)
    problem = sound_problem(len(frames), report.fps, seconds)
    if problem:
        raise DataError(problem)
    target = root / "clips" / f"{sequence.id}.npy" if root else None
    if target and target.is_file() and target.stat().st_mtime >= sequence.vertices.stat().st_mtime:
        report.kept += 1
    else:
        report.rounding = max(report.rounding, _copy(frames, template, source, options, target))
    return VertexClip(
        id=sequence.id,
        subject=sequence.subject,
        sentence=sequence.sentence,
        split=sequence.split,
        emotion=sequence.emotion,
        intensity=sequence.intensity,
        expression=sequence.expression,
        level=sequence.level,
        frames=len(frames),
        audio=sequence.sound,
        seconds=round(seconds, 4),
    )


def _open(sequence: VertexSequence, vertices: int, step: int) -> Read:
    """Every `step`-th frame of a sequence, not yet read."""
    array = open_array(sequence.vertices)
    if sequence.rows is None:
        return as_frames(array, vertices)[::step]
    array = as_frames(array, vertices)
    rows = np.asarray(sequence.rows)
    if len(rows) < 2 or rows.min() < 0 or rows.max() >= len(array):
        raise DataError(f"its rows {rows.min()}-{rows.max()} are outside the {len(array)} of {sequence.vertices.name}")
    contiguous = (np.diff(rows) == 1).all()
    return array[rows[0] : rows[-1] + 1 : step] if contiguous else array[rows[::step]]


def _copy(
    frames: Read, template: Template, source: VertexSource, options: PrepareOptions, target: Path | None
) -> float:
    """Check positions block by block and write their displacements; returns the rounding error in metres."""
    if target is None:
        _check_and_copy(frames, template, source, options, None)
        return 0.0
    with atomic_write(target) as temp_path, temp_path.open("wb") as file:
        header = np.lib.format.header_data_from_array_1_0(np.empty(0, options.dtype)) | {"shape": frames.shape}
        np.lib.format.write_array_header_1_0(file, header)
        return _check_and_copy(frames, template, source, options, file)


def _check_and_copy(
    frames: Read, template: Template, source: VertexSource, options: PrepareOptions, file: IO[bytes] | None
) -> float:
    low, high = np.full(template.size, np.inf, np.float32), np.full(template.size, -np.inf, np.float32)
    for first, before, after in _blocks(len(frames), len(template)):
        block = _in_metres(np.asarray(frames[before:after], np.float32), source, options)
        bounds = _check_block(block, template)
        low, high = np.minimum(low, bounds.low), np.maximum(high, bounds.high)
        if file is not None:
            file.write(_as_stored(bounds.moved[first - before :], options.dtype).data)
    if (high - low).max() < LEAST_MOTION:
        raise DataError("it does not move. Remove it, or export it again")
    return _rounding(float(np.maximum(-low, high).max()), options.dtype)


def _blocks(frames: int, vertices: int) -> Iterator[tuple[int, int, int]]:
    """First frame of each block, the frame before it, to detect a jump between blocks, and the frame after it."""
    size = max(1, min(BLOCK, BLOCK_BYTES // (vertices * 3 * np.float32().itemsize)))
    for first in range(0, frames, size):
        yield first, max(first - 1, 0), min(first + size, frames)


def _check_block(block: NDArray[np.float32], template: Template) -> MotionBounds:
    """Bounds of a block of positions (T, V, 3) in metres. Raises DataError if it has a problem."""
    bounds = motion_bounds(block, template)
    if not within_bounds(bounds) and (problem := motion_problem(block, template)):
        raise DataError(problem)
    return bounds


def _as_stored(moved: NDArray[np.float32], dtype: str) -> NDArray[np.floating]:
    """Values of the store's type; torch's conversion to float16 is faster than numpy's."""
    return moved if dtype == "float32" else torch.from_numpy(moved).half().numpy()


def _rounding(largest: float, dtype: str) -> float:
    """The most that the store's type changes a value of up to this size: half a unit in the last place."""
    if dtype == "float32" or largest == 0:
        return 0.0
    return 2.0 ** (max(math.floor(math.log2(largest)), -14) - 11)
