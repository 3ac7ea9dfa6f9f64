"""Evaluation of a diarizer on the speakers of a split (`sedtalker evaluate diarizer MANIFEST`).

Clips with one emotion are evaluated by frame of speech and by their mean posterior. Recordings with changing emotion,
from the manifest (utterances with segments) or concatenated from a speaker's clips, are evaluated by time. Features are
computed from the audio, as at inference.
"""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sedtalker.audio import SAMPLE_RATE, load_audio
from sedtalker.data.augmentation import add_noise
from sedtalker.data.concatenation import draw_recipes, render_recipe, vary_insertions
from sedtalker.data.manifest import Manifest, Utterance, load_manifest
from sedtalker.emotion.diarizer import Diarizer, load_diarizer
from sedtalker.emotion.inference import diarize
from sedtalker.emotion.plot import plot_confusion
from sedtalker.emotion.segments import Segment
from sedtalker.emotion.track import EmotionTrack
from sedtalker.emotion.vad import detect_speech, loudness
from sedtalker.errors import DataError
from sedtalker.evaluation import diarization as measure
from sedtalker.evaluation.report import markdown_table, write_report
from sedtalker.files import atomic_write
from sedtalker.speech import WindowedEncoder, load_encoder

Samples = NDArray[np.float32]
Degradation = Callable[[Samples], Samples]

INSERTIONS = (0.3, 0.5, 1.0, 2.0)  # s


@dataclass
class ClipPrediction:
    """Output of the diarizer for one clip."""

    utterance: Utterance
    posterior: NDArray[np.float32]  # (T, C), only frames of speech
    intensity: NDArray[np.float32]  # (T,)
    truth: int  # label number


@dataclass
class RecordingPrediction:
    """Output of the diarizer for one recording with changing emotion."""

    corpus: str
    predicted: list[Segment]
    reference: list[Segment]
    duration: float
    crop: float | None  # duration of the inserted segment, s


def diarize_clips(
    manifest: Manifest,
    utterances: Sequence[Utterance],
    diarizer: Diarizer,
    encoder: WindowedEncoder,
    degrade: Degradation | None = None,
) -> list[ClipPrediction]:
    """Diarize whole clips; frames without speech are removed.

    Raises:
        DataError: the diarizer does not know an emotion of the clips.
    """
    labels = diarizer.config.labels
    unknown = sorted({item.emotion for item in utterances} - set(labels))
    if unknown:
        raise DataError(
            f"the diarizer does not know {unknown[0]!r}, only {', '.join(labels)}. Remove its clips from the manifest"
        )
    predictions = []
    for item in tqdm(utterances, desc="clips", unit="clip"):
        samples = load_audio(manifest.audio(item))
        spoken = detect_speech(loudness(samples))
        track = diarize_samples(samples if degrade is None else degrade(samples), diarizer, encoder)
        truth = labels.index(item.emotion)
        predictions.append(ClipPrediction(item, track.posterior[spoken], track.intensity[spoken], truth))
    return predictions


def diarize_mixes(
    manifest: Manifest,
    utterances: Sequence[Utterance],
    diarizer: Diarizer,
    encoder: WindowedEncoder,
    per_speaker: int,
    seed: int,
    crossfade: float = 0.0,
) -> list[RecordingPrediction]:
    """Diarize concatenated clips of each speaker, and variants with a short inserted segment."""
    recipes = draw_recipes(utterances, per_speaker, seed)
    recipes += vary_insertions(recipes, INSERTIONS)
    recipes = [replace(recipe, crossfade=crossfade) for recipe in recipes]
    predictions = []
    for recipe in tqdm(recipes, desc="mixes", unit="mix"):
        samples, reference = render_recipe(manifest, recipe)
        track = diarize_samples(samples, diarizer, encoder)
        predictions.append(
            RecordingPrediction(recipe.clips[0].corpus, track.segments, reference, track.duration, recipe.crop)
        )
    return predictions


def diarize_recordings(
    manifest: Manifest, utterances: Sequence[Utterance], diarizer: Diarizer, encoder: WindowedEncoder
) -> list[RecordingPrediction]:
    """Diarize recordings with true segments."""
    predictions = []
    for item in tqdm(utterances, desc="recordings", unit="recording"):
        track = diarize_samples(load_audio(manifest.audio(item)), diarizer, encoder)
        marked = [Segment(span.start, span.end, span.emotion, span.intensity or 0.0) for span in item.segments]
        reference = measure.fill_gaps(marked, track.duration)
        predictions.append(RecordingPrediction(item.corpus, track.segments, reference, track.duration, None))
    return predictions


def diarize_samples(samples: Samples, diarizer: Diarizer, encoder: WindowedEncoder) -> EmotionTrack:
    """Diarize samples (N,) at 16 kHz."""
    return diarize(diarizer, encoder.encode(samples), len(samples) / SAMPLE_RATE, samples=samples)


def clip_metrics(clips: Sequence[ClipPrediction], labels: Sequence[str]) -> dict[str, Any]:
    """Metrics of a group of clips, by frame and by clip, over the classes that occur in the group."""
    frames = np.concatenate([clip.posterior for clip in clips])
    truth = np.concatenate([np.full(len(clip.posterior), clip.truth) for clip in clips])
    by_frame = measure.classify(truth, frames.argmax(1), labels)
    means = np.stack([clip.posterior.mean(0) for clip in clips])
    by_clip = measure.classify(np.array([clip.truth for clip in clips]), means.argmax(1), labels)
    return {
        "clips": len(clips),
        "frames": len(frames),
        "accuracy": by_frame.accuracy,
        "uar": by_frame.uar,
        "macro_f1": by_frame.macro_f1,
        "weighted_f1": by_frame.weighted_f1,
        "recalls": by_frame.recalls,
        "false_rates": {name: by_frame.false_rates(name) for name in by_frame.recalls},
        "confusion": by_frame.confusion.tolist(),
        "calibration_error": measure.expected_calibration_error(frames.max(1), frames.argmax(1) == truth),
        "clip_accuracy": by_clip.accuracy,
        "clip_uar": by_clip.uar,
        "intensity": intensity_metrics(clips),
    }


def intensity_metrics(clips: Sequence[ClipPrediction]) -> dict[str, float]:
    """Mean intensity of emotional clips against their labels: rank correlation, concordance, AUC of strong ones."""
    known = [clip for clip in clips if clip.utterance.intensity is not None and clip.utterance.emotion != "neutral"]
    if len(known) < 3:
        return {}
    predicted = np.array([clip.intensity.mean() for clip in known])
    true = np.array([clip.utterance.intensity for clip in known], dtype=float)
    if true.std() == 0:
        return {}
    within = [
        measure.auc(predicted[mask], true[mask] > true[mask].min())
        for emotion in {clip.utterance.emotion for clip in known}
        if (mask := np.array([clip.utterance.emotion == emotion for clip in known])).sum() > 2
    ]
    figures = {
        "rank_correlation": measure.rank_correlation(predicted, true),
        "concordance": measure.concordance(predicted, true),
        "auc_strong": measure.auc(predicted, true >= true.max()),
    }
    return figures | ({"auc_strong_within_emotion": float(np.nanmean(within))} if within else {})


def mix_metrics(mixes: Sequence[RecordingPrediction]) -> dict[str, Any]:
    """Metrics by time of recordings with changing emotion, and detected insertions by their duration."""
    whole = [mix for mix in mixes if mix.crop is None]
    errors = np.concatenate([measure.boundary_errors(mix.predicted, mix.reference) for mix in whole])
    duration = sum(mix.duration for mix in whole)
    found = {
        f"{length:g}": float(np.mean([measure.detect_insertions(mix.predicted, mix.reference)[0][1] for mix in group]))
        for length in INSERTIONS
        if (group := [mix for mix in mixes if mix.crop == length])
    }
    return {
        "recordings": len(whole),
        "eder": sum(measure.eder(mix.predicted, mix.reference, mix.duration) * mix.duration for mix in whole)
        / duration,
        "boundary_error_median": float(np.median(errors)),
        "boundary_error_p90": float(np.percentile(errors, 90)),
        "switches_per_second": sum(len(measure.change_times(mix.predicted)) for mix in whole) / duration,
        "true_switches_per_second": sum(len(measure.change_times(mix.reference)) for mix in whole) / duration,
        "insertions_found": found,
    }


def evaluate_diarizer(
    manifest_path: Path | str,
    diarizer: Diarizer | str | Path = "default",
    split: str = "test",
    per_speaker: int = 20,
    seed: int = 0,
    degradations: dict[str, Degradation] | None = None,
    crossfade: float = 0.0,
) -> dict[str, Any]:
    """Evaluate a diarizer on one split of a manifest; returns plain types.

    Args:
        per_speaker: number of recordings that are concatenated from each speaker's clips.
        degradations: name -> change of the samples (N,) of clips for another evaluation.
        crossfade: seconds of crossfade between the clips of those recordings; 0: cuts.

    Raises:
        DataError: the split is empty.
        MissingExtraError: the extra `train` is not installed.
    """
    measure.require_metrics()
    manifest = load_manifest(manifest_path)
    selected = manifest.select(split)
    utterances = [item for item in selected if not item.segments]
    if not selected:
        raise DataError(f"no utterances of split {split!r}: {manifest_path}. Choose train, validation or test")
    network = diarizer if isinstance(diarizer, Diarizer) else load_diarizer(diarizer)
    encoder = load_encoder(network.config.encoder)
    labels = network.config.labels
    clips = diarize_clips(manifest, utterances, network, encoder)
    mixes = diarize_mixes(manifest, utterances, network, encoder, per_speaker, seed, crossfade)
    mixes += diarize_recordings(manifest, [item for item in selected if item.segments], network, encoder)
    report: dict[str, Any] = {"split": split, "labels": list(labels), "groups": {}, "mixes": {}, "disturbed": {}}
    for name, group in group_clips(clips).items():
        report["groups"][name] = clip_metrics(group, labels)
    for corpus in sorted({mix.corpus for mix in mixes}):
        report["mixes"][corpus] = mix_metrics([mix for mix in mixes if mix.corpus == corpus])
    for name, degrade in (degradations or {}).items():
        again = group_clips(diarize_clips(manifest, utterances, network, encoder, degrade))
        report["disturbed"][name] = {
            corpus: clip_metrics(again[corpus], labels)["uar"]
            for corpus in sorted({item.corpus for item in utterances})
        }
    if utterances:
        speakers = {f"{item.corpus}/{item.speaker}" for item in utterances}
        report["worst_speaker"] = worst_speaker(report["groups"], speakers)
    return report


def make_noises(levels: Sequence[float], seed: int = 0) -> dict[str, Degradation]:
    """Degradations by name that add pink noise at signal-to-noise ratios in dB."""

    def disturbance(level: float) -> Degradation:
        rng = np.random.default_rng(seed)
        return lambda samples: add_noise(samples, level, 1.0, rng)

    return {f"noise at {level:g} dB": disturbance(level) for level in levels}


def group_clips(clips: Sequence[ClipPrediction]) -> dict[str, list[ClipPrediction]]:
    """Group clips by language ("all/en"), corpus ("ravdess"), gender ("ravdess/female") and speaker."""
    groups: dict[str, list[ClipPrediction]] = defaultdict(list)
    for clip in clips:
        item = clip.utterance
        for name in (f"all/{item.language}", item.corpus, *(f"{item.corpus}/{x}" for x in (item.gender, item.speaker))):
            groups[name].append(clip)
    return dict(sorted(groups.items()))


def worst_speaker(groups: dict[str, Any], speakers: Collection[str]) -> dict[str, Any]:
    """Speaker with the lowest frame UAR, with false-positive and false-negative rates by emotion.

    `speakers` are the names of the groups that are one speaker each ("ravdess/ravdess-08").
    """
    name = min(sorted(speakers), key=lambda key: groups[key]["uar"])
    return {"name": name, "uar": groups[name]["uar"], "false_rates": groups[name]["false_rates"]}


def format_diarizer(report: Mapping[str, Any]) -> str:
    """Format the report as Markdown, which is also readable on the screen."""
    groups = [["group", "clips", "UAR", "accuracy", "macro F1", "clip UAR", "calibration error", "strong AUC"]]
    for name, row in report["groups"].items():
        figures = [row[key] for key in ("uar", "accuracy", "macro_f1", "clip_uar", "calibration_error")]
        figures.append(row["intensity"].get("auc_strong"))
        groups.append([name, str(row["clips"]), *("" if x is None else f"{x:.3f}" for x in figures)])
    mixes = [["recordings with changes", "EDER", "boundary, median s", "switches/s (true)", "insertions found"]]
    for name, row in report["mixes"].items():
        found = ", ".join(f"{length} s {share:.2f}" for length, share in row["insertions_found"].items())
        switches = f"{row['switches_per_second']:.2f} ({row['true_switches_per_second']:.2f})"
        mixes.append([name, f"{row['eder']:.3f}", f"{row['boundary_error_median']:.2f}", switches, found])
    parts = [f"Diarizer on split `{report['split']}`", markdown_table(groups), markdown_table(mixes)]
    for name, row in report["disturbed"].items():
        parts.append(f"{name}: frame UAR " + ", ".join(f"{corpus} {value:.3f}" for corpus, value in row.items()))
    if worst := report.get("worst_speaker"):
        rates = (f"{name} {wrong:.2f}/{missed:.2f}" for name, (wrong, missed) in worst["false_rates"].items())
        parts.append(
            f"Worst speaker: {worst['name']}, frame UAR {worst['uar']:.3f}\n"
            "false-positive/false-negative rate: " + ", ".join(rates)
        )
    return "\n\n".join(parts) + "\n"


def write_diarizer_report(report: Mapping[str, Any], folder: Path | str) -> list[Path]:
    """Write `diarizer.json`, `diarizer.md` and the confusion matrix of each corpus; returns their paths.

    Without matplotlib the matrices are left out.
    """
    paths, pictures = [Path(folder) / "diarizer.json", Path(folder) / "diarizer.md"], {}
    if importlib.util.find_spec("matplotlib") is not None:
        pictures = {name: Path(folder) / f"confusion-{name}.png" for name in report["groups"] if "/" not in name}
    for name, picture in pictures.items():
        with atomic_write(picture) as temp_path:
            plot_confusion(np.array(report["groups"][name]["confusion"]), report["labels"], temp_path)
    links = "".join(f"\n![Confusion of {name}, frames]({path.name})\n" for name, path in pictures.items())
    for path in paths:
        write_report(report, path, {".md": lambda content: format_diarizer(content) + links})
    return [*paths, *pictures.values()]
