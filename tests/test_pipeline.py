"""`sedtalker.load`, `animate` and `stream` with the packaged weights on a real recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import sedtalker
from sedtalker.audio import SAMPLE_RATE, load_audio
from sedtalker.emotion.diarizer import Diarizer, DiarizerConfig, load_diarizer, save_diarizer
from sedtalker.errors import CheckpointError, FaceError, SEDTalkerError, TrackError
from sedtalker.pipeline import _EncodedAudio
from sedtalker.speech import WhisperConfig, WhisperEncoder, WindowedEncoder, load_encoder
from sedtalker.talker.model import TalkerConfig, TalkerModel


@pytest.fixture(scope="module")
def talker() -> sedtalker.Talker:
    return sedtalker.load(device="cpu")


@pytest.fixture(scope="module")
def samples(speech_file: Path) -> np.ndarray:
    return load_audio(speech_file)


def test_a_path_and_its_samples_give_the_same_animation(talker, speech_file: Path, samples: np.ndarray) -> None:
    from_path = talker.animate(speech_file)
    from_samples = talker.animate((samples, SAMPLE_RATE))
    np.testing.assert_allclose(from_path.blendshapes, from_samples.blendshapes, atol=1e-5)
    np.testing.assert_allclose(from_path.head, from_samples.head, atol=1e-5)
    assert from_path.meta["audio"] == str(speech_file) and len(from_path.meta["audio_sha256"]) == 64
    assert type(from_path.meta["torch"]) is str  # a subclass would import torch where an animation is unpickled


def test_shapes_ranges_and_units(talker, speech_file: Path) -> None:
    animation = talker.animate(speech_file)
    count = round(30_966 / 16_000 * 30)
    assert animation.vertices.shape == (count, len(animation.template), 3) and animation.vertices.dtype == np.float32
    assert animation.blendshapes.min() >= 0 and animation.blendshapes.max() <= 1
    assert animation.blendshapes.std(axis=0).max() > 0.05
    assert 0.2 < np.ptp(animation.template[:, 1]) < 1.0  # a head with shoulders, in metres
    rotations = animation.head[:, :3, :3]
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), np.tile(np.eye(3), (count, 1, 1)), atol=1e-5)


@pytest.mark.parametrize("fps", [24, 25, 29.97, 60, 12.5])
def test_any_frame_rate_shows_the_same_motion(talker, speech_file: Path, fps: float) -> None:
    animation = talker.animate(speech_file, fps=fps, still=True)
    assert abs(animation.duration - 30_966 / 16_000) <= 0.5 / fps
    fine = talker.animate(speech_file, fps=50, still=True)
    jaw = animation.blendshape_names.index("jawOpen")
    middles = (np.arange(len(animation)) + 0.5) / fps
    expected = np.interp(middles, (np.arange(len(fine)) + 0.5) / 50, fine.blendshapes[:, jaw])
    np.testing.assert_allclose(animation.blendshapes[:, jaw], expected, atol=1e-4)


def test_intensity_0_is_exactly_neutral_and_more_moves_more(talker, speech_file: Path) -> None:
    neutral = talker.animate(speech_file, emotion="neutral", still=True)
    for emotion in ("happy", "sad", "angry", "disgust", "fear", "surprise"):
        moved = []
        for intensity in (0.0, 0.5, 1.0):
            animation = talker.animate(speech_file, emotion=f"{emotion}:{intensity}", still=True)
            moved.append(float(np.abs(animation.blendshapes - neutral.blendshapes).mean()))
        assert moved[0] == 0.0
        assert 0 < moved[1] < moved[2], emotion
    silenced = talker.animate(speech_file, emotion="happy", intensity_scale=0, still=True)
    np.testing.assert_array_equal(silenced.blendshapes, neutral.blendshapes)


def test_idle_motion_is_seeded_and_does_not_change_the_lips(talker, speech_file: Path) -> None:
    still = talker.animate(speech_file, still=True)
    first, again, other = (talker.animate(speech_file, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.blendshapes, again.blendshapes)
    np.testing.assert_array_equal(first.head, again.head)
    assert not np.array_equal(first.head, other.head) and still.head is None
    lips = still.face.masks["lips"]
    assert np.abs(first.vertices[:, lips] - still.vertices[:, lips]).max() < 1e-6


def test_recordings_with_one_seed_start_with_different_poses(talker, speech_file: Path, samples: np.ndarray) -> None:
    """As those of a folder. Motion depends on the sound, not on its name and form; a stream knows only the seed."""
    first, same = talker.animate(speech_file), talker.animate((samples, SAMPLE_RATE))
    np.testing.assert_allclose(first.head, same.head, atol=1e-4)
    other = talker.animate((samples[::-1], SAMPLE_RATE))
    degrees = np.degrees(np.abs(first.head[0, :3, :3] - other.head[0, :3, :3])).max()
    assert degrees > 0.05
    live, other_live = (talker.animate((x, SAMPLE_RATE), look_ahead=120) for x in (samples, samples[::-1]))
    np.testing.assert_allclose(live.head[0], other_live.head[0], atol=1e-3)


def test_an_edit_changes_only_its_span_and_blend(talker, speech_file: Path) -> None:
    track = talker.diarize(speech_file)
    before = talker.animate(speech_file, emotion=track, still=True)
    track.set("sad", 1.0, start=1.0, end=1.5)
    after = talker.animate(speech_file, emotion=track, still=True)
    times = (np.arange(len(before)) + 0.5) / 30
    moved = np.abs(before.blendshapes - after.blendshapes).max(axis=1)
    assert moved[times < 0.7].max() < 0.02
    assert moved[(times > 1.2) & (times < 1.4)].min() > 0.05


def test_order_of_labels_does_not_change_the_animation(talker, speech_file: Path) -> None:
    happy = sedtalker.EmotionTrack.neutral(1.9)
    happy.set("happy", 1.0)
    few = happy.with_labels(("happy", "neutral"))
    expected = talker.animate(speech_file, emotion=happy, still=True)
    for track in (few, happy.with_labels(happy.labels[::-1])):
        np.testing.assert_allclose(
            talker.animate(speech_file, emotion=track, still=True).blendshapes, expected.blendshapes, atol=1e-5
        )
    with pytest.raises(TrackError, match="does not know: happy"):
        happy.with_labels(("neutral", "sad"))


def test_an_animation_of_a_user_mesh_survives_its_file(talker, speech_file: Path, tmp_path: Path) -> None:
    face = sedtalker.load_face("man")
    lines = [f"v {x} {y} {z}\n" for x, y, z in face.template] + [f"f {a} {b} {c}\n" for a, b, c in face.faces + 1]
    (tmp_path / "mine.obj").write_text("".join(lines))
    animation = talker.animate(speech_file, face=tmp_path / "mine.obj", still=True)
    animation.save(tmp_path / "a")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "mine.obj"]
    loaded = sedtalker.load_animation(tmp_path / "a")
    assert loaded.face.name == "mine" and loaded.face.attachments
    np.testing.assert_allclose(loaded.face.pose(loaded.blendshapes), animation.vertices, atol=1e-5)


def test_identities_get_the_same_weights(talker, speech_file: Path) -> None:
    default = talker.animate(speech_file)
    man = talker.animate(speech_file, face="man")
    np.testing.assert_allclose(default.blendshapes, man.blendshapes, atol=1e-5)
    assert np.abs(default.template - man.template).max() > 0.005


def test_silence_keeps_the_mouth_closed(talker) -> None:
    silence = talker.animate((np.zeros(SAMPLE_RATE, np.float32), SAMPLE_RATE), still=True)
    pairs = silence.face.lip_pairs
    gap = np.linalg.norm(silence.vertices[:, pairs[:, 0]] - silence.vertices[:, pairs[:, 1]], axis=2).mean(axis=1)
    rest = np.linalg.norm(silence.template[pairs[:, 0]] - silence.template[pairs[:, 1]], axis=1).mean()
    assert np.abs(gap - rest).max() < 0.001


@pytest.mark.parametrize("seconds", [0.08, 0.333, 5.0])
def test_a_stream_equals_animate_for_any_chunk_sizes(talker, samples: np.ndarray, seconds: float) -> None:
    track = sedtalker.EmotionTrack.neutral(len(samples) / SAMPLE_RATE)
    track.set("happy", 0.8, start=0.5, end=1.2)
    size = round(seconds * SAMPLE_RATE)
    chunks = [samples[first : first + size] for first in range(0, len(samples), size)]
    streamed = np.concatenate(list(talker.stream(chunks, emotion=track, look_ahead=120, seed=3)))
    whole = talker.animate((samples, SAMPLE_RATE), emotion=track, look_ahead=120, seed=3)
    np.testing.assert_allclose(streamed, whole.vertices, atol=2e-4)  # metres; the encoder rounds to 8 bits


def test_a_live_stream_yields_frames_before_the_audio_ends(talker, samples: np.ndarray) -> None:
    given = 0

    def chunks():
        nonlocal given
        for first in range(0, len(samples), 1280):
            given = first + 1280
            yield samples[first:given]

    made, waits = 0, []
    for vertices in talker.stream(chunks()):
        made += len(vertices)
        waits.append(given / SAMPLE_RATE - made / 30)
    assert made == round(len(samples) / SAMPLE_RATE * 30)
    assert max(waits[:-1]) <= talker.latency() + 0.08 + 1 / 30  # a chunk and a frame on top


def test_a_diarizer_with_another_encoder(talker, samples: np.ndarray, tmp_path: Path) -> None:
    """Talker and diarizer encode the recording separately; the animation has the diarizer's track. Streaming works."""
    streaming = "whisper-tiny.en-streaming"
    other = DiarizerConfig(encoder=streaming, layers=4) if talker.encoder.name != streaming else DiarizerConfig()
    save_diarizer(Diarizer(other), tmp_path / "model")
    talker = sedtalker.load(diarizer=tmp_path / "model", device="cpu")
    assert talker.diarizer_encoder.name != talker.encoder.name
    sound = (samples, SAMPLE_RATE)
    animation, track = talker.animate(sound, still=True), talker.diarize(sound)
    np.testing.assert_array_equal(animation.emotion.posterior, track.posterior)
    streamed = np.concatenate(list(talker.stream(np.array_split(samples, 7), windows=talker.encoder.windows)))
    assert len(streamed) == len(animation) and np.isfinite(streamed).all()


def test_the_own_encoder_of_a_diarizer_has_the_look_ahead_of_the_talker(talker, samples: np.ndarray) -> None:
    own = sedtalker.Talker(talker.encoder, talker.diarizer, talker.model, "made", load_encoder(talker.encoder.name))
    assert own.diarizer_encoder is not own.encoder
    files, streams = {}, {}
    for look_ahead in (80, 400):
        files[look_ahead] = own.animate((samples, SAMPLE_RATE), look_ahead=look_ahead, still=True).emotion.posterior
        track = own.diarize((samples, SAMPLE_RATE), look_ahead=look_ahead)
        np.testing.assert_allclose(files[look_ahead], track.posterior, atol=1e-5)
        streams[look_ahead] = own.open_stream(look_ahead=look_ahead).push(samples).posterior
    for posterior in (files, streams):
        count = min(map(len, posterior.values()))
        assert count > 20 and np.abs(posterior[80][:count] - posterior[400][:count]).max() > 1e-3


def test_a_vertex_talker_with_another_encoder(speech_file: Path, samples: np.ndarray) -> None:
    """It animates a mesh of its topology, with a diarizer of another encoder."""
    torch.manual_seed(0)
    face = sedtalker.load_face()
    sizes = {"layers": 3, "feature_width": 24, "width": 32, "expert_hidden": 32, "heads": 2, "kv_heads": 1}
    model = TalkerModel(TalkerConfig(**sizes, head="basis", coefficients=4, vertices=len(face.template))).eval()
    torch.nn.init.normal_(model.lips.weight)
    network = WhisperEncoder(WhisperConfig(width=24, heads=2, feedforward=32, layers=2))
    talker = sedtalker.Talker(WindowedEncoder("tiny", network, 3, 24, "cpu"), load_diarizer(), model, "made")
    track = sedtalker.EmotionTrack.neutral(len(samples) / SAMPLE_RATE)
    animation = talker.animate(speech_file, emotion=track, fps=25)
    assert animation.dense.shape == (48, len(face.template), 3) and animation.blendshapes is None
    assert np.abs(animation.dense - face.template).max() > 1e-4
    streamed = np.concatenate(list(talker.stream([samples], emotion=track, fps=25, windows=talker.encoder.windows)))
    np.testing.assert_allclose(streamed, animation.dense, atol=1e-5)
    for read in (lambda: talker.animate(speech_file), lambda: list(talker.stream([samples]))):
        with pytest.raises(CheckpointError, match="does not fit the features of tiny"):
            read()


def test_invalid_input_is_refused(talker, speech_file: Path, tmp_path: Path) -> None:
    with pytest.raises(TrackError, match="unknown emotion"):
        talker.animate(speech_file, emotion="grumpy:0.5")
    with pytest.raises(TrackError, match="Cut it"):
        long = sedtalker.EmotionTrack.neutral(20.0)
        talker.animate(speech_file, emotion=long)
    (tmp_path / "cube.obj").write_text("# metres, y up, facing +z\nv 0 0 0\nv 0.2 0 0\nv 0 0.2 0\nf 1 2 3\n")
    with pytest.raises(FaceError, match="without blendshapes"):
        talker.animate(speech_file, face=tmp_path / "cube.obj")
    with pytest.raises(CheckpointError):
        sedtalker.load(tmp_path / "absent")
    with pytest.raises(SEDTalkerError, match="no such device"):
        sedtalker.load(device="cuda:99")
    with pytest.raises(SEDTalkerError, match=r"^no such device: graphics. Use auto, cpu or cuda$"):
        sedtalker.load(device="graphics")
    with pytest.raises(SEDTalkerError, match="fps is not a number: True"):
        talker.animate(speech_file, fps=True)


def test_measurements_of_a_recording_need_its_features_read_once(talker, samples: np.ndarray) -> None:
    encoded = _EncodedAudio((samples, SAMPLE_RATE), talker.encoder)
    for name in ("loudness_db", "duration", "frames"):
        with pytest.raises(RuntimeError, match="read the features to their end"):
            getattr(encoded, name)
    assert sum(len(block) for block in encoded.features()) == encoded.frames == len(encoded.loudness_db)
    assert encoded.duration == len(samples) / SAMPLE_RATE
    with pytest.raises(RuntimeError, match="once"):
        next(encoded.features())
