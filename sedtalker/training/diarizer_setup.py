"""Weights, priors, average voices and 8-bit ranges that a diarizer gets before and after its training."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sedtalker.checkpoint import is_checkpoint
from sedtalker.data.emotion_mixtures import Mixer
from sedtalker.emotion.causal import EmotionBlocks, running_estimates
from sedtalker.emotion.config import BLOCK_AHEAD
from sedtalker.emotion.diarizer import STEP_RATE, Diarizer, load_diarizer
from sedtalker.emotion.voice import VoiceEstimate
from sedtalker.errors import DataError
from sedtalker.int8 import measure_ranges
from sedtalker.labels import LABELS
from sedtalker.speech import encoder_folder
from sedtalker.streaming_encoder import KIND as STREAMING_KIND
from sedtalker.streaming_encoder import load_streaming_network
from sedtalker.training.diarizer_config import DiarizerTraining

STATE_VOICE_RIDGE = 0.1  # of `fit_state_voice`, relative to the mean square of its inputs
LEAST_PRIOR = 0.03  # of a label that a corpus lacks
SINGLE_PRIOR = 0.5  # of the label of a corpus with one label, as of ordinary speech


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


def measure_blocks(blocks: EmotionBlocks, mixer: Mixer, below: int, draws: int = 100) -> None:
    """Measure the ranges of the inputs of the blocks' layers on mixtures, for 8 bits.

    Args:
        below: number of the state that the blocks read.
    """
    mixes = [mixer.draw(reference=False).steps.float() for _ in range(draws)]
    measure_ranges(blocks, ((steps[None, :, below], BLOCK_AHEAD) for steps in mixes))


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
