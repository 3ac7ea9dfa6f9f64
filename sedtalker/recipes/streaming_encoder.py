"""The streaming speech encoder: Whisper tiny.en's first blocks, tuned to a band of attention.

    python -m sedtalker.recipes streaming_encoder --crema-d CREMA-D --spoken TTS --grid GRID --facegood FACEGOOD
        --emogator EMOGATOR --fortunes /usr/share/games/fortunes -o WORK

    WORK/clips.json      the recordings and by how much each is resampled, in a mixed order, then the voices
    WORK/voices/         espeak-ng's, in ten languages, of the sentences of Debian's `fortunes`
    WORK/targets.npy     the teachers' states of every frame; sound.npy, clip.npy, frames.txt along with it
    WORK/encoder/        the model folder

The student is `StreamingNetwork`, which starts with tiny.en's weights. It learns to give, from disturbed sound and with
a look-ahead drawn for each batch, the states that tiny.en (blocks 1 to 4) and the lower blocks of base (2 and 4,
multilingual) give of the clean sound, seen whole. No labels are used. Recordings of speakers that the corpora's splits
keep for validation and testing are left out.
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
from sedtalker.speech import FRAME_SAMPLES, load_encoder
from sedtalker.streaming_encoder import (
    LOOK_AHEAD,
    PERIOD,
    StreamingConfig,
    StreamingNetwork,
    from_whisper,
    save_streaming_network,
)

Float = NDArray[np.float64]

TEACHERS = ("whisper-tiny.en", "whisper-base-lower")
PARTS = (384, 384, 384, 384, 512, 512)  # widths of a frame's targets: tiny.en after blocks 1 to 4, base after 2 and 4
PART_WEIGHTS = (0.3, 0.6, 1.0, 0.5, 0.4, 0.4)
SPEEDS = tuple(Fraction(*pair) for pair in ((8, 7), (9, 8), (15, 14), (14, 15), (8, 9), (7, 8), (5, 6)))
"""By which some recordings are resampled: pitch, formants and speed change together. The teachers read the result."""
LANGUAGES = {
    "de": ("de",), "es": ("es",), "it": ("it", "italia", "formiche", "leggi"), "cs": ("cs",), "ru": ("ru",),
    "bg": ("bg",), "pt-br": ("brasil",), "cmn": ("tang300.u8", "song100.u8", "chinese.u8"),
    "eo": ("eo",), "ga": ("ga",),
}  # fmt: skip
"""espeak-ng's languages and the files of `fortunes` whose sentences they say."""
VARIANTS = ("", "+m1", "+m3", "+m7", "+f1", "+f2", "+f4", "+f5", "+croak", "+whisper")  # of espeak-ng's voices
SENTENCES = 75  # a language
PIECE = 10 * SAMPLE_RATE  # samples that the teachers read at once
SHORTEST = 25  # frames of a piece that is kept
VOICE_FRAMES = 300_000  # of synthetic voices at most
DIAL_SHARES = {80: 0.3, 120: 0.3, 200: 0.2, 400: 0.2}
BATCH, LENGTH = 4, 300  # segments and frames of each
WARM_UP = 60  # steps
PEAK_RATE, HEAD_RATE = 3e-4, 1e-3
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
    """Paths and speeds ("1", "8/7") of the recordings to train on, in a mixed order."""
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
    """Let espeak-ng (a program, GPL) say sentences of ten languages; their paths, in a mixed order.

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
    """Sound and the teachers' states, frame after frame, on disk; clips follow one another without gaps."""

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
            with torch.autocast("cpu", torch.bfloat16):
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


class Disturbances:
    """Noise, music, other voices, rooms, filters and levels for a segment of sound."""

    def __init__(self, store: Store, draw: np.random.Generator) -> None:
        self.store, self.draw = store, draw

    def disturb(self, x: Float) -> Float:
        """x (N,) in one of many recordings; a quarter stays as it is."""
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
        """Noise of some colour, chords, or voices; of power 1."""
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


class Imitation(nn.Module):
    """The student and the layers that read the teachers' other states from it."""

    def __init__(self) -> None:
        super().__init__()
        config = StreamingConfig()
        self.network = from_whisper(load_encoder(TEACHERS[0]).network, config)
        self.above = nn.Linear(config.width, PARTS[3])
        self.base = nn.ModuleList(nn.Linear(2 * config.width, width) for width in PARTS[4:])

    def forward(self, samples: Tensor, ahead: tuple[int, ...], position: int) -> list[Tensor]:
        """What the student takes for each of the teachers' states, (B, T, width) each."""
        with torch.autocast("cpu", torch.bfloat16):
            hidden = self.network(samples, ahead, position)
        hidden = F.layer_norm(hidden.float(), hidden.shape[-1:])
        upper = hidden[:, :, 2:].flatten(2)
        return [*hidden[:, :, 1:].unbind(2), self.above(hidden[:, :, 3]), *(read(upper) for read in self.base)]


def train(store: Store, steps: int, seed: int = 0) -> StreamingNetwork:
    """Tune the student for some steps of 24 s of sound, the rate falling along half a cosine."""
    torch.manual_seed(seed)
    draw = np.random.default_rng(seed)
    model, disturbances = Imitation().train(), Disturbances(store, draw)
    scales = _scales(store, draw)
    heads = [*model.above.parameters(), *model.base.parameters()]
    groups = [{"params": list(model.network.parameters()), "lr": PEAK_RATE}, {"params": heads, "lr": HEAD_RATE}]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.01, betas=(0.9, 0.98))
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1, (step + 1) / WARM_UP) * (0.5 + 0.5 * np.cos(np.pi * step / steps))
    )
    for step in range(steps):
        samples, targets, trusted = _batch(store, disturbances, draw)
        dial = int(draw.choice(list(DIAL_SHARES), p=list(DIAL_SHARES.values())))
        said = model(samples, LOOK_AHEAD[dial], int(draw.integers(PERIOD)))
        losses = []
        for n, (ours, theirs, (mean, deviation)) in enumerate(zip(said, _normed(targets), scales, strict=True)):
            wanted = (theirs - mean) / deviation
            given = (ours - mean) / deviation if n < 3 else ours
            losses.append(2 * F.smooth_l1_loss(given[trusted], wanted[trusted]))
        loss = sum(weight * part for weight, part in zip(PART_WEIGHTS, losses, strict=True))
        assert isinstance(loss, Tensor)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        rate.step()
        if step % 50 == 0:
            print(f"step {step}: look-ahead {dial} ms, losses {[round(float(part), 3) for part in losses]}", flush=True)
    return model.network.eval()


def _batch(store: Store, disturbances: Disturbances, draw: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Disturbed samples (B, 320 T), targets (B, T, sum(PARTS)), and which frames are not at the edge of a clip."""
    samples, targets, trusted = [], [], []
    for start in draw.integers(2, store.frames - LENGTH - 5, BATCH):
        samples.append(disturbances.disturb(store.samples(start, LENGTH)).astype(np.float32))
        targets.append(store.targets[start : start + LENGTH].astype(np.float32))
        clip = store.clip[start - 2 : start + LENGTH + 4]
        trusted.append((clip[2:-4] == clip[:-6]) & (clip[2:-4] == clip[6:]))
    return tuple(torch.from_numpy(np.stack(part)) for part in (samples, targets, trusted))  # type: ignore[return-value]


def _normed(targets: Tensor) -> list[Tensor]:
    return [F.layer_norm(part, part.shape[-1:]) for part in targets.split(PARTS, dim=-1)]


def _scales(store: Store, draw: np.random.Generator) -> list[tuple[Tensor, Tensor]]:
    """Mean and deviation of each channel of the normed states, over 20,000 frames."""
    starts = draw.integers(0, store.frames - 200, 100)
    frames = np.concatenate([store.targets[start : start + 200] for start in starts]).astype(np.float32)
    return [(part.mean(0), part.std(0).clamp(min=0.05)) for part in _normed(torch.from_numpy(frames))]


def export(network: StreamingNetwork, clips: Sequence[tuple[str, str]], folder: Path) -> None:
    """Measure the ranges for 8-bit integers on some clips and write the model folder."""
    sounds = (load_audio(path) for path, _ in clips)
    whole = (samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES] for samples in sounds)
    measure_ranges(network, ((torch.from_numpy(x)[None], LOOK_AHEAD[120]) for x in whole))
    save_streaming_network(network, folder)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for name in ("crema-d", "spoken", "grid", "facegood", "emogator", "fortunes"):
        parser.add_argument(f"--{name}", type=Path, required=True, help="folder of the source")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=383_000, help="of the recordings, 20 ms each; default 383,000")
    parser.add_argument("--steps", type=int, default=830, help="default 830")
    parser.add_argument("--seed", type=int, default=0)


def run(arguments: argparse.Namespace) -> None:
    given = dict(vars(arguments))
    work, frames, steps, seed = (given.pop(name) for name in ("output", "frames", "steps", "seed"))
    work.mkdir(parents=True, exist_ok=True)
    clips = training_clips(Sources(**given))
    voices = synthesize_languages(given["fortunes"], work / "voices")
    (work / "clips.json").write_text(json.dumps(clips + voices))
    write_store(work, clips, voices, frames)
    export(train(Store(work), steps, seed), clips[:60], work / "encoder")
