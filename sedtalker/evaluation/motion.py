"""Evaluation of motion without true motion: of a talker on a rig store, or of finished animations.

`sedtalker evaluate motion MODEL STORE` runs a model over the test clips of a store (`sedtalker.data.rig_store`):
closures and timing by phone of aligned clips, the lip gap against that of tracked clips, and the emotion that the face
shows. `sedtalker evaluate motion FILE.npz...` measures the weights of animations and their audio; phones come from a
table or by alignment of a text. `NORMS` has the values of measured faces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sedtalker.animation import Animation
from sedtalker.audio import load_audio
from sedtalker.curves import resample
from sedtalker.data.alignment import Aligner
from sedtalker.data.rig_store import (
    RigClip,
    features_folder,
    read_arrays,
    read_features,
    read_rig_manifest,
    require_features,
)
from sedtalker.data.speech_corpora.readers import CREMAD_SENTENCES
from sedtalker.emotion.track import EmotionTrack, constant_track
from sedtalker.emotion.vad import SILENCE_LEVEL, detect_speech, loudness
from sedtalker.errors import DataError
from sedtalker.evaluation import lips, mouth_shape
from sedtalker.evaluation.lips import ClosureFigures
from sedtalker.evaluation.mouth_shape import Interval
from sedtalker.evaluation.voice_groups import VoiceClip, median_pitch, voice_figures
from sedtalker.export.sound import files_of_recording
from sedtalker.face.arkit import ARKIT_NAMES, JAW_OPEN
from sedtalker.face.assets import load_face
from sedtalker.face.rig import Face
from sedtalker.labels import LABELS, NEUTRAL
from sedtalker.mel import FRAME_RATE
from sedtalker.phones import SILENCE, Phone, read_phones
from sedtalker.speech import StreamingEncoder, WindowedEncoder, load_encoder
from sedtalker.streaming_encoder import LOOK_AHEAD
from sedtalker.synthesis.rig_clips import TEST_SENTENCES
from sedtalker.talker.model import TalkerModel, load_talker_model

Float = NDArray[np.float32]

LEVELS = (1 / 3, 2 / 3, 1.0)  # intensities at which each emotion is measured
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
    **mouth_shape.SHAPE_NORMS,
}
"""Target ranges, and values of measured faces: GRID's s1 (one man) and FACEGOOD (one woman)."""


@dataclass(frozen=True)
class TalkerRunner:
    """A talker and the face that it moves."""

    model: TalkerModel
    face: Face
    live: bool = False  # as in a stream, without the rest of the recording

    @torch.inference_mode()
    def weights(self, features: torch.Tensor, posterior: Float, intensity: Float) -> Float:
        """ARKit weights (T, 52) for features (T, L, D), a posterior (T, C) over the default labels and intensity (T,).

        Raises:
            TrackError: the posterior has an emotion that the model does not know.
        """
        track = EmotionTrack(posterior, intensity, len(intensity) / FRAME_RATE).with_labels(self.model.config.labels)
        inputs = features[None], torch.from_numpy(track.posterior)[None], torch.from_numpy(track.intensity)[None]
        if self.live:
            output, state = self.model.step(*inputs)
            output = torch.cat([output, self.model.finish(state)], dim=1)
        else:
            output = self.model(*inputs)
        return output[0].clamp(0, 1).numpy()

    def with_emotion(self, features: torch.Tensor, label: str, intensity: float) -> Float:
        """ARKit weights (T, 52) for features (T, L, D) with a constant emotion."""
        return self.weights(features, *constant_track(label, intensity, len(features)))

    def neutral(self, features: torch.Tensor) -> Float:
        """ARKit weights (T, 52) for features (T, L, D) without emotion."""
        return self.with_emotion(features, LABELS[NEUTRAL], 0.0)

    def gap(self, weights: Float) -> Float:
        """Lip gap (T,) in metres."""
        return lips.lip_gap_of_weights(weights, self.face).astype(np.float32)


@dataclass(frozen=True)
class TrackedClip:
    """A test clip of a tracked face."""

    features: torch.Tensor  # (T, L, D)
    truth: Float  # (T, 52), the tracked weights
    known: NDArray[np.bool_]  # (T,), frames with valid tracking
    phones: tuple[Phone, ...]  # empty if the clip was not aligned
    decibels: Float  # (T,)


@dataclass(frozen=True)
class ClipMotion:
    """Motion of a clip at 50 Hz with its phones and loudness."""

    weights: Float  # (T, 52)
    gap: Float  # (T,), metres
    phones: tuple[Phone, ...]
    decibels: Float  # (T,)

    @cached_property
    def closures(self) -> ClosureFigures:
        """Closures of the lips by the phones."""
        return lips.closure_metrics(self.gap, self.phones, FRAME_RATE)


def neutral_motion(
    runner: TalkerRunner, clip: RigClip, features: torch.Tensor, phones: tuple[Phone, ...]
) -> ClipMotion:
    """Motion of an aligned clip with the neutral emotion, for features (T, L, D)."""
    weights = runner.neutral(features)
    return ClipMotion(weights, runner.gap(weights), phones, loudness(load_audio(clip.audio)))


def mouth_metrics(motions: Sequence[ClipMotion]) -> dict[str, float]:
    """Metrics of the lip gaps and mouth weights of several clips."""
    rate, every = FRAME_RATE, [(one.gap, one.phones) for one in motions]
    closures = lips.pool([one.closures for one in motions])
    offsets = [lips.audio_lip_offset(one.gap, one.decibels, rate) for one in motions]
    overall = [lips.opening_and_closing_speed(gap, rate) for gap, _ in every]
    at_closures = [lips.speeds_at_closures(gap, phones, rate) for gap, phones in every]
    closing, opening = ([speed for pair in at_closures for speed in pair[side]] for side in (0, 1))
    vowels = [lips.vowel_openings(gap, phones, rate) for gap, phones in every]
    silences = [lips.silence_opening(one.gap, one.phones, one.decibels, rate) * 1000 for one in motions]
    spans = [gap[lips.speech_span(phones, len(gap), rate)] for gap, phones in every]
    spoken = [lips.speech_frames(one.phones, len(one.gap), rate) for one in motions]
    jaw = np.concatenate([one.weights[frames, JAW_OPEN] for one, frames in zip(motions, spoken, strict=True)])
    jaw_speed = np.concatenate(
        [
            np.abs(np.diff(one.weights[:, JAW_OPEN]))[frames[1:] & frames[:-1]] * rate
            for one, frames in zip(motions, spoken, strict=True)
        ]
    )
    return {
        **closures.summary(),
        **{
            f"{kind}_vowels_over_p95": _percentile([peak for clip in vowels for peak in clip[kind]], 50)
            for kind in lips.VOWELS
        },
        "rounding_ratio": _percentile([lips.rounding(one.weights, one.phones, rate) for one in motions], 50),
        "audio_lip_offset_seconds": _percentile(offsets, 50),
        **_pause_metrics(motions),
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


def _pause_metrics(motions: Sequence[ClipMotion]) -> dict[str, float]:
    """Start of motion before sounds after a pause, and time to rest after sounds before a pause."""
    around = [lips.movement_around_sound(one.weights, one.decibels, FRAME_RATE) for one in motions]
    leads, rests = ([seconds for pair in around for seconds in pair[side]] for side in (0, 1))
    return {
        "first_movement_before_sound_seconds": _percentile(leads, 50),
        "rest_after_sound_seconds": _percentile(rests, 50),
        "sounds_after_a_pause": len(leads),
    }


def surface_metrics(motions: Sequence[ClipMotion], face: Face) -> dict[str, float]:
    """Metrics of the posed vertices of several clips: jerk of the lips, and motion of the upper face."""
    mouth, upper = face.masks["lips"], face.masks["upper_face"]
    posed = [face.pose(one.weights) for one in motions]
    return {
        "lip_jerk_m_per_s3": float(np.median([lips.jitter(vertices[:, mouth], FRAME_RATE) for vertices in posed])),
        "upper_face_deviation_mm": float(np.median([lips.deviation(vertices[:, upper]) for vertices in posed])) * 1000,
    }


def emotion_metrics(
    runner: TalkerRunner, clips: Sequence[tuple[RigClip, torch.Tensor, tuple[Phone, ...]]]
) -> dict[str, Any]:
    """Displacement by intensity, and closures and timing with each emotion."""
    shown, closures, shifts = {}, {}, []
    rests = [runner.neutral(features) for _, features, _ in clips]
    for label in LABELS[:NEUTRAL] + LABELS[NEUTRAL + 1 :]:
        moved = np.zeros(len(LEVELS))
        figures = []
        for (_, features, phones), rest in zip(clips, rests, strict=True):
            posed = runner.face.pose(rest[::5])
            for level, intensity in enumerate(LEVELS):
                weights = runner.with_emotion(features, label, intensity)
                distance = runner.face.pose(weights[::5]) - posed
                moved[level] += float(np.linalg.norm(distance, axis=-1).mean()) / len(clips)
            gap, still = runner.gap(weights), runner.gap(rest)
            figures.append(lips.closure_metrics(gap, phones, FRAME_RATE))
            shifts.append(lips.audio_lip_offset(gap, still, FRAME_RATE))
        shown[label] = [round(value * 1000, 3) for value in moved]
        closures[label] = lips.pool(figures).summary()["closure_recall"]
    return {
        "displacement_mm_at_1/3_2/3_1": shown,
        "closure_recall_at_intensity_1": closures,
        "largest_shift_by_emotion_seconds": float(np.max(np.abs(shifts))),
    }


def tracked_metrics(runner: TalkerRunner, clips: Sequence[TrackedClip]) -> dict[str, Any]:
    """Predicted against tracked lip gap, and the metrics of both mouths."""
    correlations, spreads, made, real = [], [], [], []
    for clip in clips:
        weights = runner.neutral(clip.features)
        gap, truth = runner.gap(weights), runner.gap(clip.truth)
        known, tracked = gap[clip.known], truth[clip.known]
        correlations.append(float(np.corrcoef(known, tracked)[0, 1]))
        spreads.append(float(np.ptp(np.percentile(known, [5, 95])) / np.ptp(np.percentile(tracked, [5, 95]))))
        made.append(ClipMotion(weights, gap, clip.phones, clip.decibels))
        real.append(ClipMotion(clip.truth, truth, clip.phones, clip.decibels))
    return {
        "clips": len(clips),
        "gap_correlation_median": float(np.median(correlations)),
        "gap_spread_over_truth_median": float(np.median(spreads)),
        "made": _performance_metrics(made),
        "tracked": _performance_metrics(real),
    }


def _performance_metrics(motions: Sequence[ClipMotion]) -> dict[str, float]:
    """Motion around sounds of all clips, and mouth metrics of the aligned clips."""
    aligned = [one for one in motions if one.phones]
    return (mouth_metrics(aligned) if aligned else {}) | _pause_metrics(motions)


def nonspeech_gaps(runner: TalkerRunner, clips: Sequence[tuple[RigClip, torch.Tensor]]) -> dict[str, float]:
    """Largest lip gap in mm in sounds without speech, by kind of sound."""
    worst: dict[str, float] = {}
    for clip, features in clips:
        gap = runner.gap(runner.neutral(features))
        kind = clip.id.rsplit("_", 1)[-1]
        worst[kind] = max(worst.get(kind, 0.0), float(gap.max()) * 1000)
    return worst


def _percentile(values: Sequence[float] | Float, percent: float) -> float:
    """Percentile of the finite values; NaN without any."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.percentile(known, percent)) if known else float("nan")


def evaluate(
    model: Path,
    store: Path,
    tables: Sequence[Path],
    most: int = 60,
    split: str = "test",
    tracked_folders: Sequence[Path] = (),
    look_ahead: int | None = None,
) -> dict[str, Any]:
    """Evaluate a model on a split of a rig store; metrics by source, of at most `most` evenly spaced clips each.

    The mouth shape is also compared with the tracked clips of folders (`sedtalker.evaluation.mouth_shape`). A
    `look_ahead` in ms measures what a stream with it shows; by default it is the whole recording with the longest one.

    Raises:
        DataError: the store, a table or a tracked clip cannot be read.
        CheckpointError: the encoder has no such look-ahead.
    """
    runner = TalkerRunner(load_talker_model(model).eval(), load_face("default"), live=look_ahead is not None)
    phones = {name.replace("/", "_"): found for table in tables for name, found in read_phones(table).items()}
    clips = [clip for clip in read_rig_manifest(store).clips if clip.split == split]
    folder_name = features_folder(None if look_ahead == max(LOOK_AHEAD) else look_ahead)
    require_features(store, [clip.id for clip in clips], folder_name)
    read = partial(_features, store, folder_name)
    report: dict[str, Any] = {}
    spoken = []
    folders = {folder: tracked_pairs(folder) for folder in tracked_folders}
    for source in sorted({_group_name(clip) for clip in clips}):
        chosen = [clip for clip in clips if _group_name(clip) == source]
        chosen = chosen[:: max(1, len(chosen) // most)][:most]
        if source == "foreign":
            report[source] = nonspeech_gaps(runner, [(clip, read(clip)) for clip in chosen])
        elif source in MEASURED:
            tracked = [load_tracked_clip(store, clip, read(clip), phones.get(clip.id, ())) for clip in chosen]
            report[source] = tracked_metrics(runner, tracked)
            if source == "grid" and (shape := _grid_shape(runner, store, chosen, read, phones)):
                report["grid, mouth shape"] = shape
        elif aligned := [(clip, read(clip), phones[clip.id]) for clip in chosen if clip.id in phones]:
            motions = [neutral_motion(runner, *one) for one in aligned]
            surface = surface_metrics(motions, runner.face)
            report[source] = {"clips": len(motions), **mouth_metrics(motions), **surface}
            if groups := _voice_groups([clip for clip, *_ in aligned], motions):
                report[f"{source}, by voice"] = groups
            spoken_clips = [(one.weights, one.phones) for one in motions]
            report[f"{source}, mouth shape"] = mouth_shape.spoken_figures(spoken_clips, runner.face, FRAME_RATE)
            spoken += aligned[:: max(1, len(aligned) // 12)]
    if spoken:
        report["emotion"] = emotion_metrics(runner, spoken)
    encoder = load_for_look_ahead(runner.model.config.encoder, look_ahead) if folders else None
    for folder, pairs in folders.items():
        assert encoder is not None
        moved = [(runner.neutral(encoder.encode(load_audio(audio))), path) for path, audio in pairs]
        report[f"{folder.name}, mouth shape"] = mouth_shape.tracked_figures(moved, runner.face, FRAME_RATE)
    return report


def tracked_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Find the tracked clips of a folder, each with the audio file of the same name.

    Raises:
        DataError: there are none, or a clip has no audio.
    """
    pairs = []
    for path in sorted(folder.glob("*.npz")):
        audio = next((other for other in sorted(folder.glob(f"{path.stem}.*")) if other != path), None)
        if audio is None:
            raise DataError(f"tracked clip without audio: {path}. Put an audio file of the same name next to it")
        pairs.append((path, audio))
    if not pairs:
        raise DataError(f"no tracked clips: {folder}. Give a folder of NAME.npz and NAME.opus")
    return pairs


def _grid_shape(
    runner: TalkerRunner,
    store: Path,
    clips: Sequence[RigClip],
    read: Callable[[RigClip], torch.Tensor],
    phones: Mapping[str, tuple[Phone, ...]],
) -> dict[str, mouth_shape.Interval]:
    """Mouth shape of GRID's sentences against the tracked ones; the viseme reader is trained on the training split."""

    def tracked(clip: RigClip) -> Path:
        return Path(clip.audio).with_suffix(".npz")

    judged = [
        (runner.neutral(read(clip)), tracked(clip), phones.get(clip.id, ()))
        for clip in clips
        if tracked(clip).is_file()
    ]
    if not judged:
        return {}
    figures = mouth_shape.tracked_figures([(weights, path) for weights, path, _ in judged], runner.face, FRAME_RATE)
    aligned = [one for one in judged if one[2]]
    if not aligned:
        return figures
    neutral = [(weights, clip_phones) for weights, _, clip_phones in aligned]
    figures |= mouth_shape.spoken_figures(neutral, runner.face, FRAME_RATE)
    learned = [
        (tracked(clip), phones[clip.id])
        for clip in read_rig_manifest(store).clips
        if (clip.source, clip.split) == ("grid", "train") and clip.id in phones and tracked(clip).is_file()
    ]
    if learned:
        figures |= mouth_shape.reader_figures(learned, aligned, runner.face, FRAME_RATE)
    return figures


def _voice_groups(clips: Sequence[RigClip], motions: Sequence[ClipMotion]) -> dict[str, Interval]:
    """Figures of the lips by group of voices."""
    voices = [
        VoiceClip(clip.speaker, clip.language, median_pitch(load_audio(clip.audio)), motion.closures)
        for clip, motion in zip(clips, motions, strict=True)
    ]
    return voice_figures(voices)


def _features(store: Path, folder: str, clip: RigClip) -> torch.Tensor:
    return read_features(store, clip.id, folder=folder).float()


def load_for_look_ahead(name: str, look_ahead: int | None) -> WindowedEncoder:
    """An encoder with a look-ahead in ms; of a streaming encoder, by default, with the longest one."""
    encoder = load_encoder(name)
    if look_ahead is None and not isinstance(encoder, StreamingEncoder):
        return encoder
    return encoder.with_look_ahead(max(LOOK_AHEAD) if look_ahead is None else look_ahead)


def load_tracked_clip(store: Path, clip: RigClip, features: torch.Tensor, phones: tuple[Phone, ...]) -> TrackedClip:
    """A clip of a rig store with its tracked weights, for features (T, L, D)."""
    arrays = read_arrays(store, clip.id)
    known = arrays.loss_weight.max(axis=1) > 0
    truth = arrays.weights.astype(np.float32)
    return TrackedClip(features, truth, known, phones, loudness(load_audio(clip.audio)))


def _group_name(clip: RigClip) -> str:
    """Source of a clip; clips of sentences without training data are a separate group."""
    unseen = any(f"_{code}_" in clip.id for code, text in CREMAD_SENTENCES.items() if text in TEST_SENTENCES)
    return f"{clip.source}, unseen sentences" if unseen else clip.source


def format_motion(report: dict[str, Any]) -> str:
    """Format metrics by source as text, one per line, with their norms."""
    lines = []
    for source, figures in report.items():
        lines.append(source)
        for name, value in figures.items():
            shown = _format_value(value)
            lines.append(f"  {name:38} {shown:12}" + (f"  ({NORMS[name]})" if name in NORMS else ""))
    return "\n".join(lines)


def _format_value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple):
        figure, low, high = value
        return f"{figure:.4g}" + (f" [{low:.3g}, {high:.3g}]" if np.isfinite(low) else "")
    return str(value)


def evaluate_animation(
    animation: Animation,
    path: Path,
    known: Mapping[str, Sequence[Phone]] | None = None,
    text: str | None = None,
    aligner: Aligner | None = None,
) -> dict[str, Any]:
    """Metrics of an animation; those of phones only if phones or a text are given.

    Args:
        path: of its file.
        known: phones by the name of a file or its audio, with times in seconds.
        text: of its speech, to be aligned, with `aligner` if it is given.

    Raises:
        DataError: it has no ARKit weights, no face with lip pairs, no audio, no phones, or under SHORTEST frames.
    """
    audio = _check_rigged(animation, path)
    samples = load_audio(audio)
    phones: Sequence[Phone] = ()
    if text:
        aligned = (aligner or Aligner()).align(samples, text)
        if aligned is None:
            raise DataError(f"the text is not found in {audio}. Give the spoken words, or remove --text")
        phones = aligned
    elif known:
        phones = _find_phones(known, path, audio)
    return _animation_metrics(animation, path, samples, phones)


def _check_rigged(animation: Animation, path: Path) -> Path:
    """Check that an animation has a rig and lip pairs; returns the path of its audio."""
    if animation.blendshapes is None or animation.blendshape_names != ARKIT_NAMES:
        raise DataError(f"no ARKit weights to measure: {path}. Compare meshes with: sedtalker evaluate talker")
    face = animation.face
    if face.blendshapes is None or face.lip_pairs is None:
        raise DataError(f"no lips to measure on the face {face.name}: {path}. Animate a face of the default topology")
    sounds = files_of_recording(animation)
    if not sounds:
        named = animation.meta.get("audio")
        raise DataError(f"the sound of {path} was not found: {named}. Animate it again, or restore the recording")
    return sounds[0]


def _animation_metrics(animation: Animation, path: Path, samples: Float, phones: Sequence[Phone]) -> dict[str, Any]:
    """Metrics of a loaded animation of `path` and its audio samples (N,) at 16 kHz."""
    assert animation.blendshapes is not None  # checked by _check_rigged
    face = animation.face
    decibels = loudness(samples)
    weights = resample(animation.blendshapes, animation.fps, FRAME_RATE)
    frames = min(len(weights), len(decibels))
    if frames < SHORTEST:
        raise DataError(f"too short to measure: {path}. Animate a longer recording")
    weights, decibels = weights[:frames], decibels[:frames]
    gap = lips.lip_gap_of_weights(weights, face).astype(np.float32)
    motions = ClipMotion(weights, gap, tuple(phones) or _phones_from_loudness(decibels), decibels)
    figures = mouth_metrics([motions]) | surface_metrics([motions], face)
    phone_metrics = () if phones else ClosureFigures.empty().summary()
    return {name: value for name, value in figures.items() if name not in phone_metrics and np.isfinite(value)}


def _find_phones(known: Mapping[str, Sequence[Phone]], path: Path, audio: Path) -> Sequence[Phone]:
    for name in (path.stem, audio.stem):
        if name in known:
            return known[name]
    raise DataError(
        f"no phones of {path.stem} or {audio.stem} in the table. Use the file name in its rows, or use --text"
    )


def _phones_from_loudness(decibels: Float) -> tuple[Phone, ...]:
    """Intervals of sound, named UNKNOWN, and silence."""
    phones, frame = [], 0
    for sounds, run in groupby(detect_speech(decibels, bridge=PAUSE) & (decibels.max() > SILENCE_LEVEL)):
        start, frame = frame, frame + len(list(run))
        phones.append(Phone("", UNKNOWN if sounds else SILENCE, start / FRAME_RATE, frame / FRAME_RATE))
    return tuple(phones)
