"""Fit the range of a diarizer's intensities: `python -m sedtalker.recipes calibrate_intensity MANIFEST --write`.

A plain voice should give no expression and a strongly acted one a strong expression. The raw intensities of a diarizer
do not do that: those of neutral voices reach 0.3, and half of the strongly acted ones stay below 0.7. The recipe takes
clips of the validation speakers whose acted level is known, and finds the raw intensities that are shown as 0 and 1
(`DiarizerConfig.intensity_range`; linear between them): nine of ten neutral voices shall show nothing, and the median
of each level that level. Corpora and levels have equal weight. `--plot` draws the curve and the intensities by level.
"""

from __future__ import annotations

import argparse
import io
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from sedtalker.audio import load_audio
from sedtalker.checkpoint import read_config
from sedtalker.data.manifest import Manifest, load_manifest
from sedtalker.emotion.diarizer import KIND, Diarizer, find_diarizer, load_diarizer
from sedtalker.emotion.vad import detect_speech, loudness
from sedtalker.errors import require
from sedtalker.evaluation.expression_chain import select_levels
from sedtalker.files import atomic_write
from sedtalker.labels import LABELS, NEUTRAL
from sedtalker.speech import load_encoder

Float = NDArray[np.floating]

NEUTRAL_QUANTILE = 0.9  # of the neutral voices, which shall show nothing
LOWEST = np.round(np.arange(0.0, 0.46, 0.01), 2)  # candidates of the raw intensity shown as 0
HIGHEST = np.round(np.arange(0.5, 1.01, 0.01), 2)  # ... as 1
LEAST_WIDTH = 0.3  # of the range, or intensities jump
WHOLE = (0.0, 1.0)  # range that changes nothing
LEAST_CLIPS = 20  # of a level and a corpus; others are single clips with the listeners' mean
BAND = (0.1, 0.5, 0.9)  # quantiles of the plot


class Voice(NamedTuple):
    """A clip of a level."""

    corpus: str
    level: float
    intensity: Float  # (T,), raw, of the frames of speech


def read_voices(diarizer: Diarizer, manifest: Manifest, split: str, most: int) -> list[Voice]:
    """Raw intensities of at most some clips of each corpus, emotion and level. Raises DataError if there are none."""
    diarizer.config = replace(diarizer.config, intensity_range=WHOLE)
    encoder = load_encoder(diarizer.config.encoder)
    chosen = select_levels(manifest, split, most, LEAST_CLIPS)
    voices = []
    for item in tqdm(chosen, desc="clips", unit="clip"):
        if item.intensity is None or (item.intensity == 0) != (item.emotion == LABELS[NEUTRAL]):
            continue  # listeners named an emotion in a clip that was acted without one
        samples = load_audio(manifest.audio(item))
        intensity = diarizer.diarize(samples, encoder=encoder).intensity
        spoken = detect_speech(loudness(samples))[: len(intensity)]
        shown = intensity[: len(spoken)][spoken] if spoken.any() else intensity
        voices.append(Voice(item.corpus, round(item.intensity, 2), shown))
    return voices


def show_levels(voices: Sequence[Voice], span: tuple[float, float]) -> dict[tuple[str, float], Float]:
    """Mean intensities of the clips of each corpus and level, with a range applied to every frame."""
    levels: dict[tuple[str, float], list[float]] = defaultdict(list)
    for voice in voices:
        levels[voice.corpus, voice.level].append(float(apply_range(voice.intensity, span).mean()))
    return {key: np.array(values) for key, values in sorted(levels.items())}


def apply_range(raw: Float, span: tuple[float, float]) -> Float:
    """Intensities of a track, of raw ones, as `Diarizer.finish`."""
    return np.clip((raw - span[0]) / (span[1] - span[0]), 0, 1)


def fit_range(voices: Sequence[Voice]) -> tuple[float, float]:
    """The raw intensities shown as 0 and 1 that bring the levels nearest to their goals, by least squares."""

    def error(span: tuple[float, float]) -> float:
        return float(np.mean([(_reached(*row) - row[0][1]) ** 2 for row in show_levels(voices, span).items()]))

    pairs = ((float(low), float(high)) for low, high in product(LOWEST, HIGHEST))
    return min((pair for pair in pairs if pair[1] - pair[0] >= LEAST_WIDTH), key=error)


def _reached(key: tuple[str, float], values: Float) -> float:
    return float(np.quantile(values, NEUTRAL_QUANTILE if key[1] == 0 else 0.5))


def plot_range(voices: Sequence[Voice], span: tuple[float, float], path: Path) -> None:
    """Draw the curve, and the intensities by level without and with it. Raises MissingExtraError without matplotlib."""
    require("matplotlib", "plot")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    raw = np.linspace(0, 1, 201)
    left.plot(raw, apply_range(raw, span), color="#1f5f99")
    left.set_xlabel("raw intensity of the diarizer")
    left.set_ylabel("intensity of the track")
    for name, color, shift, applied in (("raw", "#999999", -0.12, WHOLE), ("of the track", "#1f5f99", 0.12, span)):
        levels = show_levels(voices, applied)
        low, middle, high = np.array([np.quantile(values, BAND) for values in levels.values()]).T
        x = np.arange(len(levels)) + shift
        right.errorbar(x, middle, [middle - low, high - middle], fmt="o", label=name, color=color)
    keys = list(levels)
    right.set_xticks(range(len(keys)), [f"{corpus} {level:.2f}" for corpus, level in keys], fontsize=7, rotation=90)
    right.set_xlabel("corpus and acted level (median, 10 to 90 %)")
    right.set_ylabel("intensity")
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    figure.savefig(drawn := io.BytesIO(), format="png", dpi=110)
    with atomic_write(path) as temp_path:
        Image.open(drawn).convert("RGB").save(temp_path, path.suffix.lstrip(".") or "png", quality=85)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path, help="clips with levels of intensity")
    parser.add_argument("--diarizer", default="default", help="a packaged diarizer or a folder (default: %(default)s)")
    parser.add_argument("--split", default="validation", help="of the manifest (default: %(default)s)")
    parser.add_argument("--most", type=int, default=10, help="clips of each corpus, emotion and level (default: 10)")
    parser.add_argument("--plot", type=Path, help="picture of the curve and the levels")
    parser.add_argument("--write", action="store_true", help="write the range into the diarizer's config.json")


def run(arguments: argparse.Namespace) -> None:
    diarizer = load_diarizer(arguments.diarizer)
    voices = read_voices(diarizer, load_manifest(arguments.manifest), arguments.split, arguments.most)
    span = fit_range(voices)
    print(f"intensity_range {span[0]:.2f} {span[1]:.2f}, {len(voices)} clips")
    before = show_levels(voices, WHOLE)
    for key, after in show_levels(voices, span).items():
        rows = (" ".join(f"{value:.2f}" for value in np.quantile(values, BAND)) for values in (before[key], after))
        print(f"{key[0]} {key[1]:.2f}: {' -> '.join(rows)}  ({len(after)} clips)")
    if arguments.plot is not None:
        plot_range(voices, span, arguments.plot)
    if arguments.write:
        write_range(find_diarizer(arguments.diarizer), span)


def write_range(folder: Path, span: tuple[float, float]) -> None:
    """Set the range of a diarizer's folder; its weights do not change."""
    described = read_config(folder, KIND)
    described["config"]["intensity_range"] = list(span)
    with atomic_write(folder / "config.json") as temp_path:
        temp_path.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
