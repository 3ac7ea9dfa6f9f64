"""Compare windows of the speech encoder: cost, and accuracy of heads fitted to their features.

    python -m sedtalker.recipes encoder_windows --ravdess RAVDESS --grid GRID -o windows.md

Clips of a speaker are concatenated to recordings of `SECONDS`, as windows of long audio have context.
Emotion: ridge classifiers over RAVDESS, by frame and by clip, tested on unseen actors (five folds). Lips: ridge
regression from stacked frames to GRID's tracked lip gap, tested on unseen recordings (five folds).
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tqdm import tqdm

from sedtalker.audio import SAMPLE_RATE, Samples, load_audio
from sedtalker.curves import resample
from sedtalker.data.manifest import audio_files
from sedtalker.data.speech_corpora.readers import read_named
from sedtalker.errors import DataError
from sedtalker.evaluation.diarization import unweighted_average_recall
from sedtalker.evaluation.report import markdown_table
from sedtalker.evaluation.systems import solve_ridge
from sedtalker.files import atomic_write
from sedtalker.mel import FRAME_RATE, FRAME_SAMPLES
from sedtalker.pca import principal_components
from sedtalker.speech import DEFAULT_ENCODER, WindowedEncoder, Windowing, load_encoder

Array = NDArray[np.floating]

SECONDS = 24.0  # of a recording; the positions of Whisper's encoder end at 30
FOLDS = 5
RIDGE = 3e-3  # penalty relative to the mean power of the inputs
FRAME_STEP = 4  # every fourth frame is used for the emotion by frame
DIRECTIONS = 128  # principal components of the features, for the lips
REACH = 7  # frames of 20 ms on either side from which the lip gap is predicted
WINDOWINGS = ((0.5, 2, 0.5), (1, 4, 1), (1, 4, 0.5), (1, 4, 0.2), (1, 8, 1), (2, 8, 2), (2, 0.4, 0.4), (0, SECONDS, 0))
"""Seconds of left context, hop and right context; the last is the whole recording at once."""


@dataclass(frozen=True)
class Recording:
    """Concatenated clips of one speaker."""

    speaker: str
    samples: Samples
    clips: tuple[tuple[int, int, object], ...]  # first frame, end frame (20 ms), and label or lip gap


@dataclass(frozen=True)
class Row:
    """Result for one windowing."""

    windows: tuple[float, float, float]
    cost: float  # CPU seconds per second of audio, one thread
    frames: list[float]  # unweighted average recall by fold
    clips: list[float]
    lips: list[float]  # correlation by fold


def concatenate_clips(speaker: str, clips: Iterable[tuple[Path, object]]) -> list[Recording]:
    """Concatenate clips, cut to whole frames, to recordings of up to `SECONDS`."""
    recordings: list[Recording] = []
    parts: list[Samples] = []
    spans: list[tuple[int, int, object]] = []
    at = 0
    for path, truth in clips:
        samples = load_audio(path)
        frames = len(samples) // FRAME_SAMPLES
        if at + frames > SECONDS * FRAME_RATE and parts:
            recordings.append(Recording(speaker, np.concatenate(parts), tuple(spans)))
            parts, spans, at = [], [], 0
        parts.append(samples[: frames * FRAME_SAMPLES])
        spans.append((at, at + frames, truth))
        at += frames
    return [*recordings, Recording(speaker, np.concatenate(parts), tuple(spans))] if parts else recordings


def read_emotions(folder: Path, seed: int = 0) -> tuple[list[Recording], list[str]]:
    """Recordings of RAVDESS' first repetitions in random order by actor, and the list of labels."""
    manifest = read_named("ravdess", folder)
    labels = sorted({item.emotion for item in manifest})
    by_speaker = defaultdict(list)
    for item in manifest:
        if item.path.split("-")[5] == "01":
            by_speaker[item.speaker].append((manifest.audio(item), labels.index(item.emotion)))
    rng = np.random.default_rng(seed)
    recordings = []
    for speaker, clips in sorted(by_speaker.items()):
        recordings += concatenate_clips(speaker, [clips[place] for place in rng.permutation(len(clips))])
    return recordings, labels


def read_lips(folder: Path, limit: int, seed: int = 0) -> list[Recording]:
    """Up to `limit` sentences of GRID in random order with their lip gap at 50 Hz."""
    paths = [path for path in audio_files(folder) if path.with_suffix(".npz").is_file()]
    if not paths:
        raise DataError(f"no sentences with .npz files: {folder}. Give the folder of one of GRID's talkers")
    clips = []
    for place in np.random.default_rng(seed).permutation(len(paths))[:limit]:
        with np.load(paths[place].with_suffix(".npz"), allow_pickle=False) as stored:
            gap = resample(stored["lip_gap"].astype(np.float32), float(stored["fps"]), FRAME_RATE)
        clips.append((paths[place], gap))
    return concatenate_clips(folder.name, clips)


def compare(
    encoder: WindowedEncoder, emotions: Sequence[Recording], labels: int, lips: Sequence[Recording]
) -> Iterable[Row]:
    """A row for each windowing in `COMPARED`."""
    for seconds in WINDOWINGS:
        windowed = encoder.with_windows(Windowing(*(round(part * FRAME_RATE) for part in seconds)))
        spent = [0.0, 0.0]  # CPU seconds, seconds of audio

        def features(recording: Recording, windowed: WindowedEncoder = windowed, spent: list[float] = spent) -> Array:
            """Features (T, layers x width) with layer normalization."""
            start = time.thread_time()
            hidden = windowed.encode(recording.samples)
            spent[0] += time.thread_time() - start
            spent[1] += len(recording.samples) / SAMPLE_RATE
            return F.layer_norm(hidden, hidden.shape[-1:]).flatten(1).numpy()

        by_frame, by_clip = emotion_recalls(emotions, labels, features)
        correlations = lip_correlations(lips, features)
        yield Row(seconds, spent[0] / spent[1], by_frame, by_clip, correlations)


def emotion_recalls(
    recordings: Sequence[Recording], labels: int, features: Callable[[Recording], Array]
) -> tuple[list[float], list[float]]:
    """Unweighted average recall over unseen speakers by frame and by clip, one value per fold each."""
    speakers = sorted({recording.speaker for recording in recordings})
    frames: list[list[tuple[Array, Array]]] = [[] for _ in range(FOLDS)]
    clips: list[list[tuple[Array, Array]]] = [[] for _ in range(FOLDS)]
    for recording in tqdm(recordings, desc="emotion", unit="recording", leave=False):
        fold = speakers.index(recording.speaker) % FOLDS
        values = features(recording)
        for first, last, label in recording.clips:
            chosen = values[first:last:FRAME_STEP]
            frames[fold].append((chosen, np.full(len(chosen), label)))
            clips[fold].append((values[first:last].mean(0, keepdims=True), np.array([label])))
    return _classify(frames, labels), _classify(clips, labels)


def _classify(folds: Sequence[Sequence[tuple[Array, Array]]], labels: int) -> list[float]:
    """Recall of each fold by a class-balanced ridge classifier fitted to the other folds."""
    inputs = [_add_bias(np.concatenate([x for x, _ in fold])) for fold in folds]
    truths = [np.concatenate([y for _, y in fold]) for fold in folds]
    shares = np.bincount(np.concatenate(truths).astype(int), minlength=labels)
    sums = []
    for x, y in zip(inputs, truths, strict=True):
        weighted = x / shares[y.astype(int), None]
        sums.append((weighted.T @ x, weighted.T @ np.eye(labels, dtype=x.dtype)[y.astype(int)]))
    recalls = []
    for fold, (x, y) in enumerate(zip(inputs, truths, strict=True)):
        guessed = (x @ _fit_ridge(sums, fold)).argmax(1)
        recalls.append(unweighted_average_recall(y, guessed))
    return recalls


def lip_correlations(recordings: Sequence[Recording], features: Callable[[Recording], Array]) -> list[float]:
    """Correlation with the tracked lip gap over unseen recordings, one value per fold."""
    values = [features(recording) for recording in tqdm(recordings, desc="lips", unit="recording", leave=False)]
    truths = [np.concatenate([np.asarray(gap)[: last - first] for first, last, gap in r.clips]) for r in recordings]
    reduced = _reduce(values)
    inputs = [_add_bias(_stack_neighbours(x[: len(y)])) for x, y in zip(reduced, truths, strict=True)]
    folds = [range(fold, len(inputs), FOLDS) for fold in range(FOLDS)]
    sums = [
        (sum(inputs[i].T @ inputs[i] for i in fold), sum(inputs[i].T @ truths[i][:, None] for i in fold))
        for fold in folds
    ]
    found = []
    for number, fold in enumerate(folds):
        weights = _fit_ridge(sums, number)
        guessed = np.concatenate([(inputs[i] @ weights)[:, 0] for i in fold])
        found.append(float(np.corrcoef(guessed, np.concatenate([truths[i] for i in fold]))[0, 1]))
    return found


def _reduce(values: Sequence[Array]) -> list[Array]:
    """Project centred features (T, D) to their first `DIRECTIONS` principal components."""
    sample = np.concatenate([x[::FRAME_STEP] for x in values])
    mean = sample.mean(0)
    directions = principal_components(sample - mean, DIRECTIONS).T
    return [(x - mean) @ directions for x in values]


def _stack_neighbours(x: Array) -> Array:
    """Stack each frame with its neighbours, (T, (2 REACH + 1) D); the end frames are repeated."""
    padded = np.pad(x, ((REACH, REACH), (0, 0)), mode="edge")
    return np.concatenate([padded[shift : shift + len(x)] for shift in range(2 * REACH + 1)], axis=1)


def _fit_ridge(sums: Sequence[tuple[Array, Array]], left_out: int) -> Array:
    """Ridge weights (D, K) from the sums x'x and x'y of all folds but one."""
    gram, cross = (sum(part) for part in zip(*(s for i, s in enumerate(sums) if i != left_out), strict=True))
    return solve_ridge(gram, cross, RIDGE)


def _add_bias(x: Array) -> Array:
    return np.concatenate([x, np.ones((len(x), 1), x.dtype)], axis=1)


def format_table(rows: Iterable[Row]) -> str:
    """Format the rows as Markdown: mean and standard deviation over the folds."""
    cells = [
        ["left + hop + right, s", "latency, s", "CPU s per second of audio", "emotion by frame", "by clip", "lip gap"]
    ]
    for row in rows:
        left, hop, right = row.windows
        name = " + ".join(f"{part:g}" for part in row.windows) if left or right else f"whole ({hop:g})"
        figures = [f"{np.mean(x):.3f} ± {np.std(x):.3f}" for x in (row.frames, row.clips, row.lips)]
        cells.append([name, f"{hop + right:g}", f"{row.cost:.4f}", *figures])
    return markdown_table(cells) + "\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ravdess", type=Path, required=True, help="folder of RAVDESS")
    parser.add_argument("--grid", type=Path, required=True, help="a talker's folder of sounds and .npz")
    parser.add_argument("--sentences", type=int, default=320, help="of GRID (default: 320)")
    parser.add_argument("--encoder", default=DEFAULT_ENCODER, help="name or folder of a speech encoder")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the table, Markdown")


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    emotions, labels = read_emotions(arguments.ravdess)
    lips = read_lips(arguments.grid, arguments.sentences)
    rows = []
    for row in compare(load_encoder(arguments.encoder), emotions, len(labels), lips):
        rows.append(row)
        with atomic_write(arguments.output) as temp_path:  # partial result
            temp_path.write_text(format_table(rows), encoding="utf-8")
    print(format_table(rows))
