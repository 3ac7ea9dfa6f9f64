"""Predictions of a diarizer for clips of one emotion, and their figures by group of speakers with intervals.

Intervals are bootstrapped over the speakers of a group, or over the clips of a group of one speaker. All rates count
frames of speech, so that a long clip counts more than a short one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sedtalker.audio import SAMPLE_RATE, load_audio
from sedtalker.data.manifest import Manifest, Utterance
from sedtalker.emotion.config import find_lead
from sedtalker.emotion.diarizer import Diarizer
from sedtalker.emotion.inference import build_track, diarize
from sedtalker.emotion.track import EmotionTrack
from sedtalker.emotion.vad import detect_speech, loudness
from sedtalker.errors import DataError
from sedtalker.evaluation import diarization as measure
from sedtalker.evaluation.bootstrap import Figure, draw_counts, interval
from sedtalker.speech import StreamingEncoder, WindowedEncoder
from sedtalker.talker.streaming import OFFLINE_LOOK_AHEAD

Samples = NDArray[np.float32]
Degradation = Callable[[Samples], Samples]
Draws = NDArray[np.float64]

AGE_BANDS = (30, 45, 60)  # years at which a new band of age starts
SMALLEST_GROUP = 10  # clips; smaller groups are not ranked by their gaps
SMALLEST_CLASS = 5  # clips of an emotion in a group whose rates for it are ranked
BINS = 15  # of the calibration error
SURE, FAINT = 0.9, 0.1  # posterior of an emotion, and intensity, that contradict each other

EVERYONE = "all"  # first part of the names of groups over all corpora


@dataclass
class ClipPrediction:
    """Output of the diarizer for one clip."""

    utterance: Utterance
    posterior: NDArray[np.float32]  # (T, C), only frames of speech
    intensity: NDArray[np.float32]  # (T,)
    truth: int  # label number


def offline(encoder: WindowedEncoder) -> WindowedEncoder:
    """An encoder with the look-ahead with which whole files are read."""
    return encoder.with_look_ahead(OFFLINE_LOOK_AHEAD) if isinstance(encoder, StreamingEncoder) else encoder


def diarize_samples(samples: Samples, diarizer: Diarizer, encoder: WindowedEncoder) -> EmotionTrack:
    """Diarize samples (N,) at 16 kHz."""
    return diarize(diarizer, encoder.encode(samples), len(samples) / SAMPLE_RATE, samples=samples)


def diarize_live(samples: Samples, diarizer: Diarizer, encoder: WindowedEncoder) -> EmotionTrack:
    """Diarize samples (N,) at 16 kHz as a stream does, which knows nothing of the sound after a frame's look-ahead."""
    lead = find_lead(diarizer.config, encoder.early_frames) if isinstance(encoder, StreamingEncoder) else 0
    if lead and isinstance(encoder, StreamingEncoder):
        stream = encoder.early_stream()
        features = np.concatenate([stream.push(samples), stream.finish()])
        prediction = diarizer.stream(lead=lead).push(features, stream.take_early())
    else:
        prediction = diarizer.stream().push(encoder.encode(samples))
    return build_track(prediction, diarizer.config.labels, len(samples) / SAMPLE_RATE)


def diarize_clips(
    manifest: Manifest,
    utterances: Sequence[Utterance],
    diarizer: Diarizer,
    encoder: WindowedEncoder,
    degrade: Degradation | None = None,
    run: Callable[[Samples, Diarizer, WindowedEncoder], EmotionTrack] = diarize_samples,
) -> list[ClipPrediction]:
    """Diarize whole clips, each by `run`; frames without speech are removed.

    Raises:
        DataError: the diarizer does not know an emotion of the clips.
    """
    check_known(utterances, diarizer)
    predictions = []
    for item in tqdm(utterances, desc="clips", unit="clip"):
        samples = load_audio(manifest.audio(item))
        track = run(samples if degrade is None else degrade(samples), diarizer, encoder)
        predictions.append(keep_speech(item, track, samples))
    return predictions


def thin_out(utterances: Sequence[Utterance], most: int | None, seed: int = 0) -> list[Utterance]:
    """At most `most` random utterances of each corpus in their order; None: all."""
    chosen: list[Utterance] = []
    for corpus in dict.fromkeys(item.corpus for item in utterances):
        group = [item for item in utterances if item.corpus == corpus]
        drawn = np.random.default_rng(seed).permutation(len(group))[:most]
        chosen += [group[k] for k in np.sort(drawn)]
    return chosen


def check_known(utterances: Sequence[Utterance], diarizer: Diarizer) -> None:
    """Check that a diarizer has every emotion of the clips as a label. Raises DataError if it does not."""
    labels = diarizer.config.labels
    unknown = sorted({item.emotion for item in utterances} - set(labels))
    if unknown:
        raise DataError(
            f"the diarizer does not know {unknown[0]!r}, only {', '.join(labels)}. Remove its clips from the manifest"
        )


def keep_speech(item: Utterance, track: EmotionTrack, samples: Samples) -> ClipPrediction:
    """The prediction of a clip's track at the frames where its samples (N,) hold speech."""
    spoken = detect_speech(loudness(samples))
    truth = track.labels.index(item.emotion)
    return ClipPrediction(item, track.posterior[spoken], track.intensity[spoken], truth)


def clip_metrics(clips: Sequence[ClipPrediction], labels: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Metrics of a group of clips, by frame and by clip, over the classes that occur in the group."""
    frames = np.concatenate([clip.posterior for clip in clips])
    truth = np.concatenate([np.full(len(clip.posterior), clip.truth) for clip in clips])
    by_frame = measure.classify(truth, frames.argmax(1), labels)
    means = np.stack([clip.posterior.mean(0) for clip in clips])
    by_clip = measure.classify(np.array([clip.truth for clip in clips]), means.argmax(1), labels)
    draws = draw_counts(bootstrap_groups(clips), seed)
    rates = false_rates(draws @ frame_counts(clips, len(labels)), len(labels))
    clip_rates = false_rates(draws @ clip_counts(clips, len(labels)), len(labels))
    return {
        "clips": len(clips),
        "speakers": len({clip.utterance.speaker for clip in clips}),
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
        "contradictions": contradictions(
            frames, np.concatenate([clip.intensity for clip in clips]), labels.index("neutral")
        ),
        "intensity": intensity_metrics(clips),
        "intervals": {
            "uar": interval(rates.uar),
            "clip_uar": interval(clip_rates.uar),
            "calibration_error": interval(calibration_errors(clips, draws)),
            "false_positive": {labels[k]: interval(rates.positive[:, k]) for k in np.unique(truth)},
            "false_negative": {labels[k]: interval(rates.negative[:, k]) for k in np.unique(truth)},
        },
    }


def uar_interval(clips: Sequence[ClipPrediction], labels: Sequence[str], seed: int = 0) -> Figure:
    """Unweighted average recall of the frames with its interval."""
    draws = draw_counts(bootstrap_groups(clips), seed)
    return interval(false_rates(draws @ frame_counts(clips, len(labels)), len(labels)).uar)


def contradictions(posterior: NDArray[np.float32], intensity: NDArray[np.float32], neutral: int) -> float:
    """Share of the frames with a posterior (T, C) of an emotion above `SURE` and an intensity (T,) below `FAINT`."""
    emotional = np.delete(posterior, neutral, axis=1).max(1)
    return float(np.mean((emotional > SURE) & (intensity < FAINT)))


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


def bootstrap_groups(clips: Sequence[ClipPrediction]) -> list[str]:
    """Names (N,) of the units that the bootstrap draws: the speakers, or the clips if there is one speaker."""
    speakers = [clip.utterance.speaker for clip in clips]
    return speakers if len({*speakers}) > 1 else [clip.utterance.id for clip in clips]


def frame_counts(clips: Sequence[ClipPrediction], size: int) -> NDArray[np.float64]:
    """Frames of each clip by predicted label, in the row of its true label: (N, size * size)."""
    counts = np.zeros((len(clips), size, size))
    for number, clip in enumerate(clips):
        counts[number, clip.truth] = np.bincount(clip.posterior.argmax(1), minlength=size)
    return counts.reshape(len(clips), -1)


def clip_counts(clips: Sequence[ClipPrediction], size: int) -> NDArray[np.float64]:
    """The same with one count for each clip, at the label of its mean posterior."""
    counts = np.zeros((len(clips), size, size))
    for number, clip in enumerate(clips):
        counts[number, clip.truth, clip.posterior.mean(0).argmax()] = 1
    return counts.reshape(len(clips), -1)


@dataclass(frozen=True)
class Rates:
    """Rates of R resamples; NaN for a class that a resample lacks."""

    positive: NDArray[np.float64]  # (R, C) frames of other classes that are called this one, as a share of them
    negative: NDArray[np.float64]  # (R, C) frames of this class that are called another, as a share of them

    @property
    def uar(self) -> NDArray[np.float64]:
        """Unweighted average recall (R,)."""
        return mean_of_known(1 - self.negative)


def false_rates(counts: NDArray[np.float64], size: int) -> Rates:
    """False-positive and false-negative rates of confusion counts (R, size * size) with true classes in rows."""
    confusion = counts.reshape(-1, size, size)
    hits = np.einsum("rcc->rc", confusion)
    true, predicted, total = confusion.sum(2), confusion.sum(1), confusion.sum((1, 2))[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        positive = np.where(total > true, (predicted - hits) / (total - true), np.nan)
        return Rates(positive, (true - hits) / true)


def mean_of_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean (R,) of the values (R, C) that are not NaN; NaN where none is known."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(1) / known.sum(1)


def calibration_errors(clips: Sequence[ClipPrediction], draws: Draws) -> NDArray[np.float64]:
    """Expected calibration error (R,) of resamples with counts `draws` (R, N) of the clips."""
    surplus, frames = np.zeros((len(clips), BINS)), np.zeros(len(clips))
    for number, clip in enumerate(clips):
        confidence = clip.posterior.max(1)
        place = confidence_bin(confidence, BINS)
        correct = clip.posterior.argmax(1) == clip.truth
        surplus[number] = np.bincount(place, confidence - correct, minlength=BINS)
        frames[number] = len(confidence)
    return np.abs(draws @ surplus).sum(1) / (draws @ frames)


def confidence_bin(confidence: NDArray[np.floating], bins: int) -> NDArray[np.int64]:
    """Number (N,) of the bin of each confidence (N,) of 0 to 1; a bin holds its upper limit."""
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def reliability(clips: Sequence[ClipPrediction], bins: int = 10) -> list[dict[str, float]]:
    """Share of the frames, mean confidence and accuracy in each bin of confidence that has frames."""
    confidence = np.concatenate([clip.posterior.max(1) for clip in clips])
    correct = np.concatenate([clip.posterior.argmax(1) == clip.truth for clip in clips])
    place = confidence_bin(confidence, bins)
    return [
        {
            "share": float(inside.mean()),
            "confidence": float(confidence[inside].mean()),
            "accuracy": float(correct[inside].mean()),
        }
        for inside in (place == number for number in range(bins))
        if inside.any()
    ]


def age_band(age: int) -> str:
    """The band of an age in years: "under 30", "30 to 44" ..."""
    edges = (0, *AGE_BANDS)
    place = sum(age >= edge for edge in edges) - 1
    if place == 0:
        return f"under {AGE_BANDS[0]}"
    return f"{edges[place]} to {AGE_BANDS[place] - 1}" if place < len(AGE_BANDS) else f"{edges[-1]} and over"


def group_names(item: Utterance) -> dict[str, str]:
    """Names of the groups that a clip belongs to, by what its group is compared with.

    Language, channel, sex and age are compared over all corpora, and sex, age and speaker within each corpus.
    """
    known = {"sex": item.gender, "age": "" if item.age is None else age_band(item.age)}
    shared = {"language": item.language, "channel": item.channel, **known}
    names = {kind: f"{EVERYONE}/{value}" for kind, value in shared.items() if value}
    names |= {"corpus": item.corpus}
    within = {**known, "speaker": item.speaker}
    return names | {f"{kind} in {item.corpus}": f"{item.corpus}/{value}" for kind, value in within.items() if value}


def group_clips(clips: Sequence[ClipPrediction]) -> dict[str, list[ClipPrediction]]:
    """Clips by group: language ("all/en"), corpus ("ravdess"), sex ("ravdess/female"), speaker and so on."""
    groups: dict[str, list[ClipPrediction]] = defaultdict(list)
    for clip in clips:
        for name in dict.fromkeys(group_names(clip.utterance).values()):
            groups[name].append(clip)
    return dict(sorted(groups.items()))


def largest_gaps(clips: Sequence[ClipPrediction], labels: Sequence[str], seed: int = 0) -> list[dict[str, Any]]:
    """Differences between the worst and the best served group of each kind, the largest first.

    A gap is that of the UAR, or of the false-positive or false-negative rate of an emotion. Its interval is
    bootstrapped with these two groups, and over the clips of single speakers. Because the two are chosen by their
    figures, a gap is never negative and overestimates that of groups chosen in advance.
    """
    kinds: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        for kind, name in group_names(clip.utterance).items():
            kinds[kind].add(name)
    groups = {name: group for name, group in group_clips(clips).items() if len(group) >= SMALLEST_GROUP}
    rates = {}
    for number, (name, group) in enumerate(groups.items()):
        draws = draw_counts(bootstrap_groups(group), (seed, number))  # independent of the other groups
        rates[name] = false_rates(draws @ frame_counts(group, len(labels)), len(labels))
        clips_of = np.bincount([clip.truth for clip in group], minlength=len(labels))
        rates[name].negative[:, clips_of < SMALLEST_CLASS] = np.nan
    gaps = []
    for kind, names in kinds.items():
        compared = {name: rates[name] for name in sorted(names) if name in rates}
        if len(compared) > 1:
            gaps += [_gap(kind, figure, values) for figure, values in _compared_figures(compared, labels).items()]
    known = [gap for gap in gaps if gap["gap"]["value"] is not None]
    return sorted(known, key=lambda gap: -gap["gap"]["value"])


def _compared_figures(rates: Mapping[str, Rates], labels: Sequence[str]) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Resampled errors (R,) of groups by the name of the figure; larger is worse."""
    figures = {"UAR": {name: 1 - rate.uar for name, rate in rates.items()}}
    for k, label in enumerate(labels):
        known = {name: rate for name, rate in rates.items() if np.isfinite(rate.negative[0, k])}
        if len(known) > 1:
            figures[f"false positives of {label}"] = {name: rate.positive[:, k] for name, rate in known.items()}
            figures[f"false negatives of {label}"] = {name: rate.negative[:, k] for name, rate in known.items()}
    return figures


def _gap(kind: str, figure: str, errors: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    ordered = sorted(errors, key=lambda name: errors[name][0])
    worst, best = ordered[-1], ordered[0]
    shown = {name: 1 - values if figure == "UAR" else values for name, values in errors.items()}
    gap: Figure = interval(errors[worst] - errors[best])
    return {
        "kind": kind,
        "figure": figure,
        "worst": worst,
        "worst_value": float(shown[worst][0]),
        "best": best,
        "best_value": float(shown[best][0]),
        "gap": gap,
    }
