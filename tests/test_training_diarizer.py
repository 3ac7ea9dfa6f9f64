"""Training of the diarizer: mixtures, losses, cached features, and a complete small run."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("lightning")

from sedtalker.audio import load_audio, write_wav
from sedtalker.data.emotion_mixtures import CachedClip, Mixer, MixerConfig, TeacherOutputs, frame_targets
from sedtalker.data.features import cache_features, diarizer_features, read_recordings
from sedtalker.data.manifest import Manifest, Span, Utterance
from sedtalker.emotion.diarizer import Diarizer, DiarizerConfig, Outputs, load_diarizer, pool_frames, save_diarizer
from sedtalker.emotion.inference import enroll_voice
from sedtalker.emotion.voice import VoiceEstimate
from sedtalker.errors import DataError
from sedtalker.labels import LABELS
from sedtalker.recipes.ensemble_diarizers import make_ensemble
from sedtalker.speech import load_encoder
from sedtalker.training.config import read_config
from sedtalker.training.diarizer import average_diarizers, run_training, train_diarizer
from sedtalker.training.diarizer_batches import Batch, MixedUtterances, draw_references, mixup_and_mask
from sedtalker.training.diarizer_config import GROUP, DiarizerTraining
from sedtalker.training.diarizer_losses import TeacherLoss, category_loss, intensity_loss
from sedtalker.training.diarizer_setup import add_blocks, copy_encoder_blocks, estimate_log_priors

SPOKEN = ("neutral", "happy", "angry")


def made_corpus(folder: Path, speakers: int = 4, takes: int = 3) -> Manifest:
    """A manifest and its cached features: each emotion is a direction in the features, so that it can be learned."""
    rng = np.random.default_rng(0)
    items = []
    for s in range(speakers):
        split = ("train", "train", "validation", "test")[s % 4]
        for emotion in SPOKEN:
            for take in range(takes):
                identity = f"made/{s}-{emotion}-{take}"
                strength = 0.0 if emotion == "neutral" else 0.5
                items.append(
                    Utterance(identity, "x.wav", "made", f"s{s}", "female", "en", emotion, strength, split=split)
                )
                frames = rng.normal(0, 0.3, (60, 2, 12)).astype(np.float16)
                frames[10:50, :, LABELS.index(emotion)] += 3
                loud = np.full(60, -80, np.float16)
                loud[10:50] = -20
                path = folder / "features" / f"{identity}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, pool_frames(torch.from_numpy(frames)[None].float())[0].half().numpy())
                np.save(path.with_suffix(".loudness.npy"), loud)
    manifest = Manifest(str(folder), items)
    manifest.save(folder / "manifest.json")
    return manifest


def mixer(folder: Path, **mixing) -> Mixer:
    manifest = made_corpus(folder)
    return Mixer(manifest.select("train"), [folder / "features"], MixerConfig(**mixing), seed=1)


def test_mixes_change_where_they_say(tmp_path):
    """The features of a speech frame point in the direction of its target emotion."""
    draws = mixer(tmp_path)
    changes = 0
    for _ in range(50):
        mix = draws.draw()
        spoken = mix.weight == 1
        named = mix.target[spoken].argmax(1)
        predicted = mix.steps[spoken].float().mean(1)[:, : len(LABELS)].argmax(1)
        assert (named == predicted).float().mean() > 0.98
        changes += int((named.diff() != 0).sum())
    assert changes > 20


def test_the_same_seed_draws_the_same(tmp_path):
    made_corpus(tmp_path)
    one, other = mixer(tmp_path), mixer(tmp_path)
    for _ in range(5):
        torch.testing.assert_close(one.draw().steps, other.draw().steps)


def test_silence_far_from_speech_is_neutral_and_near_it_has_no_target():
    speech = np.zeros(100, bool)
    speech[:20] = True
    item = Utterance("a", "a", "c", "s", "female", "en", "happy", 0.5, perceived={"neutral": 1.0})
    target, intensity, weight = frame_targets(item, speech, perceived_weight=0.2)
    assert target[5, LABELS.index("happy")] == pytest.approx(0.8)
    assert target[5, 0] == pytest.approx(0.2)
    assert (weight[5], weight[25], target[90, 0], intensity[90], intensity[5]) == (1, 0, 1, 0, 0.5)


def test_a_recording_with_segments_changes_where_they_say():
    spans = (Span(1.0, 2.0, "angry", 1.0), Span(2.0, 3.0, "sad"))
    item = Utterance("a", "a", "c", "s", "female", "en", "angry", 0.5, segments=spans)
    target, intensity, _ = frame_targets(item, np.ones(100, bool), perceived_weight=0.2)
    named = [LABELS[k] for k in target.argmax(1)]
    assert named == ["neutral"] * 25 + ["angry"] * 25 + ["sad"] * 25 + ["neutral"] * 25
    assert (intensity[10], intensity[30]) == (0, 1)
    assert np.isnan(intensity[60])
    faster, _, _ = frame_targets(item, np.ones(40, bool), perceived_weight=0.2, pace=0.4)
    assert [LABELS[k] for k in faster.argmax(1)[[9, 10, 19, 20, 29, 30]]] == [
        *named[24:26],
        *named[49:51],
        *named[74:76],
    ]


def test_recordings_with_segments_are_drawn_whole(tmp_path):
    manifest = made_corpus(tmp_path)
    spans = (Span(0.0, 1.2, "happy"),)
    marked = replace(manifest.select("train")[0], segments=spans, transcript="marked")
    draws = Mixer([*manifest.select("train"), marked], [tmp_path / "features"], MixerConfig(changing=1.0), seed=0)
    lengths = {len(draws.draw().steps) for _ in range(40)}
    assert 30 in lengths  # all of its steps, while its speaker is drawn


def test_a_speaker_may_have_recordings_with_segments_alone(tmp_path):
    manifest = made_corpus(tmp_path)
    marked = [replace(item, segments=(Span(0.0, 1.2, "happy"),)) for item in manifest.select("train")]
    draws = Mixer(marked, [tmp_path / "features"], MixerConfig(changing=0.3), seed=0)
    assert {len(draws.draw().steps) for _ in range(10)} == {30}


def test_a_clip_has_the_variants_that_are_there(tmp_path):
    manifest = made_corpus(tmp_path)
    first = manifest.utterances[0]
    other = tmp_path / "augmented" / f"{first.id}.npy"
    other.parent.mkdir(parents=True)
    np.save(other, np.zeros((20, 2, 12), np.float16))
    caches = [tmp_path / "features", tmp_path / "augmented"]
    assert [len(CachedClip(item, caches).variants) for item in manifest.utterances[:2]] == [2, 1]
    mix = CachedClip(first, caches).mix(1, MixerConfig())
    assert len(mix.steps) == len(mix.target) == 20
    assert mix.weight[4:16].eq(1).all()


def made_batch(steps, target, intensity, weight):
    """A batch of speech without a reference."""
    size = steps[0, 0].numel()
    return Batch(
        steps,
        target,
        intensity,
        weight,
        torch.ones_like(weight),
        torch.zeros(*weight.shape, 0),
        torch.zeros(len(steps), 1, 8),
        VoiceEstimate.empty(size, len(steps)),
    )


def test_blending_and_hiding_leave_known_values_known():
    torch.manual_seed(0)
    steps = torch.ones(4, 50, 2, 3)
    known = torch.full((4, 50), 0.5)
    target = torch.eye(8)[torch.randint(8, (4, 50))]
    batch = made_batch(steps, target, known, torch.ones(4, 50))
    blend = mixup_and_mask(batch, mixup_prob=1.0, time_mask_max=0.2)
    made, blended, intensity = blend.steps, blend.target, blend.intensity
    torch.testing.assert_close(blended.sum(-1), torch.ones(4, 50))
    torch.testing.assert_close(intensity, known)
    hidden = (made == 0).all(-1).all(-1)
    assert 0 < hidden.float().mean() <= 0.2
    same = mixup_and_mask(batch, mixup_prob=0.0, time_mask_max=0.0).steps
    torch.testing.assert_close(same, steps)


def test_batches_are_of_one_length(tmp_path):
    batch = next(iter(MixedUtterances(mixer(tmp_path), 4, {"made": torch.zeros(8)})))
    assert batch.steps.shape[:2] == batch.target.shape[:2] == batch.weight.shape
    assert batch.steps.shape[0] == 4


def test_losses_ignore_frames_without_weight_or_label():
    logits = torch.randn(2, 10, 8)
    target = torch.eye(8)[torch.randint(8, (2, 10))]
    weight = torch.ones(2, 10)
    weight[:, 5:] = 0
    changed = target.clone()
    changed[:, 5:] = torch.eye(8)[0]
    present = torch.ones(8, dtype=torch.bool)
    one, other = (category_loss(logits, truth, weight, 0.1, present) for truth in (target, changed))
    torch.testing.assert_close(one, other)
    known = torch.full((2, 10), float("nan"))
    assert intensity_loss(torch.randn(2, 10), known, torch.ones(2, 10)) == 0


def test_smoothing_leaves_absent_labels_out():
    logits = torch.zeros(1, 1, 3)
    logits[..., 2] = -30
    target = torch.tensor([[[1.0, 0.0, 0.0]]])
    present = torch.tensor([True, True, False])
    assert category_loss(logits, target, torch.ones(1, 1), 0.1, present) == pytest.approx(np.log(2), abs=1e-4)


def test_smoothing_keeps_a_present_label_however_unlikely():
    logits = torch.tensor([[[2.0, 1.0, -3.0], [1.0, 0.5, -1.0]]])
    target = torch.eye(3)[torch.tensor([[0, 1]])]
    smooth = F.cross_entropy(logits[0], target[0], label_smoothing=0.1)  # torch's own
    got = category_loss(logits, target, torch.ones(1, 2), 0.1, torch.ones(3, dtype=torch.bool))
    torch.testing.assert_close(got, smooth)


def test_blending_weighs_each_truth_by_its_own_weight_and_keeps_unknown_intensities_apart():
    torch.manual_seed(7)
    target = torch.eye(8)[torch.tensor([[0], [1]])]
    weight = torch.tensor([[1.0], [0.0]])  # the second utterance's label does not count
    intensity = torch.tensor([[0.8], [float("nan")]])
    made = mixup_and_mask(
        made_batch(torch.ones(2, 1, 2, 3), target, intensity, weight), mixup_prob=1.0, time_mask_max=0.0
    )
    torch.manual_seed(7)
    torch.rand(())
    share, order = float(torch.distributions.Beta(0.4, 0.4).sample()), torch.randperm(2)
    assert order.tolist() == [1, 0]  # each is blended with the other
    torch.testing.assert_close(made.weight, torch.tensor([[1 - share], [share]]))
    torch.testing.assert_close(made.target, torch.eye(8)[torch.zeros(2, 1, dtype=torch.long)])
    torch.testing.assert_close(made.intensity, torch.full((2, 1), 0.8))
    torch.testing.assert_close(made.intensity_weight, made.weight)


def test_a_finished_diarizer_resumes_and_short_runs_finish(tmp_path):
    made_corpus(tmp_path)
    config = tmp_path / "c.yaml"
    config.write_text(
        f"manifest: {tmp_path}/manifest.json\nfeatures: [{tmp_path}/features]\noutput: {tmp_path}/run\n"
        "model: {layers: 2, feature_width: 12, width: 8, hidden: 4, convolutions: 1, members: 1}\n"
        "batch_size: 4\nvalidate_every: 30\n"
    )
    train_diarizer(config, ["steps=4", "warmup=1"])
    assert torch.load(tmp_path / "run/last.ckpt", weights_only=True)["global_step"] == 4
    train_diarizer(config, ["steps=6", "warmup=0"])
    assert torch.load(tmp_path / "run/last.ckpt", weights_only=True)["global_step"] == 6
    with pytest.raises(DataError, match=r"6 steps are done already.*last\.ckpt"):
        train_diarizer(config, ["steps=5"])
    with pytest.raises(DataError, match=r"weights of (other sizes|another model)"):
        train_diarizer(config, ["steps=8", "model.width=16"])


def test_a_tiny_training_learns_calibrates_and_exports(tmp_path):
    made_corpus(tmp_path)
    config = tmp_path / "tiny.yaml"
    config.write_text(
        f"manifest: {tmp_path}/manifest.json\nfeatures: [{tmp_path}/features]\noutput: {tmp_path}/run\n"
        "model: {layers: 2, feature_width: 12, width: 16, hidden: 8, convolutions: 1, dropout: 0.1, members: 2}\n"
        "steps: 60\nbatch_size: 8\nvalidate_every: 30\nlr: 1e-2\nwarmup: 5\n"
    )
    exported = train_diarizer(config, ["seed=3"])
    diarizer = load_diarizer(exported)
    assert len(diarizer.members) == 2
    steps = torch.from_numpy(np.load(tmp_path / "features/made/3-angry-0.npy")).float()
    posterior = diarizer(steps[None])[0].mean(0)[0].softmax(-1)
    assert posterior[10:20, LABELS.index("angry")].mean() > 0.6
    assert diarizer.config.temperature != 1.0


def test_a_reference_is_the_speakers_own_voice(tmp_path):
    """Its mean is that of the speaker's clips of the drawn emotions, with their seconds of speech."""
    draws = mixer(tmp_path, references=(("one", 1.0),), reference_seconds=(2.0, 2.1))
    for _ in range(5):
        voice = draws.draw().reference
        assert 2.0 <= float(voice.seconds) <= 2.9 and voice.seconds == voice.reference
        mean = voice.statistics()[0].unflatten(0, (2, 12)).mean(0)[: len(LABELS)]
        assert mean.max() > 1 and LABELS[int(mean.argmax())] in SPOKEN  # one emotion's direction
    none = mixer(tmp_path, references=(("none", 1.0),)).draw().reference
    assert float(none.seconds) == 0


def test_references_are_mostly_of_clean_clips_if_asked_for(tmp_path):
    """The second folder moves each clip by its own offset, as an augmentation does."""
    manifest = made_corpus(tmp_path)
    caches = [tmp_path / name for name in ("features", "augmented")]
    for number, item in enumerate(manifest):
        (caches[1] / item.id).parent.mkdir(parents=True, exist_ok=True)
        moved = np.load(caches[0] / f"{item.id}.npy") + np.float16(100 + 10 * number)
        np.save(caches[1] / f"{item.id}.npy", moved)
    settings = MixerConfig(references=(("mixed", 1.0),), clean=0.5, changing=0.0)
    draws = Mixer(manifest.select("train"), caches, settings, seed=3)
    mixes = [draws.draw() for _ in range(60)]
    augmented = np.array([float(mix.steps.float().mean()) > 50 for mix in mixes])
    referred = np.array([float(mix.reference.seconds) > 0 for mix in mixes])
    assert 0.1 < augmented.mean() < 0.5
    assert referred[~augmented].mean() > 0.55 and referred[augmented].mean() < 0.4
    offsets = np.array([float(mix.reference.statistics()[0].mean()) for mix in mixes])
    assert offsets[~augmented].max() < 50


def test_a_changed_voice_moves_the_mixture_and_its_reference_alike(tmp_path):
    """Speakers whose neutral voices differ by a constant: every changed mixture stays between the two voices."""
    manifest = made_corpus(tmp_path)
    for item in manifest:
        if item.speaker == "s1":
            path = tmp_path / "features" / f"{item.id}.npy"
            np.save(path, np.load(path) + np.float16(4))
    settings = {"references": (("mixed", 1.0),), "non_speech": 0.0}
    draws = [
        Mixer(manifest.select("train"), [tmp_path / "features"], MixerConfig(voice_change=change, **settings), seed=2)
        for change in (0.0, 1.0)
    ]
    plain, changed = ([mixer.draw() for _ in range(40)] for mixer in draws)
    assert {round(float(mix.steps.float().mean())) for mix in plain} == {0, 4}
    means = np.array([float(mix.steps.float().mean()) for mix in changed])
    assert ((means > 0.5) & (means < 3.5)).sum() > 5 and means.min() > -0.5 and means.max() < 4.5
    for mix in changed:
        mean, deviation = mix.reference.statistics()
        assert float(mean.mean()) == pytest.approx(float(mix.steps.float().mean()), abs=0.2)
        assert float(deviation.max()) < 3


def test_features_kept_in_memory_give_the_same_mixtures(tmp_path):
    manifest = made_corpus(tmp_path)
    kept = Mixer(manifest.select("train"), [tmp_path / "features"], MixerConfig(), seed=1, in_memory=True)
    read = mixer(tmp_path)
    for _ in range(5):
        torch.testing.assert_close(kept.draw().steps, read.draw().steps)


def test_sounds_between_clips_have_no_label_and_no_speech(tmp_path):
    manifest = made_corpus(tmp_path)
    sound = replace(manifest.utterances[0], corpus="non-speech", speaker="sounds")
    items = [*manifest.select("train")[1:], sound]
    draws = Mixer(items, [tmp_path / "features"], MixerConfig(non_speech=1.0, keep_silence=0), seed=0)
    mixes = [draws.draw() for _ in range(20)]
    assert {mix.corpus for mix in mixes} == {"made"}
    sounding = [mix for mix in mixes if (mix.speech == 0).any()]
    assert sounding and all((mix.weight[mix.speech == 0] < 1).all() for mix in sounding)


def test_priors_are_of_each_corpus(tmp_path):
    manifest = made_corpus(tmp_path)
    plain = [replace(i, corpus="plain", speaker="p") for i in manifest.select("train") if i.emotion == "neutral"]
    draws = Mixer([*manifest.select("train"), *plain], [tmp_path / "features"], MixerConfig(), seed=0)
    priors = estimate_log_priors(draws, 200)
    assert priors["made"][LABELS.index("fear")] == pytest.approx(np.log(0.03), abs=1e-5)
    assert priors["made"][LABELS.index("happy")] > np.log(0.1)
    assert priors["plain"].exp()[LABELS.index("neutral")] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("blocks", "projected", "groups"),
    [(0, "false", "false"), (1, "false", "false"), (1, "false", "true"), (1, "true", "true")],
)
def test_a_causal_diarizer_learns_emotion_speech_and_intensity(tmp_path, blocks, projected, groups):
    made_corpus(tmp_path)
    config = tmp_path / "causal.yaml"
    config.write_text(
        f"manifest: {tmp_path}/manifest.json\nfeatures: [{tmp_path}/features]\noutput: {tmp_path}/run\n"
        "model: {layers: 2, feature_width: 12, width: 16, hidden: 8, convolutions: 1, dropout: 0.1, causal: true,\n"
        f"        blocks: {blocks}, block_feedforward: 24, projected_voice: {projected}}}\n"
        "copy_blocks: false\nencoder_lr: 1e-3\nsteps: 80\nbatch_size: 8\nvalidate_every: 80\nlr: 1e-2\nwarmup: 5\n"
        f"channel_dropout: 0.05\ngroups: {groups}\n"
    )
    diarizer = load_diarizer(train_diarizer(config, ["seed=3"]))
    steps = torch.from_numpy(np.load(tmp_path / "features/made/3-angry-0.npy")).float()[None]
    speech = diarizer.speech_logits(steps)[0].sigmoid()
    assert speech[8:22].mean() > 0.6 and speech[:4].mean() < 0.4
    for outputs in diarizer.run_batch(steps, speech[None], VoiceEstimate.empty(diarizer.voice_size, 1), whole=False):
        posterior, _ = diarizer.finish(torch.cat([outputs.logits, outputs.intensity[..., None]], -1)[0, 0])
        assert posterior[12:20, LABELS.index("angry")].mean() > 0.6
    assert float(diarizer.average_voice.abs().max()) > 0.1
    if diarizer.config.projected_voice:
        profile = enroll_voice(diarizer, steps[0].repeat_interleave(2, 0))
        without = diarizer.start_networks(replace(profile, projected=None)).statistics()[0][0]
        average, own = diarizer.projected_average, torch.from_numpy(profile.projected.mean)
        assert (without - own).norm() < 0.5 * (average - own).norm()  # predicted from the states


def test_utterances_of_a_group_are_references_for_each_other_alone():
    torch.manual_seed(0)
    useful = torch.tensor([True, False, True])
    drawn = torch.stack([draw_references(useful) for _ in range(200)])
    group = torch.arange(3 * GROUP) // GROUP
    allowed = (group[:, None] == group) & useful[group][:, None] & ~torch.eye(3 * GROUP, dtype=torch.bool)
    assert ((drawn > 0).any(0) == allowed).all()
    counts = drawn[:, :GROUP].sum(-1)
    assert all((counts == number).float().mean() > 0.05 for number in range(GROUP))
    assert draw_references(useful.to("meta")).device.type == "meta"  # as on a GPU, all tensors are made where these are
    model = DiarizerConfig(causal=True, blocks=1, projected_voice=True)
    with pytest.raises(DataError, match="multiple of 4"):
        DiarizerTraining("m", ("f",), "o", groups=True, batch_size=6)
    with pytest.raises(DataError, match="groups: true"):
        DiarizerTraining("m", ("f",), "o", model=model)


def test_groups_are_of_one_speaker_and_one_version(tmp_path):
    manifest = made_corpus(tmp_path)
    for number, item in enumerate(manifest.utterances):  # half of the clips have a version with other values
        if number % 2:
            file = tmp_path / "voices" / f"{item.id}.npy"
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, np.load(tmp_path / "features" / f"{item.id}.npy") + 100)
    mixer = Mixer(
        manifest.select("train"), [tmp_path / "features", tmp_path / "voices"], MixerConfig(clean=1.0, consistent=(1,))
    )
    for _ in range(5):
        group, useful = mixer.draw_group(GROUP)
        assert useful and len(group) == GROUP
        assert all(float(mixture.steps.min()) > 50 for mixture in group)
    longest = len(group[0].weight) + 9
    longer = group[0].extend(longest)
    assert len(longer.steps) == longest and not longer.weight[-9:].any()


def test_copied_blocks_give_the_states_of_the_encoder(speech_file):
    """Before they are tuned, blocks that read layer-normed pairs of frames reproduce the encoder's own states."""
    encoder = load_encoder("whisper-tiny.en-streaming")
    diarizer = Diarizer(DiarizerConfig(encoder=encoder.name, first_layer=1, layers=3, causal=True, blocks=2))
    copy_encoder_blocks(diarizer.eval())
    steps = pool_frames(encoder.encode(load_audio(speech_file))[None, :, 1:])
    outputs, _ = diarizer.blocks(steps[:, :, 0], ahead=1)
    for number, output in enumerate(outputs, 1):
        assert F.cosine_similarity(output, steps[:, :, number], dim=-1).mean() > 0.97


def test_added_blocks_leave_the_outputs_as_they_are():
    torch.manual_seed(0)
    config = DiarizerConfig(
        layers=3, feature_width=24, width=16, hidden=12, causal=True, blocks=2, block_feedforward=20
    )
    diarizer, steps = Diarizer(config).eval(), torch.randn(1, 80, 3, 24)
    more = deepcopy(diarizer)
    add_blocks(more, 4)
    more.config = replace(config, blocks=4)
    assert len(more.blocks.layers) == 4 and more.member_inputs(steps, 5).shape[2] == 5 * 24
    for one, other in zip(diarizer(steps), more(steps), strict=True):
        torch.testing.assert_close(one, other)


def test_outputs_of_a_teacher_follow_the_clips(tmp_path):
    """They are stretched like an augmented version, cut and joined like the steps, and unknown for other clips."""
    manifest = made_corpus(tmp_path)
    known = [item for item in manifest.select("train") if item.emotion != "neutral"]
    for item in known:
        steps = len(np.load(tmp_path / "features" / f"{item.id}.npy"))
        row = np.full((steps, 1), LABELS.index(item.emotion), np.float16)
        path = tmp_path / "outputs" / f"{item.id}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.concatenate([row, np.arange(steps, dtype=np.float16)[:, None]], 1))
    teacher = TeacherOutputs(tmp_path / "outputs")
    assert teacher.read(known[0].id, 60)[:, 1].tolist() == [k // 2 for k in range(60)]
    draws = Mixer(manifest.select("train"), [tmp_path / "features"], MixerConfig(), seed=1, teacher=teacher)
    for _ in range(20):
        mix = draws.draw()
        spoken = mix.weight == 1
        unknown = mix.teacher[spoken, 0].isnan()
        named = mix.target[spoken].argmax(1)
        assert torch.equal(unknown, named == LABELS.index("neutral"))
        assert torch.equal(mix.teacher[spoken, 0][~unknown].long(), named[~unknown])
    with pytest.raises(DataError, match="no outputs of a teacher"):
        TeacherOutputs(tmp_path / "nothing")


def test_a_student_follows_its_teacher_where_it_is_known(tmp_path):
    """The loss is 0 for the teacher's own logits, and unknown outputs have no part in it."""
    np.save(tmp_path / "x.npy", np.zeros((3, 10), np.float16))
    model = DiarizerConfig(layers=2, feature_width=12, width=16, hidden=8, causal=True, blocks=1, block_feedforward=24)
    settings = DiarizerTraining("m", ("f",), "o", model=model, teacher=str(tmp_path), mixup_prob=0, time_mask_max=0)
    diarizer = Diarizer(model)
    student = TeacherLoss(settings, diarizer)
    diarizer.blocks(torch.randn(2, 30, 12), ahead=0)
    teacher = torch.randn(2, 30, 10)
    teacher[:, 20:] = torch.nan
    batch = made_batch(torch.randn(2, 30, 2, 12), torch.zeros(2, 30, 8), torch.zeros(2, 30), torch.ones(2, 30))
    blend = mixup_and_mask(replace(batch, teacher=student.targets(teacher)), 0, 0)
    assert blend.teacher_weight[:, 20:].sum() == 0 and not blend.teacher.isnan().any()
    student.settings = replace(settings, teacher_feature_weight=0)
    same = Outputs(teacher.nan_to_num(5)[None, ..., :8], torch.zeros(1, 2, 30))
    other = Outputs(-same.logits, same.intensity)
    assert student((same, same), (0.5, 0.5), blend).item() == pytest.approx(0, abs=1e-5)
    assert student((other, same), (0.5, 0.5), blend).item() > 0.1
    student.settings = settings
    assert student((same, same), (0.5, 0.5), blend).item() > 0.1
    student((same, same), (0.5, 0.5), blend).backward()
    assert diarizer.blocks.scale.grad.abs().max() > 0


def test_a_student_trains_and_is_exported_without_what_it_learned_with(tmp_path):
    manifest = made_corpus(tmp_path)
    for item in manifest.select("train"):
        steps = len(np.load(tmp_path / "features" / f"{item.id}.npy"))
        path = tmp_path / "outputs" / f"{item.id}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.ones((steps, 8 + 3), np.float16))
    model = DiarizerConfig(layers=2, feature_width=12, width=16, hidden=8, causal=True, blocks=3, block_feedforward=24)
    settings = DiarizerTraining(
        str(tmp_path / "manifest.json"), (str(tmp_path / "features"),), str(tmp_path / "run"), model=model,
        copy_blocks=False, teacher=str(tmp_path / "outputs"), early_weight=1.5, steps=4, batch_size=4, warmup=1,
    )  # fmt: skip
    exported = load_diarizer(run_training(settings), precision="float32")
    assert len(exported.blocks.layers) == 3 and exported.config.blocks == 3
    assert set(exported.state_dict()) == set(Diarizer(model).state_dict())


CAUSAL = DiarizerConfig(layers=2, feature_width=12, width=16, hidden=8, convolutions=1, causal=True, temperature=1.25)


def test_a_training_on_the_validation_speakers_keeps_the_given_calibration(tmp_path):
    made_corpus(tmp_path)
    settings = DiarizerTraining(
        f"{tmp_path}/manifest.json", (f"{tmp_path}/features",), f"{tmp_path}/a", model=CAUSAL,
        splits=("train", "validation"), neutral_bias=0.0, steps=2, batch_size=4, warmup=1,
    )  # fmt: skip
    plain = load_diarizer(run_training(settings))
    biased = load_diarizer(run_training(replace(settings, neutral_bias=0.75, output=f"{tmp_path}/b")))
    assert plain.config.temperature == biased.config.temperature == 1.25
    moved = plain.causal_members[0].live_head.bias - biased.causal_members[0].live_head.bias
    assert moved[0] == pytest.approx(0.75, abs=1e-3) and moved[1:].abs().max() == 0


@pytest.mark.parametrize("change", [{"splits": ("train", "validation")}, {"runs": 2}, {"start_share": 0.5}])
def test_a_training_without_speakers_for_calibration_needs_a_given_one(change):
    with pytest.raises(DataError, match="need neutral_bias"):
        DiarizerTraining("m", ("f",), "o", **change)


def test_several_runs_give_the_mean_of_their_weights(tmp_path):
    made_corpus(tmp_path)
    settings = DiarizerTraining(
        f"{tmp_path}/manifest.json", (f"{tmp_path}/features",), f"{tmp_path}/run", model=CAUSAL, runs=2, seed=5,
        neutral_bias=0.0, steps=2, batch_size=4, warmup=1,
    )  # fmt: skip
    mean = load_diarizer(run_training(settings))
    parts = [load_diarizer(tmp_path / "run" / name / "model") for name in "01"]
    start = tmp_path / "run/1/model"
    weights = [each.causal_members[0].live_head.weight for each in (*parts, mean)]
    assert (weights[0] - weights[1]).abs().max() > 0.01
    torch.testing.assert_close(weights[2], (weights[0] + weights[1]) / 2, atol=1e-2, rtol=0)
    settings = replace(settings, runs=1, start_share=0.75, init_from=str(start), lr=0.1, output=f"{tmp_path}/more")
    mean = load_diarizer(run_training(settings)).causal_members[0].live_head.weight
    moved = load_diarizer(tmp_path / "more/0/model").causal_members[0].live_head.weight
    assert (moved - weights[1]).abs().max() > 0.05
    torch.testing.assert_close(mean, 0.25 * moved + 0.75 * weights[1], atol=1e-2, rtol=0)


def test_the_mean_needs_networks_of_one_size(tmp_path):
    for name, hidden in (("a", 8), ("b", 12)):
        save_diarizer(Diarizer(replace(CAUSAL, hidden=hidden)), tmp_path / name)
    with pytest.raises(DataError, match="different sizes"):
        average_diarizers([tmp_path / "a", tmp_path / "b"], [0.5, 0.5], tmp_path / "mixed")
    settings = DiarizerTraining(
        "m", ("f",), f"{tmp_path}/run", model=CAUSAL, init_from=f"{tmp_path}/b", start_share=0.5, neutral_bias=0.0
    )
    with pytest.raises(DataError, match="different sizes"):  # before the training
        run_training(settings)
    assert not (tmp_path / "mixed").exists()
    with pytest.raises(DataError, match="needs a start"):
        DiarizerTraining("m", ("f",), "o", start_share=0.5, neutral_bias=0.0)


def test_configuration_errors_are_one_line(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("manifest: m\nfeatures: [f]\noutput: o\n")
    assert read_config(config, ["model.width=32", "lr=1e-3"], DiarizerTraining).model == DiarizerConfig(width=32)
    for override in ("colour=1", "model.colour=1", "lr=fast", "nonsense", "steps=many"):
        with pytest.raises(DataError) as caught:
            read_config(config, [override], DiarizerTraining)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError):
        read_config(tmp_path / "none.yaml", [], DiarizerTraining)


def test_features_of_another_encoder_name_the_command(tmp_path):
    made_corpus(tmp_path)
    training = DiarizerTraining(f"{tmp_path}/manifest.json", (f"{tmp_path}/features",), f"{tmp_path}/run")
    with pytest.raises(DataError, match=r"2 x 12, .* reads 5 x 384.*--first-layer 0"):
        run_training(training)


def test_missing_features_name_the_command(tmp_path):
    manifest = made_corpus(tmp_path)
    with pytest.raises(DataError, match="cache_features"):
        Mixer(manifest.select("train"), [tmp_path / "elsewhere"]).draw()


class CountingEncoder:
    """An encoder that returns zeros and counts its calls."""

    name, layers, width = "counting", 2, 4
    calls = 0

    def encode(self, samples):
        self.calls += 1
        return torch.zeros(-(-len(samples) // 320), 2, 4)


def test_steps_are_cached_at_half_the_rate(tmp_path):
    write_wav(tmp_path / "a.wav", [np.zeros(16_000, np.float32)])
    cache_features([("a", tmp_path / "a.wav")], tmp_path / "cache", diarizer_features(CountingEncoder()))
    assert np.load(tmp_path / "cache/a.npy").shape == (25, 2, 4)
    assert np.load(tmp_path / "cache/a.loudness.npy").shape == (50,)
    cache_features([("a", tmp_path / "a.wav")], tmp_path / "upper", diarizer_features(CountingEncoder(), first_layer=1))
    assert np.load(tmp_path / "upper/a.npy").shape == (25, 1, 4)


def test_features_are_cached_once_and_unreadable_clips_are_named(tmp_path):
    import wave

    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(np.zeros(16_000, "<i2").tobytes())
    (tmp_path / "b.wav").write_text("text")
    items = [Utterance(f"c/{n}", f"{n}.wav", "c", "s", "female", "en", "happy") for n in "ab"]
    Manifest(str(tmp_path), items).save(tmp_path / "m.json")
    clips, encoder = read_recordings(tmp_path / "m.json"), CountingEncoder()
    for _ in range(2):
        with pytest.raises(DataError, match="no features of c/b and 0 more"):
            cache_features(clips, tmp_path / "cache", encoder.encode)
    assert encoder.calls == 1
    assert np.load(tmp_path / "cache/c/a.npy").shape == (50, 2, 4)
    assert np.load(tmp_path / "cache/c/a.loudness.npy").max() == -100


def test_trained_diarizers_become_members_of_one():
    one, other = (
        torch.manual_seed(seed) and Diarizer(DiarizerConfig(temperature=seed + 0.5)).eval() for seed in (1, 2)
    )
    whole = make_ensemble([one, other])
    steps = torch.randn(1, 30, 5, 384)
    apart = [diarizer(steps)[0] * diarizer.config.temperature for diarizer in (one, other)]
    present = ~whole.absent
    torch.testing.assert_close(whole(steps)[0][..., present], torch.cat(apart)[..., present])
    assert (whole.config.temperature, whole.config.members) == (1, 2)
    with pytest.raises(DataError, match="combined"):
        make_ensemble([one, Diarizer(DiarizerConfig(width=64))])
