"""Training of the emotion diarizer on cached features, its export, and means of several runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sedtalker.checkpoint import average_weights
from sedtalker.data.emotion_mixtures import CachedClip, Mixer, TeacherOutputs
from sedtalker.data.features import MEL_STRIDE
from sedtalker.data.manifest import load_manifest
from sedtalker.data.spec_augment import spec_augment
from sedtalker.emotion.config import BLOCK_AHEAD
from sedtalker.emotion.diarizer import (
    LEAST_INTENSITY,
    OWN_ENCODER,
    STEP_RATE,
    STRIDE,
    Diarizer,
    Outputs,
    load_diarizer,
    save_diarizer,
)
from sedtalker.errors import DataError
from sedtalker.evaluation.diarization import unweighted_average_recall
from sedtalker.labels import LABELS
from sedtalker.speech import WhisperConfig
from sedtalker.training.config import read_config
from sedtalker.training.diarizer_batches import Batch, Blend, MixedUtterances, draw_references, mixup_and_mask
from sedtalker.training.diarizer_calibration import add_neutral_bias, calibrate, select_calibration_clips
from sedtalker.training.diarizer_config import DiarizerTraining
from sedtalker.training.diarizer_losses import TeacherLoss, category_loss, intensity_loss
from sedtalker.training.diarizer_setup import (
    estimate_log_priors,
    fit_state_voice,
    init_diarizer,
    measure_blocks,
    set_average_voice,
    set_projected_voice,
)
from sedtalker.training.encoder_tuning import TunedEncoder, load_tunable_encoder, save_tuned_encoder
from sedtalker.training.resume import last_checkpoint
from sedtalker.training.schedule import OneCycle

BLOCK_LOOK_AHEAD = (0, 0, 5, BLOCK_AHEAD, BLOCK_AHEAD)  # steps; each batch has one of them
LIVE_SHARE = {0: 0.8, 5: 0.5, BLOCK_AHEAD: 0.2}  # by the blocks' look-ahead: share of the outputs without the future


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
