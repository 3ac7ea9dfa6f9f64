"""The prediction of a diarizer and the track that it becomes, without torch."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sedtalker.emotion.config import STEP_RATE, DiarizerConfig
from sedtalker.emotion.track import EmotionTrack, frame_count
from sedtalker.emotion.vad import silence_weight
from sedtalker.emotion.voice import VoiceProfile
from sedtalker.encoder_config import Windowing
from sedtalker.errors import CheckpointError
from sedtalker.mel import FRAME_RATE

Float = NDArray[np.float32]

WINDOW = 40 * STEP_RATE  # steps that the network sees at once
OVERLAP = 8 * STEP_RATE  # steps of the cross-fade between two windows
BLOCKS = Windowing(left=0, hop=8 * FRAME_RATE, right=0)  # frames that become steps at once, an even number


class HasConfig(Protocol):
    """A diarizer, in torch or compiled."""

    @property
    def config(self) -> DiarizerConfig: ...


class Prediction(NamedTuple):
    """Output of a diarizer by frame of 20 ms, tensors or arrays."""

    posterior: Any  # (T, C)
    intensity: Any  # (T,), 0..1
    speech: Any  # (T,), 0..1, speech activity; None: the diarizer does not detect it


def build_track(
    prediction: Prediction,
    labels: tuple[str, ...],
    duration: float,
    audio: str | None = None,
    loudness_db: NDArray[np.float32] | None = None,
) -> EmotionTrack:
    """The emotion track of a prediction at 50 Hz.

    Args:
        labels: (C,) of the posterior.
        duration: of the audio, in seconds.
        audio: name of the file, for the track.
        loudness_db: (T,) of `sedtalker.audio.loudness`; if given, long silence becomes neutral.
    """
    count = frame_count(duration, FRAME_RATE)
    values, level = (_fit_length(np.asarray(part), count) for part in (prediction.posterior, prediction.intensity))
    speech = None if prediction.speech is None else _fit_length(np.asarray(prediction.speech), count)
    if loudness_db is not None:
        silence = _fit_length(silence_weight(loudness_db), count)
        neutral = np.eye(len(labels), dtype=np.float32)[labels.index("neutral")]
        values = values + silence[:, None] * (neutral - values)
        level = level * (1 - silence)
        speech = None if speech is None else speech * (1 - silence)
    return EmotionTrack(values, level, duration, labels, float(FRAME_RATE), audio, speech=speech)


def check_voice(diarizer: HasConfig, voice: VoiceProfile | None = None) -> None:
    """Check that a diarizer uses voice profiles, and that it can use this one. Raises CheckpointError if not."""
    config = diarizer.config
    if not config.causal:
        raise CheckpointError(
            "this diarizer does not use voice profiles. Use the default one, or leave the profile out"
        )
    if voice is not None and not isinstance(voice, VoiceProfile):
        raise CheckpointError(
            f"a voice of {type(voice).__name__}: give a profile, of Talker.enroll(audio) or "
            "sedtalker.emotion.voice.VoiceProfile.load(path)"
        )
    if voice and (voice.encoder, voice.mean.shape) != (config.encoder, (config.layers, config.feature_width)):
        raise CheckpointError(
            f"a voice profile of {voice.encoder}, but the diarizer reads {config.encoder}. Enroll the voice with it"
        )


def _fit_length(values: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Cut frames to `count`, or repeat the last one up to it."""
    missing = count - len(values)
    return values[:count] if missing <= 0 else np.concatenate([values, np.repeat(values[-1:], missing, axis=0)])
