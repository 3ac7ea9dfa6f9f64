"""`load` and `Talker`: from an audio file to an animation."""

from __future__ import annotations

import hashlib
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sedtalker import __version__
from sedtalker.animation import Animation
from sedtalker.audio import SAMPLE_RATE, AudioFile, AudioSource, Samples, check_source, stream_audio
from sedtalker.checkpoint import is_checkpoint, weights_hash
from sedtalker.curves import Resampler
from sedtalker.emotion.causal_cpu import PackedDiarizer, load_compiled_diarizer
from sedtalker.emotion.config import label_matrix
from sedtalker.emotion.prediction import Prediction, build_track, check_voice
from sedtalker.emotion.track import EmotionTrack, check_emotion_spec, check_scale, parse_emotion_spec
from sedtalker.emotion.track_io import TRACK_SUFFIXES, read_track
from sedtalker.emotion.vad import SILENCE_LEVEL, detect_speech
from sedtalker.emotion.voice import VoiceProfile
from sedtalker.encoder_config import STREAMING_KIND, LookAheadDial, Windowing, encoder_folder
from sedtalker.errors import (
    AudioError,
    CheckpointError,
    FaceError,
    SEDTalkerError,
    TrackError,
    as_number,
    as_path,
    first_line,
    require,
    require_torch,
)
from sedtalker.face.assets import DEFAULT, identities, load_face
from sedtalker.face.neck import neck_pivot
from sedtalker.face.pose_cpu import FEW
from sedtalker.face.rig import Face
from sedtalker.files import sha256
from sedtalker.labels import label_columns
from sedtalker.mel import FRAME_RATE, FRAME_SAMPLES
from sedtalker.resources import asset, short_openmp_spin
from sedtalker.streaming_encoder_cpu import CompiledEncoder, load_compiled_encoder
from sedtalker.talker.idle_motion import LOOK_AHEAD, head_transforms
from sedtalker.talker.model_cpu import PackedTalker, load_compiled_talker
from sedtalker.talker.prosody import ProsodyTracker
from sedtalker.talker.streaming import (
    LIVE,
    LIVE_LOOK_AHEAD,
    OFFLINE_LOOK_AHEAD,
    MotionDecoder,
    Spool,
    TalkerStream,
    TrackEmotion,
    extend,
    motion_network,
)

if TYPE_CHECKING:
    from sedtalker.emotion.diarizer import Diarizer
    from sedtalker.speech import WindowedEncoder
    from sedtalker.talker.model import TalkerModel

Float = NDArray[np.float32]

SHORTEST_REFERENCE = 2.0  # s of speech from which a voice is known
SHORTEST_PART = 0.2  # s of speech in one of several recordings of a voice
WARM_UP = SAMPLE_RATE // 2  # samples of silence that the first stream of a talker runs on


def load(model: Path | str = "default", *, diarizer: Path | str = "default", device: str = "auto") -> Talker:
    """A talker ready to animate: speech encoder, diarizer, decoder and face.

    `model` and `diarizer` are names of packaged weights, folders, or (model) the name of a repository on the hub.

    Raises:
        CheckpointError: no such model, or damaged weights.
    """
    with short_openmp_spin():
        device = _find_device(device)
        decoder = _load_model(_find_model(model), device)
        emotion_model = _load_diarizer(diarizer, device)
        encoder = _load_encoder(decoder.config.encoder, device)
        name = emotion_model.config.encoder
        diarizer_encoder = encoder if name == encoder.name else _load_encoder(name, device)
    talker = Talker(encoder, emotion_model, decoder, str(model), diarizer_encoder)
    talker.weights = {
        "talker": _weights("talker", str(model), _find_model(model)),
        "diarizer": _weights("diarizer", str(diarizer)),
        "encoder": _weights("speech", encoder.name),
    }
    return talker


def _load_model(folder: Path, device: str) -> TalkerModel | PackedTalker:
    compiled = load_compiled_talker(folder) if device == "cpu" else None
    if compiled is not None:
        return compiled
    require_torch()  # for GPUs and for other models
    from sedtalker.talker.model import load_talker_model

    return load_talker_model(folder).to(device)


def _load_diarizer(name: Path | str, device: str) -> Diarizer | PackedDiarizer:
    compiled = load_compiled_diarizer(name) if device == "cpu" else None
    if compiled is not None:
        return compiled
    require_torch()  # for GPUs and for other models
    from sedtalker.emotion.diarizer import load_diarizer

    return load_diarizer(name, device)


def _load_encoder(name: str, device: str) -> WindowedEncoder | CompiledEncoder:
    folder = encoder_folder(name)
    if device == "cpu" and is_checkpoint(folder, STREAMING_KIND):
        return load_compiled_encoder(name, folder)
    require_torch()  # for GPUs and for other models
    from sedtalker.speech import load_encoder

    return load_encoder(name, device)


class Talker:
    """Diarizes speech, and animates a face with it.

    On a CPU the packaged models are arrays for compiled code, and torch is not imported. Models in torch work as well.
    """

    def __init__(
        self,
        encoder: WindowedEncoder | CompiledEncoder,
        diarizer: Diarizer | PackedDiarizer,
        model: TalkerModel | PackedTalker,
        name: str,
        diarizer_encoder: WindowedEncoder | CompiledEncoder | None = None,
    ) -> None:
        """`diarizer_encoder` gives the diarizer's features; None: those of `encoder`.

        Raises:
            CheckpointError: the model was trained on features of other sizes than the encoder's.
        """
        config = model.config
        if (encoder.layers, encoder.width) != (config.layers, config.feature_width):
            raise CheckpointError(
                f"a talker of {config.layers} x {config.feature_width} features on an encoder of {encoder.layers} x "
                f"{encoder.width}: {name}, {encoder.name}. Load the encoder {config.encoder}"
            )
        self.encoder, self.diarizer, self.model, self.name = encoder, diarizer, model, name
        self.diarizer_encoder = diarizer_encoder or encoder
        self.weights: dict[str, dict[str, str | None]] = {}  # name and sha256 of each model, for the record of a result
        self._process = os.getpid()
        self._warm = False  # a stream has run
        self._head: Face | None = None  # the last packaged head

    def diarize(
        self, audio: AudioSource, *, look_ahead: int | None = None, voice: VoiceProfile | None = None
    ) -> EmotionTrack:
        """The emotion of every 20 ms of `audio`: a path, or `(samples, rate)`.

        Args:
            look_ahead: as in `animate`.
            voice: what is known of the speaker, from `enroll`.

        Raises:
            AudioError: as `load_audio`.
            CheckpointError: the diarizer cannot use the profile, or the encoder has no such look-ahead.
        """
        check_source(audio)
        self._check_process()
        encoder = _offline(self.diarizer_encoder, look_ahead)
        return self._diarize(_EncodedAudio(audio, encoder), _name_of(audio), voice)

    def enroll(self, audio: AudioSource, *, shortest: float = SHORTEST_REFERENCE) -> VoiceProfile:
        """The profile of the voice in `audio`, ordinary speech of one person.

        Args:
            shortest: seconds of speech that are required.

        Raises:
            AudioError: as `load_audio`, or there is less speech.
            CheckpointError: the diarizer does not use profiles.
        """
        check_source(audio)
        self._check_process()
        self._check_diarizer()
        encoded = _EncodedAudio(audio, _offline(self.diarizer_encoder, None))
        profile = _enroll(self.diarizer, encoded.features())
        levels = encoded.loudness_db
        seconds = float((detect_speech(levels) & (levels > SILENCE_LEVEL)).sum()) / FRAME_RATE
        if seconds < shortest:
            raise AudioError(
                f"{seconds:.1f} s of speech are too little to know a voice by: {_name_of(audio) or 'samples'}. "
                f"Give {shortest:g} s or more of one person's ordinary speech, best 10 to 60 s"
            )
        return profile

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
        look_ahead: int | None = None,
        voice: VoiceProfile | None = None,
    ) -> Animation:
        """Animate a face with the speech in `audio`: a path, or `(samples, rate)`.

        Args:
            emotion: "auto" diarizes the voice; "happy:0.8" or "happy:0.8@2.0-4.5,..." overrides the diarized emotion (a
                part without a span covers the clip); a track, or the path of a track file, replaces it.
            intensity_scale: multiplies the intensity; 0 is exactly the neutral animation.
            fps: frames a second of the result.
            face: an identity, a mesh file or a `Face`; None is the default head.
            seed: of blinks, gaze and head motion, which are others for another recording.
            still: no blinks, gaze and head motion.
            look_ahead: ms of sound after a frame that is used, 80, 120, 200 or 400, to show what a stream of this seed
                shows; None: the speech encoder reads 400, and lip gap and idle motion depend on the whole recording.
            voice: what is known of the speaker, from `enroll`, to diarize the voice.

        Raises:
            AudioError, TrackError, FaceError: the input cannot be used.
            CheckpointError: the speech encoder has no such look-ahead, or the diarizer cannot use the profile.
        """
        check_source(audio)
        _check_fps(fps)
        _check_seed(seed)
        check_scale(intensity_scale)
        encoder = _offline(self.encoder, look_ahead)
        self._check_process()
        self._check_emotion(emotion, _name_of(audio))
        if voice is not None:
            check_voice(self.diarizer, voice)
        rig = self.load_rig(face)
        rigged = rig.blendshapes is not None
        network = motion_network(self.model)
        with Spool(network.config.embedded_width) as speech:
            encoded = _EncodedAudio(audio, encoder, lambda block: speech.append(network.embed(block)))
            track = self._make_track(emotion, encoded, _name_of(audio), look_ahead, voice)
            track = track.with_labels(self.model.config.labels)
            track.scale(intensity_scale)
            count = max(1, round(encoded.duration * fps))
            idle_seed = seed if look_ahead is not None else _recording_seed(seed, encoded.loudness_db)
            decoder = MotionDecoder(network, idle_seed, still)
            mouth = network.recording_mouth(speech.blocks()) if look_ahead is None else None
            motion, head = self._decode_motion(speech, track, encoded.prosody, decoder, rig, fps, count, mouth)
        return Animation(
            template=rig.template,
            faces=rig.faces,
            fps=fps,
            emotion=track,
            blendshapes=motion if rigged else None,
            blendshape_names=rig.blendshape_names,
            dense=None if rigged else motion,
            head=head_transforms(head, neck_pivot(rig)) if rigged and not still else None,
            meta={**_meta(self.name, audio, seed), "weights": self.weights, **_face_meta(rig)},
            rig=rig,
        )

    def open_stream(
        self,
        *,
        emotion: EmotionTrack | None = None,
        intensity_scale: float = 1.0,
        fps: float = 30.0,
        seed: int = 0,
        still: bool = False,
        look_ahead: int | None = None,
        windows: Windowing | None = None,
        voice: VoiceProfile | None = None,
    ) -> TalkerStream:
        """A stream of live speech: `push` samples, and get the frames that became complete.

        Args:
            emotion: a track, neutral after its end; None diarizes the voice without look-ahead.
            intensity_scale, fps, seed, still: as in `animate`.
            look_ahead: ms of sound after a frame that the speech encoder reads, 80, 120 (the default), 200 or 400.
            windows: of an encoder without such a dial; a longer hop costs less and adds latency.
            voice: what is known of the speaker, from `enroll`.

        Raises:
            SEDTalkerError: an argument cannot be used.
        """
        _check_fps(fps)
        _check_seed(seed)
        check_scale(intensity_scale)
        if emotion is not None and not isinstance(emotion, EmotionTrack):
            raise TrackError(f"an emotion of {type(emotion).__name__}: a stream takes an EmotionTrack, or None")
        self._check_process()
        if emotion is None:
            self._check_diarizer()
        encoder = _live(self.encoder, look_ahead, windows)
        shared = self.diarizer_encoder is self.encoder
        build = partial(
            TalkerStream,
            encoder,
            self.diarizer if emotion is None else emotion,
            self.model,
            diarizer_encoder=encoder
            if shared
            else _live(self.diarizer_encoder, self._own_look_ahead(look_ahead), windows),
            voice=voice,
            intensity_scale=intensity_scale,
            fps=fps,
            seed=seed,
            still=still,
        )
        if not self._warm:  # compiled code is loaded, or compiled after an installation, before the first sound waits
            build().push(np.zeros(WARM_UP, np.float32))
            self._warm = emotion is None
        return build()

    def stream(
        self,
        chunks: Iterable[Samples],
        *,
        face: str | Path | Face | None = None,
        **options: Any,
    ) -> Iterator[Float]:
        """Vertices (n, V, 3) in metres for chunks of samples, each as soon as it can be computed.

        The result does not depend on the sizes of the chunks. `open_stream` gives the motion of the head as well.

        Args:
            chunks: samples (N,) at 16 kHz, mono.
            face: as in `animate`.
            options: those of `open_stream`.

        Raises:
            SEDTalkerError: an argument (at the call) or a chunk (when it is read) cannot be used.
        """
        if isinstance(chunks, (str, bytes, Path)) or not isinstance(chunks, Iterable):
            raise AudioError(f"chunks of {type(chunks).__name__}: give an iterable of arrays (N,) of 16 kHz samples")
        rig, stream = self.load_rig(face), self.open_stream(**options)

        def poses() -> Iterator[Float]:
            for frames in chain(map(stream.push, chunks), (stream.finish() for _ in range(1))):
                if len(frames.time):
                    yield self.pose(frames.weights, rig)

        return poses()

    def latency(self, look_ahead: int | None = None, windows: Windowing | None = None) -> float:
        """The longest delay of a frame of a stream after its sound, in seconds, without computing time."""
        return self.open_stream(emotion=EmotionTrack.neutral(1), look_ahead=look_ahead, windows=windows).latency

    def _diarize(self, encoded: _EncodedAudio, name: str | None, voice: VoiceProfile | None = None) -> EmotionTrack:
        """The diarized track of audio that was not read yet."""
        self._check_diarizer()
        prediction = _predict(self.diarizer, encoded.features(), voice)
        labels = self.diarizer.config.labels
        return build_track(prediction, labels, encoded.duration, name, encoded.loudness_db)

    def _check_diarizer(self) -> None:
        """Check that the diarizer was trained on features of the encoder's sizes."""
        config, encoder = self.diarizer.config, self.diarizer_encoder
        if (config.first_layer + config.layers, config.feature_width) != (encoder.layers, encoder.width):
            raise CheckpointError(
                f"the diarizer does not fit the features of {encoder.name}: {self.name}. "
                "Give this talker a track with --emotion TRACK.json; sedtalker diarize writes one"
            )

    def _check_process(self) -> None:
        """Check that a model on a GPU is used in the process that loaded it."""
        if isinstance(self.model, PackedTalker):
            return
        if os.getpid() != self._process and self.model.layer_weights.device.type != "cpu":
            raise SEDTalkerError(
                "this talker was loaded on a GPU before the process was forked. Load it in the child, or start "
                'processes with multiprocessing.get_context("spawn")'
            )

    def _check_emotion(self, emotion: str | Path | EmotionTrack, name: str | None) -> None:
        """Check an emotion as far as possible before the audio is read."""
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
            self._check_diarizer()
            if emotion == "auto":
                label_matrix(self.diarizer.config, labels)
            else:
                check_emotion_spec(str(emotion), self._known_labels())

    def _known_labels(self) -> tuple[str, ...]:
        """The model's labels, followed by those of the diarizer that the model does not have."""
        labels, others = self.model.config.labels, self.diarizer.config.labels
        columns = label_columns(others, labels)
        return (*labels, *(name for name, column in zip(others, columns, strict=True) if column is None))

    def _make_track(
        self,
        emotion: str | Path | EmotionTrack,
        encoded: _EncodedAudio,
        name: str | None,
        look_ahead: int | None,
        voice: VoiceProfile | None = None,
    ) -> EmotionTrack:
        """The track for `emotion`, as in `animate`. Reads `encoded` to its end."""
        from_file = _is_track_file(emotion)
        diarized = None
        if not isinstance(emotion, EmotionTrack) and not from_file:
            own = self.diarizer_encoder is not self.encoder
            other = encoded
            if own:
                encoder = _offline(self.diarizer_encoder, self._own_look_ahead(look_ahead))
                other = _EncodedAudio(encoded.audio, encoder)
            diarized = self._diarize(other, name, voice)
        if not encoded.complete:
            for _ in encoded.features():  # only their consumer and the measurements are needed
                pass
        if isinstance(emotion, EmotionTrack):
            return emotion.fit_duration(encoded.duration)
        if from_file:
            return read_track(emotion, encoded.duration, name, self.model.config.labels)
        assert diarized is not None
        if emotion == "auto":
            return diarized
        return parse_emotion_spec(str(emotion), encoded.duration, diarized.with_labels(self._known_labels()))

    def _own_look_ahead(self, look_ahead: int | None) -> int | None:
        """The look-ahead in ms of a diarizer's own encoder: that of the talker, if it can be chosen."""
        return look_ahead if isinstance(self.diarizer_encoder, LookAheadDial) else None

    def _decode_motion(
        self,
        speech: Spool,
        track: EmotionTrack,
        prosody: Float,
        decoder: MotionDecoder,
        rig: Face,
        fps: float,
        count: int,
        mouth: Float | None,
    ) -> tuple[Float, Float]:
        """Weights (count, 52) of a rig or vertices (count, V, 3), and angles of the head (count, 3), at `fps`."""
        rigged = rig.blendshapes is not None
        motion = np.empty(
            (count, self.model.config.coefficients) if rigged else (count, *rig.template.shape), np.float32
        )
        head = np.empty((count, 3), np.float32)
        emotion, resampler, done, start = TrackEmotion(track), Resampler(FRAME_RATE, fps), 0, LOOK_AHEAD

        def rows() -> Iterator[Float]:
            nonlocal start
            for block in speech.blocks():
                ahead = prosody[start : start + len(block)]
                known = None if mouth is None else mouth[start - LOOK_AHEAD : start - LOOK_AHEAD + len(block)]
                start += len(block)
                posterior, intensity = emotion.push(block, ahead[:, 0])
                yield decoder.push(block, posterior, intensity, ahead, known)
            yield decoder.finish()

        for curves in chain(map(resampler.push, rows()), (resampler.finish() for _ in range(1))):
            frames = decoder.split(curves[: count - done], done, fps)
            part = slice(done, done + len(frames.time))
            motion[part] = frames.weights if rigged else self.pose(frames.weights, rig)
            head[part] = frames.head
            done = part.stop
        return motion, head

    def load_rig(self, face: str | Path | Face | None = None) -> Face:
        """Load a face, and check that this model can move it."""
        rig = face if isinstance(face, Face) else self._load_face(face or DEFAULT)
        if self.model.config.head == "blendshapes":
            if rig.blendshapes is None:
                raise FaceError(
                    f"a face without blendshapes: {rig.name}. This talker needs a rig. Use the default head's topology"
                )
            return rig
        if len(rig.template) != self.model.config.vertices:
            raise FaceError(
                f"a face of {len(rig.template)} vertices: {rig.name}. This talker moves "
                f"{self.model.config.vertices}; give a template mesh of its topology with --face"
            )
        return replace(rig, blendshapes=None, blendshape_names=())

    def _load_face(self, face: str | Path) -> Face:
        """Load a face. A packaged head is kept for the next call: reading it takes as long as 3 s of speech."""
        if self._head is not None and self._head.name == str(face):
            return self._head
        loaded = load_face(face)
        if loaded.name in identities() and loaded.source is None:
            self._head = loaded
        return loaded

    def pose(self, curves: Float, rig: Face) -> Float:
        """Vertices (T, V, 3) in metres of the weights or other coefficients (T, K) of an animation or a stream."""
        if rig.blendshapes is not None and 0 < len(curves) <= FEW and np.ndim(curves) == 2:
            return rig.pose_few(curves)
        if rig.blendshapes is not None:
            return rig.pose(curves)
        if isinstance(self.model, PackedTalker):
            raise FaceError(f"a face without blendshapes: {rig.name}. Load it with load_rig")
        return rig.template + self.model.predict_displacements(curves)


class _EncodedAudio:
    """One pass over a recording: its features, then its loudness and duration."""

    def __init__(
        self,
        audio: AudioSource,
        encoder: WindowedEncoder | CompiledEncoder,
        consume: Callable[[Float], None] = lambda block: None,
    ) -> None:
        """`consume` is called with every block of features."""
        self.audio, self.encoder, self.consume = audio, encoder, consume
        self.complete = False  # the features were read to their end
        self._reading = False
        self._tracker = ProsodyTracker()
        self._prosody = bytearray()  # one block: small arrays between the encoder's large ones would fragment the heap
        self._samples = 0

    def features(self) -> Iterator[Float]:
        """Blocks (n, L, D) of features, once. Raises RuntimeError if they were read before."""
        if self._reading:
            raise RuntimeError("the features of a recording can be read once")
        self._reading = True
        for block in map(np.asarray, self.encoder.blocks(self._measure_chunks())):
            self.consume(block)
            yield block
        self._prosody += self._tracker.finish().tobytes()
        self.complete = True

    def _measure_chunks(self) -> Iterator[Samples]:
        for chunk in stream_audio(self.audio):  # of whole seconds, so that no 20 ms frame is divided
            self._prosody += self._tracker.push(chunk).tobytes()
            self._samples += len(chunk)
            yield chunk

    def _check_complete(self) -> None:
        if not self.complete:
            raise RuntimeError("read the features to their end before loudness, duration and frames")

    @property
    def loudness_db(self) -> Float:
        """Loudness (T,) at 50 Hz, dB of full scale. Raises RuntimeError if the features were not read to their end."""
        self._check_complete()
        return self.prosody[: self.frames, 0]

    @property
    def prosody(self) -> Float:
        """Loudness and pitch (T + LOOK_AHEAD, 2), the last row repeated; raises as `loudness_db`."""
        self._check_complete()
        return extend(np.frombuffer(self._prosody, np.float32).reshape(-1, 2), self.frames + LOOK_AHEAD)

    @property
    def duration(self) -> float:
        """Seconds; raises as `loudness_db`."""
        self._check_complete()
        return self._samples / SAMPLE_RATE

    @property
    def frames(self) -> int:
        """Number of 20 ms frames, the last perhaps partial; raises as `loudness_db`."""
        self._check_complete()
        return math.ceil(self._samples / FRAME_SAMPLES)


def _predict(diarizer: Diarizer | PackedDiarizer, features: Iterator[Float], voice: VoiceProfile | None) -> Prediction:
    """The prediction for the features of a whole recording."""
    packed = _on_cpu(diarizer)
    if packed is not None:
        return packed.predict(features, voice)
    import torch  # the diarizer is a torch module

    from sedtalker.emotion.inference import predict_frames

    assert not isinstance(diarizer, PackedDiarizer)
    return predict_frames(diarizer, map(torch.from_numpy, features), voice)


def _enroll(diarizer: Diarizer | PackedDiarizer, features: Iterator[Float]) -> VoiceProfile:
    """The voice of the features of a recording; raises CheckpointError if the diarizer does not use profiles."""
    packed = _on_cpu(diarizer)
    if packed is not None:
        return packed.enroll(features)
    import torch  # the diarizer is a torch module

    from sedtalker.emotion.inference import enroll_voice

    assert not isinstance(diarizer, PackedDiarizer)
    return enroll_voice(diarizer, map(torch.from_numpy, features))


def _on_cpu(diarizer: Diarizer | PackedDiarizer) -> PackedDiarizer | None:
    """The compiled code of a causal diarizer on the CPU."""
    if isinstance(diarizer, PackedDiarizer):
        return diarizer
    return diarizer.compiled() if diarizer.config.causal and diarizer.absent.device.type == "cpu" else None


def _offline(encoder: WindowedEncoder | CompiledEncoder, look_ahead: int | None) -> WindowedEncoder | CompiledEncoder:
    """The encoder for whole recordings."""
    if look_ahead is None and not isinstance(encoder, LookAheadDial):
        return encoder
    return encoder.compiled().with_look_ahead(OFFLINE_LOOK_AHEAD if look_ahead is None else look_ahead)


def _live(
    encoder: WindowedEncoder | CompiledEncoder, look_ahead: int | None, windows: Windowing | None
) -> WindowedEncoder | CompiledEncoder:
    """The encoder for streams."""
    if windows is not None:
        if not isinstance(windows, Windowing):
            raise SEDTalkerError(f"windows of {type(windows).__name__}: give a sedtalker.speech.Windowing")
        return encoder.with_windows(windows)
    if look_ahead is None and not isinstance(encoder, LookAheadDial):
        return encoder.with_windows(LIVE)
    return encoder.with_look_ahead(LIVE_LOOK_AHEAD if look_ahead is None else look_ahead)


def _check_seed(seed: int) -> None:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise SEDTalkerError(f"a seed of {seed!r}: give a whole number, 0 or more")


def _recording_seed(seed: int, loudness_db: Float) -> int:
    """Seed of a recording's idle motion, so that the recordings of a folder do not all begin with the same pose.

    It depends on the loudness in whole dB, which another decoder or processor does not change, not on the file's name.
    """
    levels = np.rint(loudness_db).astype("<i2").tobytes()
    return int.from_bytes(hashlib.sha256(f"{seed} ".encode() + levels).digest()[:8], "little")


def _check_fps(fps: float) -> None:
    if not 1 <= as_number(fps, "fps") <= 1000:
        raise SEDTalkerError(f"{fps} frames a second: give 1 to 1000")


def _is_track_file(emotion: str | Path | EmotionTrack) -> bool:
    return str(emotion).lower().endswith(TRACK_SUFFIXES)


def _find_device(name: str) -> str:
    """The name of a usable device. For "cpu", and "auto" without a GPU or without torch, torch is not imported."""
    if name == "cpu" or (name == "auto" and not (_may_have_gpu() and find_spec("torch"))):
        return "cpu"
    require_torch()
    import torch

    if not isinstance(name, (str, torch.device)):
        raise SEDTalkerError(f"a device must be a name, not {name!r:.40}. Use auto, cpu or cuda")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:  # its text lists all that torch was ever built for
        raise SEDTalkerError(f"no such device: {name}. Use auto, cpu or cuda") from error
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise SEDTalkerError(f"no such device: {name} ({first_line(error)}). Use --device cpu") from error
    return str(device)


def _may_have_gpu() -> bool:
    """Whether the machine may have a GPU that torch calls "cuda": of NVIDIA or, with ROCm, of AMD."""
    if sys.platform == "linux":
        return any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))  # dxg: WSL
    return sys.platform != "darwin"


def _find_model(model: Path | str) -> Path:
    """The folder of a packaged name, a path, or a repository on the hub (fetched, then cached)."""
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
            f"no such talker: {model} is not a folder, and the hub cannot provide it ({error}). Check the name"
        ) from error


def _name_of(audio: AudioSource) -> str | None:
    return str(audio) if isinstance(audio, (str, Path, AudioFile)) else None


def _face_meta(rig: Face) -> dict[str, str]:
    return {"face": rig.name} if rig.source is None else {"face": rig.name, "face_source": rig.source}


def _weights(kind: str, name: str, folder: Path | None = None) -> dict[str, str | None]:
    """Name and sha256 of packaged weights, or of those in a folder."""
    packaged = asset(kind, name)
    return {"name": Path(name).name, "sha256": weights_hash(folder or (packaged if packaged.is_dir() else Path(name)))}


def _meta(model: str, audio: AudioSource, seed: int) -> dict[str, Any]:
    name = _name_of(audio)
    track = {"audio_track": audio.track} if isinstance(audio, AudioFile) and audio.track is not None else {}
    return {
        "audio": name,
        "audio_sha256": sha256(name) if name and Path(name).is_file() else None,
        **track,
        "model": model,
        "seed": seed,
        "sedtalker": __version__,
        **({"torch": version("torch")} if find_spec("torch") else {}),
    }
