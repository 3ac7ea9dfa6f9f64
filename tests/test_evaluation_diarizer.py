"""Evaluation of a diarizer: tones whose pitch encodes the emotion, and a diarizer that recognises pitch."""

from __future__ import annotations

import argparse
import json
import sys
import wave
from functools import partial

import numpy as np
import pytest
import torch

from sedtalker.audio import write_wav
from sedtalker.cli.main import main
from sedtalker.cli.options import decibels
from sedtalker.data.concatenation import (
    TRAINING_PATTERNS,
    Recipe,
    draw_recipes,
    join_pieces,
    render_recipe,
    vary_insertions,
    write_recordings,
)
from sedtalker.data.manifest import Manifest, Utterance, merge
from sedtalker.emotion import inference
from sedtalker.emotion.diarizer import Diarizer, DiarizerConfig
from sedtalker.emotion.track import EmotionTrack
from sedtalker.emotion.voice import VoiceProfile
from sedtalker.errors import CheckpointError, DataError, MissingExtraError
from sedtalker.evaluation import diarizer as evaluation
from sedtalker.evaluation import voice_reference
from sedtalker.labels import LABELS

EMOTIONS = ("neutral", "happy", "angry")


def pitch(emotion: str) -> float:
    return 300.0 * (1 + LABELS.index(emotion))


@pytest.fixture
def manifest(tmp_path) -> Manifest:
    """Two speakers who say each emotion twice, a second of tone between silences."""
    items = []
    for speaker, gender in (("s1", "female"), ("s2", "male")):
        for emotion in EMOTIONS:
            for take, strength in enumerate((0.5, 1.0)):
                name = f"{speaker}-{emotion}-{take}.wav"
                tone = np.sin(2 * np.pi * pitch(emotion) * np.arange(16_000) / 16_000) * 0.3 * strength
                samples = np.concatenate([np.zeros(4_800), tone, np.zeros(4_800)])
                with wave.open(str(tmp_path / name), "wb") as file:
                    file.setparams((1, 2, 16_000, 0, "NONE", ""))
                    file.writeframes((samples * 32767).astype("<i2").tobytes())
                intensity = 0.0 if emotion == "neutral" else strength
                items.append(
                    Utterance(
                        f"made/{name}", name, "made", f"made-{speaker}", gender, "en", emotion, intensity, split="test"
                    )
                )
    return Manifest(str(tmp_path), items)


class Spectrum:
    """An encoder whose features are the spectrum of each 20 ms; it is returned for any name."""

    name, layers, width = "spectrum", 1, 161

    def __init__(self, name: str) -> None:
        pass

    def encode(self, samples):
        frames = np.pad(samples, (0, -len(samples) % 320)).reshape(-1, 320)
        return torch.from_numpy(np.abs(np.fft.rfft(frames)).astype(np.float32))[:, None]


def predict_from_pitch(diarizer, features, voice=None):
    """Posterior and intensity of tones: the pitch gives the emotion, the level the intensity."""
    hertz = features[:, 0].argmax(-1) * 50
    label = (hertz / 300 - 1).round().long().clamp(0, len(LABELS) - 1)
    posterior = torch.nn.functional.one_hot(label, len(LABELS)) * 0.93 + 0.01
    intensity = (features[:, 0].max(-1).values / 50).clamp(0, 1)
    return inference.Prediction(posterior.float() / posterior.sum(-1, keepdim=True), intensity, None)


@pytest.fixture
def perfect_diarizer(monkeypatch):
    """A diarizer that recognises tones without error."""
    monkeypatch.setattr(evaluation, "load_encoder", Spectrum)
    monkeypatch.setattr(inference, "predict_frames", predict_from_pitch)
    return Diarizer(DiarizerConfig())


def test_a_perfect_diarizer_has_perfect_metrics(manifest, tmp_path, perfect_diarizer):
    manifest.save(tmp_path / "manifest.json")
    quieter = {"half as loud": lambda samples: samples / 2}
    report = evaluation.evaluate_diarizer(
        tmp_path / "manifest.json", perfect_diarizer, per_speaker=8, degradations=quieter
    )
    expected = {"made", "made/female", "made/male", "made/made-s1", "made/made-s2", "all/en", "all/female", "all/male"}
    assert set(report["groups"]) == expected
    figures = report["groups"]["made"]
    assert (figures["uar"], figures["clip_uar"], figures["intensity"]["auc_strong"]) == (1, 1, 1)
    assert figures["frames"] == pytest.approx(12 * 50, abs=12)
    assert figures["calibration_error"] == pytest.approx(1 - 0.94 / 1.01, abs=0.01)
    mixes = report["mixes"]["made"]
    assert mixes["eder"] < 0.05
    assert mixes["boundary_error_median"] < 0.05
    assert report["disturbed"] == {"half as loud": {"made": 1.0}}


def test_recordings_with_true_segments_are_evaluated_by_time(manifest, tmp_path, perfect_diarizer):
    made = write_recordings(manifest, tmp_path, per_speaker=4)
    assert all(item.segments and manifest.audio(item).is_file() for item in made)
    merge([manifest, made]).save(tmp_path / "manifest.json")
    report = evaluation.evaluate_diarizer(tmp_path / "manifest.json", perfect_diarizer, per_speaker=0)
    assert report["groups"]["made"]["clips"] == 12  # recordings with changing emotion are not counted as clips
    assert report["mixes"]["made"]["recordings"] == 8
    assert report["mixes"]["made"]["eder"] < 0.05
    assert max(len(item.segments) for item in made) > 3
    assert any(span.end - span.start < 0.45 for item in made for span in item.segments[1:-1])


def write_tones(path, *emotions: str) -> None:
    """A recording with half a second of tone for each emotion, without pauses."""
    parts = [np.sin(2 * np.pi * pitch(emotion) * np.arange(8_000) / 16_000) * 0.3 for emotion in emotions]
    path.parent.mkdir(exist_ok=True)
    write_wav(path, [np.concatenate(parts).astype(np.float32)])


def test_false_alarms_in_ordinary_speech_are_counted_per_minute(tmp_path, perfect_diarizer):
    write_tones(tmp_path / "plain" / "calm.wav", *["neutral"] * 4)
    write_tones(tmp_path / "plain" / "misread.wav", "angry", "angry", "angry", "neutral")
    write_tones(tmp_path / "other" / "calm.wav", "neutral", "neutral")
    report = evaluation.evaluate_diarizer(None, perfect_diarizer, ordinary=[tmp_path / "plain", tmp_path / "other"])
    groups = report["ordinary"]["groups"]
    assert groups["all"]["recordings"] == 3
    plain = groups[str(tmp_path / "plain")]
    assert plain["minutes"] == pytest.approx(4 / 60)
    assert plain["neutral"]["value"] == pytest.approx((1 + 0.25) / 2)
    assert plain["below_half"]["value"] == 0.5
    assert plain["alarms_per_minute"]["value"] == pytest.approx(1 / (4 / 60))
    assert plain["overconfidence"]["value"] == pytest.approx(0.94 / 1.01 - 0.625, abs=1e-4)
    worst = report["ordinary"]["recordings"][0]
    assert (worst["name"], worst["emotion"], worst["alarms"]) == ("misread.wav", "angry", 1)
    text = evaluation.format_diarizer(report)
    assert "| misread.wav | 0.25 | angry |" in text and "Diarizer on split" not in text


def test_ordinary_speech_of_a_manifest_is_that_of_its_split(tmp_path, perfect_diarizer):
    items = []
    rows = [("talk", "a", "test", "neutral"), ("talk", "b", "train", "neutral"), ("acted", "c", "test", "neutral")]
    for corpus, speaker, split, emotion in (*rows, ("acted", "c", "test", "sad")):
        path = f"{corpus}/{speaker}-{emotion}.wav"
        write_tones(tmp_path / path, emotion, emotion)
        items.append(Utterance(path, path, corpus, speaker, "female", "en", emotion, split=split))
    Manifest(str(tmp_path), items).save(tmp_path / "manifest.json")
    report = evaluation.evaluate_diarizer(None, perfect_diarizer, ordinary=[tmp_path / "manifest.json"])["ordinary"]
    assert [(one["name"], one["speaker"]) for one in report["recordings"]] == [("talk/a-neutral.wav", "a")]
    with pytest.raises(DataError, match="no corpus without emotions"):
        evaluation.evaluate_diarizer(None, perfect_diarizer, "validation", ordinary=[tmp_path / "manifest.json"])


def test_sounds_next_to_speech_are_compared_with_the_speech_alone(manifest, tmp_path, perfect_diarizer, monkeypatch):
    manifest.save(tmp_path / "manifest.json")
    write_tones(tmp_path / "hums" / "hum.wav", "neutral")
    run = partial(evaluation.evaluate_diarizer, tmp_path / "manifest.json", perfect_diarizer, per_speaker=0)
    report = run(sounds=[tmp_path / "hums"])["non_speech"]
    assert set(report) == {"music", "laughter", "breath", "barks", "hums"}
    assert all(row["changed"]["value"] == 0 and row["correct"]["value"] == 1 for row in report.values())
    assert report["hums"]["neutral_speech"]["value"] > 0.95 and report["hums"]["emotional_speech"]["value"] == 0

    def predict_from_the_mean(diarizer, features, voice=None):
        prediction = predict_from_pitch(diarizer, features)
        mean = prediction.posterior.mean(0, keepdim=True)
        return prediction._replace(posterior=mean.expand_as(prediction.posterior))

    monkeypatch.setattr(inference, "predict_frames", predict_from_the_mean)
    blended = run(sounds=[tmp_path / "hums"])["non_speech"]["hums"]
    assert blended["shift"]["value"] > 0.2 and blended["correct_alone"]["value"] == 1


def test_channels_and_fewer_clips(manifest, tmp_path, perfect_diarizer):
    pytest.importorskip("torchaudio")
    manifest.save(tmp_path / "manifest.json")
    channels = evaluation.make_channels(["telephone", "room", "music"])
    report = evaluation.evaluate_diarizer(
        tmp_path / "manifest.json", perfect_diarizer, per_speaker=0, degradations=channels, most=6
    )
    assert report["groups"]["made"]["clips"] == 6
    assert list(report["disturbed"]) == ["telephone", "room", "music"]
    assert report["disturbed"]["room"]["made"] > 0.9  # echoes of a tone have its pitch
    quiet = np.zeros(16_000, np.float32)
    quiet[::2] = 0.01
    louder = channels["music"](quiet) - quiet
    assert 10 * np.log10(np.mean(quiet**2) / np.mean(louder**2)) == pytest.approx(10, abs=0.1)


def test_only_streaming_encoders_have_a_choice_of_look_ahead(manifest, tmp_path, perfect_diarizer):
    manifest.save(tmp_path / "manifest.json")
    with pytest.raises(CheckpointError, match="no look-ahead to choose"):
        evaluation.evaluate_diarizer(tmp_path / "manifest.json", perfect_diarizer, look_aheads=[120])


def test_look_aheads_are_tested_with_whole_files_and_live(manifest, tmp_path):
    torch.manual_seed(0)
    sizes = {"layers": 4, "width": 8, "hidden": 8, "convolutions": 0}
    diarizer = Diarizer(DiarizerConfig(encoder="whisper-tiny.en-streaming", causal=True, **sizes))
    manifest.save(tmp_path / "manifest.json")
    report = evaluation.evaluate_diarizer(
        tmp_path / "manifest.json", diarizer, per_speaker=0, most=3, look_aheads=[80, 400]
    )
    assert list(report["look_ahead"]) == ["80 ms", "400 ms", "80 ms, live", "400 ms, live"]
    assert report["look_ahead"]["400 ms"]["made"] == report["groups"]["made"]["uar"]


def test_the_command_needs_a_manifest_or_ordinary_speech(tmp_path, capsys):
    assert main(["evaluate", "diarizer"]) == 2
    assert "--ordinary" in capsys.readouterr().err
    assert main(["evaluate", "diarizer", "--ordinary", str(tmp_path / "none")]) == 1
    assert "no such folder" in capsys.readouterr().err


def test_accuracy_against_seconds_of_reference(manifest, tmp_path, perfect_diarizer, monkeypatch):
    """Each clip has 2 s of speech; the made diarizer is right from 6 s of reference on, and hears neutral before."""

    def diarize_with_reference(diarizer, features, duration, samples, voice):
        track = inference.diarize(diarizer, features, duration, samples=samples)
        return track if voice is not None and voice.seconds >= 6 else EmotionTrack.neutral(duration)

    profile = VoiceProfile(np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32), 2.0, "spectrum")
    monkeypatch.setattr(voice_reference, "enroll_voice", lambda diarizer, features: profile)
    monkeypatch.setattr(voice_reference, "diarize", diarize_with_reference)
    monkeypatch.setattr(evaluation, "check_voice", lambda diarizer: None)
    manifest.save(tmp_path / "manifest.json")
    run = partial(evaluation.evaluate_diarizer, tmp_path / "manifest.json", perfect_diarizer, per_speaker=0)
    report = run(references=[0, 3, 6, 60])
    known, neutral = (report["voice_reference"]["made"][kind] for kind in ("any emotion", "neutral"))
    assert {length: row["seconds"] for length, row in known.items()} == {"0": 0, "3": 4, "6": 6, "60": 10}
    assert [known[length]["uar"]["value"] for length in ("0", "3", "6", "60")] == pytest.approx([1 / 3, 1 / 3, 1, 1])
    assert known["6"]["clip_uar"]["value"] == 1
    assert neutral["60"]["seconds"] == pytest.approx((2 * 2 + 4 * 4) / 6)  # the other neutral clips: one, or two
    assert neutral["60"]["uar"]["value"] == pytest.approx(1 / 3)
    assert "| made | any emotion | 6 | 6.0 | 1.000 [" in evaluation.format_diarizer(report)


def test_noise_levels_are_parsed():
    names = list(evaluation.make_noises(decibels("20,0")))
    assert names == ["noise at 20 dB", "noise at 0 dB"]
    with pytest.raises(argparse.ArgumentTypeError):
        decibels("loud")


def test_the_report_has_json_tables_and_confusion_matrices(manifest, tmp_path, perfect_diarizer):
    pytest.importorskip("matplotlib")
    manifest.save(tmp_path / "manifest.json")
    report = evaluation.evaluate_diarizer(tmp_path / "manifest.json", perfect_diarizer, per_speaker=2)
    written = evaluation.write_diarizer_report(report, tmp_path / "out")
    assert [path.name for path in written] == ["diarizer.json", "diarizer.md", "confusion-made.png"]
    assert written[2].read_bytes()[:4] == b"\x89PNG"
    assert json.loads(written[0].read_text())["groups"]["made"]["uar"] == 1
    text = written[1].read_text()
    assert "| made/female | 6 | 1.000 [1.000, 1.000] |" in text
    assert "Worst speaker: made/made-s" in text


def test_an_empty_split_is_refused(manifest, tmp_path, perfect_diarizer):
    manifest.save(tmp_path / "manifest.json")
    with pytest.raises(DataError, match="validation"):
        evaluation.evaluate_diarizer(tmp_path / "manifest.json", perfect_diarizer, split="validation")


def test_recipes_are_of_one_speaker_seeded_and_change_emotion(manifest):
    recipes = draw_recipes(manifest.utterances, 10, seed=4)
    assert recipes == draw_recipes(manifest.utterances, 10, seed=4)
    assert len(recipes) == 20
    for recipe in recipes:
        assert len({item.speaker for item in recipe.clips}) == 1
        assert all(a.emotion != b.emotion for a, b in zip(recipe.clips, recipe.clips[1:], strict=False))


def test_a_rendered_recipe_is_level_and_has_its_true_boundaries(manifest):
    neutral, happy = (next(item for item in manifest if item.emotion == emotion) for emotion in ("neutral", "happy"))
    samples, segments = render_recipe(manifest, Recipe((neutral, happy, neutral)))
    assert [segment.emotion for segment in segments] == ["neutral", "happy", "neutral"]
    assert segments[-1].end * 16_000 == len(samples)
    for segment in segments:
        part = samples[int(segment.start * 16_000) : int(segment.end * 16_000)]
        assert 20 * np.log10(np.sqrt(np.mean(part**2))) == pytest.approx(-26, abs=0.3)
        measured = np.fft.rfft(part).__abs__().argmax() / segment.duration
        assert measured == pytest.approx(pitch(segment.emotion), rel=0.02)


def test_a_crossfade_blends_the_clips_around_its_edge():
    loud, soft = np.full(16_000, 1.0, np.float32), np.full(8_000, 0.5, np.float32)
    samples, edges = join_pieces([loud, soft], 0.1)
    assert edges.tolist() == [0, 15_200, 22_400] and len(samples) == 22_400
    blend = samples[14_400:16_000]
    np.testing.assert_allclose(blend, np.linspace(1.0, 0.5, 1_600), atol=1e-3)
    cut, edges = join_pieces([loud, soft], 0.0)
    assert edges.tolist() == [0, 16_000, 24_000] and cut[15_999] == cut[16_000] == 0
    assert join_pieces([loud, soft[:800]], 0.2)[1].tolist() == [0, 15_800, 16_400]  # half of the shorter one


def test_a_third_of_the_training_mixtures_is_crossfaded(manifest, tmp_path):
    lengths = [item.segments[-1].end for item in write_recordings(manifest, tmp_path / "a", 12)]
    recipes = draw_recipes(manifest.utterances, 12, patterns=TRAINING_PATTERNS)
    cut = [render_recipe(manifest, recipe)[1][-1].end for recipe in recipes]
    shorter = sum(one < other - 0.015 for one, other in zip(lengths, cut, strict=True))
    assert len(lengths) == len(cut) and shorter >= len(cut) // 5


def test_insertions_have_the_lengths_asked_for(manifest):
    neutral, happy = (next(item for item in manifest if item.emotion == emotion) for emotion in ("neutral", "happy"))
    recipes = vary_insertions([Recipe((neutral, happy, neutral)), Recipe((neutral, happy))], [0.3, 0.5])
    assert len(recipes) == 2
    lengths = [render_recipe(manifest, recipe)[1][1].duration for recipe in recipes]
    assert lengths == pytest.approx([0.3, 0.5], abs=0.01)


def test_the_worst_speaker_is_found_for_any_name():
    groups = {
        name: {"uar": uar, "false_rates": {}}
        for name, uar in {"all/en": 0.1, "my-corpus": 0.1, "my-corpus/anna": 0.6, "my-corpus/bob": 0.4,
                          "my-corpus/non-binary": 0.1}.items()
    }  # fmt: skip
    assert evaluation.worst_speaker(groups, {"my-corpus/anna", "my-corpus/bob"})["name"] == "my-corpus/bob"


def test_missing_metrics_are_reported_before_the_evaluation(manifest, tmp_path, perfect_diarizer, monkeypatch):
    manifest.save(tmp_path / "manifest.json")
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    monkeypatch.setattr(evaluation, "load_audio", lambda path: pytest.fail("audio was read"))
    with pytest.raises(MissingExtraError, match=r"sedtalker\[train\]"):
        evaluation.evaluate_diarizer(tmp_path / "manifest.json", perfect_diarizer)
