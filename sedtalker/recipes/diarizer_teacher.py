"""Train a teacher that reads several encoders side by side, and write its outputs for a diarizer that learns from them:

    python -m sedtalker.recipes diarizer_teacher MANIFEST --encoder FOLDER FIRST_LAYER --encoder ... -o WORK

    WORK/features/0, 1    states of all encoders, clean and of augmented recordings
    WORK/run/model        the teacher, trained on the manifest's training speakers (--config)
    WORK/outputs/         for each training clip K numbers a step: logits, and `FEATURES` whitened projections

The teacher knows a voice from other clips of the speaker. The outputs are those of the clean recordings, also for
augmented versions. A training reads them with `teacher=WORK/outputs`. Existing results are reused. The manifest may
hold recordings without a file, such as joined ones; they are left out.
"""

from __future__ import annotations

import argparse
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from sedtalker.checkpoint import is_checkpoint
from sedtalker.data.emotion_mixtures import NON_SPEECH, CachedClip
from sedtalker.data.features import Features, cache_features
from sedtalker.data.manifest import Manifest, Utterance, load_manifest
from sedtalker.data.negative_audio import augment_speech
from sedtalker.emotion.diarizer import KIND, Diarizer, load_diarizer, pool_frames
from sedtalker.emotion.voice import VoiceEstimate
from sedtalker.errors import DataError, UsageError
from sedtalker.files import atomic_write
from sedtalker.precision import bfloat16_products
from sedtalker.speech import load_encoder
from sedtalker.training.config import read_config
from sedtalker.training.diarizer import run_training
from sedtalker.training.diarizer_config import DiarizerTraining

FEATURES = 64  # directions of the teacher's projections with the largest variance, each scaled to variance 1
WHITENED = 1000  # clips that the directions are computed from, about
REFERENCE = 30.0  # s of the speaker's other clips


def joint_features(encoders: Sequence[tuple[str, int]], width: int) -> Features:
    """Features (S, L, width) of encoders (name or folder, first hidden state): their states side by side.

    Raises:
        DataError: the states together are not a multiple of `width`.
    """
    loaded = [(load_encoder(name), first) for name, first in encoders]
    size = sum((encoder.layers - first) * encoder.width for encoder, first in loaded)
    if size % width:
        raise DataError(f"{size} numbers a step are no multiple of model.feature_width {width}. Set it to a divisor")

    def features(samples: NDArray[np.float32]) -> Tensor:
        with torch.inference_mode(), bfloat16_products(torch.device("cpu")):
            states = [encoder.encode(samples)[None, :, first:].float() for encoder, first in loaded]
        return torch.cat([pool_frames(part)[0].flatten(1) for part in states], 1).unflatten(1, (-1, width))

    return features


def spoken_clips(manifest: Manifest, splits: Sequence[str], corpora: Sequence[str]) -> Manifest:
    """The clips with one emotion of the corpora in those splits."""
    return replace(
        manifest,
        utterances=[
            item
            for item in manifest
            if item.split in splits and item.corpus in corpora and item.corpus != NON_SPEECH and not item.segments
        ],
    )


def voice_of_others(clip: CachedClip, clips: Sequence[CachedClip]) -> VoiceEstimate:
    """The estimate () of a speaker's voice from up to `REFERENCE` seconds of other clips; their order is drawn."""
    estimate = VoiceEstimate.empty(clip.steps()[0].numel())
    for number in np.random.default_rng(zlib.crc32(clip.utterance.id.encode())).permutation(len(clips)):
        if estimate.seconds >= REFERENCE:
            break
        if clips[number] is not clip:
            estimate = estimate.add(clips[number].voice(0))
    return estimate._replace(reference=estimate.seconds).limited()


@torch.inference_mode()
def predict(teacher: Diarizer, clip: CachedClip, voice: VoiceEstimate) -> Tensor:
    """The teacher's logits (S, C) for a whole clip, mean over its networks."""
    steps = clip.steps().float()[None]
    start = VoiceEstimate(*(part[None] for part in voice))
    outputs = teacher.run_batch(steps, teacher.speech_logits(steps).sigmoid(), start, whole=True)[1]
    return outputs.logits.mean(0)[0]


@torch.inference_mode()
def project(teacher: Diarizer, clip: CachedClip) -> Tensor:
    """What the teacher's networks project from each step of a clip, before the voice is subtracted (S, width)."""
    return teacher.project_inputs(teacher.standardise(clip.steps().float()[None]))[0]


def whitening(teacher: Diarizer, clips: Sequence[CachedClip], features: int) -> tuple[Tensor, Tensor]:
    """Mean (width,) and directions (width, features) that whiten the projections of the clips' speech."""
    count, total, square = 0, torch.zeros(()).double(), torch.zeros(()).double()
    for clip in clips:
        values = project(teacher, clip)[torch.from_numpy(clip.speech)].double()
        count, total, square = count + len(values), total + values.sum(0), square + values.T @ values
    mean = total / max(count, 1)
    variance, directions = torch.linalg.eigh(square / max(count, 1) - mean[:, None] * mean)
    largest = slice(len(variance) - min(features, len(variance)), None)
    return mean.float(), (directions[:, largest] / variance[largest].clamp(min=1e-9).sqrt()).float()


def write_outputs(teacher: Diarizer, utterances: Sequence[Utterance], cache: Path, output: Path) -> None:
    """Write K numbers a step for each clip, as of `TeacherOutputs`."""
    by_speaker: dict[tuple[str, str], list[CachedClip]] = defaultdict(list)
    clips = [CachedClip(item, [cache]) for item in utterances]
    for clip in clips:
        by_speaker[clip.utterance.corpus, clip.utterance.speaker].append(clip)
    mean, directions = whitening(teacher, clips[:: max(1, len(clips) // WHITENED)], FEATURES)
    for clip in tqdm(clips, desc=f"outputs -> {output}", unit="clip"):
        target = output / f"{clip.utterance.id}.npy"
        if target.exists():
            continue
        voice = voice_of_others(clip, by_speaker[clip.utterance.corpus, clip.utterance.speaker])
        features = (project(teacher, clip) - mean) @ directions
        with atomic_write(target) as temp_path:
            np.save(temp_path, torch.cat([predict(teacher, clip, voice), features], 1).half().numpy())


def train_teacher(work: Path, manifest_path: Path, config: Path, encoders: Sequence[tuple[str, int]]) -> Path:
    """Cache the features, train the teacher and write its outputs; returns their folder.

    Raises:
        DataError: the manifest or the encoders do not fit.
        CheckpointError: an encoder cannot be read.
    """
    manifest, caches = load_manifest(manifest_path), (work / "features/0", work / "features/1")
    settings = (f"manifest={work / 'manifest.json'}", f"output={work / 'run'}")
    training = read_config(config, settings, DiarizerTraining)
    training = replace(training, features=tuple(map(str, caches)))
    corpora = [name for name, weight in training.corpus_weights.items() if weight > 0]
    clips = spoken_clips(manifest, ("train", "validation"), corpora)
    work.mkdir(parents=True, exist_ok=True)
    clips.save(work / "manifest.json")
    features = joint_features(encoders, training.model.feature_width)
    for number, cache in enumerate(caches):
        chosen = [item for item in clips if number == 0 or item.split == "train"]
        files = [(item.id, manifest.audio(item)) for item in chosen]
        cache_features(files, cache, features, augment_speech if number else None, number)
    model = work / "run/model"
    model = model if is_checkpoint(model, KIND) else run_training(training)
    write_outputs(load_diarizer(model), clips.select("train"), caches[0], work / "outputs")
    return work / "outputs"


def read_encoders(pairs: Sequence[Sequence[str]]) -> list[tuple[str, int]]:
    """Encoders (name, first hidden state) of the option's pairs. Raises UsageError if a layer is not a number."""
    for name, layer in pairs:
        if not layer.isdecimal():
            raise UsageError(f"the first hidden state of {name} is not a number: {layer}. Give 0 or more")
    return [(name, int(layer)) for name, layer in pairs]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path, help="manifest of speech corpora with splits")
    parser.add_argument(
        "--encoder",
        nargs=2,
        action="append",
        required=True,
        metavar=("FOLDER", "LAYER"),
        help="speech encoder and its first hidden state that is read; repeatable",
    )
    parser.add_argument("--config", type=Path, default=Path("configs/diarizer/teacher.yaml"), help="of the training")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="WORK", help="folder of all results")


def run(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    encoders = read_encoders(arguments.encoder)
    print(train_teacher(arguments.output, arguments.manifest, arguments.config, encoders))
