"""Makes the clips of the talker's training store: `sedtalker data synthesize --to store -o STORE --spoken DIR ...`.

The store's format is in `sedtalker.data.rig_store`. There are five kinds of clips: speech with known phones and acted
speech, both animated by rules (`sedtalker.synthesis.coarticulation`); GRID and FACEGOOD, whose faces were tracked; and
sounds without speech under a face at rest. Clips are repeated with converted voices, in noise, in rooms and between
silences, because few people were tracked and most sentences come from few speakers (`SOURCE_RULES`). Acted sentences
also occur one after the other, with short pauses.

Splits are by speaker. A tracked corpus has one speaker, so it is split by recording.

How far a mouth opens between closures is measured, so an opening made by rules gets a small loss weight and a tracked
opening a larger one than any other channel (`LOSS_WEIGHTS`).
"""

from __future__ import annotations

import math
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sedtalker.audio import SAMPLE_RATE, load_audio, write_wav
from sedtalker.curves import resample
from sedtalker.data.features import cache_look_aheads
from sedtalker.data.negative_audio import (
    NOISY,
    NON_SPEECH,
    PITCHES,
    add_background,
    convert_voice,
    degrade,
    synthesize_non_speech,
)
from sedtalker.data.rig_store import RigArrays, RigClip, write_rig_store
from sedtalker.data.tables import Row
from sedtalker.emotion.track import constant_track, random_track
from sedtalker.emotion.vad import loudness
from sedtalker.errors import require
from sedtalker.face.arkit import (
    JAW_OPEN,
    MOUTH_CLOSE,
    MOUTH_FUNNEL,
    MOUTH_PUCKER,
    ROLL_LOWER,
    TONGUE_OUT,
    arkit_columns,
)
from sedtalker.face.mouth_fit import fit_gap, fit_mouth
from sedtalker.face.mouth_measures import GAP
from sedtalker.face.visemes import JAW_REST_IN_SPEECH, VISEMES
from sedtalker.labels import LABELS, NEUTRAL
from sedtalker.mel import FRAME_RATE, FRAME_SAMPLES
from sedtalker.phones import SILENCE, Phone, read_phones, write_phones
from sedtalker.synthesis.aligned_speech import (
    AlignedUtterance,
    PhoneTable,
    align_manifests,
    read_grid_manifest,
    read_grid_words,
    read_limited_manifest,
    read_spoken_folder,
    select_aligned,
)
from sedtalker.synthesis.coarticulation import (
    LABIODENTAL,
    TONGUE_HIDDEN,
    TONGUE_SHOWN,
    Float,
    Performance,
    SpeakerStyle,
    closure_curve,
    contact_curve,
    default_measures,
    full_closures,
    least_opening,
    limit_to_contact,
    lip_motion,
    perform,
    protrusion_curve,
    tuck_lower_lip,
)
from sedtalker.synthesis.tracked_faces import FaceMotion, read_facegood, read_grid


@dataclass(frozen=True)
class LossWeights:
    """Loss weights that differ from 1."""

    rule_opening: float = 0.15  # opening made by rules where no closure, contact or silence determines it
    pseudo_opening: float = 1.0  # the same from a teacher (`sedtalker.recipes.lip_teacher`)
    tucked_opening: float = 4.0  # the same at /f v/
    silent_lips: float = 2.0  # closed lips in silence, relative to those at /p b m/
    protruded: float = 4.0  # rounding at /sh/
    tongue_between_teeth: float = 2.0  # tongueOut at /th/
    tracked_closure: float = 0.25  # /p b m/ of a tracked face: its own gap determines when and how it closes


@dataclass(frozen=True)
class SourceRules:
    """Repetitions and weights of the clips of one source."""

    repeats: int = 1  # times that a training clip is repeated with a converted voice; at most 1 in the other splits
    repeat_every: int = 1  # one clip in so many is repeated
    pitches: tuple[float, float] = PITCHES  # range of the pitch factor of a converted voice
    opening_weight: float = 1.0  # loss weight of a tracked opening


TALKER_ENCODER = "whisper-tiny.en-streaming"  # of the default talker
LOSS_WEIGHTS = LossWeights()
RULE_LOSS_WEIGHTS = {"tongueOut": 45.0, "mouthRollLower": 16.0, "mouthUpperUp": 4.0}
"""Of channels that only a few phones move: with equal weights they would stay at rest."""
SOURCE_RULES = {
    "tts": SourceRules(repeat_every=4),
    "crema-d": SourceRules(repeats=0),  # many speakers, few sentences
    "grid": SourceRules(pitches=(0.75, 2.0), opening_weight=8.0),  # one man; only his lips are known
    "facegood": SourceRules(repeats=2, pitches=(0.6, 1.3), opening_weight=4.0),  # one woman
}
RANDOM_TRACK_SHARE = 1 / 3  # of acted clips, so that the face follows the track and not the voice
DEFAULT_INTENSITY = 0.6  # of an acted clip without a level
NON_SPEECH_CLIPS = 270
TEST_SENTENCES = ("Maybe tomorrow it will be cold.",)  # of CREMA-D, left out of training
JOINED, JOINED_PAUSES = 3, (0.1, 1.2)  # sentences of a joined clip, and seconds of silence between them
CUT_SHARE = 0.3  # largest share of the first and the last sentence of a joined clip that is cut off
CONTACT_LOSS_WEIGHT = 6.0  # of the shape of /f v/ in a tracked face
TRACKED_CONTACT = 0.072  # opening between the tracked lips at /f v/, where the upper teeth fill the gap
CLOSING_SECONDS = 0.2  # of added silence, after which a tracked mouth counts as closed
GRID_MARGIN = 0.25  # seconds around a sentence of GRID in which the mouth belongs to it

RigExample = tuple[RigClip, RigArrays]


def performance_arrays(performance: Performance, posterior: Float, intensity: Float) -> RigArrays:
    """Targets from motion made by rules, with a small loss weight of the opening where it is not determined."""
    weights = performance.weights
    loss_weight = np.ones_like(weights)
    for name, value in RULE_LOSS_WEIGHTS.items():
        loss_weight[:, arkit_columns(name)] = value
    loss_weight = emphasize_phones(loss_weight, weights, performance.protruded)
    loss_weight[:, (JAW_OPEN, MOUTH_CLOSE)] = _opening_loss_weight(performance.free, LOSS_WEIGHTS.rule_opening)
    closed = np.maximum(performance.closed, LOSS_WEIGHTS.silent_lips * performance.quiet)
    return RigArrays(weights, loss_weight, performance.expression, posterior, intensity, closed)


def emphasize_phones(loss_weight: Float, weights: Float, protruded: Float) -> Float:
    """Loss weights (T, 52) that are larger where the rules know a rare pose: /sh/, and the tip of the tongue at /th/.

    Args:
        weights: (T, 52) the poses.
        protruded: (T,) 1 at /sh zh ch jh/.
    """
    emphasized = loss_weight.copy()
    emphasized[:, (MOUTH_FUNNEL, MOUTH_PUCKER)] *= (1 + (LOSS_WEIGHTS.protruded - 1) * protruded)[:, None]
    shown = np.clip((weights[:, TONGUE_OUT] - TONGUE_HIDDEN) / (TONGUE_SHOWN - TONGUE_HIDDEN), 0, 1)
    emphasized[:, TONGUE_OUT] *= 1 + (LOSS_WEIGHTS.tongue_between_teeth - 1) * shown
    return emphasized


def replace_opening(arrays: RigArrays, opening: Float) -> RigArrays:
    """Replace the opening made by rules with a pseudo-labelled one where it is not determined.

    Call it once for a clip: the loss weight of the rule's opening shows where that is, and it changes. The returned
    arrays hold `opening`, which marks the clip.

    Args:
        opening: (T, 2), lip gap in mm, and mouth width in mm minus its median over the clip.
    """
    weights, loss_weight, expression = (
        array.astype(np.float32) for array in (arrays.weights, arrays.loss_weight, arrays.expression)
    )
    free = np.clip((1 - loss_weight[:, JAW_OPEN]) / (1 - LOSS_WEIGHTS.rule_opening), 0, 1)
    jaw, close = (np.clip(weights[:, column] - expression[:, column], 0, 1) for column in (JAW_OPEN, MOUTH_CLOSE))
    measures = default_measures()
    lips = np.clip(weights - expression, 0, 1)
    lips[:, JAW_OPEN], lips[:, MOUTH_CLOSE] = jaw, close
    rule_gap = np.maximum(lips @ measures.matrix[:, GAP], 0)
    tongue_gap = least_opening(lips[:, TONGUE_OUT]) * measures.matrix[JAW_OPEN, GAP]
    gap = np.maximum(free * opening[:, 0] + (1 - free) * rule_gap, tongue_gap)
    widening = np.where(free > 0.5, opening[:, 1], np.nan)
    speaking = np.minimum(jaw / JAW_REST_IN_SPEECH, 1)
    weights = np.clip(fit_mouth(gap, widening, lips, speaking, measures) + expression, 0, 1)
    tucked = np.clip((weights[:, ROLL_LOWER] - 0.4) / 0.4, 0, 1)[:, None]  # /f v/, where the lips must come near
    loss_weight[:, (JAW_OPEN, MOUTH_CLOSE)] = _opening_loss_weight(free, LOSS_WEIGHTS.pseudo_opening) * (
        1 + (LOSS_WEIGHTS.tucked_opening - 1) * tucked
    )
    return replace(arrays, weights=weights, loss_weight=loss_weight, opening=opening)


def _opening_loss_weight(free: Float, least: float) -> Float:
    """Loss weight (T, 1) of an opening: `least` where it is free (T,), 1 where it is determined."""
    return (1 - (1 - least) * free)[:, None]


def tracked_arrays(motion: FaceMotion, frames: int, lead: int = 0, silence: bool = False) -> RigArrays:
    """Targets of `frames` frames from a tracked neutral performance that starts at the frame `lead`.

    Frames before and after it have the loss weight 0. With `silence` these frames are silent, and the mouth is closed
    there.
    """
    tail = max(0, frames - lead - len(motion.weights))
    weights, loss_weight = (
        np.pad(curves, [(lead, tail), (0, 0)])[:frames] for curves in (motion.weights, motion.loss_weight)
    )
    closed = np.zeros(len(motion.weights), np.float32) if motion.closed is None else motion.closed
    closed = np.pad(closed, (lead, tail))[:frames]
    if silence:
        closing = round(CLOSING_SECONDS * FRAME_RATE)
        silent = np.r_[0 : max(0, lead - closing), lead + len(motion.weights) + closing : frames]
        loss_weight[silent], closed[silent] = 1.0, LOSS_WEIGHTS.silent_lips
    posterior, intensity = constant_track(LABELS[NEUTRAL], 0.0, frames)
    return RigArrays(weights, loss_weight, np.zeros_like(weights), posterior, intensity, closed)


def speech_clips(utterances: Iterable[AlignedUtterance], audio: Path) -> Iterator[RigExample]:
    """Clips of aligned speech animated by rules, some of them repeated with converted voices, written to `audio`."""
    for number, utterance in enumerate(utterances):
        if utterance.split == "train" and _is_test_sentence(utterance):
            continue
        yield _animate(utterance)
        rules = _rules(utterance.source)
        if rules.repeats and number % rules.repeat_every == 0:
            for conversion in _convert_voices(_clip(utterance), audio):
                yield _animate(_retime(utterance, conversion))


def joined_clips(utterances: Iterable[AlignedUtterance], audio: Path) -> Iterator[RigExample]:
    """Clips of several sentences of one speaker with pauses of different lengths between them, written to `audio`.

    They begin and end within speech. Most recordings of a corpus hold one sentence between silences, so that a talker
    that learns them alone closes the mouth in every pause and at both ends.
    """
    speakers: dict[tuple[str, str], list[AlignedUtterance]] = defaultdict(list)
    for utterance in utterances:
        if utterance.split != "test" and not _is_test_sentence(utterance):
            speakers[utterance.split, utterance.speaker].append(utterance)
    for (_, speaker), spoken in speakers.items():
        rng = np.random.default_rng([zlib.crc32(speaker.encode()), 5])
        order = rng.permutation(len(spoken))
        for number, start in enumerate(range(0, len(order) - JOINED + 1, JOINED)):
            parts = [spoken[index] for index in order[start : start + JOINED]]
            yield _animate(_join(parts, audio / f"joined_{speaker}_{number}.wav", rng))


def _join(parts: Sequence[AlignedUtterance], path: Path, rng: np.random.Generator) -> AlignedUtterance:
    """Write utterances one after the other, cut to half a random pause on both sides of the speech."""
    sound: list[Float] = []
    phones: list[Phone] = []
    end = 0.0
    for place, part in enumerate(parts):
        spoken = [phone for phone in part.phones if phone.name != SILENCE]
        first, last = spoken[0].start, spoken[-1].end
        inside = CUT_SHARE * (last - first)
        before, after = -rng.uniform(JOINED_PAUSES[0], JOINED_PAUSES[1], 2) / 2
        if place == 0:
            before = rng.uniform(0, inside)
        if place == len(parts) - 1:
            after = rng.uniform(0, inside)
        samples = load_audio(part.audio)
        low, high = round(max(0.0, first + before) * SAMPLE_RATE), round((last - after) * SAMPLE_RATE)
        samples = samples[low:high]
        offset = end - low / SAMPLE_RATE
        until = end + len(samples) / SAMPLE_RATE
        shifted = (replace(phone, start=phone.start + offset, end=phone.end + offset) for phone in part.phones)
        phones += [
            replace(phone, start=max(phone.start, end), end=min(phone.end, until))
            for phone in shifted
            if phone.end > end and phone.start < until
        ]
        sound.append(samples)
        end = until
    joined = np.concatenate(sound)
    if rng.uniform() < NOISY:
        joined = np.clip(add_background(joined, float(np.sqrt(np.mean(np.square(joined)))), rng), -1, 1)
    write_wav(path, [joined])
    source = f"{parts[0].source}-joined"
    return replace(parts[0], id=path.stem, audio=str(path), source=source, phones=tuple(phones), acted=None)


def _is_test_sentence(utterance: AlignedUtterance) -> bool:
    return utterance.acted is not None and utterance.acted.transcript in TEST_SENTENCES


def _animate(utterance: AlignedUtterance) -> RigExample:
    """Clip of an utterance under its acted emotion or a random track, seeded by its id; the style by its speaker."""
    decibels = loudness(load_audio(utterance.audio))
    rng = np.random.default_rng(zlib.crc32(utterance.id.encode()))
    style = SpeakerStyle.random(np.random.default_rng(zlib.crc32(utterance.speaker.encode())))
    if utterance.acted is None or rng.uniform() < RANDOM_TRACK_SHARE:
        posterior, intensity = random_track(len(decibels), rng)
    else:
        level = DEFAULT_INTENSITY if utterance.acted.intensity is None else utterance.acted.intensity
        posterior, intensity = constant_track(utterance.acted.emotion, level, len(decibels))
    performance = perform(utterance.phones, decibels, posterior, intensity, style)
    return _clip(utterance), performance_arrays(performance, posterior, intensity)


def _clip(utterance: AlignedUtterance) -> RigClip:
    return RigClip(
        utterance.id, utterance.audio, utterance.speaker, utterance.source, utterance.split, utterance.language
    )


def _rules(source: str) -> SourceRules:
    return SOURCE_RULES.get(source, SourceRules())


class Conversion(NamedTuple):
    """A recording with a converted voice, degraded and between silences."""

    path: Path
    source: str
    samples: int  # at 16 kHz
    speed: float  # relative to the recording
    delay: float  # seconds by which the speech starts later


def _convert_voices(clip: RigClip, audio: Path) -> Iterator[Conversion]:
    """Write a clip's recording with converted voices to `audio`, as often as its source's rules say."""
    rules, recording = _rules(clip.source), load_audio(clip.audio)
    for number in range(rules.repeats if clip.split == "train" else min(rules.repeats, 1)):
        rng = np.random.default_rng([zlib.crc32(clip.id.encode()), 3, number])
        samples, speed = convert_voice(recording, rng, rules.pitches)
        samples, delay = degrade(samples, rng)
        path = audio / f"{clip.id}_voice{number}.wav"
        write_wav(path, [samples])
        yield Conversion(path, f"{clip.source}-voices", len(samples), speed, delay)


def _retime(utterance: AlignedUtterance, conversion: Conversion) -> AlignedUtterance:
    """The utterance with the audio and the times of its converted recording."""

    def new_time(seconds: float) -> float:
        return seconds / conversion.speed + conversion.delay

    phones = [replace(phone, start=new_time(phone.start), end=new_time(phone.end)) for phone in utterance.phones]
    before = Phone("", SILENCE, 0.0, conversion.delay)
    after = Phone("", SILENCE, phones[-1].end, conversion.samples / SAMPLE_RATE)
    return replace(
        utterance,
        id=conversion.path.stem,
        audio=str(conversion.path),
        source=conversion.source,
        phones=(before, *phones, after),
    )


def non_speech_clips(audio: Path, count: int) -> Iterator[RigExample]:
    """Clips of sounds without speech, written to `audio`, under a closed mouth with the expression of random tracks.

    Of ten clips of one kind, one is for testing and one for validation.
    """
    for number in range(count):
        rng = np.random.default_rng([number, 4])
        earlier, index = divmod(number, len(NON_SPEECH))  # number of earlier clips of this kind, and the kind
        kind = NON_SPEECH[index]
        path = audio / f"foreign_{number:03d}_{kind}.wav"
        samples = synthesize_non_speech(kind, float(rng.uniform(3, 8)), rng)
        write_wav(path, [samples])
        turn = (earlier + index) % 10
        split = "test" if turn == 9 else "validation" if turn == 8 else "train"
        silence = (Phone("", SILENCE, 0.0, len(samples) / SAMPLE_RATE),)
        yield _animate(AlignedUtterance(path.stem, str(path), "nobody", "foreign", split, "zxx", silence))


def grid_clips(folder: Path, phone_table: PhoneTable, audio: Path) -> Iterator[RigExample]:
    """Clips of GRID's tracked sentences, a tenth of them for testing, each repeated with converted voices.

    Outside the sentence the loss weight is 0, because the speaker often waits with an open mouth. In training clips
    with known phones the lower lip comes near the upper teeth at /f v/, where the tracked lips stay apart, and /p b m/
    get a small weight of closed lips: the tracked lips close there, but an average over closings at slightly different
    times would not. Clips of the other splits stay as tracked, because talkers are evaluated on them.
    """
    words: dict[str, list[Row]] = defaultdict(list)
    for row in read_grid_words(folder):
        words[row["id"]].append(row)
    for path in sorted((folder / "s1").glob("*.npz")):
        draw = zlib.crc32(path.stem.encode()) % 20
        split = "test" if draw < 2 else "validation" if draw == 2 else "train"
        phones, sentence = phone_table.get(f"grid/{path.stem}", ()), words[path.stem]
        motion = read_grid(path, lip_motion(phones, loudness(load_audio(path.with_suffix(".opus")))))
        times = ((np.arange(len(motion.weights)) + 0.5) / FRAME_RATE).astype(np.float32)
        in_sentence = np.zeros(len(times), np.float32)
        if sentence:
            first, last = float(sentence[0]["start"]), float(sentence[-1]["end"])
            in_sentence[(times > first - GRID_MARGIN) & (times < last + GRID_MARGIN)] = 1
        if split != "train":
            phones = ()
        motion = add_contacts(motion, contact_curve(phones, times))
        if phones:
            motion = part_lips_for_tongue(motion)
            protruded = protrusion_curve(phones, times)
            motion = replace(motion, loss_weight=emphasize_phones(motion.loss_weight, motion.weights, protruded))
        closed = LOSS_WEIGHTS.tracked_closure * full_closures(closure_curve(phones, times))
        motion = FaceMotion(motion.weights, motion.loss_weight * in_sentence[:, None], closed)
        yield from _tracked_clips(
            RigClip(f"grid_{path.stem}", str(path.with_suffix(".opus")), "grid-s1", "grid", split, "en"), motion, audio
        )


def facegood_clips(folder: Path, audio: Path) -> Iterator[RigExample]:
    """Clips of FACEGOOD's tracked recordings, the last of the word lists for testing, with converted voices too."""
    for path in sorted(folder.glob("*.npz")):
        split = "test" if path.stem.endswith("2_04") else "train"
        clip = RigClip(f"facegood_{path.stem}", str(path.with_suffix(".opus")), "facegood", "facegood", split, "zh")
        yield from _tracked_clips(clip, read_facegood(path), audio)


def _tracked_clips(clip: RigClip, motion: FaceMotion, audio: Path) -> Iterator[RigExample]:
    """A tracked clip, and its repeats with converted voices, whose motion is resampled to their speed."""
    motion = scale_opening_weight(motion, _rules(clip.source).opening_weight)
    yield clip, tracked_arrays(motion, math.ceil(len(load_audio(clip.audio)) / FRAME_SAMPLES))
    for conversion in _convert_voices(clip, audio):
        rate = FRAME_RATE * conversion.speed
        weights, loss_weight = (resample(curves, rate, FRAME_RATE) for curves in (motion.weights, motion.loss_weight))
        closed = None if motion.closed is None else resample(motion.closed[:, None], rate, FRAME_RATE)[:, 0]
        frames, lead = math.ceil(conversion.samples / FRAME_SAMPLES), round(conversion.delay * FRAME_RATE)
        repeat = replace(clip, id=conversion.path.stem, audio=str(conversion.path), source=conversion.source)
        yield repeat, tracked_arrays(FaceMotion(weights, loss_weight, closed), frames, lead, silence=True)


def scale_opening_weight(motion: FaceMotion, factor: float) -> FaceMotion:
    """Multiply the loss weight of the opening."""
    loss_weight = motion.loss_weight.copy()
    loss_weight[:, (JAW_OPEN, MOUTH_CLOSE)] *= factor
    return replace(motion, loss_weight=loss_weight)


def add_contacts(motion: FaceMotion, contact: Float) -> FaceMotion:
    """Bring the lower lip of a tracked face to the upper teeth by the contact (T,) in 0..1, with the viseme's shape."""
    weights, loss_weight = motion.weights, motion.loss_weight.copy()
    measures = default_measures()
    per_jaw = measures.matrix[JAW_OPEN, GAP]
    opening = limit_to_contact(np.maximum(weights @ measures.matrix[:, GAP], 0) / per_jaw, contact, TRACKED_CONTACT)
    speaking = np.minimum(weights[:, JAW_OPEN] / JAW_REST_IN_SPEECH, 1)
    weights = tuck_lower_lip(weights, contact)
    for name in VISEMES[LABIODENTAL].shape:
        for column in arkit_columns(name):
            loss_weight[:, column] = np.maximum(loss_weight[:, column], CONTACT_LOSS_WEIGHT * contact)
    return FaceMotion(fit_gap(opening * per_jaw, weights, speaking, measures), loss_weight)


def part_lips_for_tongue(motion: FaceMotion) -> FaceMotion:
    """Part the lips of a tracked face where its tongueOut needs it, so that the tongue is visible at /th/."""
    measures, weights = default_measures(), motion.weights
    tracked = np.maximum(weights @ measures.matrix[:, GAP], 0)
    least = least_opening(weights[:, TONGUE_OUT]) * measures.matrix[JAW_OPEN, GAP]
    speaking = np.minimum(weights[:, JAW_OPEN] / JAW_REST_IN_SPEECH, 1)
    fitted = fit_gap(np.maximum(tracked, least), weights, speaking, measures)
    return replace(motion, weights=np.where((least > tracked)[:, None], fitted, weights))


@dataclass(frozen=True)
class StoreSources:
    """Folders and files to build a store from; None leaves one out."""

    spoken: Path | None = None  # folder of `read_spoken_folder`
    grid: Path | None = None  # folder with s1/ and s1_words.tsv
    facegood: Path | None = None  # folder
    manifest: Path | None = None  # of acted corpora
    tables: tuple[Path, ...] = ()  # tables of phones of recordings that were aligned before


def build_store(
    folder: Path, sources: StoreSources, limit: int | None = None, encoder: str = TALKER_ENCODER
) -> list[RigClip]:
    """Write a talker's training store with its speech features; features from an earlier run are kept.

    Args:
        limit: most recordings of each corpus that is animated by rules.
        encoder: of the features; they are written for every look-ahead that it has.
    """
    clips = build_clips(folder, sources, limit)
    cache_look_aheads([(clip.id, Path(clip.audio)) for clip in clips], folder, encoder)
    return clips


def build_clips(folder: Path, sources: StoreSources, limit: int | None = None) -> list[RigClip]:
    """Write a store as `build_store` does, without features.

    Raises:
        MissingExtraError: torchaudio is not installed; nothing is written.
    """
    require("torchaudio", "train")  # before the work; `convert_voice` needs it
    acted = None if sources.manifest is None else read_limited_manifest(sources.manifest, limit)
    grid = None if sources.grid is None else read_grid_manifest(sources.grid)
    phone_table = align_manifests([m for m in (acted, grid) if m], sources.tables, folder / "phones.tsv")
    audio = folder / "audio"

    def examples() -> Iterator[RigExample]:
        yield from non_speech_clips(audio, NON_SPEECH_CLIPS if limit is None else min(limit, NON_SPEECH_CLIPS))
        if sources.spoken:
            yield from speech_clips(islice(read_spoken_folder(sources.spoken), limit), audio)
        if sources.grid:
            yield from grid_clips(sources.grid, phone_table, audio)
        if sources.facegood:
            yield from facegood_clips(sources.facegood, audio)
        if acted:
            yield from speech_clips(select_aligned(acted, phone_table), audio)
            yield from joined_clips(select_aligned(acted, phone_table), audio)

    clips = write_rig_store(folder, examples())
    spoken = read_phones(sources.spoken / "phones.tsv") if sources.spoken else {}
    write_phones(folder / "phones.tsv", phone_table | spoken)
    return clips
