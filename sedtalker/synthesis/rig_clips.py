"""Makes the clips of the talker's training store: `sedtalker data synthesize --to store -o STORE --spoken DIR ...`.

The store's format is in `sedtalker.data.rig_store`. There are five kinds of clips: speech with known phones and acted
speech, both animated by rules (`sedtalker.synthesis.coarticulation`); GRID and FACEGOOD, whose faces were tracked; and
sounds without speech under a face at rest. Most of them come again with converted voices, in noise, in rooms and
between silences, because few people were tracked and most sentences come from few speakers.

Splits are by speaker. A tracked corpus has one speaker, so it is split by recording.

How far a mouth opens between closures is measured, so a made opening gets a small loss weight and a tracked opening
more than any other channel.
"""

from __future__ import annotations

import math
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sedtalker.audio import SAMPLE_RATE, load_audio, write_wav
from sedtalker.curves import resample
from sedtalker.data.features import cache_features
from sedtalker.data.negative_audio import NON_SPEECH, PITCHES, convert_voice, degrade, synthesize_non_speech
from sedtalker.data.rig_store import RigArrays, RigClip, write_rig_store
from sedtalker.emotion.track import constant_track, random_track
from sedtalker.emotion.vad import loudness
from sedtalker.face.arkit import JAW_OPEN, MOUTH_CLOSE, arkit_columns
from sedtalker.face.visemes import VISEMES
from sedtalker.labels import LABELS, NEUTRAL
from sedtalker.phones import SILENCE, Phone, read_phones, write_phones
from sedtalker.speech import FRAME_RATE, FRAME_SAMPLES, load_encoder
from sedtalker.synthesis.aligned_speech import (
    AlignedUtterance,
    AlignmentTable,
    acted_speech,
    grid_manifest,
    grid_words,
    known_phones,
    opened,
    spoken_folder,
)
from sedtalker.synthesis.coarticulation import Float, Performance, Voice, closures, contacts, fully, perform, touched
from sedtalker.synthesis.tracked_faces import FaceMotion, read_facegood, read_grid

RANDOM_TRACKS = 1 / 3  # of acted clips, so that the face follows the track and not the voice
FOREIGN_CLIPS = 720
OTHER_VOICES = {"grid": 2, "facegood": 4, "tts": 2}  # times that a clip comes again with another voice; 1 where unnamed
OTHER_VOICE_EVERY = {"crema-d": 6}  # one clip in so many comes again, where people are many and sentences few
FREE_PITCHES = {"grid": (0.75, 2.0), "facegood": (0.6, 1.3)}  # of another voice, for one man and one woman
UNSEEN_SENTENCES = ("Maybe tomorrow it will be cold.",)  # of CREMA-D, for testing alone
FREE_TRUST = 0.15  # of a made opening, where no closure, contact or silence decides it
TAUGHT_TRUST = 0.3  # of one that a teacher says there (`sedtalker.recipes.pseudo_label_jaw`)
MEASURED_TRUST = {"grid": 8.0, "facegood": 4.0}  # of a measured opening; GRID's frames have little else to be trusted
QUIET_WEIGHT = 0.5  # of shut lips in silence, beside those at /p b m/
MEASURED_WEIGHT = 0.25  # of /p b m/ on a measured face, whose own gap says when and how it closes
MEASURED_CONTACT = 0.07  # opening that a tracker reads at /f v/: of the lips, whose gap the upper teeth fill
SETTLED = 0.2  # seconds of added silence after which a measured mouth counts as shut
DEFAULT_INTENSITY = 0.6  # of an acted clip without a level

LABIODENTAL = "f"  # the viseme
GRID_MARGIN = 0.1  # seconds around the sentence in which the mouth belongs to it


def made_arrays(performance: Performance, posterior: Float, intensity: Float) -> RigArrays:
    """A made performance; every channel is trusted but for the opening where nothing holds it."""
    weights = performance.weights
    trust = np.ones_like(weights)
    trust[:, (JAW_OPEN, MOUTH_CLOSE)] = _opening_trust(performance.free, FREE_TRUST)
    closed = np.maximum(performance.closed, QUIET_WEIGHT * performance.quiet)
    return RigArrays(weights, trust, performance.expression, posterior, intensity, closed)


def replace_opening(arrays: RigArrays, opening: Float) -> RigArrays:
    """Made motion whose mouth opens by `opening` (T,) in units of jawOpen wherever no constraint holds the lips.

    The loss weight of an opening tells how free it is, so this is done once a clip; `RigArrays.opening` marks it.
    """
    weights, loss_weight, expression = (
        array.astype(np.float32) for array in (arrays.weights, arrays.loss_weight, arrays.expression)
    )
    free = np.clip((1 - loss_weight[:, JAW_OPEN]) / (1 - FREE_TRUST), 0, 1)
    jaw, close = (np.clip(weights[:, column] - expression[:, column], 0, 1) for column in (JAW_OPEN, MOUTH_CLOSE))
    made = np.clip(jaw - close, 0, 1)
    parted = free * opening + (1 - free) * made
    lowered = np.sqrt(np.square(parted) + np.maximum(np.square(jaw) - np.square(made), 0))  # as `split_opening` does
    weights[:, JAW_OPEN] = np.clip(lowered + expression[:, JAW_OPEN], 0, 1)
    weights[:, MOUTH_CLOSE] = np.clip(lowered - parted + expression[:, MOUTH_CLOSE], 0, 1)
    loss_weight[:, (JAW_OPEN, MOUTH_CLOSE)] = _opening_trust(free, TAUGHT_TRUST)
    return replace(arrays, weights=weights, loss_weight=loss_weight, opening=opening)


def _opening_trust(free: Float, least: float) -> Float:
    """Trust (T, 1) in an opening that is trusted so little where it is free (T,)."""
    return (1 - (1 - least) * free)[:, None]


def measured_arrays(motion: FaceMotion, frames: int, lead: int = 0, silence: bool = False) -> RigArrays:
    """A measured performance without emotion, from `lead` frames on, brought to the length of its sound.

    Before and after it nothing is trusted, but where there is `silence`, in which the mouth is shut.
    """
    added = max(0, frames - lead - len(motion.weights))
    weights, trust = (np.pad(curves, [(lead, added), (0, 0)])[:frames] for curves in (motion.weights, motion.trust))
    closed = np.zeros(len(motion.weights), np.float32) if motion.closed is None else motion.closed
    closed = np.pad(closed, (lead, added))[:frames]
    if silence:
        settled = round(SETTLED * FRAME_RATE)
        quiet = np.r_[0 : max(0, lead - settled), lead + len(motion.weights) + settled : frames]
        trust[quiet], closed[quiet] = 1.0, QUIET_WEIGHT
    posterior, intensity = constant_track(LABELS[NEUTRAL], 0.0, frames)
    return RigArrays(weights, trust, np.zeros_like(weights), posterior, intensity, closed)


def made_clips(speech: Iterable[AlignmentTable], audio: Path) -> Iterator[tuple[RigClip, RigArrays]]:
    """Speech under the emotion it was acted with or a random track, and some of it again with other voices."""
    for number, said in enumerate(speech):
        if said.acted is not None and said.acted.transcript in UNSEEN_SENTENCES and said.split == "train":
            continue
        yield _clip(said), _made(said)
        if number % OTHER_VOICE_EVERY.get(said.source, 1) == 0:
            for voice in _voices(_clip(said), audio):
                again = _said_again(said, voice)
                yield _clip(again), _made(again)


def _clip(said: AlignmentTable) -> RigClip:
    return RigClip(said.id, said.audio, said.speaker, said.source, said.split, said.language)


class OtherVoice(NamedTuple):
    """A recording as another person would say it, in noise, rooms and between silences."""

    path: Path
    source: str
    samples: int  # at 16 kHz
    speed: float  # over the recorded one's
    later: float  # seconds by which the speech starts later


def _voices(clip: RigClip, audio: Path) -> Iterator[OtherVoice]:
    """A clip with other voices, written to `audio`, as often as its source says; outside training once is enough."""
    recorded = load_audio(clip.audio)
    for number in range(OTHER_VOICES.get(clip.source, 1) if clip.split == "train" else 1):
        rng = np.random.default_rng([zlib.crc32(clip.id.encode()), 3, number])
        spoken, speed = convert_voice(recorded, rng, FREE_PITCHES.get(clip.source, PITCHES))
        spoken, later = degrade(spoken, rng)
        path = audio / f"{clip.id}_voice{number}.wav"
        write_wav(path, [spoken])
        yield OtherVoice(path, f"{clip.source}-voices", len(spoken), speed, later)


def _said_again(said: AlignmentTable, voice: OtherVoice) -> AlignmentTable:
    """The same speech with another voice."""

    def moved(seconds: float) -> float:
        return seconds / voice.speed + voice.later

    phones = [replace(phone, start=moved(phone.start), end=moved(phone.end)) for phone in said.phones]
    before = Phone("", SILENCE, 0.0, voice.later)
    after = Phone("", SILENCE, phones[-1].end, voice.samples / SAMPLE_RATE)
    spoken = (before, *phones, after)
    return replace(said, id=voice.path.stem, audio=str(voice.path), source=voice.source, phones=spoken)


def foreign_clips(audio: Path, count: int) -> Iterator[tuple[RigClip, RigArrays]]:
    """Sounds without speech, under a face at rest that feels whatever the track says."""
    for number in range(count):
        rng = np.random.default_rng([number, 4])
        before, place = divmod(number, len(NON_SPEECH))  # so many of its kind came before it
        kind = NON_SPEECH[place]
        path = audio / f"foreign_{number:03d}_{kind}.wav"
        samples = synthesize_non_speech(kind, float(rng.uniform(3, 8)), rng)
        write_wav(path, [samples])
        turn = (before + place) % 10  # of ten of a kind, one for testing and one for validation
        split = "test" if turn == 9 else "validation" if turn == 8 else "train"
        nothing = (Phone("", SILENCE, 0.0, len(samples) / SAMPLE_RATE),)
        heard = AlignmentTable(path.stem, str(path), "nobody", "foreign", split, "zxx", nothing)
        yield _clip(heard), _made(heard)


def grid_clips(folder: Path, known: AlignedUtterance, audio: Path) -> Iterator[tuple[RigClip, RigArrays]]:
    """GRID's measured sentences, a tenth of them for testing, and again with other voices.

    Outside the sentence nothing is trusted: the talker often waits for his prompt with an open mouth. Where the phones
    are known, /f v/ are made to come near to touching, as the tracked lips do over the teeth, and /p b m/ are
    marked a little: his lips close there, but the mean of many closings a little apart does not. What judges a talker
    is left as it was tracked.
    """
    said: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in grid_words(folder):
        said[row["id"]].append(row)
    for path in sorted((folder / "s1").glob("*.npz")):
        draw = zlib.crc32(path.stem.encode()) % 20
        split = "test" if draw < 2 else "validation" if draw == 2 else "train"
        motion, sentence = read_grid(path), said[path.stem]
        times = ((np.arange(len(motion.weights)) + 0.5) / FRAME_RATE).astype(np.float32)
        spoken = np.zeros(len(times), np.float32)
        if sentence:
            first, last = float(sentence[0]["start"]), float(sentence[-1]["end"])
            spoken[(times > first - GRID_MARGIN) & (times < last + GRID_MARGIN)] = 1
        phones = known.get(f"grid/{path.stem}", ()) if split == "train" else ()
        motion = with_contacts(motion, contacts(phones, times))
        closed = MEASURED_WEIGHT * fully(closures(phones, times))
        motion = FaceMotion(motion.weights, motion.trust * spoken[:, None], closed)
        motion = weighed(motion, MEASURED_TRUST["grid"])
        clip = RigClip(f"grid_{path.stem}", str(path.with_suffix(".opus")), "grid-s1", "grid", split, "en")
        yield clip, measured_arrays(motion, _frames(clip))
        yield from _other_voices(clip, motion, audio)


def facegood_clips(folder: Path, audio: Path) -> Iterator[tuple[RigClip, RigArrays]]:
    """FACEGOOD's measured recordings, the last of the word lists for testing, and again with other voices."""
    for path in sorted(folder.glob("*.npz")):
        motion = weighed(read_facegood(path), MEASURED_TRUST["facegood"])
        split = "test" if path.stem.endswith("2_04") else "train"
        clip = RigClip(f"facegood_{path.stem}", str(path.with_suffix(".opus")), "facegood", "facegood", split, "zh")
        yield clip, measured_arrays(motion, _frames(clip))
        yield from _other_voices(clip, motion, audio)


def weighed(motion: FaceMotion, factor: float) -> FaceMotion:
    """A measured face whose opening is trusted so much more."""
    trust = motion.trust.copy()
    trust[:, (JAW_OPEN, MOUTH_CLOSE)] *= factor
    return replace(motion, trust=trust)


def with_contacts(motion: FaceMotion, touching: Float) -> FaceMotion:
    """A measured face whose lower lip touches the teeth where it should, (T,) in 0..1, shaped as a made one's."""
    weights, trust = motion.weights.copy(), motion.trust.copy()
    opening = weights[:, JAW_OPEN] - weights[:, MOUTH_CLOSE]
    weights[:, JAW_OPEN] = weights[:, MOUTH_CLOSE] + touched(opening, touching, MEASURED_CONTACT)
    for name, value in VISEMES[LABIODENTAL].shape.items():
        for column in arkit_columns(name):
            weights[:, column] = np.maximum(weights[:, column], value * touching)
            trust[:, column] = np.maximum(trust[:, column], touching)
    return FaceMotion(weights, trust)


def _other_voices(clip: RigClip, motion: FaceMotion, audio: Path) -> Iterator[tuple[RigClip, RigArrays]]:
    """A measured clip with the voices of other people, in their rooms."""
    for voice in _voices(clip, audio):
        other = replace(clip, id=voice.path.stem, audio=str(voice.path), source=voice.source)
        slower = FRAME_RATE * voice.speed
        weights, trust = (resample(curves, slower, FRAME_RATE) for curves in (motion.weights, motion.trust))
        closed = None if motion.closed is None else resample(motion.closed[:, None], slower, FRAME_RATE)[:, 0]
        lead = round(voice.later * FRAME_RATE)
        frames = math.ceil(voice.samples / FRAME_SAMPLES)
        yield other, measured_arrays(FaceMotion(weights, trust, closed), frames, lead, silence=True)


def _frames(clip: RigClip) -> int:
    return math.ceil(len(load_audio(clip.audio)) / FRAME_SAMPLES)


def _made(said: AlignmentTable) -> RigArrays:
    decibels = loudness(load_audio(said.audio))
    rng = np.random.default_rng(zlib.crc32(said.id.encode()))
    voice = Voice.drawn(np.random.default_rng(zlib.crc32(said.speaker.encode())))
    if said.acted is None or rng.uniform() < RANDOM_TRACKS:
        posterior, intensity = random_track(len(decibels), rng)
    else:
        level = DEFAULT_INTENSITY if said.acted.intensity is None else said.acted.intensity
        posterior, intensity = constant_track(said.acted.emotion, level, len(decibels))
    return made_arrays(perform(said.phones, decibels, posterior, intensity, voice), posterior, intensity)


@dataclass(frozen=True)
class Sources:
    """Folders and files that a store is made of; None leaves one out."""

    spoken: Path | None = None  # a folder with a table of phones
    grid: Path | None = None  # with s1/ and s1_words.tsv
    facegood: Path | None = None
    manifest: Path | None = None  # of acted corpora
    tables: tuple[Path, ...] = ()  # of phones, for what is aligned already


def build_store(folder: Path, sources: Sources, most: int | None = None) -> list[RigClip]:
    """Write a talker's training store with its speech features; features from an earlier run are kept.

    At most `most` recordings of each acted corpus are used.
    """
    clips = build_clips(folder, sources, most)
    recordings = [(clip.id, Path(clip.audio)) for clip in clips]
    cache_features(recordings, folder / "features", load_encoder().encode)
    return clips


def build_clips(folder: Path, sources: Sources, most: int | None = None) -> list[RigClip]:
    """Write a store of all that the sources hold, without features."""
    acted = None if sources.manifest is None else opened(sources.manifest, most)
    sentences = None if sources.grid is None else grid_manifest(sources.grid)
    known = known_phones([m for m in (acted, sentences) if m], sources.tables, folder / "phones.tsv")
    audio = folder / "audio"

    def chosen() -> Iterator[tuple[RigClip, RigArrays]]:
        yield from foreign_clips(audio, FOREIGN_CLIPS if most is None else min(most, FOREIGN_CLIPS))
        if sources.spoken:
            yield from made_clips(islice(spoken_folder(sources.spoken), most), audio)
        if sources.grid:
            yield from grid_clips(sources.grid, known, audio)
        if sources.facegood:
            yield from facegood_clips(sources.facegood, audio)
        if acted:
            yield from made_clips(acted_speech(acted, known), audio)

    clips = write_rig_store(folder, chosen())
    spoken = read_phones(sources.spoken / "phones.tsv") if sources.spoken else {}
    write_phones(folder / "phones.tsv", known | spoken)
    return clips
