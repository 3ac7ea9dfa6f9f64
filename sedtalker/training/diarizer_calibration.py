"""Temperature and bias of neutral of a trained diarizer, on held-out speakers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sedtalker.data.emotion_mixtures import CachedClip
from sedtalker.data.manifest import Manifest, Utterance
from sedtalker.emotion.diarizer import Diarizer, DiarizerConfig
from sedtalker.evaluation.diarization import unweighted_average_recall
from sedtalker.labels import LABELS

NEUTRAL_COST = 0.005  # unweighted average recall, mean over corpora
NEUTRAL_LABEL = torch.eye(len(LABELS))[LABELS.index("neutral")]


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
