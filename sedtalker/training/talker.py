"""Training of the talker on windows of speech and motion with Lightning: losses, optimizer, validation, export."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from inspect import signature
from math import inf
from pathlib import Path
from typing import Any, TypeAlias
from warnings import catch_warnings, filterwarnings

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import DataLoader

from sedtalker.data.features import check_features
from sedtalker.data.vertex_emotion import EMOTION_SOURCES
from sedtalker.data.vertex_store import is_store, open_store
from sedtalker.errors import DataError, reason_of
from sedtalker.evaluation.masks import read_masks
from sedtalker.face.assets import load_face
from sedtalker.face.rig import Face
from sedtalker.face.vertex_masks import LIPS, default_masks
from sedtalker.labels import LABELS
from sedtalker.mel import FRAME_RATE
from sedtalker.precision import has_bfloat16
from sedtalker.talker.lip_opening import load_lip_opening
from sedtalker.talker.model import MEAN_STYLE, Motion, TalkerConfig, TalkerModel, load_talker_model, save_talker_model
from sedtalker.training.callbacks import Pose, Progress, SamplePictures
from sedtalker.training.config import read_config, require_within
from sedtalker.training.losses import MILLIMETRES, Lips, LossWeights, Mouth, motion_spread, talker_losses, weighted_sum
from sedtalker.training.resume import check_fits, last_checkpoint, read_lightning_checkpoint
from sedtalker.training.schedule import OneCycle
from sedtalker.training.vertex_clips import VertexClips
from sedtalker.training.windows import (
    Batches,
    ClipInfo,
    Example,
    MotionStore,
    RigStore,
    WholeClips,
    Windows,
    collate,
    device_share,
)

TrainingStore: TypeAlias = RigStore | VertexClips

COLLAPSED = 0.25  # ratio of predicted to true motion below which a warning is printed
LOGGERS = ("csv", "tensorboard", "both")
TRAINABLE = ("all", "head")
IRRELEVANT_WARNINGS = (
    ".*smaller than the logging interval",
    ".*LeafSpec",
    ".*exists and is not empty",
    ".*`srun`",
    ".*could not find the monitored key",  # a resumed run saves before its first validation
)
"""Warnings of Lightning, some in every epoch, that require no action."""
SEEDS = 2**32  # the CPU's generator uses 32 bits of a seed
RANK_SEED = 2_654_435_761  # 2^32 / golden ratio, which spreads the seeds of the devices


@dataclass(frozen=True)
class TalkerTraining:
    """Settings of a training run, read from YAML."""

    store: str  # folder of a rig store or of a vertex corpus
    output: str  # folder of Lightning's checkpoints and logs, and of the exported model
    init_from: str = ""  # checkpoint or exported talker of the same sizes, whose weights are loaded
    opening: str = ""  # folder of a network of the lip gap (recipe lip_teacher), which is not trained further
    model: TalkerConfig = field(default_factory=TalkerConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    masks: str = ""  # FLAME_masks.pkl or lists of vertices, for the lips of a vertex corpus
    source_weights: dict[str, float] = field(default_factory=dict)  # source -> sampling weight (default 1)
    steps: int = 3000
    batch_size: int = 8  # windows of a batch, over all devices
    window: float = 4.0  # seconds; 0: whole clips, in batches of similar length
    accumulate_grad_batches: int = 1  # batches per optimizer step
    lr: float = 2e-3
    warmup: int = 100  # steps; at most half of all steps
    weight_decay: float = 0.01
    trainable: str = "all"  # or head: only the layer from the trunk to the neutral weights, fast
    style_dropout: float = 0.2  # share of the windows without their speaker's style
    validate_every: int = 250  # steps; a shorter run validates at its end
    validation_clips: int = 40
    validation_window: float = 12.0  # seconds from the start of each clip
    patience: int = 8  # validations without improvement before the run ends
    overfit_one: bool = False  # train and validate on one clip, as a check of the setup
    emotion: str = "labels"  # of a vertex corpus: its labels, or diarizer: the track of the sound, frame by frame
    logger: str = "csv"  # csv, tensorboard or both
    pictures: bool = True  # draw a validation clip after each validation, if the store has triangles
    trainer: dict[str, Any] = field(default_factory=dict)  # arguments of Lightning's Trainer, as devices
    threads: int = 1
    workers: int = 0  # data loader processes
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every setting before the run.

        Raises:
            DataError: a setting is out of range, or Lightning's Trainer does not have an argument.
        """
        counts = dict.fromkeys(
            ("steps", "batch_size", "accumulate_grad_batches", "validate_every", "validation_clips", "threads"),
            (1, inf),
        )
        rates = dict.fromkeys(
            ("lr", "warmup", "weight_decay", "workers", "window", "source_weights", "patience"), (0, inf)
        )
        require_within(self, **counts, **rates, style_dropout=(0, 1), validation_window=(1 / FRAME_RATE, inf))
        require_within(self, seed=(0, 2**32 - 1))
        require_within(self.losses, **dict.fromkeys(asdict(self.losses), (0, inf)))
        if 0 < self.window < 1 / FRAME_RATE:
            raise DataError(f"window is {self.window} s. Set it to 0 for whole clips, or to a frame (0.02) or more")
        if self.trainable not in TRAINABLE:
            raise DataError(f"trainable is {self.trainable!r}. Set it to {' or '.join(TRAINABLE)}")
        if self.model.opening_width and not (self.opening or self.init_from):
            raise DataError("model.opening_width without a network. Set opening to STORE/opening-network")
        if self.logger not in LOGGERS:
            raise DataError(f"logger is {self.logger!r}. Set it to {', '.join(LOGGERS[:-1])} or {LOGGERS[-1]}")
        if self.emotion not in EMOTION_SOURCES:
            raise DataError(f"emotion is {self.emotion!r}. Set it to {' or '.join(EMOTION_SOURCES)}")
        known = signature(lightning.Trainer.__init__).parameters
        if unknown := sorted(set(self.trainer) - set(known)):
            raise DataError(f"trainer.{unknown[0]} is not a flag of Lightning's Trainer. Check its spelling")

    @property
    def validation_interval(self) -> int:
        """Steps between validations, at most the length of the run."""
        return min(self.validate_every, self.steps)


class TalkerModule(lightning.LightningModule):
    """Losses, optimizer and validation of a talker."""

    def __init__(self, training: TalkerTraining, mouth: Lips | None = None) -> None:
        super().__init__()
        self.settings, self.mouth = training, mouth
        self.talker = TalkerModel(training.model)
        if self.talker.opening is not None:  # it learned measured mouths alone
            self.talker.opening.requires_grad_(False)
        if training.trainable == "head":
            self.talker.requires_grad_(False)
            self.talker.lips.requires_grad_(True)

    def training_step(self, batch: Example, index: int) -> Tensor:
        with self._seeded_dropout(index):
            loss, terms = self.loss(batch)
        figures = {f"train/{name}": term for name, term in terms.items()} | {"train/loss": loss}
        self.log_dict(figures, sync_dist=torch.distributed.is_available() and torch.distributed.is_initialized())
        return loss

    def loss(self, batch: Example) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss () of a batch, and its terms by name, without their weights."""
        terms = self._terms(self._motion(batch), batch)
        return weighted_sum(terms, self.settings.losses), terms

    @contextmanager
    def _seeded_dropout(self, index: int) -> Iterator[None]:
        """Seed dropout by step and device, so that a resumed run equals an uninterrupted one.

        The global random state is restored afterwards.
        """
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            step = 10_000 * self.global_step + index % 10_000
            torch.manual_seed((self.settings.seed + step + RANK_SEED * self.global_rank) % SEEDS)
            yield

    def validation_step(self, batch: Example, index: int) -> None:
        motion = self._motion(batch)
        terms = self._terms(motion, batch)
        figures = {name: term for name, term in terms.items() if name != "balance"}
        figures["loss"] = weighted_sum(figures, self.settings.losses)
        figures["spread"], figures["true_spread"] = motion_spread(motion.coefficients, batch.target)
        if self.mouth is not None:
            figures["lips_mm"] = terms["lips"].sqrt()
        self.log_dict({f"val/{name}": value for name, value in figures.items()}, batch_size=1, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        means = self.trainer.callback_metrics
        figures = {name[4:]: float(value) for name, value in means.items() if name.startswith("val/")}
        # ratio of the sums, as a silent clip has no motion
        ratio = figures.pop("spread") / max(figures.pop("true_spread"), 1e-8)
        self.log("val/motion_ratio", ratio)
        figures["motion_ratio"] = ratio
        self.print(f"step {self.global_step}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))
        if ratio < COLLAPSED:
            self.print(
                f"collapse: predicted motion is {ratio:.0%} of the true motion. "
                "Lower lr, or the weights of velocity and acceleration"
            )

    def configure_optimizers(self) -> Any:
        settings = self.settings
        trained = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        plain = [p for _, p in trained if p.ndim < 2]
        decayed = [p for name, p in trained if p.ndim >= 2 and not name.endswith("A_log")]
        log_rates = [p for name, p in trained if name.endswith("A_log") and p.ndim >= 2]
        groups = [
            {"params": decayed, "weight_decay": settings.weight_decay},
            {"params": plain + log_rates, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, settings.lr, betas=(0.9, 0.98))
        schedule = OneCycle(optimizer, [settings.lr] * len(groups), settings.steps, settings.warmup)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _motion(self, batch: Example) -> Motion:
        motion = self.talker.motion(batch.features, batch.posterior, batch.intensity, batch.style)
        if self.settings.model.head in ("blendshapes", "pca"):
            return motion  # the store has coefficients too
        values, lips = (self.talker.displacements(x).flatten(-2) * MILLIMETRES for x in motion[:2])
        return Motion(values, lips, motion.balance)

    def _terms(self, motion: Motion, batch: Example) -> dict[str, Tensor]:
        rig = self.settings.model.head == "blendshapes"
        return talker_losses(
            motion.coefficients, motion.lips, motion.balance, batch.target, self.mouth, rig, motion.share
        )


class TalkerData(lightning.LightningDataModule):
    """Training windows, drawn anew in each epoch, and whole validation clips."""

    def __init__(self, training: TalkerTraining, store: MotionStore) -> None:
        """Split the clips of a store. Raises DataError if it has no clips for training or for validation."""
        super().__init__()
        self.settings, self.store = training, store
        self.train_clips = _select_split(store, "train")
        self.validation_clips = _select_split(store, "validation")
        speakers = sorted({clip.speaker for clip in self.train_clips})
        self.styles = {speaker: index for index, speaker in enumerate(speakers)}
        if training.overfit_one:
            self.train_clips = self.validation_clips = self.train_clips[:1]

    def train_dataloader(self) -> DataLoader[Example]:
        settings = self.settings
        epoch = self.trainer.current_epoch if self.trainer else 0
        rank, devices = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if settings.batch_size % devices:
            raise DataError(
                f"batch_size {settings.batch_size} for {devices} devices. Set it to a multiple of {devices}"
            )
        batches = settings.validation_interval * settings.accumulate_grad_batches
        sampling = (settings.seed, epoch, settings.source_weights, settings.style_dropout)
        if settings.window == 0:
            clips = Batches(self.store, self.train_clips, self.styles, settings.batch_size, batches, *sampling)
            clips.rank, clips.devices = rank, devices
            return DataLoader(clips, None, num_workers=settings.workers)
        frames, count = round(settings.window * FRAME_RATE), batches * settings.batch_size
        windows = Windows(self.store, self.train_clips, self.styles, frames, count, *sampling)
        return DataLoader(
            windows,
            settings.batch_size // devices,
            sampler=device_share(count, settings.batch_size, rank, devices),
            collate_fn=collate,
            num_workers=settings.workers,
        )

    def val_dataloader(self) -> DataLoader[Example]:
        """The same clips on every device, so that the figures do not depend on their number."""
        return DataLoader(self._validation(), 1, collate_fn=collate)

    def validation_example(self) -> Example:
        """The first validation clip."""
        return self._validation()[0]

    def _validation(self) -> WholeClips:
        step = max(1, len(self.validation_clips) // self.settings.validation_clips)
        clips = self.validation_clips[::step][: self.settings.validation_clips]
        return WholeClips(self.store, clips, round(self.settings.validation_window * FRAME_RATE))


def train_talker(config_path: Path | str, overrides: Sequence[str] = ()) -> Path:
    """Train a talker and export the one with the best validation loss; returns the exported folder.

    A stopped run resumes from its last checkpoint in `output`.
    """
    return run_training(read_config(config_path, overrides, TalkerTraining))


def run_training(training: TalkerTraining) -> Path:
    """Train and export a talker with given settings; returns the exported folder."""
    torch.set_num_threads(training.threads)
    lightning.seed_everything(training.seed, verbose=False)
    store = open_training_store(training)
    data = TalkerData(training, store)
    training = replace(training, model=config_for_store(training.model, store, len(data.styles)))
    module = make_module(training, store)
    output = Path(training.output)
    last = last_checkpoint(module, output, training.steps)
    callbacks = make_callbacks(training, store, data, module)
    with catch_warnings():
        for message in IRRELEVANT_WARNINGS:
            filterwarnings("ignore", message=message)
        trainer = make_trainer(_trainer_arguments(training, callbacks))
        trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True)
    best = Path(callbacks[0].best_model_path or output / "best.ckpt")
    if best.is_file():  # otherwise no validation ran, by a trainer argument, and the last weights are exported
        module.load_state_dict(read_lightning_checkpoint(best)["state_dict"])
    exported = output / "model"
    if trainer.is_global_zero:
        save_talker_model(module.talker.cpu().eval(), exported)
    return exported


def open_training_store(training: TalkerTraining) -> TrainingStore:
    """Open the store of a run: rig clips, or vertices in the form that the model's head predicts.

    Raises:
        DataError: it is missing or neither, does not fit the head, or its features are missing or of another size.
    """
    model, root = training.model, Path(training.store)
    if not root.is_dir():
        raise DataError(f"no such store: {root}. Make it with sedtalker data prepare, or set store=FOLDER")
    if is_store(root) == (model.head == "blendshapes"):
        content = "a vertex store" if is_store(root) else "not a vertex store"
        raise DataError(f"{content}, but model.head is {model.head!r}: {root}. Change store or model.head")
    store: TrainingStore
    if model.head == "blendshapes":
        store = RigStore(root)
    else:
        vertex_store = open_store(root)
        if vertex_store.vertices != model.vertices:
            raise DataError(
                f"a store of {vertex_store.vertices} vertices: {root}. Set model.vertices={vertex_store.vertices}"
            )
        components = model.coefficients if model.head == "pca" else None
        store = VertexClips(vertex_store, components, training.seed, training.emotion)
    check_features(model, root, *store.example(store.clips[0], 0, 1, MEAN_STYLE).features.shape[1:])
    return store


def config_for_store(model: TalkerConfig, store: TrainingStore, styles: int) -> TalkerConfig:
    """Set the number of styles to that of the training speakers, and the labels to those of the store.

    Raises:
        DataError: the configuration has other labels than the store.
    """
    labels = store.store.labels if isinstance(store, VertexClips) else LABELS
    if model.labels not in (LABELS, labels):
        raise DataError(f"model.labels {', '.join(model.labels)}: the store has {', '.join(labels)}. Leave them out")
    return replace(model, styles=styles, labels=labels)


def make_module(training: TalkerTraining, store: TrainingStore) -> TalkerModule:
    """Create the module with the lips and the basis of the store, and the weights of `init_from`.

    Raises:
        DataError: masks or initial weights cannot be read, or do not fit.
    """
    lips = Mouth(load_face("default")) if isinstance(store, RigStore) else make_lips(training, store)
    module = TalkerModule(training, lips)
    if isinstance(store, VertexClips) and store.basis is not None:
        module.talker.basis.copy_(torch.from_numpy(store.basis))
    if training.init_from:
        load_initial_weights(module, Path(training.init_from))
    if training.opening:
        load_opening(module, Path(training.opening))
    return module


def load_opening(module: TalkerModule, folder: Path) -> None:
    """Load the network of the lip gap.

    Raises:
        DataError: the model has no such network, or one of another width.
        CheckpointError: the folder does not hold one.
    """
    network, own = load_lip_opening(folder), module.talker.opening
    width = network.project.out_features
    if own is None or own.project.out_features != width:
        raise DataError(f"a network of the lip gap of width {width}: {folder}. Set model.opening_width={width}")
    check_fits(own, network.state_dict(), folder)
    own.load_state_dict(network.state_dict())


def make_lips(training: TalkerTraining, store: VertexClips) -> Lips | None:
    """Lips of a vertex corpus by the configured masks, or those of the default head; None for another topology.

    Raises:
        DataError: the masks cannot be read, or do not fit the topology.
    """
    vertices = store.store.vertices
    masks = read_masks(training.masks, vertices) if training.masks else default_masks(vertices)
    return None if masks is None else Lips(masks.regions[LIPS], store.basis)


def load_initial_weights(module: TalkerModule, path: Path) -> None:
    """Load the weights of a Lightning checkpoint, or of the folder of an exported talker.

    Raises:
        DataError: they cannot be read, or have other sizes or another basis.
    """
    if path.is_dir():
        earlier = load_talker_model(path)
        styles = module.talker.config.styles
        added = earlier.opening is None and module.settings.opening  # the network of the lip gap has its own weights
        width = module.talker.config.opening_width if added else earlier.config.opening_width
        same = replace(earlier.config, dropout=0, styles=styles, opening_width=width)
        if same != replace(module.talker.config, dropout=0):
            raise DataError(f"init_from is of other sizes: {path}. Give a talker of the sizes in model")
        state = earlier.state_dict()
        if added:
            state |= {name: x for name, x in module.talker.state_dict().items() if name.startswith("opening")}
        if earlier.config.styles != styles:  # of other speakers: all start from the mean style
            state["styles.weight"] = state["styles.weight"].mean(dim=0, keepdim=True).expand(styles, -1).clone()
    else:
        saved = read_lightning_checkpoint(path)["state_dict"]
        state = {name.removeprefix("talker."): x for name, x in saved.items() if name.startswith("talker.")}
    check_fits(module.talker, state, path)
    module.talker.load_state_dict(state)


def make_callbacks(
    training: TalkerTraining, store: TrainingStore, data: TalkerData, module: TalkerModule
) -> list[Callback]:
    """Checkpoints (the first callback keeps the best one), early stopping, and pictures if there are triangles."""
    output = Path(training.output)
    # written after an epoch, not within it, so that a resumed run draws the windows of the next epoch
    options = {"save_on_train_epoch_end": True, "enable_version_counter": False}
    callbacks: list[Callback] = [
        ModelCheckpoint(output, "best", monitor="val/loss", **options),
        ModelCheckpoint(output, "last", **options),
        EarlyStopping("val/loss", patience=training.patience, check_on_train_epoch_end=False),
    ]
    if training.trainer.get("enable_progress_bar", True):
        callbacks.append(Progress())
    if training.pictures and (inputs := sample_picture_inputs(store, data, module.talker)) is not None:
        callbacks.append(SamplePictures(*inputs, data.validation_example(), output / "pictures"))
    return callbacks


def sample_picture_inputs(
    store: TrainingStore, data: TalkerData, talker: TalkerModel
) -> tuple[Face, Pose, Pose] | None:
    """A face, and the maps from predicted and from true values to its vertices; None without triangles."""
    if isinstance(store, RigStore):
        face = load_face("default")
        return face, face.pose, face.pose
    if store.store.faces is None:
        return None
    template = store.store.templates[data.validation_clips[0].speaker]

    def pose_predicted(values: np.ndarray) -> np.ndarray:
        return template + talker.predict_displacements(values)

    def pose_displacements(values: np.ndarray) -> np.ndarray:
        return template + values.reshape(-1, *template.shape) / MILLIMETRES

    pose_true = pose_predicted if store.basis is not None else pose_displacements
    return Face("store", template, store.store.faces), pose_predicted, pose_true


def _trainer_arguments(training: TalkerTraining, callbacks: list[Callback]) -> dict[str, Any]:
    """Arguments of Lightning's Trainer: defaults, mixed precision on a GPU, and those of the configuration."""
    mixed = torch.cuda.is_available() and has_bfloat16(torch.device("cuda"))
    output = Path(training.output)
    csv = CSVLogger(output, "log")
    loggers: list[Logger] = [csv] if training.logger in ("csv", "both") else []
    if training.logger in ("tensorboard", "both"):
        loggers.append(TensorBoardLogger(output, "log", version=csv.version))
    return {
        "max_steps": training.steps,
        "accumulate_grad_batches": training.accumulate_grad_batches,
        "reload_dataloaders_every_n_epochs": 1,
        "accelerator": "auto",
        "devices": 1,
        "precision": "bf16-mixed" if mixed else "32-true",
        "gradient_clip_val": 1.0,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 25,
        "default_root_dir": output,
        "callbacks": callbacks,
        "logger": loggers,
        "use_distributed_sampler": False,  # `TalkerData` divides the batches
        **training.trainer,
        "enable_progress_bar": False,  # its bar begins anew in every epoch; `Progress` shows the whole run
    }


def make_trainer(arguments: dict[str, Any]) -> lightning.Trainer:
    """Create Lightning's Trainer. Raises DataError if it refuses an argument of the configuration's `trainer`."""
    try:
        return lightning.Trainer(**arguments)
    except (TypeError, ValueError, MisconfigurationException) as error:
        problem = reason_of(error)
        raise DataError(f"Lightning's Trainer does not take these flags: {problem}. Change trainer.FLAG") from error


def _select_split(store: MotionStore, split: str) -> list[ClipInfo]:
    clips = [clip for clip in store.clips if clip.split == split]
    if not clips:
        raise DataError(f"no clips of the {split} split. Write the store's manifest with train and validation speakers")
    return clips
