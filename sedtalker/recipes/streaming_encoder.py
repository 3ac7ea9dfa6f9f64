"""Train the streaming speech encoder: fine-tune the first blocks of Whisper tiny.en to banded attention.

    python -m sedtalker.recipes streaming_encoder --crema-d CREMA-D --spoken TTS --grid GRID --facegood FACEGOOD
        --emogator EMOGATOR --fortunes /usr/share/games/fortunes -o WORK

    WORK/clips.json      the recordings and the factor of their resampling, in a random order, then the voices
    WORK/voices/         sentences of Debian's `fortunes` in ten languages, spoken by espeak-ng
    WORK/targets.npy     the teachers' hidden states of every frame; with sound.npy, clip.npy and frames.txt
    WORK/encoder/        the model folder

The student, a `StreamingNetwork`, is initialised with tiny.en's weights. From augmented sound, and with a random
look-ahead for each batch, it learns to predict the hidden states of the teachers for the clean recording: tiny.en after
blocks 1 to 4, and the multilingual base after blocks 2 and 4. No labels are used. Speakers of the corpora's validation
and test splits are excluded.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import re
import subprocess
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from sedtalker.audio import SAMPLE_RATE, load_audio
from sedtalker.errors import DataError
from sedtalker.int8 import measure_ranges
from sedtalker.mamba.block import MambaBlock
from sedtalker.mel import FRAME_SAMPLES
from sedtalker.precision import bfloat16_products
from sedtalker.speech import load_encoder
from sedtalker.streaming_encoder import (
    LOOK_AHEAD,
    PERIOD,
    REACH,
    StreamingConfig,
    StreamingNetwork,
    from_whisper,
    save_streaming_network,
)

Float = NDArray[np.float64]

CPU = torch.device("cpu")
TEACHERS = ("whisper-tiny.en", "openai/whisper-base")  # the second from the hub, its lower four blocks
PARTS = (384, 384, 384, 384, 512, 512)  # widths of a frame's targets: tiny.en after blocks 1 to 4, base after 2 and 4
PART_WEIGHTS = (0.3, 0.6, 1.0, 0.5, 0.6, 0.6)
SLOW_WEIGHT, SLOW_FRAMES = 1.0, 50  # of the error's mean over 1 s, which carries the voice and its emotion
SPEEDS = tuple(Fraction(*pair) for pair in ((8, 7), (9, 8), (15, 14), (14, 15), (8, 9), (7, 8), (5, 6)))
"""Factors by which some recordings are resampled, which changes pitch, formants and speed, for teachers and student."""
LANGUAGES = {
    "de": ("de",), "es": ("es",), "it": ("it", "italia", "formiche", "leggi"), "cs": ("cs",), "ru": ("ru",),
    "bg": ("bg",), "pt-br": ("brasil",), "cmn": ("tang300.u8", "song100.u8", "chinese.u8"),
    "eo": ("eo",), "ga": ("ga",),
}  # fmt: skip
"""Languages of espeak-ng, and the files of `fortunes` with their sentences."""
VARIANTS = ("", "+m1", "+m3", "+m7", "+f1", "+f2", "+f4", "+f5", "+croak", "+whisper")  # variants of espeak-ng's voices
SENTENCES = 75  # per language
PIECE = 10 * SAMPLE_RATE  # samples that the teachers read at once
SHORTEST = 25  # frames; shorter pieces are omitted
VOICE_FRAMES = 300_000  # frames of synthetic voices, at most
LOOK_AHEAD_SHARES = {80: 0.3, 120: 0.3, 200: 0.2, 400: 0.2}
BATCH, LENGTH = 4, 300  # segments and frames of each
WARM_UP = 60  # steps
HEAD_LR = 1e-3
UNSEEN_SENTENCE = "_MTI_"  # of CREMA-D, kept for testing talkers


@dataclass(frozen=True)
class Sources:
    """Folders of the corpora as their publishers ship them."""

    crema_d: Path
    spoken: Path
    grid: Path
    facegood: Path
    emogator: Path
    fortunes: Path


def training_clips(sources: Sources, seed: int = 0) -> list[tuple[str, str]]:
    """Paths and speeds ("1", "8/7") of the training recordings, in a random order."""
    from sedtalker.data.manifest import split_by_speaker
    from sedtalker.data.speech_corpora.registry import PINNED, READERS

    draw = random.Random(seed)
    clips: list[tuple[str, str]] = []

    def add(path: Path, again: int = 0, changed: float = 0.3) -> None:
        clips.append((str(path), "1" if draw.random() > changed else str(draw.choice(SPEEDS))))
        clips.extend((str(path), str(draw.choice(SPEEDS))) for _ in range(again))

    for corpus, folder in (("crema-d", sources.crema_d), ("spoken", sources.spoken)):
        for item in split_by_speaker(READERS[corpus](folder), seed=0, pinned=PINNED):
            if item.split == "train" and UNSEEN_SENTENCE not in item.path:
                add(folder / item.path, again=int(corpus == "spoken" and draw.random() < 0.4))
    for path in sorted((sources.grid / "s1").glob("*.npz")):
        if zlib.crc32(path.stem.encode()) % 20 > 2:  # the talker's training sentences
            add(path.with_suffix(".opus"), again=1)
    for path in sorted(sources.facegood.glob("*.npz")):
        if not path.stem.endswith("2_04"):
            add(path.with_suffix(".opus"), again=2)
    with (sources.emogator / "manifest.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if zlib.crc32(row["speaker"].encode()) % 10 > 1 and draw.random() < 0.4:
                add(sources.emogator / row["file"])
    draw.shuffle(clips)
    return clips


def synthesize_languages(fortunes: Path, folder: Path, seed: int = 1) -> list[tuple[str, str]]:
    """Synthesize sentences of ten languages by espeak-ng (a program, GPL); returns their paths in a random order.

    Raises:
        DataError: espeak-ng is missing, or a language has no sentences.
    """
    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for language, names in LANGUAGES.items():
        sentences = [text for name in names for text in _sentences(fortunes / name, 8 if language == "cmn" else 25)]
        if not sentences:
            raise DataError(f"no sentences in the language {language}: {fortunes}. Install Debian's fortunes packages")
        draw.shuffle(sentences)
        for number, text in enumerate(sentences[:SENTENCES]):
            variant = draw.choice(VARIANTS if draw.random() < 0.9 else ("",))
            path = folder / f"{language}_{number:03d}.wav"
            settings = ("-s", draw.randint(125, 190), "-p", draw.randint(15, 85), "-a", draw.randint(60, 150))
            command = ["espeak-ng", "-v", language + variant, *map(str, settings), "-w", str(path), "--", text]
            try:
                subprocess.run(command, check=True, timeout=60, stderr=subprocess.DEVNULL)
            except (OSError, subprocess.SubprocessError) as error:
                raise DataError(f"espeak-ng failed ({error}). Install espeak-ng") from error
            clips.append((str(path), "1"))
    draw.shuffle(clips)
    return clips


def _sentences(path: Path, shortest: int) -> Iterator[str]:
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    for file in files:
        if not file.is_file() or file.suffix == ".dat":
            continue
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for part in re.split(r"\n%\n|(?<=[.!?。])\s+", text):
            sentence = re.sub(r"[\s%\x00-\x1f]+", " ", part).strip()
            if shortest <= len(sentence) <= 160 and not re.search(r"[<>{}\\|_*#@\[]", sentence):
                yield sentence


class Store:
    """Memory maps of the sound and the teachers' states by frame; the clips are concatenated."""

    def __init__(self, folder: Path) -> None:
        self.frames = int((folder / "frames.txt").read_text())
        self.targets = np.load(folder / "targets.npy", mmap_mode="r")  # (most, sum(PARTS)) float16
        self.sound = np.load(folder / "sound.npy", mmap_mode="r")  # (320 most,) int16
        self.clip = np.load(folder / "clip.npy", mmap_mode="r")  # (most,) number of the frame's clip

    def samples(self, start: int, frames: int) -> Float:
        """(320 frames,) from frame `start` on."""
        return self.sound[start * FRAME_SAMPLES : (start + frames) * FRAME_SAMPLES].astype(np.float64) / 32767


@torch.inference_mode()
def write_store(folder: Path, clips: Sequence[tuple[str, str]], voices: Sequence[tuple[str, str]], most: int) -> None:
    """Write the first `most` frames of the clips, up to `VOICE_FRAMES` of the voices, and the teachers' states."""
    tiny, base = (load_encoder(name).network for name in TEACHERS)
    assert isinstance(base.layers, nn.ModuleList)
    base.layers = base.layers[:4]
    room = most + VOICE_FRAMES
    targets = np.lib.format.open_memmap(folder / "targets.npy", "w+", np.float16, (room, sum(PARTS)))
    sound = np.lib.format.open_memmap(folder / "sound.npy", "w+", np.int16, (room * FRAME_SAMPLES,))
    clip = np.lib.format.open_memmap(folder / "clip.npy", "w+", np.int32, (room,))
    at = number = 0
    for part, end in ((clips, most), (voices, room)):
        for piece in (piece for path, speed in part for piece in _pieces(path, Fraction(speed))):
            frames = min(len(piece) // FRAME_SAMPLES, end - at)
            if frames < SHORTEST:
                continue
            piece = piece[: frames * FRAME_SAMPLES]
            with bfloat16_products(CPU):
                a, b = (teacher(torch.from_numpy(piece)).float() for teacher in (tiny, base))
            targets[at : at + frames] = torch.cat([a[:, 1:].flatten(1), b[:, 2], b[:, 4]], 1).numpy()
            sound[at * FRAME_SAMPLES : (at + frames) * FRAME_SAMPLES] = np.round(piece * 32767)
            clip[at : at + frames] = number
            at, number = at + frames, number + 1
    (folder / "frames.txt").write_text(str(at))


def _pieces(path: str, speed: Fraction) -> Iterator[NDArray[np.float32]]:
    """A recording, resampled by `speed`, in pieces of at most `PIECE`."""
    from scipy.signal import resample_poly

    samples = load_audio(path)
    if speed != 1:
        samples = resample_poly(samples, speed.numerator, speed.denominator).astype(np.float32)
    samples = np.clip(samples, -1, 1)
    for start in range(0, len(samples), PIECE):
        yield samples[start : start + PIECE]


class Augmentation:
    """Augmentation of a segment of sound: noise, music, other voices, rooms, filters and levels."""

    def __init__(self, store: Store, draw: np.random.Generator) -> None:
        self.store, self.draw = store, draw

    def augment(self, x: Float) -> Float:
        """Augment samples x (N,); a quarter of the segments is not changed."""
        draw, level = self.draw, np.sqrt(np.mean(x**2)) + 1e-5
        if draw.random() < 0.25:
            return x
        if draw.random() < 0.5:
            spectrum = np.fft.rfft(x, 2 * len(x)) * self._channel(2 * len(x))
            x = np.fft.irfft(spectrum, 2 * len(x))[: len(x)]
        if draw.random() < 0.6:
            x = x + self._noise(len(x)) * level * 10 ** (-draw.uniform(0, 35) / 20)
        if draw.random() < 0.7:
            x = x * 10 ** (draw.normal(0, 5) / 20)
        return np.clip(x, -1, 1)

    def _channel(self, samples: int) -> NDArray[np.complex128]:
        """The response of a room, a narrow band or an equaliser."""
        draw, hz = self.draw, np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
        response = np.ones(len(hz), complex)
        if draw.random() < 0.5:
            length = int(draw.uniform(0.15, 0.7) * SAMPLE_RATE)
            room = draw.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
            room *= 10 ** (-draw.uniform(0, 15) / 20) / np.sqrt((room**2).sum())
            room[0] = 1
            response = response * np.fft.rfft(room, samples)
        if draw.random() < 0.4:
            low, high = draw.choice([0, 150, 300]), draw.uniform(3200, 7500)
            response = response / (1 + (hz / high) ** 16) / (1 + (low / np.maximum(hz, 1)) ** 6)
        if draw.random() < 0.5:
            response = response * np.interp(hz, np.linspace(0, 8000, 6), 10 ** (draw.uniform(-6, 6, 6) / 20))
        return response

    def _noise(self, samples: int) -> Float:
        """Coloured noise, chords or voices with a power of 1."""
        draw, kind = self.draw, self.draw.random()
        time = np.arange(samples) / SAMPLE_RATE
        if kind < 0.6:
            hz = np.fft.rfftfreq(samples, 1 / SAMPLE_RATE)
            spectrum = draw.standard_normal(len(hz)) + 1j * draw.standard_normal(len(hz))
            spectrum *= np.maximum(hz, 40) ** draw.uniform(-1.2, 0.3)
            if draw.random() < 0.2:
                spectrum *= (np.abs(hz % 50) < 1) * 20 + 1  # hum
            x = np.fft.irfft(spectrum, samples)
            if draw.random() < 0.3:
                x *= 1 + 0.8 * np.sin(2 * np.pi * draw.uniform(0.2, 4) * time)
        elif kind < 0.8:
            x, every = np.zeros(samples), draw.uniform(0.2, 0.8)
            for start in np.arange(0, samples / SAMPLE_RATE, every):
                lowest, first = 110 * 2 ** (draw.integers(0, 24) / 12), int(start * SAMPLE_RATE)
                since = time[: samples - first]
                for ratio in (1, 1.26, 1.5)[: draw.integers(1, 4)]:
                    for k in range(1, draw.integers(2, 7)):
                        x[first:] += np.sin(2 * np.pi * lowest * ratio * k * since) * np.exp(-3 * since * k**0.5) / k
        else:
            x, frames = np.zeros(samples), samples // FRAME_SAMPLES
            for _ in range(draw.integers(1, 5)):
                x += self.store.samples(int(draw.integers(0, self.store.frames - frames)), frames)
        return x / (np.sqrt(np.mean(x**2)) + 1e-9)


class Student(nn.Module):
    """The student, with linear layers that predict the states of the other blocks of the teachers."""

    LR, STATES = 3e-4, 3  # the first three states of the teachers are predicted by the student's own

    def __init__(self) -> None:
        super().__init__()
        config = StreamingConfig()
        self.network = from_whisper(load_encoder(TEACHERS[0]).network, config)
        self.heads = nn.ModuleList(nn.Linear(2 * config.width, width) for width in PARTS[3:])

    def forward(self, samples: Tensor, ahead: tuple[int, ...], position: int) -> list[Tensor]:
        """Predictions of each state of the teachers, (B, T, width) each."""
        with bfloat16_products(CPU):
            hidden = self.network(samples, ahead, position)
        hidden = F.layer_norm(hidden.float(), hidden.shape[-1:])
        upper = hidden[:, :, 2:].flatten(2)
        return [*hidden[:, :, 1:].unbind(2), *(head(upper) for head in self.heads)]


class MambaStudent(nn.Module):
    """An alternative student from random weights: convolutions on log-mels and Mamba blocks, 2.5 M parameters.

    The blocks are causal; a look-ahead delays their input, so all of them see the same part of the future.
    """

    LR, STATES = 1e-3, 0
    WIDTH, BLOCKS = 256, 5

    def __init__(self) -> None:
        super().__init__()
        mel = StreamingNetwork()
        self.log_mel = mel.log_mel
        self.conv1 = nn.Linear(3 * mel.config.mels, self.WIDTH)
        self.conv2 = nn.Linear(3 * self.WIDTH, self.WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(self.WIDTH) for _ in range(self.BLOCKS))
        self.blocks = nn.ModuleList(MambaBlock(self.WIDTH) for _ in range(self.BLOCKS))
        self.dials = nn.Embedding(max(map(sum, LOOK_AHEAD.values())) + 1, self.WIDTH)  # one for each look-ahead
        self.heads = nn.ModuleList(nn.Linear(2 * self.WIDTH, width) for width in PARTS)

    def hidden(self, samples: Tensor, ahead: tuple[int, ...]) -> Tensor:
        """The outputs of the last two blocks (B, T, 2 WIDTH) of samples (B, 320 T)."""
        delay = sum(ahead)
        mel = self.log_mel(F.pad(samples, (REACH, REACH - FRAME_SAMPLES + FRAME_SAMPLES * delay)))
        x = F.gelu(self.conv1(mel.unfold(1, 3, 1).flatten(2)))
        x = F.gelu(self.conv2(x.unfold(1, 3, 2).flatten(2))) + self.dials.weight[delay]
        outputs = []
        for norm, block in zip(self.norms, self.blocks, strict=True):
            x = x + block(norm(x))[0]
            outputs.append(x)
        both = torch.cat(outputs[-2:], -1)
        return both[:, delay:]

    def forward(self, samples: Tensor, ahead: tuple[int, ...], position: int) -> list[Tensor]:
        """Predictions of each state of the teachers, (B, T, width) each; `position` has no effect."""
        hidden = self.hidden(samples, ahead)
        return [head(hidden) for head in self.heads]


def slow_loss(error: Tensor, inner: Tensor) -> Tensor:
    """Mean square of the moving mean over `SLOW_FRAMES` of an error (B, T, D); `inner` (B, T) marks its valid frames.

    Phones dominate the squared error of single frames. The voice and its emotion change slowly and are small in it.
    """
    valid = inner.float()[:, None]  # (B, 1, T)
    count = F.avg_pool1d(valid, SLOW_FRAMES, SLOW_FRAMES // 5)
    mean = F.avg_pool1d(error.mT * valid, SLOW_FRAMES, SLOW_FRAMES // 5) / count.clamp(min=0.1)
    return (mean.square().mean(1) * count[:, 0]).sum() / count.sum()


def train(
    model: Student | MambaStudent, store: Store, steps: int, seed: int = 0, checkpoint: Path | None = None
) -> None:
    """Train a student on 24 s of sound per step; after a warm-up the learning rate falls with a cosine.

    Every 100 steps, and at the end, its weights are saved to `checkpoint`.
    """
    draw = np.random.default_rng(seed)
    augmentation = Augmentation(store, draw)
    scales = _scales(store, draw)
    heads = [*model.heads.parameters()]
    network = [parameter for name, parameter in model.named_parameters() if not name.startswith("heads.")]
    optimiser = torch.optim.AdamW(
        [{"params": network, "lr": model.LR}, {"params": heads, "lr": HEAD_LR}], weight_decay=0.01, betas=(0.9, 0.98)
    )
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1, (step + 1) / WARM_UP) * (0.5 + 0.5 * np.cos(np.pi * step / steps))
    )
    for step in range(steps):
        samples, targets, inner = _batch(store, augmentation, draw)
        look_ahead = int(draw.choice(list(LOOK_AHEAD_SHARES), p=list(LOOK_AHEAD_SHARES.values())))
        predictions = model(samples, LOOK_AHEAD[look_ahead], int(draw.integers(PERIOD)))
        losses = []
        for n, (ours, theirs, (mean, deviation)) in enumerate(
            zip(predictions, _normalize(targets), scales, strict=True)
        ):
            target = (theirs - mean) / deviation
            prediction = (ours - mean) / deviation if n < model.STATES else ours
            fast = 2 * F.smooth_l1_loss(prediction[inner], target[inner])
            losses.append(fast + SLOW_WEIGHT * slow_loss(target - prediction, inner))
        loss = sum(weight * part for weight, part in zip(PART_WEIGHTS, losses, strict=True))
        assert isinstance(loss, Tensor)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        rate.step()
        if step % 50 == 0:
            print(
                f"step {step}: look-ahead {look_ahead} ms, losses {[round(float(part), 3) for part in losses]}",
                flush=True,
            )
        if checkpoint is not None and (step % 100 == 99 or step == steps - 1):
            torch.save(model.state_dict(), checkpoint)


def _batch(store: Store, augmentation: Augmentation, draw: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Augmented samples (B, 320 T), targets (B, T, sum(PARTS)), and a mask (B, T) of frames inside clips."""
    samples, targets, inner = [], [], []
    for start in draw.integers(2, store.frames - LENGTH - 5, BATCH):
        samples.append(augmentation.augment(store.samples(start, LENGTH)).astype(np.float32))
        targets.append(store.targets[start : start + LENGTH].astype(np.float32))
        clip = store.clip[start - 2 : start + LENGTH + 4]
        inner.append((clip[2:-4] == clip[:-6]) & (clip[2:-4] == clip[6:]))
    return tuple(torch.from_numpy(np.stack(part)) for part in (samples, targets, inner))  # type: ignore[return-value]


def _normalize(targets: Tensor) -> list[Tensor]:
    return [F.layer_norm(part, part.shape[-1:]) for part in targets.split(PARTS, dim=-1)]


def _scales(store: Store, draw: np.random.Generator) -> list[tuple[Tensor, Tensor]]:
    """Mean and standard deviation of each channel of the normalized states, over 20,000 frames."""
    starts = draw.integers(0, store.frames - 200, 100)
    frames = np.concatenate([store.targets[start : start + 200] for start in starts]).astype(np.float32)
    return [(part.mean(0), part.std(0).clamp(min=0.05)) for part in _normalize(torch.from_numpy(frames))]


def export(network: StreamingNetwork, clips: Sequence[tuple[str, str]], folder: Path) -> None:
    """Measure the ranges for 8-bit inference on some clips and write the model folder."""
    sounds = (load_audio(path) for path, _ in clips)
    whole = (samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES] for samples in sounds)
    measure_ranges(network, ((torch.from_numpy(x)[None], LOOK_AHEAD[120]) for x in whole))
    save_streaming_network(network, folder)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for name in ("crema-d", "spoken", "grid", "facegood", "emogator", "fortunes"):
        parser.add_argument(f"--{name}", type=Path, required=True, help="folder of the source")
    parser.add_argument("-o", "--output", type=Path, required=True, help="working folder")
    parser.add_argument("--frames", type=int, default=655_000, help="of the recordings, 20 ms each; default 655,000")
    parser.add_argument("--steps", type=int, default=4000, help="default 4000")
    parser.add_argument(
        "--student", choices=("whisper", "mamba"), default="whisper", help="mamba: to compare; not exported"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")


def run(arguments: argparse.Namespace) -> None:
    options = dict(vars(arguments))
    names = ("output", "frames", "steps", "seed", "student")
    work, frames, steps, seed, student = (options.pop(name) for name in names)
    work.mkdir(parents=True, exist_ok=True)
    clips = training_clips(Sources(**options))
    voices = synthesize_languages(options["fortunes"], work / "voices")
    (work / "clips.json").write_text(json.dumps(clips + voices))
    write_store(work, clips, voices, frames)
    torch.manual_seed(seed)
    model = Student() if student == "whisper" else MambaStudent()
    train(model, Store(work), steps, seed, work / f"{student}.pt")
    if isinstance(model, Student):
        export(model.network.eval(), clips[:60], work / "encoder")
