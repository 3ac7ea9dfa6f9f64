"""The whole way, from an audio file to an animation, on one page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sedtalker import __version__
from sedtalker.animation import Animation
from sedtalker.audio import SAMPLE_RATE, AudioSource, Samples, load_audio
from sedtalker.curves import orthonormal, resample, resample_blocks
from sedtalker.emotion.diarizer import Diarizer, load_diarizer
from sedtalker.emotion.files import TRACK_SUFFIXES, read_track
from sedtalker.emotion.track import EmotionTrack, parse_emotion_spec
from sedtalker.errors import CheckpointError, FaceError, SEDTalkerError, TrackError
from sedtalker.face.assets import load_face
from sedtalker.face.rig import Face
from sedtalker.files import sha256
from sedtalker.speech import FRAME_RATE, WindowedEncoder, Windowing, load_encoder
from sedtalker.talker.life import add_life
from sedtalker.talker.model import TalkerModel, load_talker_model
from sedtalker.talker.streaming import LIVE, decoded, latency, stream, told

Float = NDArray[np.float32]

KEPT_SECONDS = 600  # up to this length features are kept in memory (a second takes 0.4 MB), beyond it computed twice


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

    def __init__(self, encoder: WindowedEncoder, diarizer: Diarizer, model: TalkerModel, name: str) -> None:
        self.encoder, self.diarizer, self.model, self.name = encoder, diarizer, model, name

    def diarize(self, audio: AudioSource, *, source: Path | str | None = None) -> EmotionTrack:
        """The emotion of every 20 ms of `audio`: a path, or `(samples, rate)`.

        `source` names the file in the track where `audio` is samples.

        Raises:
            AudioError: as `load_audio`.
        """
        samples = load_audio(audio)
        return self._track(self.encoder.blocks(samples), samples, _name_of(audio, source))

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
        _check(fps, seed, intensity_scale)
        samples = load_audio(audio)
        rig = self._rig(face)
        blocks = self._features(samples)
        track = self._emotion(emotion, blocks, samples, _name_of(audio, source))
        track = track.with_labels(self.model.config.labels)
        track.scale(intensity_scale)
        coefficients = torch.cat(list(decoded(self.model, told(track, blocks)))).numpy()  # (T, K) at 50 Hz
        head = None
        if rig.blendshapes is not None and not still:
            coefficients, head = add_life(coefficients, track, samples, seed, face=rig)
        count = max(1, round(len(samples) / SAMPLE_RATE * fps))
        curves = resample(coefficients, FRAME_RATE, fps, count)
        return Animation(
            template=rig.template,
            faces=rig.faces,
            fps=fps,
            emotion=track,
            blendshapes=None if rig.blendshapes is None else np.clip(curves, 0, 1),
            blendshape_names=rig.blendshape_names,
            dense=self._vertices(curves, rig) if rig.blendshapes is None else None,
            head=None
            if head is None
            else orthonormal(resample(head.reshape(-1, 16), FRAME_RATE, fps, count).reshape(-1, 4, 4)),
            meta={**_meta(self.name, audio, source, seed), "face": rig.name},
            rig=rig,
        )

    def stream(
        self,
        chunks: Iterable[Samples],
        *,
        emotion: EmotionTrack | None = None,
        fps: float = 30.0,
        face: str | Path | Face | None = None,
        windows: Windowing = LIVE,
    ) -> Iterator[Float]:
        """Vertices (n, V, 3) in metres at `fps`, as soon as they are known, of 16 kHz samples that come in chunks.

        The sizes of the chunks change nothing. `latency(windows)` is the longest wait for a frame. Blinks, gaze and
        head motion, which look ahead, are left out.

        Args:
            chunks: samples (N,) at 16 kHz, mono.
            emotion: a track; None reads it from the voice, without hearing what follows.
            windows: what the encoder sees; a longer hop costs less and waits longer.
        """
        rig = self._rig(face)
        encoder = self.encoder.with_windows(windows)
        seconds, made = 0.0, 0

        def heard() -> Iterator[Samples]:
            nonlocal seconds
            for chunk in chunks:
                seconds += len(chunk) / SAMPLE_RATE
                yield chunk

        felt = self.diarizer if emotion is None else emotion.with_labels(self.model.config.labels)
        blocks = stream(encoder, felt, self.model, heard())
        for curves in resample_blocks((block.numpy() for block in blocks), FRAME_RATE, fps):
            # The frames lag behind the sound: only at its end can there be one too many.
            due = curves[: max(1, round(seconds * fps)) - made]
            made += len(due)
            if len(due):
                yield self._vertices(due, rig)

    def latency(self, windows: Windowing = LIVE) -> float:
        """The longest time in seconds between a sound and the frame that shows it, computing time left out."""
        return latency(windows, self.model)

    def _features(self, samples: Samples) -> Iterable[Tensor]:
        """Blocks (n, L, D) of features, to be read more than once: kept, or for long audio computed each time."""
        if len(samples) > KEPT_SECONDS * SAMPLE_RATE:
            return _Recomputed(self.encoder, samples)
        return list(self.encoder.blocks(samples))

    def _track(self, blocks: Iterable[Tensor], samples: Samples, name: str | None) -> EmotionTrack:
        return self.diarizer.diarize(blocks, duration=len(samples) / SAMPLE_RATE, audio=name, samples=samples)

    def _emotion(
        self, emotion: str | Path | EmotionTrack, blocks: Iterable[Tensor], samples: Samples, name: str | None
    ) -> EmotionTrack:
        duration = len(samples) / SAMPLE_RATE
        if isinstance(emotion, EmotionTrack):
            if emotion.duration > duration + 1 / FRAME_RATE:
                raise TrackError(
                    f"a track of {emotion.duration:g} s for audio of {duration:g} s. Cut it with track.clip"
                )
            return emotion.copy()
        if str(emotion).lower().endswith(TRACK_SUFFIXES):
            return read_track(emotion, duration=duration)
        heard = self._track(blocks, samples, name)
        return heard if emotion == "auto" else parse_emotion_spec(str(emotion), duration, heard)

    def _rig(self, face: str | Path | Face | None) -> Face:
        """The face, checked to be one that this model can move."""
        rig = face if isinstance(face, Face) else load_face(face or "default")
        if self.model.config.head == "blendshapes":
            if rig.blendshapes is None:
                raise FaceError(
                    f"no blendshapes on the face {rig.name}: this talker needs a rig. Use the default head's topology"
                )
            return rig
        if len(rig.template) != self.model.config.vertices:
            raise FaceError(
                f"a face of {len(rig.template)} vertices: {rig.name}. This talker moves "
                f"{self.model.config.vertices}; give a template mesh of its topology with --face"
            )
        return replace(rig, blendshapes=None, blendshape_names=())

    def _vertices(self, curves: Float, rig: Face) -> Float:
        """(T, V, 3) metres of coefficients (T, K)."""
        if rig.blendshapes is not None:
            return rig.pose(np.clip(curves, 0, 1))
        return rig.template + self.model.displacements(torch.from_numpy(curves)).numpy()


@dataclass(frozen=True)
class _Recomputed:
    """Features that are computed each time they are read, in flat memory."""

    encoder: WindowedEncoder
    samples: Samples

    def __iter__(self) -> Iterator[Tensor]:
        return self.encoder.blocks(self.samples)


def _check(fps: float, seed: int, intensity_scale: float) -> None:
    if not 1 <= fps <= 1000:
        raise SEDTalkerError(f"{fps} frames a second: give 1 to 1000")
    if seed < 0:
        raise SEDTalkerError(f"a seed of {seed}: give 0 or more")
    if not 0 <= intensity_scale < float("inf"):
        raise TrackError(f"intensity scale {intensity_scale}: it must be 0 or more, and finite")


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
