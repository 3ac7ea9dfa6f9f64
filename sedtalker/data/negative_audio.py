"""Negative and augmented audio for the talker: sounds without speech, degraded speech, converted voices.

The talker learns from it to keep the mouth closed during loud sounds without speech, to animate speech in noise, and to
move alike for every voice. Samples are (N,) float32 at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import SAMPLE_RATE
from sedtalker.data.augmentation import (
    add_noise,
    change_level,
    cut_high_frequencies,
    perturb_voice,
    power_law_noise,
    reverberate,
    simulate_telephone,
)
from sedtalker.errors import require
from sedtalker.mel import FRAME_SAMPLES

Float = NDArray[np.float32]

NON_SPEECH = ("silence", "white", "pink", "brown", "hum", "music", "clicks", "breath", "chirps")
VOCAL = ("laughter", "barks")  # also made by `synthesize_non_speech`; the talker does not train on them
NOISE_EXPONENTS = {"white": 0.0, "pink": 1.0, "brown": 2.0}
BACKGROUNDS = NON_SPEECH[1:6]  # sounds that are mixed with speech
LEVELS = (-55.0, -12.0)  # dB of full scale of a sound without speech
SIGNAL_TO_NOISE = (8.0, 30.0)  # dB
GAINS = (-18.0, 6.0)  # dB
PADDING = (0.3, 1.5)  # seconds of silence before and after speech
NOISY, BREATHING, REVERBERANT = 0.6, 0.3, 0.3  # shares of the degraded clips
REVERBERATION = (0.15, 0.6)  # seconds, RT60
ECHO_STRENGTHS = (0.2, 0.7)  # norm of a room's echoes relative to the direct sound
BREATH_LEVEL = (-40.0, -22.0)  # dB relative to the speech
MIDDLE_C = 261.63  # Hz

PITCHES = (0.7, 1.45)  # factors of a converted voice
FORMANTS = (0.9, 1.18)
SPEEDS = (0.88, 1.15)


def synthesize_non_speech(kind: str, seconds: float, rng: np.random.Generator) -> Float:
    """Sound (N,) without speech, of one of the kinds in `NON_SPEECH` and `VOCAL`, at a random level."""
    count = round(seconds * SAMPLE_RATE)
    if kind == "silence":
        return np.zeros(count, np.float32)
    if kind in NOISE_EXPONENTS:
        sound = power_law_noise(count, NOISE_EXPONENTS[kind], rng)
    else:
        makers = {
            "hum": _hum, "music": _music, "clicks": _clicks, "breath": _breaths, "chirps": _chirps,
            "laughter": _laughter, "barks": _barks,
        }  # fmt: skip
        sound = makers[kind](count, rng)
    level = 10 ** (rng.uniform(*LEVELS) / 20)
    return np.clip(sound / (_rms(sound) + 1e-9) * level, -1, 1).astype(np.float32)


def degrade(samples: Float, rng: np.random.Generator) -> tuple[Float, float]:
    """Add silence around speech (N,), change its level, and by chance add a breath, a room and noise.

    Returns:
        The sound, and the seconds by which the speech starts later, a whole number of 20 ms frames.
    """
    before, after = rng.uniform(*PADDING, size=2)
    lead = round(before * SAMPLE_RATE / FRAME_SAMPLES) * FRAME_SAMPLES  # phones keep their place on the frames
    speech = np.pad(samples, (lead, round(after * SAMPLE_RATE)))
    level = _rms(samples)
    if rng.uniform() < BREATHING:
        breath = _breath(min(lead, round(rng.uniform(0.25, 0.6) * SAMPLE_RATE)), rng)
        end = lead - round(rng.uniform(0, 0.1) * SAMPLE_RATE)
        start = max(0, end - len(breath))
        speech[start:end] += breath[: end - start] * level * 10 ** (rng.uniform(*BREATH_LEVEL) / 20)
    if rng.uniform() < REVERBERANT:
        speech = reverberate(speech, float(rng.uniform(*REVERBERATION)), ECHO_STRENGTHS, rng)
    if rng.uniform() < NOISY:
        speech = add_background(speech, level, rng)
    return np.clip(speech * 10 ** (rng.uniform(*GAINS) / 20), -1, 1).astype(np.float32), lead / SAMPLE_RATE


def add_background(samples: Float, level: float, rng: np.random.Generator) -> Float:
    """Speech (N,) of a root mean square `level` with a random background."""
    noise = synthesize_non_speech(str(rng.choice(BACKGROUNDS)), len(samples) / SAMPLE_RATE, rng)
    return samples + noise * level / (_rms(noise) + 1e-6) * 10 ** (-rng.uniform(*SIGNAL_TO_NOISE) / 20)


def augment_speech(samples: Float, rng: np.random.Generator) -> Float:
    """Speech after a random chain of augmentations for a diarizer; its length changes by at most a fifth.

    Corpora of acted emotion have few speakers, so most recordings get another voice.

    Raises:
        MissingExtraError: torchaudio is not installed.
    """
    require("torchaudio", "train")  # for every draw, so that a run fails at its start
    if rng.random() < 0.75:
        pitch, formants, tempo = np.exp(rng.uniform([-0.25, -0.15, -0.18], [0.25, 0.15, 0.18]))
        samples = perturb_voice(samples, pitch, formants, tempo)
    if rng.random() < 0.3:
        samples = reverberate(samples, rng.uniform(0.15, 0.6), (0.3, 1.0), rng)
    if rng.random() < 0.65:
        kind = str(rng.choice(["noise", "music", "hum", "chirps"], p=[0.6, 0.25, 0.1, 0.05]))
        samples = _add_sound(samples, kind, rng.uniform(5, 30 if kind == "noise" else 25), rng)
    channel = rng.random()
    if channel < 0.1:
        samples = simulate_telephone(samples)
    elif channel < 0.25:
        samples = cut_high_frequencies(samples, rng.uniform(2500, 7500))
    return change_level(samples.astype(np.float32), rng.uniform(-18, 12))


def add_loud_background(samples: Float, rng: np.random.Generator) -> Float:
    """Speech at another level with a sound 5 to 15 dB below it; voice, room and length stay."""
    kind = str(rng.choice(["noise", "music", "hum", "chirps"], p=[0.7, 0.15, 0.1, 0.05]))
    return change_level(_add_sound(samples, kind, rng.uniform(5, 15), rng).astype(np.float32), rng.uniform(-12, 6))


def draw_voice(rng: np.random.Generator) -> Callable[[Float, np.random.Generator], Float]:
    """An augmentation with one voice, room, noise and channel, to be applied to all recordings of a speaker.

    Only tempo, level and signal-to-noise ratio change a little from recording to recording, by their own generator.
    """
    pitch, formants, tempo = np.exp(rng.uniform([-0.3, -0.17, -0.1], [0.3, 0.17, 0.1]))
    reverberant, noisy, channel = rng.random(3)
    seconds, ratio, exponent = rng.uniform(0.15, 0.6), rng.uniform(6, 24), rng.uniform(0, 2)
    frequency, level = rng.uniform(3000, 7500), rng.uniform(-12, 8)

    def augment(samples: Float, own: np.random.Generator) -> Float:
        samples = perturb_voice(samples, pitch, formants, tempo * np.exp(own.uniform(-0.08, 0.08)))
        if reverberant < 0.25:
            samples = reverberate(samples, seconds, (0.3, 1.0), own)
        if noisy < 0.65:
            samples = add_noise(samples, ratio + own.uniform(-4, 4), exponent, own)
        if channel < 0.08:
            samples = simulate_telephone(samples)
        elif channel < 0.25:
            samples = cut_high_frequencies(samples, frequency)
        return change_level(samples.astype(np.float32), level + own.uniform(-3, 3))

    return augment


def _add_sound(samples: Float, kind: str, ratio: float, rng: np.random.Generator) -> Float:
    """Samples with noise or another sound without speech, at a ratio of their levels in dB."""
    if kind == "noise":
        return add_noise(samples, ratio, rng.uniform(0, 2), rng)
    sound = synthesize_non_speech(kind, len(samples) / SAMPLE_RATE, rng)[: len(samples)]
    return samples + sound * _rms(samples) / (_rms(sound) + 1e-6) * 10 ** (-ratio / 20)


def convert_voice(
    samples: Float, rng: np.random.Generator, pitches: tuple[float, float] = PITCHES
) -> tuple[Float, float]:
    """Speech (N,) with the voice and tempo of a random other person, and the factor of its speed."""
    speed = float(rng.uniform(*SPEEDS))
    pitch, formants = (float(np.exp(rng.uniform(*np.log(limits)))) for limits in (pitches, FORMANTS))
    return perturb_voice(samples, pitch, formants, speed), speed


def _rms(samples: NDArray[np.floating]) -> float:
    return float(np.sqrt(np.mean(np.square(samples)))) if len(samples) else 0.0


def _hum(count: int, rng: np.random.Generator) -> Float:
    times = np.arange(count) / SAMPLE_RATE
    mains = rng.choice([50.0, 60.0, 120.0])
    harmonics = [rng.uniform(0.1, 1) / order * np.sin(2 * np.pi * mains * order * times) for order in range(1, 8)]
    return (np.sum(harmonics, axis=0) + 0.05 * rng.normal(size=count)).astype(np.float32)


def _music(count: int, rng: np.random.Generator) -> Float:
    """Notes and chords of decaying harmonic tones, with a beat and drums."""
    sound = np.zeros(count)
    beat = round(rng.uniform(0.15, 0.5) * SAMPLE_RATE)
    scale = np.array([0, 2, 4, 5, 7, 9, 11])
    for start in range(0, count, beat):
        times = np.arange(min(count - start, 3 * beat)) / SAMPLE_RATE
        for _ in range(int(rng.integers(1, 4))):
            pitch = MIDDLE_C * 2 ** ((rng.choice(scale) + 12 * rng.integers(-2, 2)) / 12)
            decay = np.exp(-times * rng.uniform(1, 8)) * np.minimum(times / 0.01, 1)
            tone = sum(np.sin(2 * np.pi * pitch * order * times) / order for order in range(1, int(rng.integers(2, 7))))
            sound[start : start + len(times)] += decay * tone
        if rng.uniform() < 0.5:  # a drum
            drum = rng.normal(size=len(times)) * np.exp(-times * 40)
            sound[start : start + len(times)] += rng.uniform(0.3, 1.5) * drum
    return sound.astype(np.float32)


def _clicks(count: int, rng: np.random.Generator) -> Float:
    sound = 0.002 * rng.normal(size=count)
    for start in rng.integers(0, count, max(1, count // SAMPLE_RATE * 3)):
        length = min(count - start, int(rng.integers(200, 2000)))
        sound[start : start + length] += rng.normal(size=length) * np.exp(-np.arange(length) / (length / 6))
    return sound.astype(np.float32)


def _breaths(count: int, rng: np.random.Generator) -> Float:
    """Breaths every few seconds."""
    sound = 1e-4 * rng.normal(size=count)
    start = 0
    while start < count:
        breath = _breath(min(count - start, round(rng.uniform(0.4, 1.2) * SAMPLE_RATE)), rng)
        sound[start : start + len(breath)] += breath * rng.uniform(0.5, 1)
        start += len(breath) + round(rng.uniform(0.2, 1.5) * SAMPLE_RATE)
    return sound.astype(np.float32)


def _chirps(count: int, rng: np.random.Generator) -> Float:
    """Birdsong: short tones that rise or fall with a trill, single or in series."""
    sound = 0.005 * rng.normal(size=count)
    start = 0
    while start < count:
        pitch, glide = rng.uniform(1500, 5000), rng.uniform(-8000, 8000)  # Hz, Hz a second
        trill, length = rng.uniform(0, 300), round(rng.uniform(0.03, 0.25) * SAMPLE_RATE)
        pause = round(rng.uniform(0.02, 0.3) * SAMPLE_RATE)
        for _ in range(int(rng.integers(1, 7))):
            times = np.arange(min(length, count - start)) / SAMPLE_RATE
            frequency = pitch + glide * times + trill * np.sin(2 * np.pi * 25 * times)
            tone = np.sin(2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE) * np.hanning(len(times))
            sound[start : start + len(times)] += tone
            start += length + pause
            if start >= count:
                break
        start += round(rng.uniform(0.1, 1.5) * SAMPLE_RATE)
    return sound.astype(np.float32)


def _laughter(count: int, rng: np.random.Generator) -> Float:
    """Series of short vowels four to six times a second, each with a falling pitch and breath before it."""
    sound, start = 1e-4 * rng.normal(size=count), 0
    while start < count:
        pitch, period = rng.uniform(180, 420), round(SAMPLE_RATE / rng.uniform(4, 6))
        for number in range(int(rng.integers(3, 9))):
            length = min(round(0.55 * period), count - start)
            if length < FRAME_SAMPLES:
                break
            vowel = _harmonics(length, pitch * 0.97**number, -0.15, (800.0, 1300.0, 2600.0), rng)
            sound[start : start + length] += 0.92**number * vowel
            pause = min(period - length, count - start - length)
            if pause > 0:
                sound[start + length : start + length + pause] += 0.08 * _breath(pause, rng)
            start += period
        start += round(rng.uniform(0.2, 0.8) * SAMPLE_RATE)
    return sound.astype(np.float32)


def _barks(count: int, rng: np.random.Generator) -> Float:
    """Barks of a dog, alone or in pairs: rough harmonic bursts of 0.1 to 0.25 s whose pitch rises and falls."""
    sound, start = 1e-4 * rng.normal(size=count), 0
    pitch, size = rng.uniform(250, 700), rng.uniform(0.8, 1.3)
    while start < count:
        for _ in range(int(rng.integers(1, 4))):
            length = min(round(rng.uniform(0.1, 0.25) * SAMPLE_RATE), count - start)
            if length < FRAME_SAMPLES:
                break
            bark = _harmonics(length, pitch * rng.uniform(0.9, 1.1), -0.4, (900 * size, 1800 * size), rng)
            rough = 1 + 0.5 * rng.normal(size=length)
            sound[start : start + length] += bark * rough
            start += length + round(rng.uniform(0.08, 0.2) * SAMPLE_RATE)
        start += round(rng.uniform(0.3, 1.0) * SAMPLE_RATE)
    return sound.astype(np.float32)


def _harmonics(
    count: int, pitch: float, glide: float, formants: tuple[float, ...], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Voiced sound (count,) that swells and fades: harmonics of a pitch in Hz, shaped by formants in Hz.

    The pitch changes by the share `glide` from the first to the last sample.
    """
    place = np.arange(count) / count
    phase = 2 * np.pi * np.cumsum(pitch * (1 + glide * place)) / SAMPLE_RATE
    orders = np.arange(1, int(4000 / pitch) + 1)
    gains = sum(1 / (1 + np.square((orders * pitch - formant) / 150)) for formant in formants) + 0.3 / orders
    tones = np.sin(orders[:, None] * phase + rng.uniform(0, 2 * np.pi, len(orders))[:, None])
    return (gains @ tones) * np.sin(np.pi * (place + 0.5 / count)) ** 0.5


def _breath(count: int, rng: np.random.Generator) -> Float:
    """One breath (count,) of unit power: noise with a few broad resonances that swells and fades."""
    spectrum = np.fft.rfft(rng.normal(size=count))
    frequency = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
    centres = rng.uniform([400, 1200, 2300], [1000, 2000, 3800])
    gain = sum(np.exp(-0.5 * np.square((frequency - centre) / 350)) for centre in centres) + 0.08
    shape = np.sin(np.pi * (np.arange(count) + 0.5) / max(count, 1)) ** 1.5
    sound = np.fft.irfft(spectrum * gain, count) * shape if count > 1 else np.zeros(count)
    return (sound / max(_rms(sound), 1e-9)).astype(np.float32)
