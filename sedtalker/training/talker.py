"""Training of the talker on windows of speech and motion: optimiser, logs, alarms, export. Lightning runs the loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from inspect import signature
from math import inf
from pathlib import Path
from typing import Any, TypeVar

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.utils.data import DataLoader

from sedtalker.data.features import check_features
from sedtalker.data.vertex_store import is_store, open_store
from sedtalker.errors import DataError
from sedtalker.evaluation.masks import read_masks
from sedtalker.face.assets import load_face
from sedtalker.face.rig import Face
from sedtalker.face.vertex_masks import LIPS, default_masks
from sedtalker.labels import LABELS
from sedtalker.speech import FRAME_RATE
from sedtalker.talker.model import MEAN_STYLE, Motion, TalkerConfig, TalkerModel, load_talker_model, save_talker_model
from sedtalker.training.callbacks import Pose, SamplePictures
from sedtalker.training.config import read_config, require_within
from sedtalker.training.losses import MILLIMETRES, Lips, LossWeights, Mouth, motion_spread, talker_losses, total
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
)

Opened = TypeVar("Opened", RigStore, VertexClips)

COLLAPSED = 0.25  # motion ratio below which the alarm is given
LOGGERS = ("csv", "tensorboard")
SEEDS = 2**32  # the CPU's generator reads no more of a seed
RANK_SEED = 2_654_435_761  # 2^32 over the golden ratio: the seeds of devices lie far apart


@dataclass(frozen=True)
class TalkerTraining:
    """Everything that a training run needs; YAML fills it."""

    store: str  # folder of rigged clips, or of a vertex corpus
    output: str  # folder: Lightning's checkpoints and logs, and the exported model
    init_from: str = ""  # checkpoint or exported talker of the same sizes, whose weights are loaded
    model: TalkerConfig = field(default_factory=TalkerConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    masks: str = ""  # FLAME_masks.pkl or lists of vertices: the lips of a corpus; the default head's are known
    source_weights: dict[str, float] = field(default_factory=dict)  # source -> sampling weight (default 1)
    steps: int = 3000
    batch_size: int = 8  # windows
    window: float = 4.0  # seconds; 0: whole clips, in batches of about one length
    accumulate_grad_batches: int = 1  # batches per optimizer step
    lr: float = 2e-3
    warmup: int = 100  # steps, at most half of all
    weight_decay: float = 0.01
    style_dropout: float = 0.2  # share of the windows without their speaker's style
    validate_every: int = 250  # steps; a run of fewer validates at its end. What follows the last is not exported
    validation_clips: int = 40
    validation_window: float = 12.0  # seconds from the start of each clip
    patience: int = 8  # validations without a better one that end the run
    overfit_one: bool = False  # train and validate on one clip: what cannot learn it cannot learn anything
    logger: str = "csv"  # or tensorboard
    pictures: bool = True  # of a validation clip, drawn after each validation, where the store has triangles
    trainer: dict[str, Any] = field(default_factory=dict)  # Lightning's own flags: devices, strategy, precision, ...
    threads: int = 1
    workers: int = 0  # processes that read windows beside the training one
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every setting before the run.

        Raises:
            DataError: one is outside its range, or Lightning has no such flag.
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
        if self.logger not in LOGGERS:
            raise DataError(f"logger is {self.logger!r}. Set it to {' or '.join(LOGGERS)}")
        known = signature(lightning.Trainer.__init__).parameters
        if unknown := sorted(set(self.trainer) - set(known)):
            raise DataError(f"trainer.{unknown[0]} is not a flag of Lightning's Trainer. Check its spelling")

    @property
    def validation_interval(self) -> int:
        """Steps between validations: at least one comes within the run."""
        return min(self.validate_every, self.steps)


class TalkerModule(lightning.LightningModule):
    """Losses, optimiser and validation of a talker."""

    def __init__(self, training: TalkerTraining, mouth: Lips | None = None) -> None:
        super().__init__()
        self.settings, self.mouth = training, mouth
        self.talker = TalkerModel(training.model)

    def training_step(self, batch: Example, index: int) -> Tensor:
        with self._seeded_dropout(index):
            motion = self._motion(batch)
        terms = self._terms(motion, batch)
        loss = total(terms, self.settings.losses)
        self.log_dict({f"train/{name}": term for name, term in terms.items()} | {"train/loss": loss})
        return loss

    @contextmanager
    def _seeded_dropout(self, index: int) -> Iterator[None]:
        """Draw dropout by seed, step and device: a run that goes on draws as one that never stopped would have.

        The process's own generators are left as they were.
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
        figures["loss"] = total(figures, self.settings.losses)
        figures["spread"], figures["true_spread"] = motion_spread(motion.coefficients, batch.target)
        if self.mouth is not None:
            figures["lips_mm"] = terms["lips"].sqrt()
        self.log_dict({f"val/{name}": value for name, value in figures.items()}, batch_size=1, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        means = self.trainer.callback_metrics
        figures = {name[4:]: float(value) for name, value in means.items() if name.startswith("val/")}
        # of the sums: a clip in which nobody speaks has no motion to compare with
        ratio = figures.pop("spread") / max(figures.pop("true_spread"), 1e-8)
        self.log("val/motion_ratio", ratio)
        figures["motion_ratio"] = ratio
        self.print(f"step {self.global_step}: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))
        if ratio < COLLAPSED:
            self.print(
                f"collapse: the talker moves {ratio:.0%} of what the truth does. "
                "Lower the rate, or the weights of velocity and acceleration"
            )

    def configure_optimizers(self) -> Any:
        settings = self.settings
        plain = [p for p in self.parameters() if p.ndim < 2]
        decayed = [p for name, p in self.named_parameters() if p.ndim >= 2 and not name.endswith("A_log")]
        rates = [p for name, p in self.named_parameters() if name.endswith("A_log")]
        groups = [
            {"params": decayed, "weight_decay": settings.weight_decay},
            {"params": plain + rates, "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(groups, settings.lr, betas=(0.9, 0.98))
        schedule = OneCycle(optimiser, [settings.lr] * len(groups), settings.steps, settings.warmup)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _motion(self, batch: Example) -> Motion:
        motion = self.talker.motion(batch.features, batch.posterior, batch.intensity, batch.style)
        if self.settings.model.head in ("blendshapes", "pca"):
            return motion  # the coefficients are what the store holds
        values, lips = (self.talker.displacements(x).flatten(-2) * MILLIMETRES for x in motion[:2])
        return Motion(values, lips, motion.balance)

    def _terms(self, motion: Motion, batch: Example) -> dict[str, Tensor]:
        return talker_losses(*motion, batch.target, self.mouth, self.settings.model.head == "blendshapes")


class TalkerData(lightning.LightningDataModule):
    """Training windows, another set of them each epoch, and whole validation clips."""

    def __init__(self, training: TalkerTraining, store: MotionStore, styles: dict[str, int]) -> None:
        super().__init__()
        self.settings, self.store, self.styles = training, store, styles
        self.train_clips = _of_split(store, "train")
        self.validation_clips = _of_split(store, "validation")
        if training.overfit_one:
            self.train_clips = self.validation_clips = self.train_clips[:1]

    def train_dataloader(self) -> DataLoader[Example]:
        settings = self.settings
        epoch = self.trainer.current_epoch if self.trainer else 0
        batches = settings.validation_interval * settings.accumulate_grad_batches
        drawn = (settings.seed, epoch, settings.source_weights, settings.style_dropout)
        if settings.window == 0:
            clips = Batches(self.store, self.train_clips, self.styles, settings.batch_size, batches, *drawn)
            return DataLoader(clips, None, num_workers=settings.workers)
        frames, count = round(settings.window * FRAME_RATE), batches * settings.batch_size
        windows = Windows(self.store, self.train_clips, self.styles, frames, count, *drawn)
        return DataLoader(windows, settings.batch_size, collate_fn=collate, num_workers=settings.workers)

    def val_dataloader(self) -> DataLoader[Example]:
        return DataLoader(self._validation(), 1, collate_fn=collate)

    def validation_example(self) -> Example:
        """The first validation clip."""
        return self._validation()[0]

    def _validation(self) -> WholeClips:
        step = max(1, len(self.validation_clips) // self.settings.validation_clips)
        chosen = self.validation_clips[::step][: self.settings.validation_clips]
        return WholeClips(self.store, chosen, round(self.settings.validation_window * FRAME_RATE))


def train_talker(config_path: Path | str, overrides: Sequence[str] = ()) -> Path:
    """Train a talker and export the one that validated best; the exported folder comes back.

    A run that was stopped goes on from its last checkpoint in `output`.
    """
    return run_training(read_config(config_path, overrides, TalkerTraining))


def run_training(training: TalkerTraining) -> Path:
    """`train_talker` for a configuration in hand."""
    torch.set_num_threads(training.threads)
    lightning.seed_everything(training.seed, verbose=False)
    store = opened_store(training)
    speakers = sorted({clip.speaker for clip in _of_split(store, "train")})
    styles = {speaker: index for index, speaker in enumerate(speakers)}
    training = replace(training, model=fitted(training.model, store, len(styles)))
    face = load_face("default") if training.model.head == "blendshapes" else None
    module = TalkerModule(training, lips_of(training, store) if face is None else Mouth(face))
    if isinstance(store, VertexClips) and store.basis is not None:
        module.talker.basis.copy_(torch.from_numpy(store.basis))
    if training.init_from:
        load_initial_weights(module, Path(training.init_from))
    output = Path(training.output)
    # Written after an epoch, not within it: a run that goes on from there draws the next epoch's windows.
    kept = {"save_on_train_epoch_end": True, "enable_version_counter": False}
    best = ModelCheckpoint(output, "best", monitor="val/loss", **kept)
    latest = ModelCheckpoint(output, "last", **kept)
    stopping = EarlyStopping("val/loss", patience=training.patience, check_on_train_epoch_end=False)
    callbacks: list[Callback] = [best, latest, stopping]
    data = TalkerData(training, store, styles)
    if training.pictures and (pictured := sample_picture_inputs(store, face, module.talker)) is not None:
        callbacks.append(SamplePictures(*pictured, data.validation_example(), output / "pictures"))
    last = last_checkpoint(module, output, training.steps)
    trainer = make_trainer(_flags(training, callbacks, _logger(training.logger, output)))
    trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True)
    chosen = Path(best.best_model_path or output / "best.ckpt")
    if chosen.is_file():  # without: Lightning's flags asked for no validation, and the last weights are exported
        module.load_state_dict(read_lightning_checkpoint(chosen)["state_dict"])
    exported = output / "model"
    if trainer.is_global_zero:
        save_talker_model(module.talker.cpu().eval(), exported)
    return exported


def load_initial_weights(module: TalkerModule, start: Path) -> None:
    """Fill a module with the weights of a checkpoint, or of a folder that an exported talker is in.

    Raises:
        DataError: it cannot be read, or has other sizes, another number of speakers or another basis.
    """
    if start.is_dir():
        earlier = load_talker_model(start)
        if replace(earlier.config, dropout=0) != replace(module.talker.config, dropout=0):
            raise DataError(
                f"a talker of other sizes or speakers cannot initialise this one: {start}. Give one of this store"
            )
        state = earlier.state_dict()
    else:
        saved = read_lightning_checkpoint(start)["state_dict"]
        state = {name.removeprefix("talker."): x for name, x in saved.items() if name.startswith("talker.")}
    check_fits(module.talker, state, start)
    module.talker.load_state_dict(state)


def opened_store(training: TalkerTraining) -> RigStore | VertexClips:
    """The store that a run trains on, of rigged clips or of vertices as its head wants them.

    Raises:
        DataError: it is neither, does not fit the head, or its features are missing.
    """
    model, root = training.model, Path(training.store)
    if is_store(root) == (model.head == "blendshapes"):
        held = "vertices" if is_store(root) else "blendshape weights or nothing"
        raise DataError(f"a store of {held} for a head of {model.head!r}: {root}. Change store or model.head")
    if model.head == "blendshapes":
        return _fitting(model, RigStore(root), root)
    store = open_store(root)
    if store.vertices != model.vertices:
        raise DataError(f"a store of {store.vertices} vertices: {root}. Set model.vertices={store.vertices}")
    components = model.coefficients if model.head == "pca" else None
    return _fitting(model, VertexClips(store, components, training.seed), root)


def _fitting(model: TalkerConfig, store: Opened, root: Path) -> Opened:
    """The store, whose features are those that the model reads."""
    check_features(model, root, *store.example(store.clips[0], 0, 1, MEAN_STYLE).features.shape[1:])
    return store


def lips_of(training: TalkerTraining, store: RigStore | VertexClips) -> Lips | None:
    """The lips of a vertex corpus by the masks of the configuration, or where it has the default head's topology.

    Raises:
        DataError: the masks cannot be read, or do not fit the topology.
    """
    if not isinstance(store, VertexClips):
        return None
    vertices = store.store.vertices
    masks = read_masks(training.masks, vertices) if training.masks else default_masks(vertices)
    return None if masks is None else Lips(masks.regions[LIPS], store.basis)


def sample_picture_inputs(
    store: RigStore | VertexClips, face: Face | None, talker: TalkerModel
) -> tuple[Face, Pose, Pose] | None:
    """What a sample is drawn with: a face, and how predicted and true values move it; None without triangles."""
    if face is not None:
        return face, face.pose, face.pose
    if not isinstance(store, VertexClips) or store.store.faces is None:
        return None
    template = store.store.templates[_of_split(store, "validation")[0].speaker]

    def predicted(values: np.ndarray) -> np.ndarray:
        return template + talker.predict_displacements(values)

    def true(values: np.ndarray) -> np.ndarray:
        return (
            predicted(values)
            if store.basis is not None
            else template + values.reshape(-1, *template.shape) / MILLIMETRES
        )

    return Face("store", template, store.store.faces), predicted, true


def fitted(model: TalkerConfig, store: RigStore | VertexClips, styles: int) -> TalkerConfig:
    """The model with a style for each training speaker, and the labels of the store's posteriors.

    Raises:
        DataError: the configuration has labels of its own, which a store of rigged clips does not hold.
    """
    labels = store.store.labels if isinstance(store, VertexClips) else LABELS
    if model.labels not in (LABELS, labels):
        raise DataError(f"model.labels {', '.join(model.labels)}: the store has {', '.join(labels)}. Leave them out")
    return replace(model, styles=styles, labels=labels)


def _flags(training: TalkerTraining, callbacks: list[Callback], logger: Logger) -> dict[str, Any]:
    """Lightning's flags: mixed precision where there is a GPU, and what the configuration says in its own words."""
    mixed = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
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
        "default_root_dir": Path(training.output),
        "callbacks": callbacks,
        "logger": logger,
        **training.trainer,
    }


def make_trainer(flags: dict[str, Any]) -> lightning.Trainer:
    """Lightning's trainer.

    Raises:
        DataError: it does not take the flags of the configuration's `trainer`.
    """
    try:
        return lightning.Trainer(**flags)
    except (TypeError, ValueError, MisconfigurationException) as error:
        problem = " ".join(str(error).split())
        raise DataError(f"Lightning's Trainer does not take these flags: {problem}. Change trainer.FLAG") from error


def _logger(name: str, output: Path) -> Logger:
    return CSVLogger(output, "log") if name == "csv" else TensorBoardLogger(output, "log")


def _of_split(store: MotionStore, split: str) -> list[ClipInfo]:
    clips = [clip for clip in store.clips if clip.split == split]
    if not clips:
        raise DataError(f"no clips of the {split} split. Write the store's manifest with train and validation speakers")
    return clips
