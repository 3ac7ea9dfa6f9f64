"""The whole way, from an audio file to an animation, on one page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sedtalker import __version__
from sedtalker.animation import Animation
from sedtalker.audio import SAMPLE_RATE, AudioSource, Samples, load_audio
from sedtalker.emotion.diarizer import Diarizer, load_diarizer
from sedtalker.emotion.files import read_track
from sedtalker.emotion.track import EmotionTrack, parse_emotion_spec
from sedtalker.errors import CheckpointError, FaceError, SEDTalkerError, TrackError
from sedtalker.face.assets import load_face
from sedtalker.face.rig import Face
from sedtalker.files import sha256
from sedtalker.speech import FRAME_RATE, SpeechEncoder, load_encoder
from sedtalker.talker.life import add_life
from sedtalker.talker.model import TalkerModel, load_talker_model

Float = NDArray[np.float32]


def load(model: Path | str = "default", *, diarizer: Path | str = "default", device: str = "auto") -> Talker:
    """A talker ready to animate: speech encoder, diarizer, decoder and face.

    `model` and `diarizer` are names of packaged weights, folders, or (model) the name of a repository on the hub.

    Raises:
        CheckpointError: no such model, or damaged weights.
    """
    place = _device(device)
    decoder = load_talker_model(_model_folder(model)).to(place)
    reader = load_diarizer(diarizer).to(place)
    encoder = load_encoder(decoder.config.encoder, place)
    return Talker(encoder, reader, decoder, str(model))


class Talker:
    """Speech in, animation out."""

    def __init__(self, encoder: SpeechEncoder, diarizer: Diarizer, model: TalkerModel, name: str) -> None:
        self.encoder, self.diarizer, self.model, self.name = encoder, diarizer, model, name

    def diarize(self, audio: AudioSource, *, source: Path | str | None = None) -> EmotionTrack:
        """The emotion of every 20 ms of `audio`: a path, or `(samples, rate)`.

        `source` names the file in the track where `audio` is samples.

        Raises:
            AudioError: as `load_audio`.
        """
        samples = load_audio(audio)
        features = self.encoder.encode(samples)  # (T, L, D)
        return self._track(features, samples, _name_of(audio, source))

    def animate(
        self,
        audio: AudioSource,
        *,
        emotion: str | Path | EmotionTrack = "auto",
        intensity_scale: float = 1.0,
        fps: float = 30.0,
        face: str | Path | Face | None = None,
        seed: int = 0,
        still: bool = False,
        source: Path | str | None = None,
    ) -> Animation:
        """Animate a face with the speech in `audio` (a path, or `(samples, rate)`) and the emotion in its voice.

        Args:
            emotion: "auto" reads it from the voice; "happy:0.8", "happy:0.8@2.0-4.5,..." writes over that reading (a
                part without a span covers the clip); a track, or the path of a track file, replaces it.
            intensity_scale: multiplies the intensity; 0 is exactly the neutral animation.
            fps: frames a second of the result.
            face: an identity, a mesh file or a `Face`; None is the default head.
            seed: of blinks, gaze and head motion.
            still: leave those out.
            source: names the file in the result where `audio` is samples.

        Raises:
            AudioError, TrackError, FaceError: the input cannot be used.
        """
        samples = load_audio(audio)
        rig = face if isinstance(face, Face) else load_face(face or "default")
        features = self.encoder.encode(samples)  # (T, L, D)
        track = self._emotion(emotion, features, samples, _name_of(audio, source))
        track.scale(intensity_scale)
        coefficients = self._decode(features, track)  # (T, K) at 50 Hz
        count = max(1, round(len(samples) / SAMPLE_RATE * fps))
        return self._animation(
            coefficients, track, samples, rig, fps, count, seed, still, _meta(self.name, audio, source, seed)
        )

    def _track(self, features: Tensor, samples: Samples, name: str | None) -> EmotionTrack:
        return self.diarizer.diarize(features, duration=len(samples) / SAMPLE_RATE, audio=name, samples=samples)

    def _emotion(
        self, emotion: str | Path | EmotionTrack, features: Tensor, samples: Samples, name: str | None
    ) -> EmotionTrack:
        duration = len(samples) / SAMPLE_RATE
        if isinstance(emotion, EmotionTrack):
            if emotion.duration > duration + 1 / FRAME_RATE:
                raise TrackError(
                    f"a track of {emotion.duration:g} s for audio of {duration:g} s. Cut it with track.clip"
                )
            return emotion.copy()
        if str(emotion).lower().endswith(".json"):
            return read_track(emotion, duration=duration)
        heard = self._track(features, samples, name)
        return heard if emotion == "auto" else parse_emotion_spec(str(emotion), duration, heard)

    @torch.inference_mode()
    def _decode(self, features: Tensor, track: EmotionTrack) -> Float:
        place = next(self.model.parameters()).device
        posterior, intensity = track.at_rate(FRAME_RATE, len(features))
        coefficients = self.model(
            features[None].to(place),
            torch.from_numpy(posterior)[None].to(place),
            torch.from_numpy(intensity)[None].to(place),
        )
        return coefficients[0].float().cpu().numpy()

    def _animation(
        self,
        coefficients: Float,
        track: EmotionTrack,
        samples: Samples,
        face: Face,
        fps: float,
        count: int,
        seed: int,
        still: bool,
        meta: dict[str, Any],
    ) -> Animation:
        if self.model.config.head != "blendshapes":
            return self._vertex_animation(coefficients, track, face, fps, count, meta)
        if face.blendshapes is None:
            raise FaceError(
                f"no blendshapes on the face {face.name}: this talker needs a rig. Use the default head's topology"
            )
        head = None
        if not still:
            coefficients, head = add_life(coefficients, track, samples, seed)
        weights = np.clip(_at_fps(coefficients, FRAME_RATE, fps, count), 0.0, 1.0)
        return Animation(
            template=face.template,
            faces=face.faces,
            fps=fps,
            emotion=track,
            blendshapes=weights,
            blendshape_names=face.blendshape_names,
            head=None if head is None else _rigid_at_fps(head, FRAME_RATE, fps, count),
            meta={**meta, "face": face.name},
            rig=face,
        )

    def _vertex_animation(
        self, coefficients: Float, track: EmotionTrack, face: Face, fps: float, count: int, meta: dict[str, Any]
    ) -> Animation:
        if len(face.template) != self.model.config.vertices:
            raise FaceError(
                f"a face of {len(face.template)} vertices: {face.name}. This talker moves "
                f"{self.model.config.vertices}; give a template mesh of its topology with --face"
            )
        moved = self.model.displacements(torch.from_numpy(_at_fps(coefficients, FRAME_RATE, fps, count)))
        return Animation(
            template=face.template,
            faces=face.faces,
            fps=fps,
            emotion=track,
            dense=face.template + moved.numpy(),
            meta={**meta, "face": face.name},
            rig=replace(face, blendshapes=None),
        )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SEDTalkerError(f"no such device here: {name} ({str(error).splitlines()[0]}). Use --device cpu") from error
    return device


def _model_folder(model: Path | str) -> Path:
    """The folder of a packaged name, a path, or a repository on the hub (fetched, then cached)."""
    from sedtalker.errors import require
    from sedtalker.resources import asset

    packaged = asset("talker", str(model))
    if packaged.is_dir():
        return packaged
    if Path(model).exists() or str(model).count("/") != 1:
        return Path(model)
    hub = require("huggingface_hub", "hub")
    try:
        return Path(hub.snapshot_download(str(model), allow_patterns=["config.json", "model.safetensors", "README.md"]))
    except Exception as error:
        raise CheckpointError(
            f"no such talker: {model} is no folder, and the hub does not give it ({error}). Check the name"
        ) from error


def _name_of(audio: AudioSource, source: Path | str | None) -> str | None:
    if source is not None:
        return str(source)
    return None if isinstance(audio, tuple) else str(audio)


def _meta(model: str, audio: AudioSource, source: Path | str | None, seed: int) -> dict[str, Any]:
    name = _name_of(audio, source)
    return {
        "audio": name,
        "audio_sha256": sha256(name) if name and Path(name).is_file() else None,
        "model": model,
        "seed": seed,
        "sedtalker": __version__,
        "torch": torch.__version__,
    }


def _at_fps(curves: Float, rate: float, fps: float, count: int) -> Float:
    """Curves (T, K) at `rate` read at the middles of `count` frames at `fps`, linearly between their own middles."""
    times = (np.arange(count) + 0.5) / fps * rate - 0.5
    times = np.clip(times, 0, len(curves) - 1)
    before = np.minimum(times.astype(int), max(0, len(curves) - 2))
    share = (times - before)[:, None].astype(np.float32)
    return curves[before] * (1 - share) + curves[np.minimum(before + 1, len(curves) - 1)] * share


def _rigid_at_fps(head: Float, rate: float, fps: float, count: int) -> Float:
    """Rigid motions (T, 4, 4) read at another rate; the small rotations between are made orthonormal again."""
    between = _at_fps(head.reshape(len(head), 16), rate, fps, count).reshape(count, 4, 4)
    left, _, right = np.linalg.svd(between[:, :3, :3])
    between[:, :3, :3] = left @ right
    return between
