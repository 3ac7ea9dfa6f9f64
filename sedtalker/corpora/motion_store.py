"""The talker's training store: `python -m sedtalker.corpora.motion_store -o STORE --tts DIR --grid DIR ...`.

    STORE/manifest.json   version, frame_rate 50, names (52 ARKit); clips: id, audio, speaker, source, split, language,
                          frames
    STORE/clips/ID.npz    weights, trust, expression (T, 52), posterior (T, 8), intensity, closed (T,), float16
    STORE/features/ID.npy (T, L, D) float16: python -m sedtalker.training.features STORE/manifest.json -o STORE/features

`weights` is the pose to learn, `trust` its weight in a loss, `expression` the part of it that the emotion adds,
`closed` 1 where /p b m/ must be closed. Splits are by speaker, but for measured faces, of which there is one a
corpus: those by recording.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sedtalker.audio import SAMPLE_RATE, load_audio
from sedtalker.corpora.align import SILENCE, Phone, read_phones
from sedtalker.corpora.faces import FaceMotion, read_facegood, read_grid
from sedtalker.corpora.manifest import Utterance, load_manifest
from sedtalker.corpora.sounds import FOREIGN, foreign_sound, spoiled_speech, write_wave
from sedtalker.corpora.synthesize import Float, Performance, Voice, held_track, perform, random_track
from sedtalker.emotion.activity import loudness
from sedtalker.emotion.labels import LABELS, NEUTRAL
from sedtalker.errors import DataError
from sedtalker.face.rig import ARKIT_NAMES
from sedtalker.files import written_whole
from sedtalker.speech import FRAME_RATE, FRAME_SAMPLES

VERSION = 1
RANDOM_TRACKS = 1 / 3  # of acted clips, so that the face follows the track and not the voice
SPOILED_EVERY = 4  # clips of the synthetic voices that come again in noise
FOREIGN_CLIPS = 140
UNSEEN_SENTENCES = ("I'm on my way to the meeting.", "Maybe tomorrow it will be cold.")  # of CREMA-D, for testing alone
DEFAULT_INTENSITY = 0.6  # of an acted clip without a level

GRID_PAUSES = frozenset({"sil", "sp"})
GRID_MARGIN = 0.1  # seconds around the sentence in which the mouth belongs to it


@dataclass(frozen=True)
class Clip:
    """One entry of the manifest."""

    id: str
    audio: str
    speaker: str
    source: str  # tts, spoiled, foreign, grid, facegood, or an acted corpus
    split: str
    language: str
    frames: int = 0


@dataclass(frozen=True)
class Arrays:
    """What is stored of a clip."""

    weights: Float
    trust: Float
    expression: Float
    posterior: Float
    intensity: Float
    closed: Float


def made_arrays(performance: Performance, posterior: Float, intensity: Float) -> Arrays:
    """A made performance; every channel is trusted."""
    weights = performance.weights
    return Arrays(weights, np.ones_like(weights), performance.expression, posterior, intensity, performance.closed)


def measured_arrays(motion: FaceMotion, frames: int) -> Arrays:
    """A measured performance without emotion, brought to the length of its sound; what is added has no trust.

    No frame is marked as closed: a real mouth closes when it does.
    """
    added = max(0, frames - len(motion.weights))
    weights, trust = (np.pad(curves[:frames], [(0, added), (0, 0)]) for curves in (motion.weights, motion.trust))
    posterior, intensity = held_track(LABELS[NEUTRAL], 0.0, frames)
    return Arrays(weights, trust, np.zeros_like(weights), posterior, intensity, np.zeros(frames, np.float32))


def tts_clips(folder: Path) -> Iterator[tuple[Clip, Arrays]]:
    """Synthetic voices with phone times, each clip under a random track."""
    known = read_phones(folder / "phones.tsv")
    for clip in _synthetic_voices(folder):
        yield clip, _made(clip, known[clip.id], None)


def _synthetic_voices(folder: Path) -> list[Clip]:
    """Two voices for validation, two for testing, the others for training."""
    with (folder / "utterances.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    speakers = sorted({row["speaker"] for row in rows})
    sides = dict.fromkeys(speakers[-4:-2], "validation") | dict.fromkeys(speakers[-2:], "test")
    return [
        Clip(
            id=row["id"],
            audio=str(folder / "audio" / f"{row['id']}.opus"),
            speaker=row["speaker"],
            source="tts",
            split=sides.get(row["speaker"], "train"),
            language="en",
        )
        for row in rows
    ]


def spoiled_clips(folder: Path, audio: Path, every: int = SPOILED_EVERY) -> Iterator[tuple[Clip, Arrays]]:
    """Every few of the synthetic voices' clips again, in noise and between silences; the sound goes to `audio`."""
    known = read_phones(folder / "phones.tsv")
    for clip in _synthetic_voices(folder)[::every]:
        rng = np.random.default_rng([zlib.crc32(clip.id.encode()), 1])
        samples, later = spoiled_speech(load_audio(clip.audio), rng)
        path = audio / f"{clip.id}_spoiled.wav"
        write_wave(path, samples)
        phones = tuple(Phone(p.word, p.name, p.start + later, p.end + later) for p in known[clip.id])
        lead = Phone("<sil>", SILENCE, 0.0, later), Phone("<sil>", SILENCE, phones[-1].end, len(samples) / SAMPLE_RATE)
        spoiled = replace(clip, id=path.stem, audio=str(path), source="spoiled")
        yield spoiled, _made(spoiled, (lead[0], *phones, lead[1]), None)


def foreign_clips(audio: Path, count: int) -> Iterator[tuple[Clip, Arrays]]:
    """Sounds without speech, under a face at rest that feels whatever the track says."""
    for number in range(count):
        rng = np.random.default_rng([number, 2])
        kind = FOREIGN[number % len(FOREIGN)]
        path = audio / f"foreign_{number:03d}_{kind}.wav"
        samples = foreign_sound(kind, float(rng.uniform(3, 8)), rng)
        write_wave(path, samples)
        split = "test" if number % 10 == 9 else "validation" if number % 10 == 8 else "train"
        clip = Clip(path.stem, str(path), "nobody", "foreign", split, "zxx")
        yield clip, _made(clip, (Phone("<sil>", SILENCE, 0.0, len(samples) / SAMPLE_RATE),), None)


def acted_clips(manifest_path: Path, phones: Path) -> Iterator[tuple[Clip, Arrays]]:
    """Acted speech of a manifest that was aligned, under the emotion of its label or a random track."""
    manifest, known = load_manifest(manifest_path), read_phones(phones)
    for item in manifest:
        held_out = item.transcript in UNSEEN_SENTENCES and item.split == "train"
        if item.id in known and not held_out:
            clip = Clip(
                item.id.replace("/", "_"),
                str(manifest.audio(item)),
                item.speaker,
                item.corpus,
                item.split,
                item.language,
            )
            yield clip, _made(clip, known[item.id], item)


def grid_clips(folder: Path, words: Path) -> Iterator[tuple[Clip, Arrays]]:
    """GRID's measured sentences, a tenth of them for testing.

    Outside the sentence nothing is trusted: the talker often waits for his prompt with an open mouth.
    """
    said: dict[str, list[dict[str, str]]] = defaultdict(list)
    with words.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if row["word"] not in GRID_PAUSES:
                said[row["id"]].append(row)
    for path in sorted(folder.glob("*.npz")):
        draw = zlib.crc32(path.stem.encode()) % 20
        split = "test" if draw < 2 else "validation" if draw == 2 else "train"
        motion, sentence = read_grid(path), said[path.stem]
        times = (np.arange(len(motion.weights)) + 0.5) / FRAME_RATE
        spoken = np.zeros(len(times), np.float32)
        if sentence:
            first, last = float(sentence[0]["start"]), float(sentence[-1]["end"])
            spoken[(times > first - GRID_MARGIN) & (times < last + GRID_MARGIN)] = 1
        motion = FaceMotion(motion.weights, motion.trust * spoken[:, None])
        clip = Clip(f"grid_{path.stem}", str(path.with_suffix(".opus")), "grid-s1", "grid", split, "en")
        yield clip, measured_arrays(motion, _frames(clip))


def facegood_clips(folder: Path) -> Iterator[tuple[Clip, Arrays]]:
    """FACEGOOD's measured recordings, the last of the word lists for testing."""
    for path in sorted(folder.glob("*.npz")):
        motion = read_facegood(path)
        split = "test" if path.stem.endswith("2_04") else "train"
        clip = Clip(f"facegood_{path.stem}", str(path.with_suffix(".opus")), "facegood", "facegood", split, "zh")
        yield clip, measured_arrays(motion, _frames(clip))


def _frames(clip: Clip) -> int:
    return math.ceil(len(load_audio(clip.audio)) / FRAME_SAMPLES)


def _made(clip: Clip, phones: tuple[Phone, ...], acted: Utterance | None) -> Arrays:
    decibels = loudness(load_audio(clip.audio))
    rng = np.random.default_rng(zlib.crc32(clip.id.encode()))
    voice = Voice.drawn(np.random.default_rng(zlib.crc32(clip.speaker.encode())))
    if acted is None or rng.uniform() < RANDOM_TRACKS:
        posterior, intensity = random_track(len(decibels), rng)
    else:
        level = DEFAULT_INTENSITY if acted.intensity is None else acted.intensity
        posterior, intensity = held_track(acted.emotion, level, len(decibels))
    return made_arrays(perform(phones, decibels, posterior, intensity, voice), posterior, intensity)


def write_store(folder: Path, clips: Iterator[tuple[Clip, Arrays]]) -> list[Clip]:
    """Write clips and the manifest over all of them; features are a step of their own."""
    listed = []
    for clip, arrays in tqdm(clips, desc=f"store -> {folder}", unit="clip"):
        frames = len(arrays.weights)
        with written_whole(folder / "clips" / f"{clip.id}.npz") as aside:
            np.savez_compressed(aside, **{name: array.astype(np.float16) for name, array in vars(arrays).items()})
        listed.append(replace(clip, frames=frames))
    document = {
        "version": VERSION,
        "frame_rate": FRAME_RATE,
        "names": list(ARKIT_NAMES),
        "clips": [asdict(clip) for clip in listed],
    }
    with written_whole(folder / "manifest.json") as aside:
        aside.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return listed


def read_clips(folder: Path) -> list[Clip]:
    """The clips of a store.

    Raises:
        DataError: the folder is no such store.
    """
    try:
        document = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return [Clip(**clip) for clip in document["clips"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"not a motion store: {folder} ({error}). Write one with this module") from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--tts", type=Path, help="folder with audio/, utterances.tsv and phones.tsv")
    parser.add_argument("--grid", type=Path, help="folder with s1/ and s1_words.tsv")
    parser.add_argument("--facegood", type=Path)
    parser.add_argument("--manifest", type=Path, help="of acted corpora (sedtalker data prepare)")
    parser.add_argument("--phones", type=Path, nargs="*", default=[], help="tables of sedtalker.corpora.align")
    arguments = parser.parse_args()

    def chosen() -> Iterator[tuple[Clip, Arrays]]:
        if arguments.tts:
            yield from tts_clips(arguments.tts)
            yield from spoiled_clips(arguments.tts, arguments.output / "audio")
        yield from foreign_clips(arguments.output / "audio", FOREIGN_CLIPS)
        if arguments.grid:
            yield from grid_clips(arguments.grid / "s1", arguments.grid / "s1_words.tsv")
        if arguments.facegood:
            yield from facegood_clips(arguments.facegood)
        for table in arguments.phones:
            yield from acted_clips(arguments.manifest, table)

    clips = write_store(arguments.output, chosen())
    print(f"{len(clips)} clips, {sum(clip.frames for clip in clips) / FRAME_RATE / 3600:.2f} h; {arguments.output}")


if __name__ == "__main__":
    main()
