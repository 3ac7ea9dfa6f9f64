"""Small vertex corpora with the names, layouts and quirks of the real ones."""

from __future__ import annotations

import pickle
import struct
import wave
from pathlib import Path

import numpy as np

VERTICES = 40
TRAIN, OTHER_TRAIN = "FaceTalk_170728_03272_TA", "FaceTalk_170811_03274_TA"
VALIDATION, TEST = "FaceTalk_170811_03275_TA", "FaceTalk_170809_00138_TA"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 31000000\n"


def template(seed: int = 0, vertices: int = VERTICES) -> np.ndarray:
    """A cloud (V, 3) as large as a head, float64 metres, different along each axis."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (vertices, 3)) * (0.07, 0.12, 0.09) + (0.0, 0.02, 0.04)


def motion(rest: np.ndarray, frames: int, seed: int = 0) -> np.ndarray:
    """Smooth positions (T, V, 3) within 5 mm of a template (V, 3)."""
    rng = np.random.default_rng(seed)
    waves = np.sin(2 * np.pi * rng.uniform(1, 3, len(rest)) * np.arange(frames)[:, None] / 60)
    return rest + 0.005 * waves[..., None] * rng.uniform(-1, 1, (len(rest), 3))


def python2_pickle(arrays: dict[str, np.ndarray]) -> bytes:
    """A dict of float64 arrays as Python 2's cPickle writes it: protocol 2, byte strings, numpy.core's names."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    out = b"\x80\x02}("
    for name, array in arrays.items():
        raw = np.ascontiguousarray(array, "<f8").tobytes()
        out += text(name.encode())
        out += b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"\x87R"
        out += b"(K\x01(" + b"".join(number(size) for size in array.shape) + b"t"
        out += b"cnumpy\ndtype\n" + text(b"f8") + b"K\x00K\x01\x87R"
        out += b"(K\x03" + text(b"<") + b"NNN" + number(-1) + number(-1) + b"K\x00tb"
        out += b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
    return out + b"u."


def write_wav(path: Path, seconds: float, rate: int = 22_000, seed: int = 0) -> None:
    """Noise of rising level, mono 16 bit."""
    rng = np.random.default_rng(seed)
    samples = rng.standard_normal(round(seconds * rate)) * np.abs(np.sin(np.arange(round(seconds * rate)) / rate * 9))
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 3000).astype("<i2").tobytes())


def generator_layout(
    folder: Path,
    subjects: tuple[str, ...] = (TRAIN, VALIDATION, TEST),
    sentences: tuple[str, ...] = ("sentence21", "sentence22"),
    variants: tuple[tuple[str, int, int], ...] = (("Smile2", 4, 3), ("Afraid", 0, 1)),
    frames: int = 60,
    vertices: int = VERTICES,
) -> Path:
    """EmoVOCA as its generator writes it: float64 (T, V, 3), label, intensity, a copy of the sound for each variant."""
    root = folder / "New_EmoVOCA"
    for name in ("sequences", "label", "intensity", "wav"):
        (root / name).mkdir(parents=True)
    templates = {subject: template(seed, vertices) for seed, subject in enumerate(subjects)}
    (root / "templates.pkl").write_bytes(python2_pickle(templates))
    for subject in subjects:
        for number, sentence in enumerate(sentences):
            for seed, (expression, label, level) in enumerate(variants):
                name = f"{subject}_{sentence}_{expression}_{level}"
                np.save(root / "sequences" / f"{name}.npy", motion(templates[subject], frames, 10 * number + seed))
                np.save(root / "label" / f"{name}.npy", np.array(label))
                np.save(root / "intensity" / f"{name}.npy", np.array(level))
                write_wav(root / "wav" / f"{name}.wav", frames / 60, seed=number)
    return root


def sedtalker_layout(folder: Path, frames: int = 60) -> Path:
    """SEDTalker's EmoVOCA: one sound for all variants of a sentence."""
    root = folder / "EmoVOCA"
    rest = template()
    (root / "sequences").mkdir(parents=True)
    (root / "templates.pkl").write_bytes(python2_pickle({TRAIN: rest}))
    for level in (1, 2, 3):
        np.save(root / "sequences" / f"{TRAIN}_sentence01_Upset_{level}.npy", motion(rest, frames, level))
    write_wav(root / "wav" / f"{TRAIN}_sentence01.wav", frames / 60)
    return root


def faceformer_layout(folder: Path, frames: int = 60) -> Path:
    """FaceFormer's: (T, 3 V) float32 in vertices_npy."""
    rest = template()
    (folder / "vertices_npy").mkdir(parents=True)
    (folder / "templates.pkl").write_bytes(python2_pickle({TRAIN: rest}))
    for name in (f"{TRAIN}_sentence01_Disgust_2", f"{TRAIN}_sentence02"):
        flat = motion(rest, frames).reshape(frames, -1).astype(np.float32)
        np.save(folder / "vertices_npy" / f"{name}.npy", flat)
        write_wav(folder / "wav" / f"{name}.wav", frames / 60)
    return folder


def vocaset_archives(folder: Path, frames: int = 60) -> Path:
    """VOCASET's four files, without the two sentences that the published corpus lacks."""
    folder.mkdir(parents=True)
    subjects = (OTHER_TRAIN, TEST)
    sentences = ("sentence23", "sentence24", "sentence32")
    absent = {(OTHER_TRAIN, "sentence24"), (TEST, "sentence32")}
    rows, audio, blocks = {}, {}, []
    for subject in subjects:
        rows[subject], audio[subject] = {}, {}
        for sentence in sentences:
            if (subject, sentence) in absent:
                continue
            start = sum(map(len, blocks))
            blocks.append(motion(template(), frames, start))
            rows[subject][sentence] = {frame: start + frame for frame in range(frames)}
            samples = np.random.default_rng(start).integers(-900, 900, round(frames / 60 * 22_000)).astype(np.int16)
            audio[subject][sentence] = {"audio": samples, "sample_rate": 22_000}
    np.save(folder / "data_verts.npy", np.concatenate(blocks).astype(np.float32))
    (folder / "subj_seq_to_idx.pkl").write_bytes(pickle.dumps(rows, protocol=2))
    (folder / "raw_audio_fixed.pkl").write_bytes(pickle.dumps(audio, protocol=2))
    (folder / "templates.pkl").write_bytes(python2_pickle({subject: template() for subject in subjects}))
    return folder


def biwi_layout(folder: Path) -> Path:
    """BIWI in FaceFormer's layout, 25 Hz."""
    (folder / "vertices_npy").mkdir(parents=True)
    (folder / "templates.pkl").write_bytes(python2_pickle({"F2": template(), "F1": template(1)}))
    for name, seed in (("F2_e01", 0), ("F2_e36", 0), ("F1_e37", 1)):
        flat = motion(template(seed), 25).reshape(25, -1).astype(np.float32)
        np.save(folder / "vertices_npy" / f"{name}.npy", flat)
        write_wav(folder / "wav" / f"{name}.wav", 1.0)
    return folder


def own_folder(folder: Path, frames: int = 30) -> Path:
    """A user's own recordings at 30 Hz, with a mesh."""
    folder.mkdir(parents=True)
    rest = template()
    lines = [f"v {x} {y} {z}" for x, y, z in rest] + [f"f {i} {i + 1} {i + 2}" for i in range(1, len(rest) - 1)]
    (folder / "template.obj").write_text("\n".join(lines) + "\n")
    for seed, name in enumerate(("take_01", "take_02", "take_03")):
        np.save(folder / f"{name}.npy", motion(rest, frames, seed).astype(np.float32))
        write_wav(folder / f"{name}.wav", frames / 30)
    return folder
