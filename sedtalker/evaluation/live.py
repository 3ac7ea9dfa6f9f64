"""A talker live and offline, for each setting of the look-ahead: latency, lip closures, mouth shape and frame UAR."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sedtalker.audio import SAMPLE_RATE, Samples, load_audio
from sedtalker.data.manifest import Manifest
from sedtalker.emotion.track import EmotionTrack
from sedtalker.emotion.vad import detect_speech, loudness
from sedtalker.errors import DataError
from sedtalker.evaluation.clips import thin_out
from sedtalker.evaluation.diarization import unweighted_average_recall
from sedtalker.evaluation.lips import closure_metrics, lip_gap_of_weights, pool
from sedtalker.evaluation.mouth_shape import tracked_figures
from sedtalker.evaluation.report import markdown_table
from sedtalker.mel import FRAME_RATE
from sedtalker.phones import Phone
from sedtalker.pipeline import Talker

Float = NDArray[np.float32]

CHUNK = SAMPLE_RATE  # samples; the frames do not depend on it, and long chunks cost less
COLUMNS = {
    "latency_ms": "latency, ms",
    "closures": "closures /p b m/",
    "false_contact": "other phones closed",
    "gap_r": "lip gap, r",
    "width_r": "lip width, r",
    "frame_uar": "frame UAR",
    "late_uar": "frame UAR after 1 s of speech",
    "settled_uar": "after 1.5 s",
}
LATE = {"late_uar": 1.0, "settled_uar": 1.5}  # seconds from the first speech on that a figure leaves out
MOMENTS = (0.2, 0.5, 1.0, 1.5, 2.0)  # seconds after the first speech


@dataclass(frozen=True)
class LiveData:
    """Recordings to measure on; each part may be empty."""

    tracked: Sequence[tuple[Path, Path]] = ()  # tracked mouths and their recordings
    spoken: Sequence[tuple[Path, Sequence[Phone]]] = ()  # recordings and their phones
    emotional: Sequence[tuple[Path, str]] = ()  # recordings and their emotion


def find_spoken(
    folder: Path, phones: Mapping[str, Sequence[Phone]], most: int | None
) -> list[tuple[Path, Sequence[Phone]]]:
    """The recordings of a folder with known phones, by the names of the files; at most `most`, evenly spaced.

    Raises:
        DataError: there are none, or the folder cannot be read.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"cannot read the folder of recordings: {folder} ({error.strerror}). Check the path") from error
    found = [(path, phones[path.stem]) for path in paths if path.stem in phones]
    if not found:
        raise DataError(f"no recordings with the names of the table of phones: {folder}. Name them as its first column")
    step = 1 if most is None else max(1, len(found) // most)
    return found[::step][:most]


def find_emotional(manifest: Manifest, split: str, most: int | None) -> list[tuple[Path, str]]:
    """Recordings and emotions of a split; at most `most` of each corpus."""
    chosen = thin_out(manifest.select(split), most)
    return [(manifest.audio(item), item.emotion) for item in chosen]


def evaluate_live(talker: Talker, data: LiveData, look_aheads: Sequence[int | None]) -> dict[str, dict[str, float]]:
    """Figures by setting: "offline", then the look-aheads in ms; None is the only one of an encoder without a dial.

    Raises:
        CheckpointError: the speech encoder has no such look-ahead.
    """
    settings: dict[str, tuple[float, Callable[..., tuple[Float, Float]]]] = {
        "offline": (float("nan"), partial(_run_offline, talker))
    }
    for look_ahead in look_aheads:
        name = "live" if look_ahead is None else f"live, {look_ahead} ms"
        settings[name] = 1000 * talker.latency(look_ahead), partial(_run_live, talker, look_ahead)
    return {name: {"latency_ms": latency, **_measure(talker, run, data)} for name, (latency, run) in settings.items()}


def format_live(report: Mapping[str, Mapping[str, float]]) -> str:
    """The report as a Markdown table of the figures that were measured."""
    names = [name for name in COLUMNS if any(np.isfinite(row.get(name, np.nan)) for row in report.values())]
    rows = [["", *(COLUMNS[name] for name in names)]]
    for setting, row in report.items():
        cells = (f"{row[name]:.0f}" if name == "latency_ms" else f"{row[name]:.3f}" for name in names)
        rows.append([setting, *("" if cell == "nan" else cell for cell in cells)])
    return markdown_table(rows)


def _measure(talker: Talker, run: Callable[..., tuple[Float, Float]], data: LiveData) -> dict[str, float]:
    face = talker.load_rig()
    figures: dict[str, float] = {}

    def neutral_weights(path: Path) -> Float:
        samples = load_audio(path)
        return run(samples, EmotionTrack.neutral(len(samples) / SAMPLE_RATE))[0]

    if data.spoken:
        clips = [(neutral_weights(path), phones) for path, phones in tqdm(data.spoken, desc="closures")]
        closures = pool([closure_metrics(lip_gap_of_weights(w, face), p, FRAME_RATE) for w, p in clips]).summary()
        figures |= {"closures": closures["closure_recall"], "false_contact": closures["false_contact"]}
    if data.tracked:
        pairs = [(neutral_weights(audio), path) for path, audio in tqdm(data.tracked, desc="mouth shape")]
        shape = tracked_figures(pairs, face, FRAME_RATE)
        figures |= {name: shape[name][0] for name in ("gap_r", "width_r")}
    if data.emotional:
        figures |= _frame_uar(talker, run, data.emotional)
    return figures


def _frame_uar(
    talker: Talker, run: Callable[..., tuple[Float, Float]], clips: Sequence[tuple[Path, str]]
) -> dict[str, float]:
    """Unweighted average recall over the frames of speech, all of them and without the beginning of each clip."""
    truth, predicted, since = [], [], []
    for path, emotion in tqdm(clips, desc="emotion"):
        samples = load_audio(path)
        posterior = run(samples, None)[1]
        spoken = np.flatnonzero(detect_speech(loudness(samples))[: len(posterior)])
        predicted.append(posterior[spoken].argmax(axis=1))
        truth.append(np.full(len(spoken), talker.model.config.labels.index(emotion)))
        since.append((spoken - spoken[:1].sum()) / FRAME_RATE)
    true, shown, seconds = (np.concatenate(parts) for parts in (truth, predicted, since))
    figures = {"frame_uar": unweighted_average_recall(true, shown)}
    for name, least in LATE.items():
        late = seconds >= least
        if late.any():
            figures[name] = unweighted_average_recall(true[late], shown[late])
    return figures


def evaluate_moments(
    talker: Talker, clips: Sequence[tuple[Path, str]], look_ahead: int | None = None
) -> dict[float, dict[str, float]]:
    """Unweighted average recall of the frame at each of `MOMENTS`, over the clips that speak then.

    "live" is a stream. "cut" is a file that ends with the sound that had come when the stream showed the frame: the
    difference between both is what streaming costs. "whole" is the whole file: its difference to "cut" is what the
    future tells.
    """
    labels, latency = talker.model.config.labels, talker.latency(look_ahead)
    rows: dict[float, list[tuple[int, ...]]] = {seconds: [] for seconds in MOMENTS}
    for path, emotion in tqdm(clips, desc="first seconds"):
        samples = load_audio(path)
        live, whole = _run_live(talker, look_ahead, samples, None)[1], _run_offline(talker, samples, None)[1]
        spoken = np.flatnonzero(detect_speech(loudness(samples))[: len(live)])
        for seconds, row in rows.items():
            frame = spoken[:1].sum() + round(seconds * FRAME_RATE)
            if frame not in spoken:
                continue
            cut = _run_offline(talker, samples[: round(((frame + 1) / FRAME_RATE + latency) * SAMPLE_RATE)], None)[1]
            row.append((labels.index(emotion), *(int(posterior[frame].argmax()) for posterior in (live, cut, whole))))
    figures = {}
    for seconds, row in rows.items():
        if row:
            true, *predicted = np.array(row).T
            recalls = (unweighted_average_recall(true, shown) for shown in predicted)
            figures[seconds] = {"clips": float(len(row)), **dict(zip(("live", "cut", "whole"), recalls, strict=True))}
    return figures


def format_moments(figures: Mapping[float, Mapping[str, float]]) -> str:
    """The figures of `evaluate_moments` as a Markdown table."""
    rows = [["seconds after the first speech", "clips", "UAR, live", "file cut there", "whole file"]]
    for seconds, row in figures.items():
        rows.append([f"{seconds:g}", f"{row['clips']:.0f}", *(f"{row[name]:.3f}" for name in ("live", "cut", "whole"))])
    return markdown_table(rows)


def _run_offline(talker: Talker, samples: Samples, track: EmotionTrack | None) -> tuple[Float, Float]:
    """Weights (T, 52) and posterior (T, C) at 50 Hz; the diarizer's if no track is given."""
    if track is None:
        diarized = talker.diarize((samples, SAMPLE_RATE)).with_labels(talker.model.config.labels)
        return np.zeros((0, 0), np.float32), diarized.posterior
    whole = talker.animate((samples, SAMPLE_RATE), emotion=track, fps=FRAME_RATE, still=True)
    assert whole.blendshapes is not None
    return whole.blendshapes, track.posterior


def _run_live(
    talker: Talker, look_ahead: int | None, samples: Samples, track: EmotionTrack | None
) -> tuple[Float, Float]:
    """The same of a stream."""
    stream = talker.open_stream(emotion=track, fps=FRAME_RATE, still=True, look_ahead=look_ahead)
    parts: list[Any] = [stream.push(samples[start : start + CHUNK]) for start in range(0, len(samples), CHUNK)]
    parts.append(stream.finish())
    return np.concatenate([part.weights for part in parts]), np.concatenate([part.posterior for part in parts])
