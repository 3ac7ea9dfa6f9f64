"""Combine trained diarizers to an ensemble: `python -m sedtalker.recipes ensemble_diarizers A B -o C`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from sedtalker.data.emotion_mixtures import CachedClip
from sedtalker.data.manifest import load_manifest
from sedtalker.emotion.diarizer import Diarizer, load_diarizer, save_diarizer
from sedtalker.errors import DataError
from sedtalker.training.diarizer_calibration import calibrate, select_calibration_clips


def make_ensemble(diarizers: Sequence[Diarizer]) -> Diarizer:
    """Make a diarizer with the members of all; its temperature is 1.

    Raises:
        DataError: they differ in more than their temperature and the number of their members.
    """
    if len(encoders := {diarizer.config.encoder for diarizer in diarizers}) > 1:
        raise DataError(f"diarizers that read different encoders cannot be combined: {', '.join(sorted(encoders))}")
    configs = [replace(diarizer.config, temperature=1.0, members=1) for diarizer in diarizers]
    if any(config != configs[0] for config in configs):
        raise DataError("diarizers of different sizes or labels cannot be combined. Train all with one `model`")
    members = [member for diarizer in diarizers for member in diarizer.members]
    ensemble = Diarizer(replace(configs[0], members=len(members)))
    ensemble.members = nn.ModuleList(members)
    if configs[0].causal:
        if any(not torch.equal(diarizer.average_voice, diarizers[0].average_voice) for diarizer in diarizers):
            raise DataError("diarizers with different average voices cannot be combined. Train all from one")
        ensemble.average_voice.copy_(diarizers[0].average_voice)
        ensemble.average_deviation.copy_(diarizers[0].average_deviation)
        ensemble.speech_head.load_state_dict(diarizers[-1].speech_head.state_dict())
    return ensemble.eval()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", type=Path, nargs="+", help="folders of trained diarizers")
    parser.add_argument("--manifest", type=Path, required=True, help="its validation speakers set the temperature")
    parser.add_argument("--features", type=Path, required=True, help="their cached features")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the ensemble")


def run(arguments: argparse.Namespace) -> None:
    ensemble = make_ensemble([load_diarizer(model, precision="float32") for model in arguments.models])
    clips = [
        CachedClip(item, [arguments.features])
        for item in select_calibration_clips(load_manifest(arguments.manifest), ensemble.config)
    ]
    save_diarizer(calibrate(ensemble, clips, neutral_bias=False), arguments.output)
