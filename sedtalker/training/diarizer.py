"""Training of the emotion diarizer on cached features: losses, class balance, calibration, export."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from sedtalker.checkpoint import average_weights, is_checkpoint
from sedtalker.data.emotion_mixtures import CachedClip, Mixer, MixerConfig, Mixture, TeacherOutputs
from sedtalker.data.features import MEL_STRIDE
from sedtalker.data.manifest import Manifest, Utterance, load_manifest
from sedtalker.data.spec_augment import spec_augment
from sedtalker.emotion.causal import EmotionBlocks, running_estimates
from sedtalker.emotion.config import BLOCK_AHEAD
from sedtalker.emotion.diarizer import (
    LEAST_INTENSITY,
    OWN_ENCODER,
    STEP_RATE,
    STRIDE,
    Diarizer,
    DiarizerConfig,
    Outputs,
    load_diarizer,
    save_diarizer,
)
from sedtalker.emotion.voice import VoiceEstimate
from sedtalker.errors import DataError
from sedtalker.evaluation.diarization import unweighted_average_recall
from sedtalker.int8 import measure_ranges
from sedtalker.labels import LABELS
from sedtalker.speech import WhisperConfig, encoder_folder
from sedtalker.streaming_encoder import KIND as STREAMING_KIND
from sedtalker.streaming_encoder import load_streaming_network
from sedtalker.training.config import read_config, require_within
from sedtalker.training.encoder_tuning import TunedEncoder, load_tunable_encoder, save_tuned_encoder
from sedtalker.training.resume import last_checkpoint
from sedtalker.training.schedule import OneCycle


@dataclass(frozen=True)
class DiarizerTraining:
    """Settings of a training run, read from YAML."""

    manifest: str  # manifest of speech corpora with splits
    features: tuple[str, ...]  # folders of cached features; the first has the clean ones
    output: str  # folder of Lightning's checkpoints and the exported model
    init_from: str = ""  # folder of a diarizer whose weights are loaded; empty: random weights
    model: DiarizerConfig = field(default_factory=DiarizerConfig)
    copy_blocks: bool = True  # start `model.blocks` with those of the encoder; False: with random weights
    frozen_layers: int | None = None  # blocks of the encoder kept frozen; None: all, features are cached
    encoder_lr: float = 5e-5  # of the blocks above them, or of the diarizer's own (`model.blocks`)
    spec_augment_prob: float = 0.0  # share of the utterances with SpecAugment; for frozen_layers 0
    mixing: MixerConfig = field(default_factory=MixerConfig)
    corpus_weights: dict[str, float] = field(default_factory=dict)  # sampling weights (default 1); 0 excludes a corpus
    splits: tuple[str, ...] = ("train",)  # used for training
    neutral_bias: float | None = None  # of the logit; None: found, with `model.temperature`, on validation speakers
    runs: int = 1  # with the next seeds; the mean of their weights is exported
    start_share: float = 0.0  # of the weights of `init_from` in this mean
    steps: int = 3000
    groups: bool = False  # a batch has groups of utterances of one speaker, which are the references of each other
    batch_size: int = 32  # utterances
    lr: float = 1e-3
    warmup: int = 100  # steps; at most half of all steps
    weight_decay: float = 0.01
    label_smoothing: float = 0.05
    logit_adjustment: float = 1.0  # weight of the log prior added to the logits in training
    mixup_prob: float = 0.5  # share of the batches with mixup of utterance pairs
    time_mask_max: float = 0.1  # longest masked stretch, as a share of the utterance
    intensity_weight: float = 0.5
    speech_weight: float = 0.3
    teacher: str = ""  # folder of a teacher's outputs (`recipes diarizer_teacher`); empty: none
    teacher_weight: float = 0.5  # of the cross-entropy with the teacher's posterior
    teacher_temperature: float = 2.0  # of both posteriors in it
    teacher_feature_weight: float = 0.3  # of the error of the teacher's features, predicted by the blocks
    early_weight: float = 1.0  # of the first second of a mixture in the loss without the future
    channel_dropout: float = 0.2  # share of the input channels of a causal diarizer that are left out
    validate_every: int = 250  # steps; a shorter run validates at its end
    threads: int = 1
    workers: int = 0  # data loader processes
    in_memory: bool = False  # keep the cached features in memory, float16; 36 corpus hours in three variants: 5 GB
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every setting before the run. Raises DataError if a setting is out of range."""
        require_within(self, **dict.fromkeys(("steps", "batch_size", "validate_every", "threads", "runs"), (1, inf)))
        rates = (
            "lr",
            "encoder_lr",
            "warmup",
            "weight_decay",
            "workers",
            "logit_adjustment",
            "intensity_weight",
            "speech_weight",
            "corpus_weights",
            "teacher_weight",
            "teacher_feature_weight",
            "early_weight",
        )
        require_within(self, **dict.fromkeys(rates, (0, inf)), seed=(0, 2**32 - 1))
        require_within(
            self,
            **dict.fromkeys(
                ("spec_augment_prob", "label_smoothing", "mixup_prob", "time_mask_max", "start_share"), (0, 1)
            ),
            channel_dropout=(0, 0.9),
            teacher_temperature=(0.1, inf),
        )
        if self.frozen_layers is not None:
            require_within(self, frozen_layers=(0, inf))
        if self.model.projected_voice and not self.groups:
            raise DataError("model.projected_voice needs references that pass through the blocks. Set groups: true")
        if self.groups and self.batch_size % GROUP:
            raise DataError(f"batch_size {self.batch_size}: groups need a multiple of {GROUP}")
        for name in ("features", "splits"):
            if not getattr(self, name):
                raise DataError(f"{name} is empty. Name one or more")
        if self.neutral_bias is None and (self.averages or "validation" in self.splits):
            raise DataError(
                "a mean of weights and training on the validation speakers need neutral_bias and model.temperature. "
                "Find both with one run on the other speakers"
            )
        if self.start_share and not self.init_from:
            raise DataError("start_share needs a start. Set init_from")

    @property
    def averages(self) -> bool:
        """Whether a mean of weights is exported."""
        return self.runs > 1 or self.start_share > 0


BLOCK_LOOK_AHEAD = (0, 0, 5, BLOCK_AHEAD, BLOCK_AHEAD)  # steps; each batch has one of them
LIVE_SHARE = {0: 0.8, 5: 0.5, BLOCK_AHEAD: 0.2}  # by the blocks' look-ahead: share of the outputs without the future
GROUP = 4  # utterances of one speaker in a batch with `groups`
GROUP_LENGTHS = (0.3, 0.9)  # quantiles of the lengths of a batch's utterances, between which its length is drawn
STATE_VOICE_RIDGE = 0.1  # of `fit_state_voice`, relative to the mean square of its inputs
LEAST_PRIOR = 0.03  # of a label that a corpus lacks
NEUTRAL_COST = 0.005  # unweighted average recall, mean over corpora
SINGLE_PRIOR = 0.5  # of the label of a corpus with one label, as of ordinary speech
NEUTRAL_LABEL = torch.eye(len(LABELS))[LABELS.index("neutral")]
SORTED_BATCHES = 8  # batches whose utterances are drawn together and then sorted by length


@dataclass
class Batch:
    """Synthetic utterances of one length."""

    steps: Tensor  # (B, T, L, D)
    target: Tensor  # (B, T, C)
    intensity: Tensor  # (B, T), NaN where unknown
    weight: Tensor  # (B, T)
    speech: Tensor  # (B, T), NaN where unknown
    teacher: Tensor  # (B, T, K), NaN where unknown
    log_prior: Tensor  # (B, 1, C), of the labels in the utterance's corpus
    voice: VoiceEstimate  # (B,), the reference
    useful: Tensor | None = None  # (B / GROUP,) bool, groups of one speaker whose utterances can be references

    @property
    def group(self) -> int:
        """Number of neighbouring utterances that are mixed and masked alike."""
        return 1 if self.useful is None else GROUP


class MixedUtterances(IterableDataset[Batch]):
    """Endless batches of utterances of similar length, cut to the shortest; each loader worker draws its own."""

    def __init__(
        self, mixer: Mixer, size: int, log_priors: dict[str, Tensor], references: bool = True, groups: bool = False
    ) -> None:
        self.mixer, self.size, self.log_priors, self.references = mixer, size, log_priors, references
        self.groups = groups  # of one speaker, which are references for the voice of each other

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        if worker is not None:
            self.mixer.rng = self.mixer.rng.spawn(worker.num_workers)[worker.id]
        while self.groups:
            yield self._draw_groups()
        while True:
            mixes = [self.mixer.draw(self.references) for _ in range(SORTED_BATCHES * self.size)]
            drawn = sorted(mixes, key=lambda mix: len(mix.weight))
            for k in self.mixer.rng.permutation(SORTED_BATCHES):
                yield self._batch(drawn[k * self.size : (k + 1) * self.size])

    def _draw_groups(self) -> Batch:
        """Groups of one speaker each. Utterances are cut to a drawn length, or extended by steps without weight."""
        rng, groups = self.mixer.rng, [self.mixer.draw_group(GROUP) for _ in range(self.size // GROUP)]
        mixes = [mixture for group, _ in groups for mixture in group]
        steps = int(np.quantile([len(mix.weight) for mix in mixes], rng.uniform(*GROUP_LENGTHS)))
        starts = [int(rng.integers(max(0, len(mix.weight) - steps) + 1)) for mix in mixes]
        mixes = [mix.part(start, start + steps).extend(steps) for mix, start in zip(mixes, starts, strict=True)]
        return replace(self._batch(mixes), useful=torch.tensor([useful for _, useful in groups]))

    def _batch(self, mixes: Sequence[Mixture]) -> Batch:
        length = min(len(mix.weight) for mix in mixes)
        starts = [int(self.mixer.rng.integers(len(mix.weight) - length + 1)) for mix in mixes]
        parts = [mix.part(start, start + length) for mix, start in zip(mixes, starts, strict=True)]
        names = ("steps", "target", "intensity", "weight", "speech", "teacher")
        priors = torch.stack([self.log_priors[part.corpus][None] for part in parts])
        references = [part.reference or VoiceEstimate.empty(part.steps[0].numel()) for part in parts]
        voice = VoiceEstimate(*map(torch.stack, zip(*references, strict=True)))
        steps, target, intensity, weight, speech, teacher = (
            torch.stack([getattr(part, name) for part in parts]) for name in names
        )
        return Batch(steps, target, intensity, weight, speech, teacher, priors, voice)


class DiarizerModule(lightning.LightningModule):
    """Losses, optimiser and validation of a diarizer."""

    def __init__(self, training: DiarizerTraining) -> None:
        super().__init__()
        self.settings = training
        self.diarizer = init_diarizer(training)
        self.student = TeacherLoss(training, self.diarizer) if training.teacher else None
        frozen = training.frozen_layers
        self.encoder = nn.Identity() if frozen is None else load_tunable_encoder(training.model.encoder, frozen)
        # corpus -> true and predicted labels of the speech frames in the running validation
        self.validated: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))

    def training_step(self, batch: Batch, index: int) -> Tensor:
        if self.settings.spec_augment_prob:
            batch = replace(batch, steps=spec_augment(batch.steps, self.settings.spec_augment_prob))
        if self.student is not None:
            batch = replace(batch, teacher=self.student.targets(batch.teacher))
        blend = mixup_and_mask(batch, self.settings.mixup_prob, self.settings.time_mask_max)
        if self.diarizer.config.causal:
            return self._causal_loss(batch, blend)
        return self._loss(Outputs(*self.diarizer(self.encoder(blend.steps))), blend)

    def _loss(self, outputs: Outputs, blend: Blend) -> Tensor:
        adjusted = outputs.logits + self.settings.logit_adjustment * blend.log_prior
        present = ~self.diarizer.absent
        category = category_loss(adjusted, blend.target, blend.weight, self.settings.label_smoothing, present)
        level, weight = blend.intensity, blend.intensity_weight
        if self.diarizer.config.causal:  # the strength of an emotion; neutral speech has none
            level = ((level - LEAST_INTENSITY) / (1 - LEAST_INTENSITY)).clamp(0, 1)
            weight = weight * (1 - blend.target[..., LABELS.index("neutral")])
        intensity = intensity_loss(outputs.intensity, level, weight)
        self.log_dict({"category": category, "intensity": intensity}, prog_bar=True)
        return category + self.settings.intensity_weight * intensity

    def _causal_loss(self, batch: Batch, blend: Blend) -> Tensor:
        """Mean loss of the outputs without and with the future, and that of speech activity."""
        config = self.diarizer.config
        size = (config.kept + config.blocks) * config.feature_width
        kept = torch.rand(len(blend.steps) // batch.group, size, device=blend.steps.device)
        kept = (kept >= self.settings.channel_dropout).repeat_interleave(batch.group, 0)
        others = None if batch.useful is None else draw_references(batch.useful)
        mask = kept / (1 - self.settings.channel_dropout)
        whole = bool(torch.rand(()) < 0.5)
        masked = (blend.steps == 0).flatten(2).all(-1)[..., None, None]  # these are like an average voice
        average = self.diarizer.average_voice.unflatten(0, blend.steps.shape[2:])
        ahead = BLOCK_LOOK_AHEAD[int(torch.randint(len(BLOCK_LOOK_AHEAD), ()))] if self.diarizer.blocks else None
        outputs = self.diarizer.run_batch(
            torch.where(masked, average, blend.steps), blend.activity, blend.voice, whole, mask, ahead, others
        )
        known = ~batch.speech.isnan()
        logits = self.diarizer.speech_logits(batch.steps.float())[known]
        speech = F.binary_cross_entropy_with_logits(logits, batch.speech[known])
        early = torch.where(torch.arange(blend.weight.shape[1]) < STEP_RATE, self.settings.early_weight, 1.0)
        first = blend._replace(weight=blend.weight * early.to(blend.weight.device))
        share = 0.5 if ahead is None else LIVE_SHARE[ahead]
        live, refined = (self._loss(each, part) for each, part in zip(outputs, (first, blend), strict=True))
        loss = share * live + (1 - share) * refined + self.settings.speech_weight * speech
        if self.student is not None:
            added = self.student(outputs, (share, 1 - share), blend)
            self.log("teacher", added, prog_bar=True)
            loss = loss + added
        return loss

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        if isinstance(batch, CachedClip):
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def validation_step(self, clip: CachedClip, index: int) -> None:
        logits, _ = self.diarizer(self.encoder(clip.steps().float()[None].to(self.device)))
        predicted = logits.mean(0)[0].argmax(-1).cpu().numpy()[clip.speech]
        true_labels, predicted_labels = self.validated[clip.utterance.corpus]
        true_labels += [LABELS.index(clip.utterance.emotion)] * len(predicted)
        predicted_labels += predicted.tolist()

    def on_validation_epoch_end(self) -> None:
        recalls = {corpus: unweighted_average_recall(*labels) for corpus, labels in self.validated.items()}
        self.validated.clear()
        figures = {f"uar/{corpus}": value for corpus, value in recalls.items()}
        figures["uar"] = float(np.mean(list(recalls.values())))
        self.log_dict(figures)
        self.print(f"step {self.global_step}: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))

    def configure_optimizers(self) -> Any:
        settings = self.settings
        blocks = set() if self.diarizer.blocks is None else set(self.diarizer.blocks.parameters())
        others = [parameter for parameter in self.diarizer.parameters() if parameter not in blocks]
        others += [] if self.student is None else self.student.parameters()
        tuned = [*blocks, *self.encoder.parameters()]
        groups = [{"params": others}, {"params": tuned}]
        rates = [settings.lr, settings.encoder_lr]
        optimiser = torch.optim.AdamW(groups, settings.lr, weight_decay=settings.weight_decay)
        schedule = OneCycle(optimiser, rates, settings.steps, settings.warmup)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class TeacherLoss(nn.Module):
    """Losses of a student: its posterior (Hinton et al. 2015), and a teacher's features from its blocks' outputs.

    The targets are those of the clean recording, also for augmented versions.
    """

    def __init__(self, training: DiarizerTraining, diarizer: Diarizer) -> None:
        super().__init__()
        self.settings, self.labels = training, len(training.model.labels)
        self.size = TeacherOutputs(Path(training.teacher)).size
        self._outputs: list[Tensor] = []  # of the blocks in the running step
        self.predict: nn.Linear | None = None
        if diarizer.blocks is not None and self.size > self.labels:
            width = training.model.blocks * training.model.feature_width
            self.predict = nn.Linear(width, self.size - self.labels)
            diarizer.blocks.register_forward_hook(self._keep_outputs)

    def _keep_outputs(self, blocks: nn.Module, inputs: Any, result: tuple[list[Tensor], Any]) -> None:
        self._outputs = result[0]

    def targets(self, teacher: Tensor) -> Tensor:
        """Posteriors at the temperature instead of the logits of (B, T, K); features stay."""
        logits, features = teacher.split([self.labels, self.size - self.labels], -1)
        return torch.cat([(logits / self.settings.teacher_temperature).softmax(-1), features], -1)

    def forward(self, outputs: Sequence[Outputs], shares: Sequence[float], blend: Blend) -> Tensor:
        """Loss () of the outputs, weighted by their shares, and of the features."""
        settings = self.settings
        posterior, features = blend.teacher.split([self.labels, self.size - self.labels], -1)
        weight = blend.teacher_weight
        total, count = torch.zeros((), device=weight.device), weight.sum().clamp(min=1)
        for each, share in zip(outputs, shares, strict=True):
            entropy = -(posterior * F.log_softmax(each.logits / settings.teacher_temperature, -1)).sum(-1)
            divergence = (entropy + torch.special.entr(posterior).neg().sum(-1)) * settings.teacher_temperature**2
            total = total + settings.teacher_weight * share * (divergence * weight).mean(0).sum() / count
        if self.predict is not None:
            error = (self.predict(torch.cat(self._outputs, -1)) - features).square().mean(-1)
            total = total + settings.teacher_feature_weight * (error * weight).sum() / count
        return total


def init_diarizer(training: DiarizerTraining) -> Diarizer:
    """Create the network with random weights, or with those of `init_from`; new blocks start as `copy_blocks` says.

    Raises:
        DataError: the labels of `init_from` differ, or the encoder has no blocks to copy.
    """
    diarizer, new_blocks = Diarizer(training.model), training.model.blocks > 0
    if training.init_from:
        earlier = load_diarizer(training.init_from, precision="float32")
        if earlier.config.labels != training.model.labels:
            raise DataError(
                f"labels differ from model.labels: {training.init_from}. Set model.labels={list(earlier.config.labels)}"
            )
        if earlier.blocks is not None:
            add_blocks(earlier, training.model.blocks)
        new_blocks = new_blocks and earlier.blocks is None
        state, new_voice = earlier.state_dict(), training.model.projected_voice > earlier.config.projected_voice
        if new_voice:  # the spread of a voice is that of other values
            state = {name: tensor for name, tensor in state.items() if not name.endswith(".spread.weight")}
        diarizer.load_state_dict(state, strict=not (new_blocks or new_voice))
    if new_blocks and training.copy_blocks:
        copy_encoder_blocks(diarizer)
    return diarizer


def add_blocks(diarizer: Diarizer, blocks: int) -> None:
    """Add copies of a diarizer's last block up to `blocks` of them; its outputs do not change.

    The networks' weights of the new inputs are 0 (after Net2Net, Chen et al. 2016).
    """
    assert diarizer.blocks is not None
    missing = blocks - len(diarizer.blocks.layers)
    for _ in range(missing):
        diarizer.blocks.layers.append(deepcopy(diarizer.blocks.layers[-1]))
    for member in diarizer.causal_members if missing > 0 else ():
        added = torch.zeros(len(member.project.weight), missing * diarizer.config.feature_width)
        member.project.weight = nn.Parameter(torch.cat([member.project.weight, added], 1))


def copy_encoder_blocks(diarizer: Diarizer) -> None:
    """Start the blocks of a diarizer with the last blocks of its streaming encoder.

    Raises:
        DataError: the encoder is not a streaming encoder.
    """
    config = diarizer.config
    assert diarizer.blocks is not None
    folder = encoder_folder(config.encoder)
    if not is_checkpoint(folder, STREAMING_KIND):
        raise DataError(f"model.blocks need a streaming encoder, not {config.encoder}. Set model.encoder")
    layers = list(load_streaming_network(folder, precision="float32").layers[config.first_layer + config.kept - 1 :])
    layers += layers[-1:] * (config.blocks - len(layers))
    for own, layer in zip(diarizer.blocks.layers, layers, strict=True):
        own.load_state_dict(layer.state_dict())
    for member in diarizer.causal_members:
        assert member.voice is not None
        member.voice.load_state_dict({"weight": member.project.weight[:, : config.layers * config.feature_width]})


def draw_references(useful: Tensor) -> Tensor:
    """References (B, B) for the voices of the utterances of groups: 1 where the column's is one for the row's.

    Args:
        useful: (B / GROUP,) bool, groups with references.
    """
    size, device = len(useful) * GROUP, useful.device
    same = torch.block_diag(*[torch.ones(GROUP, GROUP, device=device)] * len(useful)) - torch.eye(size, device=device)
    share = torch.rand(size, 1, device=device) * 1.8 - 0.6  # none for a third of the utterances
    chosen = (torch.rand(size, size, device=device) < share).float()
    return same * chosen * useful.float().repeat_interleave(GROUP)[:, None]


class Blend(NamedTuple):
    """A batch after mixup and masking."""

    steps: Tensor  # (B, T, L, D)
    target: Tensor  # (B, T, C)
    weight: Tensor  # (B, T), weight of the target
    intensity: Tensor  # (B, T), 0 where its weight is 0
    intensity_weight: Tensor  # (B, T)
    activity: Tensor  # (B, T), weight of a step in the estimate of the voice
    teacher: Tensor  # (B, T, K), 0 where its weight is 0
    teacher_weight: Tensor  # (B, T)
    log_prior: Tensor  # (B, 1, C)
    voice: VoiceEstimate  # (B,)


def mixup_and_mask(batch: Batch, mixup_prob: float, time_mask_max: float) -> Blend:
    """Apply mixup of pairs of utterances (Zhang et al. 2018) with a probability, and mask a stretch of each.

    Targets are mixed by the share of their utterance times their weight, so that an unknown target has no effect.
    """
    steps, target, weight = batch.steps.float(), batch.target, batch.weight
    level_weight, level = weight * ~batch.intensity.isnan(), batch.intensity.nan_to_num(0)
    activity, log_prior, voice = batch.speech.nan_to_num(0), batch.log_prior, batch.voice
    teacher_weight, teacher = weight * ~batch.teacher.isnan().any(-1), batch.teacher.nan_to_num(0)
    size, length = weight.shape
    if float(torch.rand(())) < mixup_prob:
        share = float(torch.distributions.Beta(0.4, 0.4).sample())
        first = torch.randperm(size // batch.group, device=steps.device)[:, None] * batch.group
        order = (first + torch.arange(batch.group, device=steps.device)).flatten()
        steps = torch.lerp(steps, steps[order], share)
        target, weight = _mix_targets(target, weight, order, share)
        level, level_weight = _mix_targets(level, level_weight, order, share)
        teacher, teacher_weight = _mix_targets(teacher, teacher_weight, order, share)
        activity = torch.lerp(activity, activity[order], share)
        log_prior = torch.logaddexp(
            log_prior + math.log(max(1 - share, 1e-6)), log_prior[order] + math.log(max(share, 1e-6))
        )
        voice = _mix_voices(voice, order, share)
    hidden = (torch.rand(size, 1, device=steps.device) * time_mask_max * length).round()
    start = torch.rand(size, 1, device=steps.device) * (length - hidden)
    place = torch.arange(length, device=steps.device)
    kept = (place < start) | (place >= start + hidden)
    return Blend(
        steps * kept[..., None, None], target, weight, level, level_weight, activity * kept, teacher, teacher_weight,
        log_prior, voice,
    )  # fmt: skip


def _mix_voices(voice: VoiceEstimate, order: Tensor, share: float) -> VoiceEstimate:
    """Mix estimates (B,) with the same in another order; the evidence is the smaller of the two."""
    seconds = torch.minimum(voice.seconds, voice.seconds[order])

    def mix(sums: Tensor) -> Tensor:
        means = sums / voice.seconds.clamp(min=1e-9)[:, None]
        return torch.lerp(means, means[order], share) * seconds[:, None]

    return VoiceEstimate(mix(voice.sums), mix(voice.squares), seconds, seconds)


def _mix_targets(truth: Tensor, weight: Tensor, order: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Mix targets (B, T, ...) of weight (B, T) with the same in another order; returns targets and weights."""
    own, other = (1 - share) * weight, share * weight[order]
    both = own + other
    part = torch.where(both > 0, other / both.clamp(min=1e-12), share).reshape(*both.shape, *[1] * (truth.ndim - 2))
    return torch.lerp(truth, truth[order], part.to(truth.dtype)), both


def category_loss(logits: Tensor, target: Tensor, weight: Tensor, smoothing: float, present: Tensor) -> Tensor:
    """Weighted mean cross-entropy () between the logits of the members and target distributions.

    Args:
        logits: (M, B, T, C).
        target: (B, T, C).
        weight: (B, T).
        smoothing: share of the target that is spread evenly over the present labels.
        present: (C,) bool, labels with training data; the others get no share of the smoothing.
    """
    smooth = present / present.sum()
    smoothed = (1 - smoothing) * target + smoothing * smooth
    entropy = -(smoothed * F.log_softmax(logits, -1)).sum(-1)
    return (entropy * weight).sum() / weight.sum().clamp(min=1)


def intensity_loss(intensity_logits: Tensor, intensity: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean cross-entropy () of intensity logits (M, B, T) with targets (B, T) in 0..1; NaN: unknown."""
    known = weight * ~intensity.isnan()
    target = intensity.nan_to_num(0).expand_as(intensity_logits)
    entropy = F.binary_cross_entropy_with_logits(intensity_logits, target, reduction="none")
    return (entropy * known).sum() / known.sum().clamp(min=1)


def train_diarizer(config_path: Path | str, overrides: Sequence[str] = ()) -> Path:
    """Train a diarizer, calibrate it on the validation speakers and export it; returns the exported folder.

    A stopped run resumes from its last checkpoint in `output`.
    """
    return run_training(read_config(config_path, overrides, DiarizerTraining))


def run_training(training: DiarizerTraining) -> Path:
    """Train, calibrate and export a diarizer with given settings; returns the exported folder.

    Runs whose mean is exported are written to `output`/0, /1 and so on.
    """
    if training.averages:
        return _average_runs(training)
    torch.set_num_threads(training.threads)
    lightning.seed_everything(training.seed, verbose=False)
    manifest, caches = load_manifest(training.manifest), [Path(folder) for folder in training.features]
    used = [item for item in manifest if training.corpus_weights.get(item.corpus, 1) > 0]
    utterances = [item for item in used if item.split in training.splits]
    held_out = [item for item in used if item.split == "validation" and not item.segments]
    if not utterances or not held_out:
        raise DataError(
            f"no training or no validation speakers: {training.manifest}. Write it again with: sedtalker data prepare"
        )
    teacher = TeacherOutputs(Path(training.teacher)) if training.teacher else None
    mixer = Mixer(
        utterances, caches, training.mixing, training.corpus_weights, training.seed, training.in_memory, teacher
    )
    clips = [CachedClip(item, caches[:1]) for item in held_out]
    module = _fit(training, mixer, clips)
    deciding = {item.id for item in select_calibration_clips(manifest, training.model)}
    return _export(training, module, mixer, [clip for clip in clips if clip.utterance.id in deciding] or clips)


def _average_runs(training: DiarizerTraining) -> Path:
    """Train with several seeds, and export the mean of the weights; returns its folder.

    A mean of runs that start with the same weights, or with these weights, is often better on other speakers (Wortsman
    et al. 2022, "Model soups").
    """
    parts = [
        replace(training, runs=1, start_share=0.0, seed=training.seed + run, output=f"{training.output}/{run}")
        for run in range(training.runs)
    ]
    if training.start_share:
        require_same_sizes([Diarizer(training.model), load_diarizer(training.init_from, precision="float32")])
    folders = [run_training(part) for part in parts]
    shares = [(1 - training.start_share) / training.runs] * training.runs
    if training.start_share:
        folders, shares = [*folders, Path(training.init_from)], [*shares, training.start_share]
    return average_diarizers(folders, shares, Path(training.output, "model"))


def _fit(training: DiarizerTraining, mixer: Mixer, clips: Sequence[CachedClip]) -> DiarizerModule:
    """Train on mixtures and validate on clips; returns the module for evaluation."""
    check_cached_features(training, clips[0])
    module, log_priors = DiarizerModule(training), estimate_log_priors(mixer)
    if training.model.causal and not training.init_from:
        set_average_voice(module.diarizer, mixer)
    if training.model.projected_voice:
        set_projected_voice(module.diarizer, mixer)
    output = Path(training.output)
    saved = ModelCheckpoint(output, "last", enable_version_counter=False)
    trainer = lightning.Trainer(
        max_steps=training.steps, val_check_interval=min(training.validate_every, training.steps),
        accelerator="auto", devices=1,
        callbacks=[saved], default_root_dir=output, logger=False, gradient_clip_val=1.0, num_sanity_val_steps=0,
    )  # fmt: skip
    batches = MixedUtterances(mixer, training.batch_size, log_priors, training.model.causal, training.groups)
    trainer.fit(
        module,
        DataLoader(batches, batch_size=None, num_workers=training.workers),
        DataLoader(clips, batch_size=None),  # type: ignore[arg-type]  # a list is a dataset too
        ckpt_path=last_checkpoint(module, output, training.steps),
        weights_only=True,
    )
    return module.eval()


def _export(training: DiarizerTraining, module: DiarizerModule, mixer: Mixer, deciding: Sequence[CachedClip]) -> Path:
    """Calibrate a trained diarizer on the deciding clips, and save it; returns its folder."""
    exported, diarizer = Path(training.output, "model"), module.diarizer
    if training.neutral_bias is None:
        diarizer = calibrate(diarizer, deciding, module.encoder)
    elif diarizer.config.causal:
        add_neutral_bias(diarizer, training.neutral_bias)
    if isinstance(module.encoder, TunedEncoder):
        own = (exported / OWN_ENCODER).resolve()
        save_tuned_encoder(training.model.encoder, module.encoder, own)
        diarizer.config = replace(diarizer.config, encoder=str(own))
    if diarizer.config.projected_voice:
        fit_state_voice(diarizer, mixer)
    if diarizer.blocks is not None:
        measure_blocks(diarizer.blocks, mixer, diarizer.config.kept - 1)
    save_diarizer(diarizer, exported)
    return exported


def measure_blocks(blocks: EmotionBlocks, mixer: Mixer, below: int, draws: int = 100) -> None:
    """Measure the ranges of the inputs of the blocks' layers on mixtures, for 8 bits.

    Args:
        below: number of the state that the blocks read.
    """
    mixes = [mixer.draw(reference=False).steps.float() for _ in range(draws)]
    measure_ranges(blocks, ((steps[None, :, below], BLOCK_AHEAD) for steps in mixes))


def check_cached_features(training: DiarizerTraining, clip: CachedClip) -> None:
    """Check the sizes of cached features, and that settings for log-mels are used with log-mels only.

    Raises:
        DataError: the sizes differ from the model's, or a setting needs log-mels.
    """
    model = training.model
    if training.frozen_layers != 0 and (training.spec_augment_prob or training.mixing.level_match_prob):
        raise DataError(
            "spec_augment_prob and mixing.level_match_prob are for log-mels. Set frozen_layers: 0, or leave them out"
        )
    expected, kind = (model.layers, model.feature_width), f"--first-layer {model.first_layer} --steps"
    if training.frozen_layers is not None:
        expected = (STRIDE, model.feature_width) if training.frozen_layers else (MEL_STRIDE, WhisperConfig.mels)
        kind = f"--below {training.frozen_layers}"
    if clip.steps().shape[1:] != expected:
        found = " x ".join(map(str, clip.steps().shape[1:]))
        raise DataError(
            f"features of {found}, but the diarizer reads {expected[0]} x {expected[1]}: "
            f"{clip.variants[0]}. Cache them with --encoder {model.encoder} {kind}"
        )


def estimate_log_priors(mixer: Mixer, draws: int = 1000) -> dict[str, Tensor]:
    """Estimate the log prior (C,) of the labels in the mixer's frames of each corpus, weighted as in the loss.

    A label that a corpus lacks gets `LEAST_PRIOR`, because a sound of the corpus could have it. If a corpus has one
    label alone, that has `SINGLE_PRIOR`, or nothing would be learned from it.
    """
    totals: dict[str, NDArray[np.float64]] = {corpus: np.zeros(len(LABELS)) for corpus in mixer.corpora}
    for _ in range(draws):
        mix = mixer.draw(reference=False)
        totals[mix.corpus] += (mix.target * mix.weight[:, None]).sum(0).numpy()
    priors = {}
    for corpus, total in totals.items():
        share = np.maximum(total / max(total.sum(), 1e-9), LEAST_PRIOR)
        if (total > LEAST_PRIOR * total.sum()).sum() == 1:
            share = np.where(share > 0.5, SINGLE_PRIOR, (1 - SINGLE_PRIOR) / (len(LABELS) - 1))
        priors[corpus] = torch.from_numpy(np.log(share)).float()
    return priors


def set_average_voice(diarizer: Diarizer, mixer: Mixer, draws: int = 400) -> None:
    """Set mean and deviation of an average voice from the speech of mixtures, each with the same weight."""
    means, variances = [], []
    for _ in range(draws):
        mix = mixer.draw(reference=False)
        steps, activity = mix.steps.float().flatten(1)[None], mix.speech.nan_to_num(0)[None]
        start = VoiceEstimate.empty(steps.shape[2], 1)
        _, estimate = running_estimates(steps, activity, start, 1 / STEP_RATE)
        if float(estimate.seconds) > 0.5:
            mean, deviation = estimate.statistics()
            means.append(mean[0])
            variances.append(deviation[0].square())
    if means:
        diarizer.average_voice.copy_(torch.stack(means).mean(0))
        diarizer.average_deviation.copy_(torch.stack(variances).mean(0).sqrt())


@torch.no_grad()
def set_projected_voice(diarizer: Diarizer, mixer: Mixer, draws: int = 200) -> None:
    """Set mean and deviation of an average voice's projected inputs from the speech of mixtures, of equal weight."""
    voices = [(mean, deviation) for _, mean, deviation in _draw_voices(diarizer, mixer, draws)]
    if voices:
        means, deviations = map(torch.stack, zip(*voices, strict=True))
        diarizer.projected_average.copy_(means.mean(0))
        diarizer.projected_deviation.copy_(deviations.square().mean(0).sqrt())


@torch.no_grad()
def fit_state_voice(diarizer: Diarizer, mixer: Mixer, draws: int = 600) -> None:
    """Fit the weights that predict the mean of a voice's projected inputs from that of its states.

    They serve profiles without projected inputs. A ridge regression moves the weights of before as little as needed.
    """
    voices = _draw_voices(diarizer, mixer, draws)
    if not voices:
        return
    states, means, _ = map(torch.stack, zip(*voices, strict=True))
    shifts = (states - diarizer.average_voice) / diarizer.average_deviation
    gram = shifts @ shifts.T
    gram += STATE_VOICE_RIDGE * gram.diagonal().mean() * torch.eye(len(gram))
    wanted = (means - diarizer.projected_average).chunk(len(diarizer.members), -1)
    for member, target in zip(diarizer.causal_members, wanted, strict=True):
        assert member.voice is not None
        error = target - member.project_voice(shifts)
        member.voice.weight += torch.linalg.solve(gram, error).T @ shifts


def _draw_voices(diarizer: Diarizer, mixer: Mixer, draws: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Mean of the states (size,), mean and deviation of the projected inputs (M * width,) of the speech of mixtures."""
    voices = []
    for _ in range(draws):
        mix = mixer.draw(reference=False)
        steps, activity = mix.steps.float()[None], mix.speech.nan_to_num(0)[None]
        states, projected = (
            running_estimates(values, activity, VoiceEstimate.empty(values.shape[2], 1), 1 / STEP_RATE)[1]
            for values in (steps.flatten(2), diarizer.voice_values(steps))
        )
        if float(states.seconds) > 0.5:
            voices.append((states.statistics()[0][0], *(part[0] for part in projected.statistics())))
    return voices


def select_calibration_clips(manifest: Manifest, model: DiarizerConfig) -> list[Utterance]:
    """Select validation clips for calibration: of corpora with several emotions, all known to the model.

    Corpora of neutral speech only are too easy for calibration.
    """
    known = set(model.labels) - set(model.absent)
    emotions_of = defaultdict[str, set[str]](set)
    for item in manifest:
        emotions_of[item.corpus].add(item.emotion)
    suitable = {corpus for corpus, emotions in emotions_of.items() if len(emotions) > 1 and emotions <= known}
    return [item for item in manifest.select("validation") if item.corpus in suitable and not item.segments]


class HeldOut(NamedTuple):
    """Frames of speech of held-out clips."""

    logits: Tensor  # (N, C)
    truth: Tensor  # (N,), label numbers
    weight: Tensor  # (N,): corpora have equal weight, and so have the speakers of a corpus
    corpora: list[str]  # (N,)


def calibrate(
    diarizer: Diarizer, clips: Sequence[CachedClip], encoder: nn.Module | None = None, neutral_bias: bool = True
) -> Diarizer:
    """Set the temperature that maximizes the likelihood of the speech frames of held-out clips (Guo et al. 2017).

    A causal diarizer gets a bias towards neutral before, see `find_neutral_bias`. Corpora have equal weight, and so
    have the speakers of a corpus; this generalises better to unseen corpora. A corpus with one held-out speaker is left
    out of the temperature if others have more.

    Args:
        neutral_bias: False for an ensemble whose members have their bias.
    """
    held_out = predict_held_out(diarizer, clips, encoder)
    logits, scale = held_out.logits, diarizer.config.temperature
    tempered = Diarizer(diarizer.config)
    tempered.load_state_dict(diarizer.state_dict())
    if diarizer.config.causal and neutral_bias:
        bias = find_neutral_bias(held_out, scale)
        logits = logits + bias / scale * NEUTRAL_LABEL
        add_neutral_bias(tempered, bias)
    speakers = {(clip.utterance.corpus, clip.utterance.speaker) for clip in clips}
    several = Counter(corpus for corpus, _ in speakers)
    usable = torch.tensor([several[corpus] > 1 or max(several.values()) == 1 for corpus in held_out.corpora])
    candidates = torch.linspace(0.5, 4.0, 71)
    losses = [
        (F.cross_entropy(logits / value, held_out.truth, reduction="none") * held_out.weight * usable).sum()
        for value in candidates
    ]
    temperature = scale * float(candidates[torch.stack(losses).argmin()])
    tempered.config = replace(diarizer.config, temperature=round(temperature, 3))
    return tempered.eval()


@torch.no_grad()
def add_neutral_bias(diarizer: Diarizer, bias: float) -> None:
    """Add a bias to the logit of neutral, before the temperature, of a causal diarizer."""
    for member in diarizer.causal_members:
        member.live_head.bias[0] -= bias  # the first output is the activation


def average_diarizers(folders: Sequence[Path], shares: Sequence[float], output: Path) -> Path:
    """Write the weighted mean of diarizers that were trained from the same one; returns its folder.

    Args:
        shares: of their weights; their sum is 1. The result has the settings of the first.

    Raises:
        DataError: their networks differ.
    """
    diarizers = [load_diarizer(folder, precision="float32") for folder in folders]
    require_same_sizes(diarizers)
    diarizers[0].load_state_dict(average_weights([each.state_dict() for each in diarizers], shares))
    save_diarizer(diarizers[0], output)
    return output


def require_same_sizes(diarizers: Sequence[Diarizer]) -> None:
    """Check that weights can be averaged. Raises DataError if they are of different sizes."""
    shapes = [{name: tensor.shape for name, tensor in each.state_dict().items()} for each in diarizers]
    if any(other != shapes[0] for other in shapes):
        raise DataError("diarizers of different sizes cannot be averaged. Give runs from one start, without new blocks")


@torch.no_grad()
def predict_held_out(diarizer: Diarizer, clips: Sequence[CachedClip], encoder: nn.Module | None = None) -> HeldOut:
    """Logits of about 20 frames of speech of each clip."""
    clips_of = Counter(clip.utterance.speaker for clip in clips)
    speakers_of = Counter(corpus for corpus, _ in {(clip.utterance.corpus, clip.utterance.speaker) for clip in clips})
    logits, truths, weights, corpora = [], [], [], []
    for clip in clips:
        steps = clip.steps().float()[None].to(diarizer.absent.device)
        clip_logits = diarizer(encoder(steps) if encoder else steps)[0].mean(0)[0].cpu()
        frames = clip_logits[torch.from_numpy(clip.speech)]
        logits.append(frames[:: max(1, len(frames) // 20)])
        truths.append(torch.full((len(logits[-1]),), LABELS.index(clip.utterance.emotion)))
        share = 1 / (speakers_of[clip.utterance.corpus] * clips_of[clip.utterance.speaker] * len(logits[-1]))
        weights.append(torch.full((len(logits[-1]),), share))
        corpora += [clip.utterance.corpus] * len(logits[-1])
    return HeldOut(torch.cat(logits), torch.cat(truths), torch.cat(weights), corpora)


def find_neutral_bias(held_out: HeldOut, temperature: float) -> float:
    """The largest bias of the neutral logit that costs at most `NEUTRAL_COST` of the recall of held-out speakers.

    Most speech is ordinary, and acted corpora say little about it.
    """
    corpora, biases = np.array(held_out.corpora), np.linspace(0, 2, 41)

    def recall(bias: float) -> float:
        predicted = (held_out.logits + bias / temperature * NEUTRAL_LABEL).argmax(-1).numpy()
        parts = [
            unweighted_average_recall(held_out.truth.numpy()[corpora == name], predicted[corpora == name])
            for name in sorted(set(held_out.corpora))
        ]
        return float(np.mean(parts))

    recalls = np.array([recall(float(bias)) for bias in biases])
    return float(biases[recalls >= recalls.max() - NEUTRAL_COST].max())
