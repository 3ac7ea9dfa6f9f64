"""Voice profiles, and the causal diarizer that uses them: offline, live and enrolled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sedtalker.audio import load_audio
from sedtalker.emotion.causal import running_estimates
from sedtalker.emotion.diarizer import STEP_RATE, Diarizer, DiarizerConfig, load_diarizer, pool_frames, save_diarizer
from sedtalker.emotion.inference import diarize, enroll_voice, predict_frames, upsample_steps
from sedtalker.emotion.voice import LONGEST_EVIDENCE, ProjectedVoice, VoiceEstimate, VoiceProfile
from sedtalker.errors import CheckpointError
from sedtalker.labels import LABELS
from sedtalker.speech import load_encoder

CAUSAL = DiarizerConfig(layers=3, feature_width=24, width=16, hidden=12, causal=True)
BLOCKS = replace(CAUSAL, members=2, blocks=2, block_feedforward=20)
MORE_BLOCKS = replace(BLOCKS, blocks=4)  # than the states that they replace
PROJECTED = replace(BLOCKS, projected_voice=True)


def causal_diarizer(config: DiarizerConfig = CAUSAL) -> Diarizer:
    torch.manual_seed(0)
    diarizer = Diarizer(config).eval()
    torch.nn.init.normal_(diarizer.speech_head.weight)
    for member in diarizer.causal_members:
        torch.nn.init.normal_(member.spread.weight)
    return diarizer.requires_grad_(False)


def made_profile(seconds: float = 5.0, seed: int = 0, encoder: str = CAUSAL.encoder) -> VoiceProfile:
    rng = np.random.default_rng(seed)
    mean = rng.normal(0, 1, (3, 24)).astype(np.float32)
    return VoiceProfile(mean, rng.uniform(0.5, 2, (3, 24)).astype(np.float32), seconds, encoder)


def streamed(diarizer: Diarizer, features: torch.Tensor, sizes: list[int], voice: VoiceProfile | None = None):
    stream, parts, start = diarizer.stream(voice), [], 0
    while start < len(features):
        size = sizes[len(parts) % len(sizes)]
        prediction = stream.push(features[start : start + size])
        assert len(prediction.posterior) == len(features[start : start + size])
        parts.append(prediction)
        start += size
    return [torch.cat(values) for values in zip(*parts, strict=True)]


@pytest.mark.parametrize(
    "config",
    [CAUSAL, replace(CAUSAL, members=2, statistics_windows=(0.4,), convolutions=0), BLOCKS, MORE_BLOCKS, PROJECTED],
)
@pytest.mark.parametrize("voice", [None, made_profile()])
def test_a_stream_does_not_depend_on_the_sizes_of_its_pieces(config, voice):
    diarizer, features = causal_diarizer(config), torch.randn(531, 3, 24)
    whole = streamed(diarizer, features, [531], voice)
    for sizes in ([1], [4, 0, 7], [100]):
        for one, other in zip(whole, streamed(diarizer, features, sizes, voice), strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


@pytest.mark.parametrize("config", [CAUSAL, BLOCKS, MORE_BLOCKS, PROJECTED])
def test_a_stream_equals_the_batch_of_training(config):
    """Step s of the causal outputs is shown by the frames 2 s + 1 and 2 s + 2."""
    diarizer, features = causal_diarizer(config), torch.randn(400, 3, 24)
    steps = pool_frames(features[None])
    activity = diarizer.speech_logits(steps).sigmoid()
    live, _ = diarizer.run_batch(steps, activity, VoiceEstimate.empty(diarizer.voice_size, 1), whole=False)
    posterior, intensity = diarizer.finish(torch.cat([live.logits, live.intensity[..., None]], -1).mean(0)[0])
    stream = streamed(diarizer, features, [3])
    torch.testing.assert_close(stream[0][1::2], posterior, atol=1e-4, rtol=0)
    torch.testing.assert_close(stream[0][2::2], posterior[:-1], atol=1e-4, rtol=0)
    torch.testing.assert_close(stream[1][1::2], intensity, atol=1e-4, rtol=0)


@pytest.mark.parametrize("config", [CAUSAL, BLOCKS])
def test_a_stream_reads_no_future(config):
    diarizer, features = causal_diarizer(config), torch.randn(200, 3, 24)
    other = features.clone()
    other[101:] = torch.randn(99, 3, 24)
    one, changed = streamed(diarizer, features, [8])[0], streamed(diarizer, other, [8])[0]
    torch.testing.assert_close(one[:101], changed[:101])
    assert (one[110:] - changed[110:]).abs().max() > 1e-3


def test_reset_forgets_everything_but_the_profile():
    diarizer, features = causal_diarizer(), torch.randn(101, 3, 24)
    stream = diarizer.stream(made_profile())
    first = stream.push(features)
    stream.push(torch.randn(77, 3, 24))
    stream.reset()
    torch.testing.assert_close(stream.push(features).posterior, first.posterior)


@pytest.mark.parametrize("config", [CAUSAL, BLOCKS, MORE_BLOCKS, PROJECTED])
def test_offline_blocks_of_any_length_equal_the_whole(config):
    diarizer, features = causal_diarizer(config), torch.randn(2_711, 3, 24)
    whole = predict_frames(diarizer, features, made_profile())
    blocks = predict_frames(diarizer, iter(features.split([1, 200, 333, 1700, 477])), made_profile())
    for one, other in zip(whole, blocks, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    posterior, intensity, speech = whole
    torch.testing.assert_close(posterior.sum(-1), torch.ones(2_711))
    assert speech.shape == (2_711,) and ((speech >= 0) & (speech <= 1)).all()
    emotional = 1 - posterior[:, LABELS.index("neutral")]
    assert (intensity <= emotional + 1e-5).all() and (intensity >= 0.19 * emotional).all()
    assert posterior[:, LABELS.index("upset")].max() < 1e-9


@pytest.mark.parametrize("config", [BLOCKS, PROJECTED])
def test_a_recording_gives_the_outputs_of_training(config):
    """Offline, blocks of features pass through the blocks with a look-ahead as the whole does in training."""
    diarizer, features = causal_diarizer(config), torch.randn(1_500, 3, 24)
    steps = pool_frames(features[None])
    outputs = diarizer.run_batch(
        steps, diarizer.speech_logits(steps).sigmoid(), VoiceEstimate.empty(diarizer.voice_size, 1), whole=True
    )[1]
    posterior, _ = diarizer.finish(torch.cat([outputs.logits, outputs.intensity[..., None]], -1).mean(0))
    predicted = predict_frames(diarizer, features).posterior
    torch.testing.assert_close(predicted, upsample_steps(posterior, 1_500)[0], atol=0.01, rtol=0)


def test_the_voice_changes_the_result_and_its_constant_part_cancels():
    """With gates fully open, a shift of a speaker's states that the profile knows has no effect."""
    diarizer, features = causal_diarizer(), torch.randn(300, 3, 24)
    known = predict_frames(diarizer, features, made_profile()).posterior
    assert (known - predict_frames(diarizer, features).posterior).abs().max() > 1e-3
    for member in diarizer.causal_members:
        torch.nn.init.constant_(member.gates[2].bias, 30.0)
    diarizer.speech_head.bias.data += 20  # all is speech
    steps, shift = torch.randn(1, 200, 3, 24), torch.randn(3, 24)
    outputs = []
    for states in (steps, steps + shift):
        activity = torch.ones(1, 200)
        live, _ = diarizer.run_batch(states, activity, VoiceEstimate.empty(diarizer.voice_size, 1), whole=True)
        outputs.append(live.logits)
    torch.testing.assert_close(*outputs, atol=1e-3, rtol=1e-3)


def test_enrolled_statistics_are_those_of_the_speech():
    diarizer, features = causal_diarizer(), torch.randn(800, 3, 24)
    profile = enroll_voice(diarizer, features)
    steps = pool_frames(features[None])[0]
    weight = diarizer.speech_logits(steps[None]).sigmoid()[0, :, None, None]
    mean = (weight * steps).sum(0) / weight.sum()
    np.testing.assert_allclose(profile.mean, mean, atol=1e-4)
    deviation = ((weight * steps.square()).sum(0) / weight.sum() - mean.square()).sqrt()
    np.testing.assert_allclose(profile.deviation, deviation, atol=1e-3)
    assert profile.seconds == pytest.approx(float(weight.sum()) / STEP_RATE, rel=1e-4)
    stream = diarizer.stream()
    stream.push(features)
    np.testing.assert_allclose(stream.profile.mean, profile.mean, atol=1e-4)


def test_an_enrolled_profile_has_the_mean_of_the_projected_inputs():
    diarizer, features = causal_diarizer(PROJECTED), torch.randn(800, 3, 24)
    profile = enroll_voice(diarizer, features)
    steps = pool_frames(features[None])
    weight = diarizer.speech_logits(steps).sigmoid()[0, :, None]
    projected = diarizer.voice_values(steps)[0]
    mean = (weight * projected).sum(0) / weight.sum()
    deviation = ((weight * projected.square()).sum(0) / weight.sum() - mean.square()).sqrt()
    np.testing.assert_allclose(profile.projected.mean, mean, atol=1e-3)
    np.testing.assert_allclose(profile.projected.deviation, deviation, atol=1e-3)
    compiled = diarizer.compiled().enroll(iter(features.numpy()[None]))
    np.testing.assert_allclose(compiled.projected.mean, mean, atol=1e-3)
    assert compiled.projected.network == profile.projected.network
    stream = diarizer.stream()
    stream.push(features)
    live = stream.profile.projected  # without look-ahead
    assert live.network == profile.projected.network
    assert np.corrcoef(live.mean, mean)[0, 1] > 0.9


def test_profiles_without_projected_inputs_of_these_networks_are_used():
    """Of a version before them, or of another diarizer: their mean is predicted from that of the states."""
    diarizer, features = causal_diarizer(PROJECTED), torch.randn(300, 3, 24)
    old = made_profile()
    known = predict_frames(diarizer, features, old).posterior
    assert (known - predict_frames(diarizer, features).posterior).abs().max() > 1e-3
    own = enroll_voice(diarizer, torch.randn(300, 3, 24))
    foreign = replace(old, projected=own.projected._replace(network="other"))
    torch.testing.assert_close(predict_frames(diarizer, features, foreign).posterior, known)
    assert (predict_frames(diarizer, features, own).posterior - known).abs().max() > 1e-3
    torch.testing.assert_close(
        predict_frames(causal_diarizer(BLOCKS), features, own).posterior,  # reads the states alone
        predict_frames(causal_diarizer(BLOCKS), features, replace(own, projected=None)).posterior,
    )
    assert own.merge(old).projected is None and own.merge(own).projected.network == own.projected.network


@pytest.mark.parametrize("config", [CAUSAL, PROJECTED])
def test_merged_profiles_are_the_profile_of_both(config):
    diarizer, features = causal_diarizer(config), torch.randn(1_000, 3, 24)
    parts = [enroll_voice(diarizer, part) for part in features.split(400)]
    merged, whole = parts[0].merge(parts[1]).merge(parts[2]), enroll_voice(diarizer, features)
    np.testing.assert_allclose(merged.mean, whole.mean, atol=1e-4)
    np.testing.assert_allclose(merged.deviation, whole.deviation, atol=1e-3)
    assert merged.seconds == pytest.approx(whole.seconds, rel=1e-4)
    if config.projected_voice:  # blocks of one's own see the neighbourhood of the cuts, so that these are not equal
        assert np.corrcoef(merged.projected.mean, whole.projected.mean)[0, 1] > 0.99
    with pytest.raises(CheckpointError, match="different encoders"):
        parts[0].merge(made_profile(encoder="other"))


def test_evidence_is_limited():
    steps = torch.randn(1, 100 * STEP_RATE, 6)
    _, after = running_estimates(steps, torch.ones(1, steps.shape[1]), VoiceEstimate.empty(6, 1), 1 / STEP_RATE)
    assert float(after.seconds) == pytest.approx(100, rel=1e-4)
    assert float(after.limited().seconds) == pytest.approx(LONGEST_EVIDENCE, rel=1e-4)
    for one, other in zip(after.statistics(), after.limited().statistics(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("projected", [None, ProjectedVoice(np.zeros(5, np.float32), np.ones(5, np.float32), "n")])
def test_a_profile_is_saved_and_loaded(tmp_path, projected):
    """Those of earlier versions had no projected inputs."""
    profile = replace(made_profile(), projected=projected)
    profile.save(tmp_path / "voice.safetensors")
    again = VoiceProfile.load(tmp_path / "voice.safetensors")
    if projected is None:
        assert again.projected is None
    else:
        np.testing.assert_array_equal(again.projected.mean, projected.mean)
        np.testing.assert_array_equal(again.projected.deviation, projected.deviation)
        assert again.projected.network == "n"
    np.testing.assert_array_equal(again.mean, profile.mean)
    np.testing.assert_array_equal(again.deviation, profile.deviation)
    assert (again.seconds, again.encoder) == (profile.seconds, profile.encoder)
    (tmp_path / "other").touch()
    assert (tmp_path / "voice.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode  # others can read it


def test_files_that_are_no_profiles_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no voice profile"):
        VoiceProfile.load(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(CheckpointError, match="not a voice profile"):
        VoiceProfile.load(tmp_path / "text.safetensors")
    save_diarizer(causal_diarizer(), tmp_path / "model")
    with pytest.raises(CheckpointError, match="not a voice profile"):
        VoiceProfile.load(tmp_path / "model" / "model.safetensors")
    with pytest.raises(CheckpointError, match="not a voice profile"):
        VoiceProfile(np.full((3, 24), np.nan, np.float32), np.ones((3, 24), np.float32), 1.0, "x")


def test_profiles_that_do_not_fit_are_refused():
    diarizer, features = causal_diarizer(), torch.randn(60, 3, 24)
    with pytest.raises(CheckpointError, match="Enroll the voice"):
        predict_frames(diarizer, features, made_profile(encoder="other"))
    with pytest.raises(CheckpointError, match="Enroll the voice"):
        diarizer.stream(made_profile(encoder="other"))
    plain = Diarizer(replace(CAUSAL, causal=False)).eval()
    for use in (lambda: predict_frames(plain, features, made_profile()), lambda: plain.stream(made_profile())):
        with pytest.raises(CheckpointError, match="does not use voice profiles"):
            use()


def test_a_diarizer_without_the_voice_streams_too():
    plain = Diarizer(replace(CAUSAL, causal=False)).eval()
    stream = plain.stream()
    for size in (4, 3, 1):
        prediction = stream.push(torch.randn(size, 3, 24))
        assert len(prediction.posterior) == size and prediction.speech is None


def test_a_causal_diarizer_is_saved_and_loaded(tmp_path):
    diarizer = causal_diarizer()
    diarizer.average_voice += 0.5
    save_diarizer(diarizer, tmp_path / "model")
    again = load_diarizer(tmp_path / "model")
    features = torch.randn(60, 3, 24)
    one, other = (predict_frames(each, features, made_profile()).posterior for each in (diarizer, again))
    torch.testing.assert_close(one, other, atol=5e-3, rtol=0)


def test_a_track_tells_speech_and_abstains():
    track = diarize(causal_diarizer(), torch.randn(120, 3, 24), duration=2.4)
    assert track.speech is not None and track.speech.shape == (120,)
    track.speech[:60], track.speech[60:] = 0, 1
    assert track.abstained[:60].all()
    np.testing.assert_array_equal(track.abstained[60:], track.posterior[60:].max(1) < 0.45)
    assert track.clip(0.0, 1.0).speech.max() == 0
    assert len(track.fit_duration(3.0).speech) == 150


def test_8_bits_hardly_change_the_packaged_diarizer(speech_file):
    features = load_encoder("whisper-tiny.en-streaming").encode(load_audio(speech_file))
    exact, packed = (load_diarizer("default", precision=precision) for precision in ("float32", "auto"))
    difference = (predict_frames(exact, features).posterior - predict_frames(packed, features).posterior).abs()
    assert difference.mean() < 0.01 and difference.max() < 0.15
    live = [
        torch.cat([stream.push(part).posterior for part in features.split(4)])
        for stream in (exact.stream(), packed.stream())
    ]
    assert (live[0] - live[1]).abs().mean() < 0.01
