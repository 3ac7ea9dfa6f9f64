"""Accuracy of a diarizer against seconds of other speech of the same speaker that it knows in advance.

Each clip of a test speaker is diarized with a voice profile of other clips of that speaker, drawn in random order until
they have the seconds. Profiles of clips of any emotion and of neutral clips are compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import product
from typing import Any

import numpy as np
from tqdm import tqdm

from sedtalker.audio import SAMPLE_RATE, load_audio
from sedtalker.data.manifest import Manifest, Utterance
from sedtalker.emotion.diarizer import Diarizer
from sedtalker.emotion.inference import diarize, enroll_voice
from sedtalker.emotion.voice import VoiceProfile
from sedtalker.evaluation.bootstrap import draw_counts, interval, show
from sedtalker.evaluation.clips import (
    ClipPrediction,
    bootstrap_groups,
    check_known,
    clip_counts,
    false_rates,
    keep_speech,
    uar_interval,
)
from sedtalker.evaluation.report import markdown_table
from sedtalker.speech import WindowedEncoder

SECONDS = (0.0, 3.0, 6.0, 12.0, 20.0, 60.0)
KINDS = ("any emotion", "neutral")
POOL = 40  # clips of a speaker that references are drawn from


def draw_profile(profiles: Sequence[VoiceProfile], seconds: float) -> VoiceProfile | None:
    """The profile of the first clips that have the seconds of speech together, or of all; None for 0 seconds."""
    chosen: list[VoiceProfile] = []
    for profile in profiles:
        if sum(one.seconds for one in chosen) >= seconds:
            break
        chosen.append(profile)
    return reduce(VoiceProfile.merge, chosen) if chosen else None


def evaluate_reference(
    manifest: Manifest,
    utterances: Sequence[Utterance],
    diarizer: Diarizer,
    encoder: WindowedEncoder,
    others: Sequence[Utterance],
    seconds: Sequence[float] = SECONDS,
    seed: int = 0,
) -> dict[str, Any]:
    """Frame and clip recall by corpus, kind of reference and seconds; returns plain types.

    Args:
        utterances: that are diarized.
        others: from which the reference of each is drawn, up to `POOL` clips of each speaker.

    Raises:
        CheckpointError: the diarizer does not use voice profiles.
        DataError: it does not know an emotion of the clips.
    """
    check_known(utterances, diarizer)
    by_speaker, known = (_by_speaker(items) for items in (utterances, others))
    found: dict[tuple[str, str, float], list[tuple[ClipPrediction, float]]] = defaultdict(list)
    for number, (speaker, items) in enumerate(tqdm(by_speaker.items(), desc="voice reference", unit="speaker")):
        rng = np.random.default_rng([seed, number])
        pool = [known[speaker][k] for k in rng.permutation(len(known[speaker]))[:POOL]]
        profiles = [enroll_voice(diarizer, encoder.encode(load_audio(manifest.audio(item)))) for item in pool]
        for item in items:
            samples = load_audio(manifest.audio(item))
            features = encoder.encode(samples)
            order = [k for k in rng.permutation(len(pool)) if pool[k].id != item.id]
            for kind, length in product(KINDS, seconds):
                drawn = [profiles[k] for k in order if kind != "neutral" or pool[k].emotion == "neutral"]
                voice = draw_profile(drawn, length)
                track = diarize(diarizer, features, len(samples) / SAMPLE_RATE, samples=samples, voice=voice)
                evidence = 0.0 if voice is None else voice.seconds
                found[item.corpus, kind, length].append((keep_speech(item, track, samples), evidence))
    report: dict[str, Any] = defaultdict(lambda: defaultdict(dict))
    size = len(diarizer.config.labels)
    for (corpus, kind, length), pairs in found.items():
        clips = [clip for clip, _ in pairs]
        draws = draw_counts(bootstrap_groups(clips), seed)
        report[corpus][kind][f"{length:g}"] = {
            "seconds": float(np.mean([evidence for _, evidence in pairs])),
            "uar": uar_interval(clips, diarizer.config.labels, seed),
            "clip_uar": interval(false_rates(draws @ clip_counts(clips, size), size).uar),
        }
    return {corpus: dict(kinds) for corpus, kinds in report.items()}


def _by_speaker(utterances: Sequence[Utterance]) -> dict[str, list[Utterance]]:
    grouped: dict[str, list[Utterance]] = defaultdict(list)
    for item in utterances:
        grouped[item.speaker].append(item)
    return grouped


def format_reference(report: Mapping[str, Any]) -> str:
    """Format the figures as a Markdown table."""
    rows = [["voice reference", "clips of", "seconds", "speech known, s", "UAR", "clip UAR"]]
    for corpus, kinds in report.items():
        for kind, lengths in kinds.items():
            for length, row in lengths.items():
                rows.append([corpus, kind, length, f"{row['seconds']:.1f}", show(row["uar"]), show(row["clip_uar"])])
    return markdown_table(rows)
