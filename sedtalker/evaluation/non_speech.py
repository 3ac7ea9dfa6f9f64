"""Whether sounds without words change the emotion of the speech next to them, and whether they are taken for speech.

A sound (music, laughter, breath, barks, or recordings from folders) of the speech's level is placed before or after a
clip, and the track is compared with that of the clip alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sedtalker.audio import SAMPLE_RATE, load_audio
from sedtalker.data.concatenation import EDGE, fade_ends, normalize_level
from sedtalker.data.manifest import Manifest, Utterance, audio_files
from sedtalker.data.negative_audio import synthesize_non_speech
from sedtalker.emotion.diarizer import Diarizer
from sedtalker.emotion.track import EmotionTrack
from sedtalker.emotion.vad import detect_speech, loudness, trim_silence
from sedtalker.evaluation.bootstrap import mean_interval, show
from sedtalker.evaluation.clips import Samples, check_known, diarize_samples, thin_out
from sedtalker.evaluation.report import markdown_table
from sedtalker.mel import FRAME_SAMPLES
from sedtalker.speech import WindowedEncoder

SYNTHETIC = ("music", "laughter", "breath", "barks")
SECONDS = 1.5  # of a synthetic sound, and at most of a recorded one
GAP = 10  # frames of silence between the sound and the speech
CLIPS = 60  # of each corpus that are used
ACTIVE = 0.5  # of a track's speech activity

Sound = Callable[[np.random.Generator], Samples]


@dataclass(frozen=True)
class Effect:
    """The effect of one sound next to one clip, as shares of frames."""

    speaker: str
    changed: float  # frames of the speech whose emotion differs from that of the clip alone
    correct_alone: float  # frames of the speech with the true emotion
    correct: float  # the same with the sound
    shift: float  # total variation between the mean posteriors of the speech, alone and with the sound
    neutral_speech: float  # frames of the sound that are called neutral speech
    emotional_speech: float  # frames of the sound that are called speech with an emotion


def sounds_of(folders: Sequence[Path]) -> dict[str, Sound]:
    """Makers of sounds by name: the synthetic ones, and one for each folder that draws from its recordings.

    Raises:
        DataError: a folder is missing or holds no audio.
    """

    def synthetic(kind: str) -> Sound:
        return lambda rng: synthesize_non_speech(kind, SECONDS, rng)

    def recorded(paths: list[Path]) -> Sound:
        def draw(rng: np.random.Generator) -> Samples:
            samples = trim_silence(load_audio(paths[int(rng.integers(len(paths)))]), EDGE)
            return samples[: round(SECONDS * SAMPLE_RATE)]

        return draw

    return {kind: synthetic(kind) for kind in SYNTHETIC} | {
        folder.resolve().name: recorded(audio_files(folder)) for folder in folders
    }


def insert_sound(speech: Samples, sound: Samples, before: bool) -> tuple[Samples, slice, slice]:
    """Speech with a sound of its level before or after it: samples, and the frames of the speech and of the sound."""
    sound = fade_ends(normalize_level(sound), round(0.01 * SAMPLE_RATE))
    sound = np.pad(sound, (0, -len(sound) % FRAME_SAMPLES))
    speech = np.pad(speech, (0, -len(speech) % FRAME_SAMPLES))
    pause = np.zeros(GAP * FRAME_SAMPLES, np.float32)
    parts = (sound, pause, speech) if before else (speech, pause, sound)
    frames = [len(part) // FRAME_SAMPLES for part in parts]
    first, last = slice(0, frames[0]), slice(frames[0] + GAP, sum(frames))
    speech_frames, sound_frames = (last, first) if before else (first, last)
    return np.concatenate(parts), speech_frames, sound_frames


def speech_activity(track: EmotionTrack, samples: Samples) -> NDArray[np.bool_]:
    """Frames (T,) that a track calls speech; loud ones if the track has no activity."""
    activity = getattr(track, "speech", None)
    if activity is not None:
        return np.asarray(activity) >= ACTIVE
    return detect_speech(loudness(samples))[: len(track)]


def measure_effect(
    item: Utterance,
    speech: Samples,
    alone: EmotionTrack,
    sound: Samples,
    before: bool,
    analyse: Callable[[Samples], EmotionTrack],
) -> Effect:
    """Compare the track `alone` of a clip's speech (N,) with that of the speech with a sound (M,) next to it."""
    together, speech_frames, sound_frames = insert_sound(speech, sound, before)
    track = analyse(together)
    voiced = detect_speech(loudness(speech))
    posterior = track.posterior[speech_frames][: len(voiced)][voiced]
    own = alone.posterior[: len(voiced)][voiced]
    truth, neutral = track.labels.index(item.emotion), track.labels.index("neutral")
    active = speech_activity(track, together)[sound_frames]
    calm = track.posterior[sound_frames].argmax(1) == neutral
    return Effect(
        speaker=item.speaker,
        changed=float((posterior.argmax(1) != own.argmax(1)).mean()),
        correct_alone=float((own.argmax(1) == truth).mean()),
        correct=float((posterior.argmax(1) == truth).mean()),
        shift=float(np.abs(posterior.mean(0) - own.mean(0)).sum() / 2),
        neutral_speech=float((active & calm).mean()),
        emotional_speech=float((active & ~calm).mean()),
    )


def evaluate_non_speech(
    manifest: Manifest,
    utterances: Sequence[Utterance],
    diarizer: Diarizer,
    encoder: WindowedEncoder,
    folders: Sequence[Path] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Effects by kind of sound on up to `CLIPS` clips of each corpus; intervals over speakers.

    Raises:
        DataError: a folder of sounds is missing or empty, or the diarizer does not know an emotion.
    """
    check_known(utterances, diarizer)
    sounds = sounds_of(folders)

    def analyse(samples: Samples) -> EmotionTrack:
        return diarize_samples(samples, diarizer, encoder)

    effects: dict[str, list[Effect]] = {name: [] for name in sounds}
    for number, item in enumerate(tqdm(thin_out(utterances, CLIPS, seed), desc="non-speech", unit="clip")):
        speech = normalize_level(trim_silence(load_audio(manifest.audio(item)), EDGE))
        alone = analyse(speech)
        for kind, (name, sound) in enumerate(sounds.items()):
            drawn = sound(np.random.default_rng([seed, number, kind]))
            effects[name].append(measure_effect(item, speech, alone, drawn, number % 2 == 0, analyse))
    figures = ("changed", "correct_alone", "correct", "shift", "neutral_speech", "emotional_speech")
    return {
        name: {"clips": len(group)}
        | {
            figure: mean_interval([getattr(one, figure) for one in group], [one.speaker for one in group], seed)
            for figure in figures
        }
        for name, group in effects.items()
    }


def format_non_speech(report: Mapping[str, Any]) -> str:
    """Format the effects as a Markdown table."""
    columns = {
        "changed": "speech frames changed", "correct_alone": "correct alone", "correct": "correct with the sound",
        "shift": "shift of the posterior", "neutral_speech": "sound called neutral speech",
        "emotional_speech": "sound called emotional speech",
    }  # fmt: skip
    rows = [["sound next to speech", "clips", *columns.values()]]
    for name, row in report.items():
        rows.append([name, str(row["clips"]), *(show(row[key]) for key in columns)])
    return markdown_table(rows)
