"""Train a packaged diarizer from its corpora; a stopped run resumes:

    python -m sedtalker.recipes default_diarizer --config configs/diarizer/default.yaml --corpus ravdess RAVDESS
        --corpus crema-d CREMA-D ... --ordinary GRID --ordinary ESPEAK
        --tune configs/diarizer/blocks.yaml configs/diarizer/groups.yaml configs/diarizer/ordinary.yaml
        configs/diarizer/languages.yaml -o WORK

`open` is open.yaml with --tune configs/diarizer/open-refit.yaml, which trains on the validation speakers too.
A student of larger encoders adds to this: configs/diarizer/student.yaml after blocks.yaml, and for each encoder
--teacher FOLDER LAYER.

    WORK/corpora.json     corpora split by speaker
    WORK/manifest.json    the same, ordinary speech (neutral, for training alone), joined recordings and sounds
    WORK/recordings/      pieces of long ordinary recordings, and synthetic sounds without speech
    WORK/joined/          recordings whose emotion changes, joined from clips of the speakers that are trained on
    WORK/features/0 ...   cached features: clean, and of augmented recordings; each with a drawn look-ahead
    WORK/features/noise   of recordings with loud noise, and
    WORK/features/voices1 ...  of recordings with another voice and channel, one for each speaker; these and noise if
                          further trainings name such folders
    WORK/run/model        the diarizer
    WORK/teacher/         with --teacher: results of `recipes diarizer_teacher` with these encoders
    WORK/blocks/model     with --tune: the same with blocks of the encoder that are tuned for emotion
    WORK/groups/model     with groups.yaml after it
    WORK/ordinary/model   with ordinary.yaml after that
    WORK/languages/model  with languages.yaml after that: the diarizer `default`
    WORK/open-refit/model with its --tune: the diarizer `open`
    WORK/voice/model      with voice.yaml in place of groups.yaml: the mean of a voice's projected inputs (not packaged)
    WORK/student/model    the same with a third block and what it learned from a teacher (not packaged)

Existing results are reused: use another folder for other sources.
"""

from __future__ import annotations

import argparse
import math
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sedtalker.audio import SAMPLE_RATE, load_audio, write_wav
from sedtalker.data.concatenation import write_recordings
from sedtalker.data.emotion_mixtures import NON_SPEECH as SOUNDS
from sedtalker.data.features import Features, cache_features, diarizer_features
from sedtalker.data.manifest import Manifest, Utterance, audio_files, load_manifest, merge
from sedtalker.data.negative_audio import (
    NON_SPEECH,
    add_loud_background,
    augment_speech,
    draw_voice,
    synthesize_non_speech,
)
from sedtalker.data.speech_corpora.registry import add_corpus
from sedtalker.errors import DataError, UsageError
from sedtalker.recipes.diarizer_teacher import read_encoders, train_teacher
from sedtalker.speech import StreamingEncoder, load_encoder
from sedtalker.streaming_encoder import LOOK_AHEAD
from sedtalker.training.config import read_config
from sedtalker.training.diarizer import run_training
from sedtalker.training.diarizer_config import DiarizerTraining

PIECE = 12.0  # s, longest piece of an ordinary recording
SOUND_COUNT = 160
SOUND_SECONDS = (3.0, 10.0)
NOISY, VOICES = "noise", "voices"  # folders of features, or what their names begin with
TEACHER = "teacher.yaml"  # configuration of the teacher, beside that of the diarizer
PEOPLE = ("librispeech",)  # corpora of many people's ordinary speech
JOINED = 1000  # joined recordings of each corpus of acted emotion


def ordinary_speech(folder: Path, recordings: Path) -> Manifest:
    """Recordings below a folder as neutral speech for training; long ones are cut into pieces below `recordings`.

    Each recording counts as a speaker.
    """
    corpus, items = folder.name.lower(), []
    for path in audio_files(folder):
        name = f"{corpus}/{path.relative_to(folder).with_suffix('')}"
        samples = load_audio(path)
        for number, start in enumerate(range(0, len(samples), round(PIECE * SAMPLE_RATE))):
            piece = samples[start : start + round(PIECE * SAMPLE_RATE)]
            if len(piece) < SAMPLE_RATE // 2:
                continue
            file = recordings / f"{name}-{number}.wav"
            if not file.exists():
                write_wav(file, [piece])
            identity = f"{name}-{number}"
            items.append(
                Utterance(identity, str(file.relative_to(recordings)), corpus, name, "unknown", "und", "neutral", 0.0)
            )
    return Manifest(str(recordings.resolve()), items)


def sounds_without_speech(recordings: Path, seed: int = 0) -> Manifest:
    """Synthetic sounds without speech, written below `recordings`."""
    items = []
    for number in range(SOUND_COUNT):
        rng, kind = np.random.default_rng([seed, number]), NON_SPEECH[number % len(NON_SPEECH)]
        name = f"{SOUNDS}/{kind}-{number}"
        file = recordings / f"{name}.wav"
        if not file.exists():
            write_wav(file, [synthesize_non_speech(kind, float(rng.uniform(*SOUND_SECONDS)), rng)])
        items.append(Utterance(name, f"{name}.wav", SOUNDS, SOUNDS, "unknown", "zxx", "neutral", 0.0))
    return Manifest(str(recordings.resolve()), items)


def join_clips(
    manifest: Manifest, folder: Path, wordless: Sequence[str], splits: Sequence[str] = ("train",), count: int = JOINED
) -> Manifest:
    """Recordings whose emotion changes, of the speakers of each corpus with emotions; reused if they exist.

    The features of mixtures are joined after the encoder, which in real recordings reads across a change.

    Args:
        splits: of the speakers.
        count: least number of recordings of a corpus.
    """
    if (folder / "manifest.json").is_file():
        return load_manifest(folder / "manifest.json")
    items: list[Utterance] = []
    for corpus in dict.fromkeys(item.corpus for item in manifest):
        clips = [item for item in manifest if item.split in splits and item.corpus == corpus and not item.segments]
        if corpus in wordless or len({item.emotion for item in clips}) < 3:
            continue
        per_speaker = math.ceil(count / len({item.speaker for item in clips}))
        joined = write_recordings(Manifest(manifest.root, clips), folder / corpus, per_speaker)
        items += [
            replace(item, id=f"joined/{corpus}/{item.id}", path=f"{corpus}/{item.path}", corpus=corpus)
            for item in joined
        ]
    whole = Manifest(str(folder.resolve()), items)
    whole.save(folder / "manifest.json")
    return whole


def draw_look_ahead(encoder: StreamingEncoder, first_layer: int, seed: int) -> Features:
    """Features for a diarizer, with a look-ahead drawn for each recording."""
    choices = [diarizer_features(encoder.with_look_ahead(dial), first_layer) for dial in LOOK_AHEAD]

    def features(samples: np.ndarray) -> torch.Tensor:
        return choices[zlib.crc32(samples.tobytes(), seed) % len(choices)](samples)

    return features


def train_packaged(
    work: Path,
    config: Path,
    corpora: Sequence[tuple[str, Path]],
    ordinary: Sequence[Path],
    overrides: Sequence[str] = (),
    tuning: Sequence[Path] = (),
    teacher: Sequence[tuple[str, int]] = (),
) -> Path:
    """Make manifest and features, and train; returns the diarizer's folder.

    Args:
        overrides: settings of the configuration, key=value.
        tuning: configurations of further trainings, each of which starts with the result before.
        teacher: encoders (name or folder, first hidden state) of a teacher for those that name one.

    Raises:
        DataError: a corpus cannot be read, the diarizer's encoder has no look-ahead to draw, or a teacher is missing.
    """
    manifest, recordings = work / "manifest.json", work / "recordings"
    settings = (f"manifest={manifest}", f"output={work / 'run'}", *overrides)
    training = read_config(config, settings, DiarizerTraining)
    outputs, further = work / "teacher/outputs", []
    for file in tuning:
        each = read_config(file, (f"manifest={manifest}", f"output={work / file.stem}"), DiarizerTraining)
        if each.teacher and not teacher:
            raise DataError(f"a training with a teacher, but no encoder for it: {file}. Add --teacher")
        further.append(replace(each, teacher=str(outputs) if each.teacher else ""))
    encoder = load_encoder(training.model.encoder)
    if not isinstance(encoder, StreamingEncoder):
        raise DataError(f"not a streaming encoder: {encoder.name}. Set model.encoder to one")
    for name, folder in corpora:
        add_corpus(work / "corpora.json", name, folder)
    parts = [load_manifest(work / "corpora.json"), *(ordinary_speech(folder, recordings) for folder in ordinary)]
    splits = {split for each in (training, *further) for split in each.splits}
    joined = join_clips(parts[0], work / "joined", training.mixing.wordless, sorted(splits))
    whole = merge([*parts, joined, sounds_without_speech(recordings)])
    whole.save(manifest)
    for number, cache in enumerate(training.features):
        items = [item for item in whole if number == 0 or (item.split in splits and item.corpus != SOUNDS)]
        clips = [(item.id, whole.audio(item)) for item in items]
        features = draw_look_ahead(encoder, training.model.first_layer, number)
        cache_features(clips, Path(cache), features, augment_speech if number else None, number)
    trained = run_training(training)
    if not tuning:
        return trained
    spoken = [item for item in whole if item.split in splits and item.corpus != SOUNDS]
    if any(NOISY in _folders(each) for each in further):
        features = draw_look_ahead(encoder, training.model.first_layer, len(training.features))
        clips = [(item.id, whole.audio(item)) for item in spoken]
        cache_features(clips, work / "features" / NOISY, features, add_loud_background)
    for name in sorted({name for each in further for name in _folders(each) if name.startswith(VOICES)}):
        cache_voices(whole, spoken, work / "features" / name, encoder, training)
    if teacher:
        train_teacher(outputs.parent, manifest, config.with_name(TEACHER), teacher)
    for each in further:
        names = [name for name in _folders(each) if name == NOISY or name.startswith(VOICES)]
        added = [str(work / "features" / name) for name in names]
        trained = run_training(replace(each, features=(*training.features, *added), init_from=str(trained)))
    return trained


def cache_voices(
    manifest: Manifest, items: Sequence[Utterance], cache: Path, encoder: StreamingEncoder, training: DiarizerTraining
) -> None:
    """Cache features of the clips of acted emotion, and of people's ordinary speech, with another voice.

    It is the same for all clips of a speaker.
    """
    emotions = defaultdict[str, set[str]](set)
    clips_of = defaultdict[str, list[tuple[str, Path]]](list)
    for item in items:
        emotions[item.corpus].add(item.emotion)
    chosen = {name for name in emotions if len(emotions[name]) > 1 or name in PEOPLE} - set(training.mixing.wordless)
    for item in items:
        if item.corpus in chosen and not item.segments:
            clips_of[item.speaker].append((item.id, manifest.audio(item)))
    seed = zlib.crc32(cache.name.encode())
    features = draw_look_ahead(encoder, training.model.first_layer, seed)
    for speaker, clips in clips_of.items():
        voice = draw_voice(np.random.default_rng([seed, zlib.crc32(speaker.encode())]))
        cache_features(clips, cache, features, voice, seed)


def _folders(training: DiarizerTraining) -> list[str]:
    """Names of the folders of features."""
    return [Path(folder).name for folder in training.features]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, help="configs/diarizer/default.yaml or open.yaml")
    parser.add_argument(
        "--corpus", nargs=2, action="append", default=[], metavar=("NAME", "DIR"), help="of acted emotion; repeatable"
    )
    parser.add_argument("--ordinary", type=Path, action="append", default=[], help="folder of speech without emotion")
    parser.add_argument(
        "--tune", type=Path, nargs="+", default=[], metavar="FILE", help="configurations of further trainings"
    )
    parser.add_argument(
        "--teacher",
        nargs=2,
        action="append",
        default=[],
        metavar=("ENCODER", "LAYER"),
        help="encoder of the teacher that --tune uses, and its first hidden state that is read; repeatable",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of all results")
    parser.add_argument("overrides", nargs="*", help="settings of the configuration, key=value")


def run(arguments: argparse.Namespace) -> None:
    corpora = [(name, Path(folder)) for name, folder in arguments.corpus]
    if arguments.teacher and not arguments.tune:
        raise UsageError("--teacher needs --tune")
    trained = train_packaged(
        arguments.output, arguments.config, corpora, arguments.ordinary, arguments.overrides, arguments.tune,
        read_encoders(arguments.teacher),
    )  # fmt: skip
    print(trained)
