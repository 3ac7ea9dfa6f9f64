"""How a talker moves on unheard speech, without a recorded truth: `sedtalker evaluate motion MODEL STORE`.

Runs the model over the test clips of a motion store (`sedtalker.data.rig_store`): closures and timing by phone
where a clip was aligned, the gap beside the tracked one where a clip was measured, and the emotion read back from the
face. `NORMS` holds what measured faces do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sedtalker.animation import Animation, load_animation
from sedtalker.audio import load_audio
from sedtalker.curves import resample
from sedtalker.data.alignment import Aligner
from sedtalker.data.rig_store import RigClip, read_arrays, read_features, read_rig_manifest
from sedtalker.data.speech_corpora.readers import CREMAD_SENTENCES
from sedtalker.emotion.track import EmotionTrack, constant_track
from sedtalker.emotion.vad import SILENCE_LEVEL, detect_speech, loudness
from sedtalker.errors import DataError
from sedtalker.evaluation import lips
from sedtalker.evaluation.lips import ClosureFigures
from sedtalker.face.action_units import classify_emotion
from sedtalker.face.arkit import ARKIT_NAMES, JAW_OPEN
from sedtalker.face.assets import load_face
from sedtalker.face.rig import Face
from sedtalker.labels import LABELS, NEUTRAL
from sedtalker.phones import SILENCE, Phone, read_phones
from sedtalker.speech import FRAME_RATE
from sedtalker.synthesis.rig_clips import TEST_SENTENCES
from sedtalker.talker.model import TalkerModel, load_talker_model

Float = NDArray[np.float32]

LEVELS = (1 / 3, 2 / 3, 1.0)  # intensities at which each emotion is tried
FELT = 0.3  # intensity from which an emotion has to show
UNKNOWN = "?"  # name of a phone of which only the time is known
PAUSE = 0.2  # seconds; a shorter gap in the sound may be a stop
SHORTEST = 25  # frames of an animation
MEASURED = ("grid", "grid-voices", "facegood", "facegood-voices")

NORMS: dict[str, str] = {
    "closure_recall": ">= 0.95; GRID's man 0.985",
    "false_contact": "<= 0.20; GRID's man 0.18",
    "labiodental_contact": ">= 0.80",
    "closure_seconds": "0.060 to 0.150; GRID's man 0.098",
    "apex_error_seconds": "<= 0.020",
    "open_vowel_over_closure": ">= 3",
    "audio_lip_offset_seconds": "0 to 0.034; GRID 0.011, FACEGOOD 0.024",
    "first_movement_before_sound_seconds": "0 to 0.100; FACEGOOD 0.040",
    "rest_after_sound_seconds": "<= 0.125; FACEGOOD 0.040",
    "spectral_edge_hz": "4 to 6; GRID 5.0",
    "closing_at_closures_p95_per_s": "10 to 24; GRID 15.7",
    "opening_at_closures_p95_per_s": "slower than closing; GRID 11.5",
    "jaw_open_median": "GRID's man 0.20, FACEGOOD's woman 0.18",
    "jaw_open_p95": "GRID's man 0.40, FACEGOOD's woman 0.45",
    "jaw_open_p99": "GRID's man 0.47, FACEGOOD's woman 0.56",
    "jaw_speed_p95_per_s": "under 5",
    "jaw_speed_most_per_s": "under 12",
    "silence_gap_mm_median": "<= 1",
    "silence_gap_mm_p95": "<= 1",
    "gap_correlation_median": ">= 0.93 on GRID's sentences",
    "gap_spread_over_truth_median": "0.8 to 1.2",
}
"""What to aim at, and what measured faces do: GRID's s1 (one man) and FACEGOOD (one woman)."""


@dataclass(frozen=True)
class Speaker:
    """A model with its face, ready to speak features."""

    model: TalkerModel
    face: Face

    @torch.inference_mode()
    def weights(self, features: torch.Tensor, posterior: Float, intensity: Float) -> Float:
        """ARKit weights (T, 52) for features (T, L, D), a posterior (T, C) over the default labels and intensity (T,).

        Raises:
            TrackError: the posterior has an emotion that the model does not know.
        """
        track = EmotionTrack(posterior, intensity, len(intensity) / FRAME_RATE).with_labels(self.model.config.labels)
        moved = self.model(
            features[None], torch.from_numpy(track.posterior)[None], torch.from_numpy(track.intensity)[None]
        )
        return moved[0].clamp(0, 1).numpy()

    def feeling(self, features: torch.Tensor, label: str, intensity: float) -> Float:
        """The same with one emotion throughout."""
        return self.weights(features, *constant_track(label, intensity, len(features)))

    def gap(self, weights: Float) -> Float:
        """Lip gap (T,) in metres."""
        return lips.lip_gap_of_weights(weights, self.face).astype(np.float32)


@dataclass(frozen=True)
class TrackedClip:
    """A measured test clip."""

    features: torch.Tensor  # (T, L, D)
    truth: Float  # (T, 52), the tracked weights
    known: NDArray[np.bool_]  # (T,), where they are trusted: in a sentence, not before and after it
    phones: tuple[Phone, ...]  # empty where the clip was not aligned
    decibels: Float  # (T,)


def spoken_figures(
    speaker: Speaker, clips: Sequence[tuple[RigClip, torch.Tensor, tuple[Phone, ...]]]
) -> dict[str, float]:
    """Closures, timing, speeds and silence of the neutral performance of aligned clips."""
    said = []
    for clip, features, phones in clips:
        weights = speaker.feeling(features, LABELS[NEUTRAL], 0.0)
        said.append(ClipMotion(weights, speaker.gap(weights), phones, loudness(load_audio(clip.audio))))
    return {"clips": len(clips), **mouth_figures(said), **surface_figures(said, speaker.face)}


@dataclass(frozen=True)
class ClipMotion:
    """A neutral performance of a clip at 50 Hz, with what was said and how loud."""

    weights: Float  # (T, 52)
    gap: Float  # (T,), metres
    phones: tuple[Phone, ...]
    decibels: Float  # (T,)


def mouth_figures(said: Sequence[ClipMotion]) -> dict[str, float]:
    """What the lip gaps and the mouth's weights of several clips say."""
    rate, every = FRAME_RATE, [(one.gap, one.phones) for one in said]
    closures = lips.pooled([lips.closure_figures(gap, phones, rate) for gap, phones in every])
    offsets = [lips.audio_lip_offset(one.gap, one.decibels, rate) for one in said]
    overall = [lips.speeds(gap, rate) for gap, _ in every]
    at_closures = [lips.speeds_at_closures(gap, phones, rate) for gap, phones in every]
    closing, opening = ([speed for pair in at_closures for speed in pair[side]] for side in (0, 1))
    vowels = [lips.opening_by_vowels(gap, phones, rate) for gap, phones in every]
    silences = [lips.silence_opening(one.gap, one.phones, one.decibels, rate) * 1000 for one in said]
    spans = [gap[lips.speech_span(phones, len(gap), rate)] for gap, phones in every]
    spoken = [lips.spoken_frames(one.phones, len(one.gap), rate) for one in said]
    jaw = np.concatenate([one.weights[frames, JAW_OPEN] for one, frames in zip(said, spoken, strict=True)])
    jaw_speed = np.concatenate(
        [
            np.abs(np.diff(one.weights[:, JAW_OPEN]))[frames[1:] & frames[:-1]] * rate
            for one, frames in zip(said, spoken, strict=True)
        ]
    )
    return {
        **closures.summary(),
        **{
            f"{kind}_vowels_over_p95": _percentile([peak for clip in vowels for peak in clip[kind]], 50)
            for kind in lips.VOWELS
        },
        "rounding_ratio": _percentile([lips.rounding(one.weights, one.phones, rate) for one in said], 50),
        "audio_lip_offset_seconds": _percentile(offsets, 50),
        **_sound_figures(said),
        "gap_p95_mm": float(np.median([np.percentile(gap, 95) for gap, _ in every])) * 1000,
        "spectral_edge_hz": lips.spectral_edge(spans, rate),
        "opening_speed_p95_per_s": float(np.median([pair[0] for pair in overall])),
        "closing_speed_p95_per_s": float(np.median([pair[1] for pair in overall])),
        "closing_at_closures_p95_per_s": _percentile(closing, 50),
        "opening_at_closures_p95_per_s": _percentile(opening, 50),
        "jaw_open_median": _percentile(jaw, 50),
        "jaw_open_p95": _percentile(jaw, 95),
        "jaw_open_p99": _percentile(jaw, 99),
        "jaw_speed_p95_per_s": _percentile(jaw_speed, 95),
        "jaw_speed_most_per_s": _percentile(jaw_speed, 100),
        "silence_gap_mm_median": _percentile(silences, 50),
        "silence_gap_mm_p95": _percentile(silences, 95),
        "clips_with_silence": int(np.isfinite(silences).sum()),
    }


def _sound_figures(said: Sequence[ClipMotion]) -> dict[str, float]:
    """When mouths begin to move before sounds that follow a pause, and rest after those before one."""
    around = [lips.movement_around_sound(one.weights, one.decibels, FRAME_RATE) for one in said]
    leads, rests = ([seconds for pair in around for seconds in pair[side]] for side in (0, 1))
    return {
        "first_movement_before_sound_seconds": _percentile(leads, 50),
        "rest_after_sound_seconds": _percentile(rests, 50),
        "sounds_after_a_pause": len(leads),
    }


def surface_figures(said: Sequence[ClipMotion], face: Face) -> dict[str, float]:
    """What the posed vertices of several clips say: trembling of the lips, and motion of the upper face."""
    mouth, upper = face.masks["lips"], face.masks["upper_face"]
    posed = [face.pose(one.weights) for one in said]
    return {
        "lip_jerk_m_per_s3": float(np.median([lips.jitter(vertices[:, mouth], FRAME_RATE) for vertices in posed])),
        "upper_face_deviation_mm": float(np.median([lips.deviation(vertices[:, upper]) for vertices in posed])) * 1000,
    }


def emotion_figures(
    speaker: Speaker, clips: Sequence[tuple[RigClip, torch.Tensor, tuple[Phone, ...]]]
) -> dict[str, Any]:
    """Emotion read back, displacement by intensity, and closures and timing under each emotion."""
    read, shown, closures, shifts = {}, {}, {}, []
    for label in LABELS[:NEUTRAL] + LABELS[NEUTRAL + 1 :]:
        agree, moved = [], np.zeros(len(LEVELS))
        figures = []
        for _, features, phones in clips:
            rest = speaker.feeling(features, LABELS[NEUTRAL], 0.0)
            for level, intensity in enumerate(LEVELS):
                weights = speaker.feeling(features, label, intensity)
                distance = speaker.face.pose(weights[::5]) - speaker.face.pose(rest[::5])
                moved[level] += float(np.linalg.norm(distance, axis=-1).mean()) / len(clips)
                if intensity > FELT:
                    agree.append(classify_emotion(weights) == LABELS.index(label))
            gap, still = speaker.gap(weights), speaker.gap(rest)
            figures.append(lips.closure_figures(gap, phones, FRAME_RATE))
            shifts.append(_lag(gap, still))
        read[label] = float(np.concatenate(agree).mean())
        shown[label] = [round(value * 1000, 3) for value in moved]
        closures[label] = lips.pooled(figures).summary()["closure_recall"]
    return {
        "read_back": read,
        "read_back_mean": float(np.mean(list(read.values()))),
        "displacement_mm_at_1/3_2/3_1": shown,
        "closure_recall_at_intensity_1": closures,
        "largest_shift_by_emotion_seconds": float(np.max(np.abs(shifts))),
    }


def tracked_figures(speaker: Speaker, clips: Sequence[TrackedClip]) -> dict[str, Any]:
    """The gap beside the tracked one, and what both mouths do around the sound and, of aligned clips, in speech."""
    correlations, spreads, made, real = [], [], [], []
    for clip in clips:
        weights = speaker.feeling(clip.features, LABELS[NEUTRAL], 0.0)
        gap, truth = speaker.gap(weights), speaker.gap(clip.truth)
        known, tracked = gap[clip.known], truth[clip.known]
        correlations.append(float(np.corrcoef(known, tracked)[0, 1]))
        spreads.append(float(np.ptp(np.percentile(known, [5, 95])) / np.ptp(np.percentile(tracked, [5, 95]))))
        made.append(ClipMotion(weights, gap, clip.phones, clip.decibels))
        real.append(ClipMotion(clip.truth, truth, clip.phones, clip.decibels))
    return {
        "clips": len(clips),
        "gap_correlation_median": float(np.median(correlations)),
        "gap_spread_over_truth_median": float(np.median(spreads)),
        "made": _face_figures(made),
        "tracked": _face_figures(real),
    }


def _face_figures(said: Sequence[ClipMotion]) -> dict[str, float]:
    """Movement around the sound; and all that the mouth does in the clips that were aligned."""
    aligned = [one for one in said if one.phones]
    return (mouth_figures(aligned) if aligned else {}) | _sound_figures(said)


def quiet_figures(speaker: Speaker, clips: Sequence[tuple[RigClip, torch.Tensor]]) -> dict[str, float]:
    """How far the lips part, in mm, while there is sound but nobody speaks: the worst by kind of sound."""
    worst: dict[str, float] = {}
    for clip, features in clips:
        gap = speaker.gap(speaker.feeling(features, LABELS[NEUTRAL], 0.0))
        kind = clip.id.rsplit("_", 1)[-1]
        worst[kind] = max(worst.get(kind, 0.0), float(gap.max()) * 1000)
    return worst


def _percentile(values: Sequence[float] | Float, percent: float) -> float:
    """Of the values that are known; nan where none is."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.percentile(known, percent)) if known else float("nan")


def _lag(gap: Float, other: Float) -> float:
    return lips.audio_lip_offset(gap, other, FRAME_RATE)


def evaluate(model: Path, store: Path, tables: Sequence[Path], most: int = 60, split: str = "test") -> dict[str, Any]:
    """Figures by source of a model's clips of a split, at most `most` of each source, spread over its clips."""
    speaker = Speaker(load_talker_model(model).eval(), load_face("default"))
    phones = {name.replace("/", "_"): found for table in tables for name, found in read_phones(table).items()}
    clips = [clip for clip in read_rig_manifest(store).clips if clip.split == split]
    report: dict[str, Any] = {}
    spoken = []
    for source in sorted({_group(clip) for clip in clips}):
        chosen = [clip for clip in clips if _group(clip) == source]
        chosen = chosen[:: max(1, len(chosen) // most)][:most]
        if source == "foreign":
            report[source] = quiet_figures(speaker, [(clip, _features(store, clip)) for clip in chosen])
        elif source in MEASURED:
            tracked = [_tracked(store, clip, phones.get(clip.id, ())) for clip in chosen]
            report[source] = tracked_figures(speaker, tracked)
        elif aligned := [(clip, _features(store, clip), phones[clip.id]) for clip in chosen if clip.id in phones]:
            report[source] = spoken_figures(speaker, aligned)
            spoken += aligned[:: max(1, len(aligned) // 12)]
    if spoken:
        report["emotion"] = emotion_figures(speaker, spoken)
    return report


def _features(store: Path, clip: RigClip) -> torch.Tensor:
    return read_features(store, clip.id).float()


def _tracked(store: Path, clip: RigClip, phones: tuple[Phone, ...]) -> TrackedClip:
    arrays = read_arrays(store, clip.id)
    known = arrays.loss_weight.max(axis=1) > 0
    truth = arrays.weights.astype(np.float32)
    return TrackedClip(_features(store, clip), truth, known, phones, loudness(load_audio(clip.audio)))


def _group(clip: RigClip) -> str:
    """The source, and apart from it the sentences that nobody said in training."""
    unseen = any(f"_{code}_" in clip.id for code, text in CREMAD_SENTENCES.items() if text in TEST_SENTENCES)
    return f"{clip.source}, unseen sentences" if unseen else clip.source


def format_motion(report: dict[str, Any]) -> str:
    """A report's figures by source, a line each, with the norm where there is one."""
    lines = []
    for source, figures in report.items():
        lines.append(source)
        for name, value in figures.items():
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            lines.append(f"  {name:38} {shown:12}" + (f"  ({NORMS[name]})" if name in NORMS else ""))
    return "\n".join(lines)


def animation_figures(path: Path, phones: Sequence[Phone] = ()) -> dict[str, Any]:
    """Figures of one animation, those of phones only where they are known.

    Args:
        path: an animation's .npz.
        phones: what is said, in seconds of the sound that the animation names.

    Raises:
        DataError: no blendshape weights in ARKit's order, no face that they move, no sound, or hardly a frame.
    """
    animation, audio = _judged(path)
    return _figures(animation, path, load_audio(audio), phones)


def evaluate_animations(
    paths: Sequence[Path], known: Mapping[str, Sequence[Phone]] | None = None, text: str | None = None
) -> dict[str, dict[str, Any]]:
    """Figures by file; `known` holds phones by the name of a file or of its sound, `text` is said in all of them."""
    aligner = Aligner() if text else None
    report = {}
    for path in paths:
        animation, audio = _judged(path)
        samples = load_audio(audio)
        phones: Sequence[Phone] = ()
        if aligner and text:
            phones = _found(aligner.align(samples, text), audio)
        elif known:
            phones = _listed(known, path, audio)
        report[str(path)] = _figures(animation, path, samples, phones)
    return report


def _judged(path: Path) -> tuple[Animation, Path]:
    """An animation whose lips can be judged, and its sound."""
    animation = load_animation(path)
    if animation.blendshapes is None or animation.blendshape_names != ARKIT_NAMES:
        raise DataError(f"no ARKit weights to measure: {path}. Compare meshes with: sedtalker evaluate talker")
    face = animation.face
    if face.blendshapes is None or face.lip_pairs is None:
        raise DataError(f"no lips to measure on the face {face.name}: {path}. Animate a face of the default topology")
    return animation, _sound_of(animation, path)


def _figures(animation: Animation, path: Path, samples: Float, phones: Sequence[Phone]) -> dict[str, Any]:
    """`animation_figures` of what was read already: the animation of `path`, and its sound (N,) at 16 kHz."""
    assert animation.blendshapes is not None  # or it would not be judged
    face = animation.face
    decibels = loudness(samples)
    weights = resample(animation.blendshapes, animation.fps, FRAME_RATE)
    frames = min(len(weights), len(decibels))
    if frames < SHORTEST:
        raise DataError(f"too short to measure: {path}. Animate a longer recording")
    weights, decibels = weights[:frames], decibels[:frames]
    gap = lips.lip_gap_of_weights(weights, face).astype(np.float32)
    said = ClipMotion(weights, gap, tuple(phones) or _sounding(decibels), decibels)
    figures = mouth_figures([said]) | surface_figures([said], face)
    figures["emotion_agreement"] = _agreement(animation.blendshapes, animation)
    phone_metrics = () if phones else ClosureFigures.nothing().summary()
    return {name: value for name, value in figures.items() if name not in phone_metrics and np.isfinite(value)}


def _found(phones: tuple[Phone, ...] | None, audio: Path) -> tuple[Phone, ...]:
    if phones is None:
        raise DataError(f"the text is not found in {audio}. Give the spoken words, or remove --text")
    return phones


def _listed(known: Mapping[str, Sequence[Phone]], path: Path, audio: Path) -> Sequence[Phone]:
    for name in (path.stem, audio.stem):
        if name in known:
            return known[name]
    raise DataError(
        f"no phones of {path.stem} or {audio.stem} in the table. Use the file name in its rows, or use --text"
    )


def _sound_of(animation: Animation, path: Path) -> Path:
    sound = animation.meta.get("audio")
    if sound is None or not Path(sound).is_file():
        raise DataError(f"the sound of {path} was not found: {sound}. Animate it again, or restore the recording")
    return Path(sound)


def _sounding(decibels: Float) -> tuple[Phone, ...]:
    """Sounds and silences, where that is all that is known."""
    phones, frame = [], 0
    for sounds, run in groupby(detect_speech(decibels, bridge=PAUSE) & (decibels.max() > SILENCE_LEVEL)):
        start, frame = frame, frame + len(list(run))
        phones.append(Phone("", UNKNOWN if sounds else SILENCE, start / FRAME_RATE, frame / FRAME_RATE))
    return tuple(phones)


def _agreement(weights: Float, animation: Animation) -> float:
    """Share of the felt frames whose face shows what the track says; nan where nothing is felt."""
    posterior, intensity = animation.emotion.with_labels(LABELS).at_rate(animation.fps, len(weights))
    heard = posterior.argmax(axis=1)
    felt = (intensity > FELT) & (heard != NEUTRAL)
    return float((classify_emotion(weights[felt]) == heard[felt]).mean()) if felt.any() else float("nan")
