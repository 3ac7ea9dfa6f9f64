"""Evaluation of a diarizer on the speakers of a split (`sedtalker evaluate diarizer MANIFEST`).

Clips with one emotion are evaluated by frame of speech and by their mean posterior. Recordings with changing emotion,
from the manifest (utterances with segments) or concatenated from a speaker's clips, are evaluated by time. Features are
computed from the audio, as at inference.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sedtalker.audio import SAMPLE_RATE, load_audio
from sedtalker.data.augmentation import add_noise, reverberate, simulate_telephone
from sedtalker.data.concatenation import LEVEL, draw_recipes, normalize_level, render_recipe, vary_insertions
from sedtalker.data.manifest import Manifest, Utterance, audio_files, load_manifest
from sedtalker.data.negative_audio import synthesize_non_speech
from sedtalker.emotion.diarizer import Diarizer, load_diarizer
from sedtalker.emotion.inference import check_voice
from sedtalker.emotion.plot import plot_confusion
from sedtalker.emotion.segments import Segment
from sedtalker.errors import CheckpointError, DataError
from sedtalker.evaluation import diarization as measure
from sedtalker.evaluation.bootstrap import Figure, draw_counts, interval, mean_interval, show
from sedtalker.evaluation.clips import (
    ClipPrediction,
    Degradation,
    Samples,
    clip_metrics,
    diarize_clips,
    diarize_live,
    diarize_samples,
    group_clips,
    largest_gaps,
    offline,
    reliability,
    thin_out,
    uar_interval,
)
from sedtalker.evaluation.non_speech import evaluate_non_speech, format_non_speech
from sedtalker.evaluation.ordinary import evaluate_ordinary, find_recordings, format_ordinary
from sedtalker.evaluation.report import markdown_table, write_report
from sedtalker.evaluation.voice_reference import evaluate_reference, format_reference
from sedtalker.files import atomic_write
from sedtalker.speech import StreamingEncoder, WindowedEncoder, load_encoder

INSERTIONS = (0.3, 0.5, 1.0, 2.0)  # s
SHOWN_GAPS = 12  # in the table; the JSON has all
ROOM_SECONDS, ROOM_STRENGTHS = 0.4, (0.6, 0.6)  # RT60 of the room, and norm of its echoes
MUSIC_BELOW = 10.0  # dB of the music below the speech


@dataclass
class RecordingPrediction:
    """Output of the diarizer for one recording with changing emotion."""

    corpus: str
    speaker: str
    predicted: list[Segment]
    reference: list[Segment]
    duration: float
    crop: float | None  # duration of the inserted segment, s


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
        first = recipe.clips[0]
        predictions.append(
            RecordingPrediction(first.corpus, first.speaker, track.segments, reference, track.duration, recipe.crop)
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
        predictions.append(
            RecordingPrediction(item.corpus, item.speaker, track.segments, reference, track.duration, None)
        )
    return predictions


def mix_metrics(mixes: Sequence[RecordingPrediction], seed: int = 0) -> dict[str, Any]:
    """Metrics by time of recordings with changing emotion, and detected insertions by their duration."""
    whole = [mix for mix in mixes if mix.crop is None]
    errors = np.concatenate([measure.boundary_errors(mix.predicted, mix.reference) for mix in whole])
    durations = np.array([mix.duration for mix in whole])
    wrong = durations * [measure.eder(mix.predicted, mix.reference, mix.duration) for mix in whole]
    duration, draws = durations.sum(), draw_counts([mix.speaker for mix in whole], seed)
    found = {
        f"{length:g}": mean_interval(
            [measure.detect_insertions(mix.predicted, mix.reference)[0][1] for mix in group],
            [mix.speaker for mix in group],
            seed,
        )
        for length in INSERTIONS
        if (group := [mix for mix in mixes if mix.crop == length])
    }
    with np.errstate(invalid="ignore"):
        eder = interval(draws @ wrong / (draws @ durations))
    return {
        "recordings": len(whole),
        "eder": float(wrong.sum() / duration),
        "eder_interval": eder,
        "boundary_error_median": float(np.median(errors)),
        "boundary_error_p90": float(np.percentile(errors, 90)),
        "switches_per_second": sum(len(measure.change_times(mix.predicted)) for mix in whole) / duration,
        "true_switches_per_second": sum(len(measure.change_times(mix.reference)) for mix in whole) / duration,
        "insertions_found": {length: figure["value"] for length, figure in found.items()},
        "insertions_found_interval": found,
    }


def evaluate_diarizer(
    manifest_path: Path | str | None,
    diarizer: Diarizer | str | Path = "default",
    split: str = "test",
    per_speaker: int = 20,
    seed: int = 0,
    degradations: Mapping[str, Degradation] | None = None,
    crossfade: float = 0.0,
    most: int | None = None,
    look_aheads: Sequence[int] = (),
    references: Sequence[float] = (),
    sounds: Sequence[Path] | None = None,
    ordinary: Sequence[Path] = (),
) -> dict[str, Any]:
    """Evaluate a diarizer on one split of a manifest, and in ordinary speech; returns plain types.

    Args:
        manifest_path: None: only ordinary speech.
        per_speaker: number of recordings that are concatenated from each speaker's clips.
        degradations: name -> change of the samples (N,) of clips for another evaluation.
        crossfade: seconds of crossfade between the clips of those recordings; 0: cuts.
        most: clips of each corpus that are used, drawn at random; None: all.
        look_aheads: of a streaming encoder in ms, for another evaluation with each, of whole files and live.
        references: seconds of other speech of the speaker that the diarizer knows, for another evaluation with each.
        sounds: folders of sounds without words; they and synthetic ones are placed next to speech. None: no such test.
        ordinary: folders of ordinary speech, or manifests (`sedtalker.evaluation.ordinary`).

    Raises:
        CheckpointError: the encoder does not have the look-ahead, or the diarizer does not use voice profiles.
        DataError: the split is empty, or a folder is missing or holds no audio.
        MissingExtraError: the extra `train` is not installed.
    """
    measure.require_metrics()
    _check_folders(ordinary, sounds, split)
    network = diarizer if isinstance(diarizer, Diarizer) else load_diarizer(diarizer)
    encoder = offline(load_encoder(network.config.encoder))
    dials = {ms: with_look_ahead(encoder, ms) for ms in look_aheads}
    if references:
        check_voice(network)
    labels = network.config.labels
    report: dict[str, Any] = {"split": split, "labels": list(labels), "groups": {}, "mixes": {}, "disturbed": {}}
    if manifest_path is not None:
        manifest = load_manifest(manifest_path)
        selected = thin_out(manifest.select(split), most, seed)
        if not selected:
            raise DataError(f"no utterances of split {split!r}: {manifest_path}. Choose train, validation or test")
        utterances = [item for item in selected if not item.segments]
        diarize = partial(diarize_clips, manifest, utterances, network)
        report |= describe_clips(diarize(encoder), labels, seed)
        mixes = diarize_mixes(manifest, utterances, network, encoder, per_speaker, seed, crossfade)
        mixes += diarize_recordings(manifest, [item for item in selected if item.segments], network, encoder)
        report["mixes"] = _describe_mixes(mixes, seed)
        degraded = {name: diarize(encoder, degrade) for name, degrade in (degradations or {}).items()}
        report |= _compare_clips("disturbed", degraded, labels, seed)
        report |= _compare_clips(
            "look_ahead", _diarize_look_aheads(diarize, dials, network.config.causal), labels, seed
        )
        if references:
            others = [item for item in manifest.select(split) if not item.segments]
            report["voice_reference"] = evaluate_reference(
                manifest, utterances, network, encoder, others, references, seed
            )
        if sounds is not None:
            report["non_speech"] = evaluate_non_speech(manifest, utterances, network, encoder, sounds, seed)
    if ordinary:
        report["ordinary"] = evaluate_ordinary(ordinary, network, encoder, seed, split)
    return report


def _check_folders(ordinary: Sequence[Path], sounds: Sequence[Path] | None, split: str) -> None:
    """Raise DataError if a folder of ordinary speech or of sounds is missing or holds no audio."""
    for place in ordinary:
        find_recordings(place, split)
    for folder in sounds or ():
        audio_files(folder)


def _describe_mixes(mixes: Sequence[RecordingPrediction], seed: int) -> dict[str, dict[str, Any]]:
    """Metrics by time of recordings with changing emotion, by corpus."""
    return {
        corpus: mix_metrics([mix for mix in mixes if mix.corpus == corpus], seed)
        for corpus in sorted({mix.corpus for mix in mixes})
    }


def _diarize_look_aheads(
    diarize: Callable[..., list[ClipPrediction]], dials: Mapping[int, WindowedEncoder], live: bool
) -> dict[str, list[ClipPrediction]]:
    """Predictions of whole files with each look-ahead in ms and, if `live`, of streams; by condition."""
    conditions = {f"{ms} ms": diarize(dial) for ms, dial in dials.items()}
    if live:
        conditions |= {f"{ms} ms, live": diarize(dial, run=diarize_live) for ms, dial in dials.items()}
    return conditions


def with_look_ahead(encoder: WindowedEncoder, look_ahead: int) -> WindowedEncoder:
    """A streaming encoder with another look-ahead in ms. Raises CheckpointError for another encoder or look-ahead."""
    if not isinstance(encoder, StreamingEncoder):
        raise CheckpointError(
            f"the speech encoder {encoder.name} has no look-ahead to choose. Use a diarizer on a streaming encoder"
        )
    return encoder.with_look_ahead(look_ahead)


def describe_clips(clips: Sequence[ClipPrediction], labels: Sequence[str], seed: int) -> dict[str, Any]:
    """Figures of clips by group, the largest gaps between groups, calibration and the worst speaker."""
    if not clips:
        return {}
    groups = {name: clip_metrics(group, labels, seed) for name, group in group_clips(clips).items()}
    corpora = sorted({clip.utterance.corpus for clip in clips})
    speakers = {f"{clip.utterance.corpus}/{clip.utterance.speaker}" for clip in clips}
    return {
        "groups": groups,
        "gaps": largest_gaps(clips, labels, seed),
        "reliability": {
            corpus: reliability([clip for clip in clips if clip.utterance.corpus == corpus]) for corpus in corpora
        },
        "worst_speaker": worst_speaker(groups, speakers),
    }


def _compare_clips(
    name: str, conditions: Mapping[str, Sequence[ClipPrediction]], labels: Sequence[str], seed: int
) -> dict[str, Any]:
    """Frame UAR by condition and corpus as `name`, and its intervals as `name_intervals`."""
    figures: dict[str, dict[str, Figure]] = {}
    for condition, clips in conditions.items():
        corpora = sorted({clip.utterance.corpus for clip in clips})
        figures[condition] = {
            corpus: uar_interval([clip for clip in clips if clip.utterance.corpus == corpus], labels, seed)
            for corpus in corpora
        }
    return {
        name: {key: {corpus: figure["value"] for corpus, figure in row.items()} for key, row in figures.items()},
        f"{name}_intervals": figures,
    }


def make_noises(levels: Sequence[float], seed: int = 0) -> dict[str, Degradation]:
    """Degradations by name that add pink noise at signal-to-noise ratios in dB."""

    def disturbance(level: float) -> Degradation:
        rng = np.random.default_rng(seed)
        return lambda samples: add_noise(samples, level, 1.0, rng)

    return {f"noise at {level:g} dB": disturbance(level) for level in levels}


def make_channels(names: Sequence[str], seed: int = 0) -> dict[str, Degradation]:
    """Degradations by name: a telephone, a room, and music under the speech."""
    rng = np.random.default_rng(seed)

    def play_music(samples: Samples) -> Samples:
        music = normalize_level(synthesize_non_speech("music", len(samples) / SAMPLE_RATE, rng))[: len(samples)]
        gain = np.sqrt(np.mean(np.square(samples, dtype=np.float64))) * 10 ** (-(MUSIC_BELOW + LEVEL) / 20)
        return (samples + gain * music).astype(np.float32)

    known: dict[str, Degradation] = {
        "telephone": simulate_telephone,
        "room": lambda samples: reverberate(samples, ROOM_SECONDS, ROOM_STRENGTHS, rng),
        "music": play_music,
    }
    return {name: known[name] for name in names}


def worst_speaker(groups: dict[str, Any], speakers: Collection[str]) -> dict[str, Any]:
    """Speaker with the lowest frame UAR, with false-positive and false-negative rates by emotion.

    `speakers` are the names of the groups that are one speaker each ("ravdess/ravdess-08").
    """
    name = min(sorted(speakers), key=lambda key: groups[key]["uar"])
    return {"name": name, "uar": groups[name]["uar"], "false_rates": groups[name]["false_rates"]}


def format_diarizer(report: Mapping[str, Any]) -> str:
    """Format the report as Markdown, which is also readable on the screen."""
    parts = [f"Diarizer on split `{report['split']}`"] if report["groups"] or report["mixes"] else []
    if report["groups"]:
        parts += [_group_table(report), false_rate_table(report)]
    if report.get("gaps"):
        parts += [gap_table(report["gaps"][:SHOWN_GAPS])]
    if report["mixes"]:
        parts += [_mix_table(report)]
    for name in ("disturbed_intervals", "look_ahead_intervals"):
        for condition, row in report.get(name, {}).items():
            values = ", ".join(f"{corpus} {show(figure)}" for corpus, figure in row.items())
            parts.append(f"{condition}: frame UAR {values}")
    if worst := report.get("worst_speaker"):
        rates = (f"{name} {wrong:.2f}/{missed:.2f}" for name, (wrong, missed) in worst["false_rates"].items())
        parts.append(
            f"Worst speaker: {worst['name']}, frame UAR {worst['uar']:.3f}\n"
            "false-positive/false-negative rate: " + ", ".join(rates)
        )
    if reference := report.get("voice_reference"):
        parts.append(format_reference(reference))
    if non_speech := report.get("non_speech"):
        parts.append(format_non_speech(non_speech))
    if ordinary := report.get("ordinary"):
        parts.append(format_ordinary(ordinary))
    return "\n\n".join(parts) + "\n"


def _group_table(report: Mapping[str, Any]) -> str:
    rows = [["group", "clips", "UAR", "accuracy", "macro F1", "clip UAR", "calibration error", "strong AUC"]]
    for name, row in report["groups"].items():
        intervals, strong = row["intervals"], row["intensity"].get("auc_strong")
        rows.append(
            [
                name,
                str(row["clips"]),
                show(intervals["uar"]),
                f"{row['accuracy']:.3f}",
                f"{row['macro_f1']:.3f}",
                show(intervals["clip_uar"]),
                show(intervals["calibration_error"]),
                "" if strong is None else f"{strong:.3f}",
            ]
        )
    return markdown_table(rows)


def false_rate_table(report: Mapping[str, Any]) -> str:
    """False-positive and false-negative rates by emotion of every group that is not one speaker."""
    groups = {name: row for name, row in report["groups"].items() if row["speakers"] > 1}
    labels = [label for label in report["labels"] if any(label in row["false_rates"] for row in groups.values())]
    rows = [["false positives, false negatives", *labels]]
    for name, row in groups.items():
        both = (row["intervals"]["false_positive"], row["intervals"]["false_negative"])
        rows.append([name, *(", ".join(show(kind[x], 2) for kind in both) if x in both[0] else "" for x in labels)])
    return markdown_table(rows)


def gap_table(gaps: Sequence[Mapping[str, Any]]) -> str:
    rows = [["largest gaps", "compared by", "worst group", "best group", "gap"]]
    for gap in gaps:
        ends = [f"{gap[end]} {gap[f'{end}_value']:.3f}" for end in ("worst", "best")]
        rows.append([gap["figure"], gap["kind"], *ends, show(gap["gap"])])
    return markdown_table(rows)


def _mix_table(report: Mapping[str, Any]) -> str:
    rows = [["recordings with changes", "EDER", "boundary, median s", "switches/s (true)", "insertions found"]]
    for name, row in report["mixes"].items():
        found = ", ".join(f"{length} s {show(share, 2)}" for length, share in row["insertions_found_interval"].items())
        switches = f"{row['switches_per_second']:.2f} ({row['true_switches_per_second']:.2f})"
        rows.append([name, show(row["eder_interval"]), f"{row['boundary_error_median']:.2f}", switches, found])
    return markdown_table(rows)


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
