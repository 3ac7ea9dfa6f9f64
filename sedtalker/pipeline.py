"""The whole way, from an audio file to an animation, on one page."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sedtalker import __version__
from sedtalker.animation import Animation
from sedtalker.audio import SAMPLE_RATE, AudioFile, AudioSource, Samples, check_source, stream_audio, to_samples
from sedtalker.curves import resample, resample_blocks
from sedtalker.emotion.diarizer import Diarizer, load_diarizer
from sedtalker.emotion.inference import build_track, predict_frames
from sedtalker.emotion.track import EmotionTrack, check_emotion_spec, check_scale, parse_emotion_spec
from sedtalker.emotion.track_io import TRACK_SUFFIXES, read_track
from sedtalker.emotion.vad import loudness
from sedtalker.errors import AudioError, CheckpointError, FaceError, SEDTalkerError, TrackError, as_number, as_path
from sedtalker.face.assets import load_face
from sedtalker.face.neck import neck_pivot
from sedtalker.face.rig import Face
from sedtalker.files import sha256
from sedtalker.labels import label_columns
from sedtalker.speech import FRAME_RATE, FRAME_SAMPLES, WindowedEncoder, Windowing, load_encoder
from sedtalker.talker.idle_motion import IdleMotion, generate_idle_motion, head_transforms
from sedtalker.talker.model import TalkerModel, load_talker_model
from sedtalker.talker.streaming import LIVE, Spool, attach_track, decode_stream, embed_speech, latency, stream

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
    shared = reader.config.encoder == encoder.name
    diarizer_encoder = encoder if shared else load_encoder(reader.config.encoder, place)
    return Talker(encoder, reader, decoder, str(model), diarizer_encoder)


class Talker:
    """Speech in, animation out."""

    def __init__(
        self,
        encoder: WindowedEncoder,
        diarizer: Diarizer,
        model: TalkerModel,
        name: str,
        diarizer_encoder: WindowedEncoder | None = None,
    ) -> None:
        """`listener` encodes for the diarizer, where that is not what the model reads."""
        config = model.config
        if (encoder.layers, encoder.width) != (config.layers, config.feature_width):
            raise CheckpointError(
                f"a talker of {config.layers} x {config.feature_width} features on an encoder of {encoder.layers} x "
                f"{encoder.width}: {name}, {encoder.name}. Load the encoder {config.encoder}"
            )
        self.encoder, self.diarizer, self.model, self.name = encoder, diarizer, model, name
        self.diarizer_encoder = diarizer_encoder or encoder
        self._process = os.getpid()

    def diarize(self, audio: AudioSource, *, source: Path | str | None = None) -> EmotionTrack:
        """The emotion of every 20 ms of `audio`: a path, or `(samples, rate)`.

        `source` names the file in the track where `audio` is samples.

        Raises:
            AudioError: as `load_audio`.
        """
        check_source(audio)
        self._check_process()
        return self._read(_EncodedAudio(audio, self.diarizer_encoder), _name_of(audio, source))

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
        check_source(audio)
        _check_fps(fps)
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
            raise SEDTalkerError(f"a seed of {seed!r}: give a whole number, 0 or more")
        check_scale(intensity_scale)
        self._check_process()
        self._check_emotion(emotion, _name_of(audio, source))
        rig = self._rig(face)
        rigged = rig.blendshapes is not None
        with Spool(self.model.config.width) as speech:
            hearing = _EncodedAudio(
                audio, self.encoder, lambda block: speech.append(embed_speech(self.model, block).numpy())
            )
            track = self._emotion(emotion, hearing, _name_of(audio, source))
            track = track.with_labels(self.model.config.labels)
            track.scale(intensity_scale)
            life = generate_idle_motion(track, hearing.levels, hearing.frames, seed) if rigged and not still else None
            count = max(1, round(hearing.duration * fps))
            motion = self._motion(speech, track, life, rig, fps, count)
        return Animation(
            template=rig.template,
            faces=rig.faces,
            fps=fps,
            emotion=track,
            blendshapes=motion if rigged else None,
            blendshape_names=rig.blendshape_names,
            dense=None if rigged else motion,
            head=None
            if life is None
            else head_transforms(resample(life.turns, FRAME_RATE, fps, count), neck_pivot(rig)),
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
            emotion: a track, neutral after its end; None reads it from the voice, without hearing what follows.
            windows: what the encoder sees; a longer hop costs less and waits longer.

        Raises:
            SEDTalkerError: an argument cannot be used; at the call, or for a chunk when it is taken.
        """
        _check_fps(fps)
        _check_windows(windows)
        if isinstance(chunks, (str, bytes, Path)) or not isinstance(chunks, Iterable):
            raise AudioError(f"chunks of {type(chunks).__name__}: give an iterable of arrays (N,) of 16 kHz samples")
        if emotion is not None and not isinstance(emotion, EmotionTrack):
            raise TrackError(f"an emotion of {type(emotion).__name__}: a stream takes an EmotionTrack, or None")
        self._check_process()
        felt: Diarizer | EmotionTrack = self.diarizer
        if emotion is None:
            self._check_reader()
            self.diarizer.label_matrix(self.model.config.labels)
        else:
            felt = emotion.with_labels(self.model.config.labels)
        return self._stream(chunks, felt, fps, self._rig(face), windows)

    def _stream(
        self, chunks: Iterable[Samples], felt: Diarizer | EmotionTrack, fps: float, rig: Face, windows: Windowing
    ) -> Iterator[Float]:
        encoder = self.encoder.with_windows(windows)
        seconds, made = 0.0, 0

        def given() -> Iterator[Samples]:
            nonlocal seconds
            for chunk in chunks:
                samples = to_samples(chunk)
                seconds += len(samples) / SAMPLE_RATE
                yield samples

        diarizer_encoder = (
            encoder if self.diarizer_encoder is self.encoder else self.diarizer_encoder.with_windows(windows)
        )
        blocks = stream(encoder, felt, self.model, given(), diarizer_encoder=diarizer_encoder)
        for curves in resample_blocks((block.numpy() for block in blocks), FRAME_RATE, fps):
            # The frames lag behind the sound: only at its end can there be one too many.
            due = curves[: max(1, round(seconds * fps)) - made]
            made += len(due)
            if len(due):
                yield self._vertices(due, rig)

    def latency(self, windows: Windowing = LIVE) -> float:
        """The longest time in seconds between a sound and the frame that shows it, computing time left out."""
        _check_windows(windows)
        return latency(windows, self.model)

    def _read(self, hearing: _EncodedAudio, name: str | None) -> EmotionTrack:
        """The emotion in a voice."""
        self._check_reader()
        posterior, intensity = predict_frames(self.diarizer, hearing.features())
        return build_track(posterior, intensity, self.diarizer.config.labels, hearing.duration, name, hearing.levels)

    def _check_reader(self) -> None:
        """Refuse to read emotions from features that the diarizer was not trained on."""
        config = self.diarizer.config
        if (config.first_layer + config.layers, config.feature_width) != (
            self.diarizer_encoder.layers,
            self.diarizer_encoder.width,
        ):
            raise CheckpointError(
                f"the diarizer reads no features of {self.diarizer_encoder.name}: {self.name}. "
                "Give this talker a track with --emotion TRACK.json; sedtalker diarize writes one"
            )

    def _check_process(self) -> None:
        """Refuse a GPU's model in a process that was forked from the one that loaded it."""
        if os.getpid() != self._process and self.model.layer_weights.device.type != "cpu":
            raise SEDTalkerError(
                "this talker was loaded on a GPU before the process was forked. Load it in the child, or start "
                'processes with multiprocessing.get_context("spawn")'
            )

    def _check_emotion(self, emotion: str | Path | EmotionTrack, name: str | None) -> None:
        """Check what can be checked of an emotion before the audio is read."""
        labels = self.model.config.labels
        if isinstance(emotion, EmotionTrack):
            emotion.with_labels(labels)
        elif not isinstance(emotion, (str, Path)):
            raise TrackError(
                f'an emotion of {type(emotion).__name__}: give "auto", a text like "happy:0.8", a track or its path'
            )
        elif _is_track_file(emotion):
            read_track(emotion, audio=name, labels=labels).with_labels(labels)
        else:
            self._check_reader()
            if emotion == "auto":
                self.diarizer.label_matrix(labels)
            else:
                check_emotion_spec(str(emotion), self._known_labels())

    def _known_labels(self) -> tuple[str, ...]:
        """The model's labels, and after them the diarizer's others: what a reading may hold before it is edited."""
        labels, others = self.model.config.labels, self.diarizer.config.labels
        columns = label_columns(others, labels)
        return (*labels, *(name for name, column in zip(others, columns, strict=True) if column is None))

    def _emotion(self, emotion: str | Path | EmotionTrack, hearing: _EncodedAudio, name: str | None) -> EmotionTrack:
        """The track that was asked for, for what is heard."""
        reading = not isinstance(emotion, EmotionTrack) and not _is_track_file(emotion)
        shared = reading and self.diarizer_encoder is self.encoder
        if not shared:
            for _ in hearing.features():  # the diarizer needs nothing of them
                pass
        if reading:
            read = self._read(hearing if shared else _EncodedAudio(hearing.audio, self.diarizer_encoder), name)
            if emotion == "auto":
                return read
            return parse_emotion_spec(str(emotion), hearing.duration, read.with_labels(self._known_labels()))
        if not isinstance(emotion, EmotionTrack):
            return read_track(emotion, hearing.duration, name, self.model.config.labels)
        return emotion.fit_duration(hearing.duration)

    def _motion(
        self, speech: Spool, track: EmotionTrack, life: IdleMotion | None, rig: Face, fps: float, count: int
    ) -> Float:
        """Weights (count, 52) of a rig or vertices (count, V, 3) at `fps`, made block by block."""
        rigged = rig.blendshapes is not None
        motion = np.empty(
            (count, self.model.config.coefficients) if rigged else (count, *rig.template.shape), np.float32
        )
        made = 0
        blocks = decode_stream(self.model, attach_track(track, map(torch.from_numpy, speech.blocks())))
        for curves in resample_blocks(add_idle_motion((block.numpy() for block in blocks), life), FRAME_RATE, fps):
            part = motion[made : made + len(curves)]
            part[:] = (np.clip(curves, 0, 1) if rigged else self._vertices(curves, rig))[: len(part)]
            made += len(part)
        return motion

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
        return rig.template + self.model.predict_displacements(curves)


class _EncodedAudio:
    """One pass over a recording, of which only what later steps need is kept."""

    def __init__(
        self, audio: AudioSource, encoder: WindowedEncoder, keep: Callable[[Tensor], None] = lambda block: None
    ) -> None:
        """`keep` sees every block of features."""
        self.audio, self.encoder, self.keep = audio, encoder, keep
        self._levels: list[Float] = []
        self._samples = 0

    def features(self) -> Iterator[Tensor]:
        """Blocks (n, L, D); to be read to their end, once, before the rest is asked for."""
        for block in self.encoder.blocks(self._chunks()):
            self.keep(block)
            yield block

    def _chunks(self) -> Iterator[Samples]:
        for chunk in stream_audio(self.audio):  # of whole seconds, so that no frame lies in two
            self._levels.append(loudness(chunk))
            self._samples += len(chunk)
            yield chunk

    @property
    def levels(self) -> Float:
        """Loudness (T,) at 50 Hz."""
        return np.concatenate(self._levels)

    @property
    def duration(self) -> float:
        """Seconds."""
        return self._samples / SAMPLE_RATE

    @property
    def frames(self) -> int:
        """Frames of 20 ms, the last one perhaps partial."""
        return math.ceil(self._samples / FRAME_SAMPLES)


def add_idle_motion(blocks: Iterable[Float], life: IdleMotion | None) -> Iterator[Float]:
    """Blocks of coefficients with life added."""
    start = 0
    for block in blocks:
        yield block if life is None else life.apply(block, start)
        start += len(block)


def _check_fps(fps: float) -> None:
    if not 1 <= as_number(fps, "fps") <= 1000:
        raise SEDTalkerError(f"{fps} frames a second: give 1 to 1000")


def _check_windows(windows: Windowing) -> None:
    if not isinstance(windows, Windowing):
        raise SEDTalkerError(f"windows of {type(windows).__name__}: give a sedtalker.speech.Windowing")


def _is_track_file(emotion: str | Path | EmotionTrack) -> bool:
    return str(emotion).lower().endswith(TRACK_SUFFIXES)


def _device(name: str) -> torch.device:
    if not isinstance(name, (str, torch.device)):
        raise SEDTalkerError(f"a device must be a name, not {name!r:.40}. Use auto, cpu or cuda")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise SEDTalkerError(f"no such device here: {name} ({str(error).splitlines()[0]}). Use --device cpu") from error
    return device


def _model_folder(model: Path | str) -> Path:
    """The folder of a packaged name, a path, or a repository on the hub (fetched, then cached)."""
    from sedtalker.errors import require
    from sedtalker.resources import asset

    path = as_path(model, "a talker", CheckpointError)
    packaged = asset("talker", str(model))
    if packaged.is_dir():
        return packaged
    if path.exists() or str(model).count("/") != 1:
        return path
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
    return str(audio) if isinstance(audio, (str, Path, AudioFile)) else None


def _meta(model: str, audio: AudioSource, source: Path | str | None, seed: int) -> dict[str, Any]:
    name = _name_of(audio, source)
    track = {"audio_track": audio.track} if isinstance(audio, AudioFile) and audio.track is not None else {}
    return {
        "audio": name,
        "audio_sha256": sha256(name) if name and Path(name).is_file() else None,
        **track,
        "model": model,
        "seed": seed,
        "sedtalker": __version__,
        "torch": torch.__version__,
    }
