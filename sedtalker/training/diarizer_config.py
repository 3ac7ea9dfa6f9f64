"""Settings of a diarizer's training, and their limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from sedtalker.data.emotion_mixtures import MixerConfig
from sedtalker.emotion.diarizer import DiarizerConfig
from sedtalker.errors import DataError
from sedtalker.training.config import require_within

GROUP = 4  # utterances of one speaker in a batch with `groups`


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
