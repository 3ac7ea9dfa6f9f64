"""Compute and cache the speech features of a manifest or store."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from sedtalker.data.features import Features, cache_features, diarizer_features, frozen_features, read_recordings
from sedtalker.data.negative_audio import augment_speech
from sedtalker.errors import UsageError
from sedtalker.speech import DEFAULT_ENCODER, load_encoder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path, help="manifest of speech corpora, or store")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the cache")
    parser.add_argument("--encoder", default=DEFAULT_ENCODER, help="name or folder of a speech encoder")
    parser.add_argument(
        "--augment", action="store_true", help="random voice, noise, music, level, reverberation and telephone"
    )
    read = parser.add_mutually_exclusive_group()
    read.add_argument("--steps", action="store_true", help="features for diarizer training, at half the frame rate")
    read.add_argument(
        "--below", type=int, help="features for diarizer training with fine-tuning of the encoder blocks above this one"
    )
    parser.add_argument("--first-layer", type=int, default=0, help="first hidden state that --steps stores")
    parser.add_argument("--seed", type=int, default=0, help="of the augmentation")
    parser.add_argument("--shard", default="0/1", help="I/N: only every Nth clip, from the Ith")


def run(arguments: argparse.Namespace) -> None:
    if arguments.first_layer and not arguments.steps:
        raise UsageError("--first-layer needs --steps")
    torch.set_num_threads(1)
    shard, shards = map(int, arguments.shard.split("/"))
    augmentation = augment_speech if arguments.augment else None
    clips = read_recordings(arguments.manifest)[shard::shards]
    encoder = load_encoder(arguments.encoder)
    features: Features = encoder.encode
    if arguments.below is not None:
        features = frozen_features(encoder, arguments.below)
    elif arguments.steps:
        features = diarizer_features(encoder, arguments.first_layer)
    cache_features(clips, arguments.output, features, augmentation, arguments.seed)
