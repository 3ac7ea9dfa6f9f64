"""Synthetic corpora with the sizes, layouts, gaps and faults of EmoVOCA, VOCASET and BIWI, to test the tools at size.

The motion is that of `emovoca_like`, on the default head re-meshed to the corpus's number of vertices: FLAME's 5,023 by
collapsing its shortest edges, BIWI's 23,370 by adding the middles of its longest ones. Nothing can be learned from
these corpora about real faces.

A corpus of full size need not fit on the disk: with `unique` < 1 the other sentences of a subject are hard links to
those that were written. Programs read the same number of bytes from them, but the page cache of the operating system
may then serve a file that was read under another name.
"""

from __future__ import annotations

import json
import os
import pickle
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sedtalker.audio import write_wav
from sedtalker.data.vertex_corpora.biwi import SEEN, UNSEEN
from sedtalker.data.vertex_corpora.emovoca import EXPRESSIONS, LEVELS
from sedtalker.data.vertex_corpora.vocaset import ABSENT, HELD_OUT_SENTENCES, SENTENCES, SPLITS
from sedtalker.errors import DataError
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.mesh import format_obj
from sedtalker.face.rig import Face
from sedtalker.face.vertex_masks import EMOTION, FLAME_VERTICES, LIP_PAIR, LIPS, UPPER
from sedtalker.files import atomic_write
from sedtalker.synthesis.emovoca_like import (
    FOLDER,
    POSES,
    SOUND_RATE,
    SOURCE_FPS,
    make_gestures,
    make_sound,
    require_absent,
    speech_weights,
    stretch_template,
    write_shared,
)

Float = NDArray[np.float32]
Index = NDArray[np.int64]

EMOVOCA_SENTENCES, EMOVOCA_FRAMES = 168, 628_668  # 5,544 sequences: each sentence with 11 expressions at 3 levels
VOCASET_FRAMES = 123_341
BIWI_SEQUENCES, BIWI_SECONDS, BIWI_FPS = 1109, 4.67, 25  # mean length
BIWI_VERTICES = (23_370, 3_895)  # the whole mesh, and the reduced one

POINTERS = 3  # sequences that are Git LFS pointers
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 6811316\n"

OTHER_POSES: dict[str, dict[str, float]] = {
    "Drunk2": {"eyeBlinkLeft": 0.4, "eyeBlinkRight": 0.3, "jawLeft": 0.3},
    "Ill": {"eyeBlinkLeft": 0.5, "eyeBlinkRight": 0.5, "browInnerUp": 0.4},
    "Moody": {"browDownLeft": 0.4, "browDownRight": 0.4, "mouthPressLeft": 0.5, "mouthPressRight": 0.5},
    "Pleased": {"mouthSmileLeft": 0.5, "mouthSmileRight": 0.5, "browOuterUpLeft": 0.3, "browOuterUpRight": 0.3},
    "Suspicious": {"eyeSquintLeft": 0.8, "eyeSquintRight": 0.5, "browDownLeft": 0.6},
}
"""Weights at level 3 of EmoVOCA's expressions that the model has no label for."""


class Amount(NamedTuple):
    """Size of a written corpus."""

    sequences: int
    frames: int
    logical: int  # bytes of the vertices, as a program reads them
    unique: int  # bytes of the vertices on the disk


@dataclass(frozen=True)
class Mesh:
    """Motion of the default head on another topology, as combinations of a few directions."""

    template: NDArray[np.float64]  # (V, 3) metres
    faces: NDArray[np.int32] | None  # (F, 3)
    masks: dict[str, Index]  # region -> vertices
    directions: Float  # (52, 3 V) metres at weight 1

    def vertices(self, template: NDArray[np.float64], speech: NDArray[np.float64], pose: NDArray[np.float64]) -> Float:
        """Positions (T, V, 3) in metres of speech weights (T, 52) with the constant weights (52,) of an expression."""
        moving = np.flatnonzero(speech.any(axis=0))
        rest = template.reshape(-1).astype(np.float32) + pose.astype(np.float32) @ self.directions
        moved = speech[:, moving].astype(np.float32) @ self.directions[moving]
        moved += rest
        return moved.reshape(len(speech), -1, 3)


def mesh_of_size(face: Face, vertices: int) -> Mesh:
    """The face re-meshed to a number of vertices, coarser or finer.

    Raises:
        DataError: the face has no ARKit blendshapes.
    """
    if face.blendshapes is None or face.blendshape_names != ARKIT_NAMES or face.lip_pairs is None:
        raise DataError(f"no ARKit blendshapes: {face.name}. Use the default face")
    pair = face.lip_pairs[len(face.lip_pairs) // 2].astype(np.int64)
    faces: NDArray[np.int32] | None
    if vertices <= len(face.template):
        kept, faces = coarsen(face.template, face.faces, vertices, pair)
        parents = np.stack([kept, kept], axis=1)
    else:
        parents, faces = refine(face.template, face.faces, vertices), None
    number = np.full(len(face.template), -1)
    same = np.flatnonzero(parents[:, 0] == parents[:, 1])
    number[parents[same, 0]] = same
    masks = {name: number[face.masks[name]] for name in (LIPS, UPPER, EMOTION)}
    masks = {name: index[index >= 0] for name, index in masks.items()}
    masks[LIP_PAIR] = number[pair]
    directions = face.blendshapes[:, parents].mean(axis=2).reshape(len(ARKIT_NAMES), -1)
    return Mesh(face.template[parents].mean(axis=1).astype(np.float64), faces, masks, directions.astype(np.float32))


def coarsen(
    template: NDArray[np.floating], faces: NDArray[np.int32], vertices: int, protected: Index
) -> tuple[Index, NDArray[np.int32]]:
    """Collapse the shortest edges onto one of their ends until `vertices` are left.

    Returns:
        Indices (vertices,) of the vertices that are kept, and the triangles (F, 3) between them.
    """
    target = np.arange(len(template))
    triangles: Index = faces.astype(np.int64)
    surplus = len(template) - vertices
    while surplus > 0:
        edges = _edges(triangles)
        lengths = np.linalg.norm(template[edges[:, 0]] - template[edges[:, 1]], axis=1)
        touched = np.zeros(len(template), bool)  # a vertex takes part in one collapse of a round
        untouchable = np.zeros(len(template), bool)
        untouchable[protected] = True
        moved = np.arange(len(template))
        before = surplus
        for kept, removed in edges[np.argsort(lengths, kind="stable")]:
            if untouchable[removed]:
                kept, removed = removed, kept
            if untouchable[removed] or touched[kept] or touched[removed]:
                continue
            touched[[kept, removed]] = True
            moved[removed] = kept
            surplus -= 1
            if surplus == 0 or before - surplus >= max(1, before // 2):
                break
        if surplus == before:
            raise DataError(f"the mesh cannot be reduced to {vertices} vertices. Choose more")
        target = moved[target]
        triangles = moved[triangles]
        proper = (triangles != np.roll(triangles, 1, axis=1)).all(axis=1)
        _, first = np.unique(np.sort(triangles, axis=1), axis=0, return_index=True)
        alone = np.zeros(len(triangles), bool)
        alone[first] = True
        triangles = triangles[proper & alone]
    kept = np.unique(target)
    number = np.zeros(len(template), np.int64)
    number[kept] = np.arange(len(kept))
    return kept, number[triangles].astype(np.int32)


def refine(template: NDArray[np.floating], faces: NDArray[np.int32], vertices: int) -> Index:
    """The two parents (V, 2) of each vertex of a finer mesh: twice itself, or the ends of a longest edge.

    Raises:
        DataError: more vertices than the mesh has vertices and edges.
    """
    edges = _edges(faces.astype(np.int64))
    lengths = np.linalg.norm(template[edges[:, 0]] - template[edges[:, 1]], axis=1)
    extra = vertices - len(template)
    if extra > len(edges):
        raise DataError(f"the mesh has {len(edges)} edges, too few for {vertices} vertices. Choose fewer")
    longest = edges[np.argsort(-lengths, kind="stable")[:extra]]
    own = np.arange(len(template))
    return np.concatenate([np.stack([own, own], axis=1), longest])


def _edges(faces: Index) -> Index:
    pairs = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    return np.unique(pairs, axis=0)


class Sentence(NamedTuple):
    """A sentence of a subject, spoken with the motion and the sound of another one of theirs, or with its own."""

    subject: str
    name: str
    source: str  # name of the sentence with the same motion
    frames: int


def synthesize_emovoca_sized(
    destination: Path, face: Face, unique: float = 1.0, share: float = 1.0, seed: int = 0
) -> Amount:
    """Write EmoVOCA's layout, `destination/New_EmoVOCA`, and masks.json beside it.

    5,544 sequences with 628,668 frames at 60 Hz of 168 sentences, 14 for each of VOCASET's twelve subjects (training
    subjects speak any of the 40, the others 21 to 40, but never the two that the archive lacks). Some sequences are a
    frame longer than their sound, and `POINTERS` are Git LFS pointers.

    Args:
        unique: share of the sentences of a subject that are written; the others are hard links to them.
        share: of the sentences; the frames shrink likewise.

    Raises:
        DataError: the folder exists, or the face has no blendshapes.
    """
    root = destination / FOLDER
    require_absent(root)
    mesh = mesh_of_size(face, FLAME_VERTICES)
    rng = np.random.default_rng(seed)
    subjects, count = _emovoca_subjects(share)
    variants = [(expression, level) for expression in EXPRESSIONS for level in range(1, LEVELS + 1)]
    total = round(EMOVOCA_FRAMES * count * len(subjects) / EMOVOCA_SENTENCES)
    sentences = _plan_sentences(subjects, count, unique, total // len(variants), rng)
    longer = total - len(variants) * sum(sentence.frames for sentence in sentences)  # sequences with a frame more
    templates = {subject: stretch_template(mesh.template, subject, seed) for subject in subjects}
    assert mesh.faces is not None
    write_shared(root, templates, mesh.faces)
    _write_masks(destination, mesh)
    names = [(sentence, variant) for sentence in sentences for variant in variants]
    places = np.linspace(0, len(names) - 1, longer + POINTERS).round().astype(int)
    pointers, late = set(places[:: max(1, len(places) // POINTERS)][:POINTERS].tolist()), set(places.tolist())
    poses = POSES | OTHER_POSES
    frames, logical, written = 0, 0, 0
    for number, (sentence, (expression, level)) in enumerate(tqdm(names, desc=str(root), unit="sequence")):
        name = f"{sentence.subject}_{sentence.name}_{expression}_{level}"
        path = root / "sequences" / f"{name}.npy"
        extra = int(number in late - pointers)
        _write_labels(root, name, expression, level)
        _link_sound(root, sentence, name, seed)
        frames += sentence.frames + extra
        if number in pointers:
            path.write_bytes(POINTER)
            continue
        source = root / "sequences" / f"{sentence.subject}_{sentence.source}_{expression}_{level}.npy"
        if extra == 0 and sentence.source != sentence.name and _has_frames(source, sentence.frames):
            os.link(source, path)
            logical += path.stat().st_size
            continue
        weights = speech_weights(*_gestures(sentence, seed))
        if extra:
            weights = np.concatenate([weights, weights[-1:]])
        pose = _weights(poses[expression]) * level / LEVELS
        np.save(path, mesh.vertices(templates[sentence.subject], weights, pose))
        logical += path.stat().st_size
        written += path.stat().st_size
    return Amount(len(names), frames, logical, written)


def _emovoca_subjects(share: float) -> tuple[tuple[str, ...], int]:
    """Subjects, and sentences of each."""
    if share >= 0.25:
        return tuple(subject for subjects in SPLITS.values() for subject in subjects), max(1, round(14 * share))
    subjects = tuple(subjects[0] for subjects in SPLITS.values())
    return subjects, max(1, round(EMOVOCA_SENTENCES * share / len(subjects)))


def _plan_sentences(
    subjects: tuple[str, ...], count: int, unique: float, frames: int, rng: np.random.Generator
) -> list[Sentence]:
    """`count` sentences of each subject with about `frames` in all, of which a share is unique."""
    own = max(1, round(unique * count))
    plans = []
    for number, subject in enumerate(subjects):
        held_out = subject not in SPLITS["train"]
        known = [name for name in SENTENCES if name in HELD_OUT_SENTENCES or not held_out]
        known = [name for name in known if (subject, name) not in ABSENT]
        chosen = sorted({known[(number * 5 + place) % len(known)] for place in range(count)})
        plans += [(subject, name, chosen[place % own]) for place, name in enumerate(chosen)]
    uses = Counter((subject, source) for subject, _, source in plans)
    mean = frames / len(plans)
    lengths = {key: max(20, round(mean * rng.uniform(0.7, 1.3))) for key in uses}
    surplus = sum(uses[key] * length for key, length in lengths.items()) - frames
    keys = sorted(uses)
    while abs(surplus) >= min(uses.values()) or surplus > 0:  # the rest, 0 or more, is added to single sequences
        key = keys[rng.integers(len(keys))]
        if surplus > 0 or uses[key] <= -surplus:
            lengths[key] -= 1 if surplus > 0 else -1
            surplus -= uses[key] if surplus > 0 else -uses[key]
    return [Sentence(subject, name, source, lengths[subject, source]) for subject, name, source in plans]


def _gestures(sentence: Sentence, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return make_gestures(sentence.frames, _generator(sentence, seed))


def _generator(sentence: Sentence, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, *f"{sentence.subject}{sentence.source}".encode()])


def _sound(sentence: Sentence, seed: int, fps: int = SOURCE_FPS) -> Float:
    rng = _generator(sentence, seed)
    return make_sound(*make_gestures(sentence.frames, rng), rng, fps)


def _link_sound(root: Path, sentence: Sentence, name: str, seed: int) -> None:
    """The sound of a sequence: a hard link to that of the sentence's first variant."""
    path = root / "wav" / f"{name}.wav"
    first = root / "wav" / f"{sentence.subject}_{sentence.name}_{next(iter(EXPRESSIONS))}_1.wav"
    if first == path:
        write_wav(path, [_sound(sentence, seed)], SOUND_RATE)
    else:
        os.link(first, path)


def _has_frames(path: Path, frames: int) -> bool:
    """Whether a sequence was written with this length; not if it is a pointer or a frame longer."""
    return path.stat().st_size > len(POINTER) and len(np.load(path, mmap_mode="r")) == frames


def _weights(pose: dict[str, float]) -> NDArray[np.float64]:
    weights = np.zeros(len(ARKIT_NAMES))
    for name, value in pose.items():
        weights[ARKIT_NAMES.index(name)] = value
    return weights


def _write_labels(root: Path, name: str, expression: str, level: int) -> None:
    np.save(root / "label" / f"{name}.npy", np.array(EXPRESSIONS[expression][0]))
    np.save(root / "intensity" / f"{name}.npy", np.array(level))


def _write_masks(folder: Path, mesh: Mesh) -> None:
    lists = {name: index.tolist() for name, index in mesh.masks.items()}
    with atomic_write(folder / "masks.json") as temp_path:
        temp_path.write_text(json.dumps(lists) + "\n", encoding="utf-8")


def synthesize_vocaset_sized(destination: Path, face: Face, share: float = 1.0, seed: int = 0) -> Amount:
    """Write VOCASET's four files, FLAME_sample's triangles and masks.json: 123,341 frames of 478 sentences at 60 Hz.

    Raises:
        DataError: the folder exists, or the face has no blendshapes.
    """
    mesh = mesh_of_size(face, FLAME_VERTICES)
    _make_folder(destination)
    rng = np.random.default_rng(seed)
    subjects = [subject for subjects in SPLITS.values() for subject in subjects]
    names = [(subject, name) for subject in subjects for name in SENTENCES if (subject, name) not in ABSENT]
    names = names[:: max(1, round(1 / share))]
    frames = round(VOCASET_FRAMES * share)
    ends = np.linspace(0, frames, len(names) + 1).round().astype(int)
    ends[1:-1] += rng.integers(-40, 41, len(names) - 1)
    templates = {subject: stretch_template(mesh.template, subject, seed) for subject in subjects}
    rows: dict[str, dict[str, dict[int, int]]] = {}
    sounds: dict[str, dict[str, dict[str, object]]] = {}
    with (destination / "data_verts.npy").open("wb") as file:
        shape = (frames, FLAME_VERTICES, 3)
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        for (subject, name), first, last in tqdm(
            list(zip(names, ends[:-1], ends[1:], strict=True)), desc=str(destination), unit="sequence"
        ):
            sentence = Sentence(subject, name, name, int(last - first))
            weights = speech_weights(*_gestures(sentence, seed))
            file.write(mesh.vertices(templates[subject], weights, np.zeros(len(ARKIT_NAMES))).data)
            samples = np.clip(_sound(sentence, seed) * 32767, -32768, 32767).astype(np.int16)
            sounds.setdefault(subject, {})[name] = {"audio": samples, "sample_rate": SOUND_RATE}
            rows.setdefault(subject, {})[name] = {frame: int(first) + frame for frame in range(sentence.frames)}
    for file_name, content in (("raw_audio_fixed", sounds), ("templates", templates), ("subj_seq_to_idx", rows)):
        (destination / f"{file_name}.pkl").write_bytes(pickle.dumps(content, protocol=2))
    assert mesh.faces is not None
    (destination / "templates").mkdir()
    (destination / "templates" / "sample.obj").write_bytes(format_obj(mesh.template, mesh.faces))
    _write_masks(destination, mesh)
    size = (destination / "data_verts.npy").stat().st_size
    return Amount(len(names), frames, size, size)


def synthesize_biwi_sized(
    destination: Path,
    face: Face,
    unique: float = 1.0,
    share: float = 1.0,
    seed: int = 0,
    vertices: int = BIWI_VERTICES[0],
) -> Amount:
    """Write BIWI in FaceFormer's layout, and masks.json: 1,109 sequences of 4.67 s on average at 25 Hz.

    Fourteen subjects speak 40 sentences neutrally and with emotion; eleven are missing. `unique` and `share` as in
    `synthesize_emovoca_sized`.

    Raises:
        DataError: the folder exists, or the face has no blendshapes.
    """
    mesh = mesh_of_size(face, vertices)
    _make_folder(destination)
    for name in ("vertices_npy", "wav"):
        (destination / name).mkdir()
    rng = np.random.default_rng(seed)
    templates = {subject: stretch_template(mesh.template, subject, seed) for subject in sorted(SEEN | UNSEEN)}
    (destination / "templates.pkl").write_bytes(pickle.dumps(templates, protocol=2))
    _write_masks(destination, mesh)
    sequences = list(_biwi_sentences(share, unique, rng))
    logical = written = 0
    for sentence in tqdm(sequences, desc=str(destination), unit="sequence"):
        name = f"{sentence.subject}_{sentence.name}"
        path, sound = (destination / part / name for part in ("vertices_npy", "wav"))
        path, sound = path.with_suffix(".npy"), sound.with_suffix(".wav")
        if sentence.source != sentence.name:
            source = f"{sentence.subject}_{sentence.source}"
            os.link(path.with_name(f"{source}.npy"), path)
            os.link(sound.with_name(f"{source}.wav"), sound)
        else:
            weights = speech_weights(*_gestures(sentence, seed))
            moved = mesh.vertices(templates[sentence.subject], weights, np.zeros(len(ARKIT_NAMES)))
            np.save(path, moved.reshape(len(moved), -1))
            write_wav(sound, [_sound(sentence, seed, BIWI_FPS)], SOUND_RATE)
            written += path.stat().st_size
        logical += path.stat().st_size
    return Amount(len(sequences), sum(sentence.frames for sentence in sequences), logical, written)


def _biwi_sentences(share: float, unique: float, rng: np.random.Generator) -> Iterator[Sentence]:
    spoken = [f"{kind}{number:02d}" for kind in ("", "e") for number in range(1, 41)]
    spoken = spoken[:: max(1, round(1 / share))] + ["e36", "e38"] * (share < 1)  # of validation and test
    subjects = sorted(SEEN | UNSEEN)
    gaps = len(subjects) * 80 - BIWI_SEQUENCES if share == 1 else 0
    own = max(1, round(unique * len(spoken)))
    for number, subject in enumerate(subjects):
        names = sorted(set(spoken))
        if number < gaps:
            names.remove(f"{number + 20:02d}")
        lengths = [round(BIWI_SECONDS * rng.uniform(0.6, 1.4) * BIWI_FPS) for _ in range(own)]
        for place, name in enumerate(names):
            yield Sentence(subject, name, names[place % own], lengths[place % own])


def _make_folder(folder: Path) -> None:
    require_absent(folder)
    folder.mkdir(parents=True)
