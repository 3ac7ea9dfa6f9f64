"""Configuration and constants of the talker's network, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from sedtalker.checkpoint import check_settings, raise_problem
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.labels import LABELS
from sedtalker.talker.expression_rules import has_rules

KIND = "talker"
MEAN_STYLE = -1  # index of the mean of all styles, for speakers without a style
LOWER_FACE = ("jaw", "mouth", "cheekPuff", "tongue")  # prefixes of the blendshapes of the lower face

INJECTIONS = ("residual", "added", "rules")
"""Ways of conditioning on the emotion. "rules" adds the expression of the emotion to a rig's lips and learns nothing of
it. The others are learned. After 400 steps of each, the lips of unseen speakers are off by 1.168 mm with
the residual and 1.257 mm added to the input (`val/lips_mm`; FiLM layers gave 1.232, adaptive layer norm 1.241), on the
store of the default talker's card: sedtalker train talker --config configs/talker/default.yaml store=STORE output=RUN
model.injection=NAME steps=400 validate_every=100 batch=6 window=3 validation_window=6 validation_clips=60
"""
HEADS = ("blendshapes", "basis", "pca", "dense")
LAYERS = ("mamba", "attention", "mamba+moe", "attention+moe")
ROTARY = ("plain", "low-rank")

OPENING_GAIN = 1.12  # of the predicted lip gap, which varies less than the gap of people who were not measured
TONGUE_HIDDEN, TONGUE_SHOWN = 0.60, 0.70  # tongueOut up to which the lips need not part, and at which they must
TONGUE_GAP = 5.1  # mm between the lips at which the tip of the tongue is visible
FREE_ROLL, CONTACT_ROLL = 0.60, 0.80  # mouthRollLower up to which the gap is free, and from which /f v/ limit it
CONTACT_GAP = 3.3  # mm between the lips up to which the lower lip surely touches the upper teeth
DOUBTFUL_CLOSURE = -3.4  # logit of the share below which the stack is sure that the lips are closed
LARGEST_DOUBT = 1.5  # by which a predicted gap raises the logit of a doubtful closure, at most
PARTED_GAP, PARTED_RAMP = 3.0, 5.0  # mm of predicted gap from which it raises that logit, and until it fully does
KEPT_WIDTH = 0.5  # share of the width that is kept when the jaw moves to the predicted gap, which narrows the mouth
STACK_WIDTH = 0.8  # share of the stack's width in that of the mouth: stack and network follow other changes of it
WIDENING_GAIN = 0.5  # of the predicted widening, added to it
WIDTH_PER_GAP = 0.025  # mm of width for each mm of gap, added too: most people's mouths widen where they open
SHARE_OF_CUES, SHARE_OF_CLOSED_LIPS = (0.5, -3.0, 0.0), 0.3
"""Logit of the share of the predicted gap, before training: for each mm between the lips of the stack, for its
mouthRollLower (/f v/) and tongueOut (/th/), and its value at closed lips."""


@dataclass(frozen=True)
class TalkerConfig:
    """Sizes and parts of a talker; enough to build it."""

    encoder: str = "whisper-tiny.en"  # of the features
    layers: int = 5  # hidden states of the encoder
    feature_width: int = 384
    labels: tuple[str, ...] = LABELS  # of the posterior, "neutral" among them
    width: int = 160
    order: tuple[str, ...] = ("mamba", "mamba+moe", "attention", "mamba")
    states: int = 16  # of a Mamba block, per channel
    conv: int = 4  # frames of a Mamba block's convolution
    expand: int = 2  # inner width of a Mamba block over `width`
    experts: int = 2
    top_k: int = 2
    expert_hidden: int = 320
    heads: int = 4
    kv_heads: int = 2
    window: int = 50  # frames of 20 ms that attention sees, the current one included
    rotary: str = "plain"  # "low-rank" adds learned corrections of the frequencies
    rotary_rank: int = 4
    look_ahead: int = 5  # frames of 20 ms between an output and the last input it uses
    dropout: float = 0.1
    injection: str = "residual"  # of the emotion: residual, added, rules
    emotion_width: int = 32
    emotion_kernel_frames: int = 50  # frames of 20 ms over which an expression changes (residual, rules)
    emotion_time_constants: int = 4  # number of learned speeds of the change
    styles: int = 1  # number of learned speaker styles
    head: str = "blendshapes"  # blendshapes, basis (learned), pca (fixed basis), dense (displacements)
    coefficients: int = len(ARKIT_NAMES)
    vertices: int = 0  # of the topology, if the head is not a rig
    opening_width: int = 0  # of the network of the lip gap; 0: the stack alone determines the gap

    def __post_init__(self) -> None:
        check_settings(self, "talker", zero=("look_ahead", "vertices", "opening_width"))
        attends = any(name.startswith("attention") for name in self.order)
        rig, multiple = self.head == "blendshapes", self.width % self.heads == 0 and self.heads % self.kv_heads == 0
        problems = {
            f"labels {self.labels} need different names with neutral among them": "neutral" not in self.labels
            or len(set(self.labels)) < len(self.labels),
            f"injection {self.injection!r} is none of {INJECTIONS}": self.injection not in INJECTIONS,
            f"head {self.head!r} is none of {HEADS}": self.head not in HEADS,
            f"injection rules needs the blendshapes head and labels of {', '.join(LABELS)}": self.injection == "rules"
            and not (rig and has_rules(self.labels)),
            "opening_width needs injection rules and look_ahead 0": self.opening_width > 0
            and (self.injection != "rules" or self.look_ahead > 0),
            f"rotary {self.rotary!r} is none of {ROTARY}": self.rotary not in ROTARY,
            f"order {self.order} needs a list of {', '.join(LAYERS)}": not self.order
            or not set(self.order) <= set(LAYERS),
            "width must be a multiple of heads, and heads of kv_heads": not multiple,
            "attention needs an even width / heads": attends and multiple and self.width // self.heads % 2 == 1,
            f"top_k {self.top_k} is more than experts {self.experts}": self.top_k > self.experts,
            f"dropout {self.dropout} must be 0 or more and below 1": not 0 <= self.dropout < 1,
            f"head {self.head!r} needs vertices": not rig and self.vertices < 1,
            f"the blendshapes head has {len(ARKIT_NAMES)} coefficients": rig and self.coefficients != len(ARKIT_NAMES),
            "a dense head has 3 x vertices coefficients": self.head == "dense"
            and self.coefficients != 3 * self.vertices,
        }
        raise_problem("talker", problems)

    @property
    def embedded_width(self) -> int:
        """Columns of the decoder's input: those of the stack, and of the network of the lip gap."""
        return self.width + self.opening_width
