"""Sounds that a talker must not be fooled by: silence, noise and music, speech that lies in them, and other voices.

A mouth stays shut while nobody speaks, however loud it is, goes on speaking in noise, and moves alike whoever speaks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import SAMPLE_RATE
from sedtalker.data.augmentation import reverberate, revoice
from sedtalker.speech import FRAME_SAMPLES

Float = NDArray[np.float32]

NON_SPEECH = ("silence", "white", "pink", "brown", "hum", "music", "clicks", "breath", "chirps")
MASKS = NON_SPEECH[1:6]  # what speech may lie in
LEVELS = (-55.0, -12.0)  # dB of full scale of a foreign sound
SIGNAL_TO_NOISE = (8.0, 30.0)  # dB
GAINS = (-18.0, 6.0)  # dB
PADDING = (0.3, 1.5)  # seconds before and after speech
NOISY, BREATHING, REVERBERANT = 0.6, 0.3, 0.3  # shares of spoiled clips
STRENGTHS = (0.2, 0.7)  # of a room's echoes beside the direct sound
BREATH_LEVEL = (-40.0, -22.0)  # dB below the speech
MIDDLE_C = 261.63  # Hz

PITCHES = (0.7, 1.45)  # factors of another voice's over the recorded one's
FORMANTS = (0.9, 1.18)
SPEEDS = (0.88, 1.15)


def foreign_sound(kind: str, seconds: float, rng: np.random.Generator) -> Float:
    """Sound (N,) at 16 kHz without speech, of one of the kinds in FOREIGN."""
    count = round(seconds * SAMPLE_RATE)
    if kind == "silence":
        return np.zeros(count, np.float32)
    made = {"hum": _hum, "music": _music, "clicks": _clicks, "breath": _breaths, "chirps": _chirps}
    sound = made[kind](count, rng) if kind in made else _noise(kind, count, rng)
    level = 10 ** (rng.uniform(*LEVELS) / 20)
    return np.clip(sound / (np.sqrt(np.mean(sound**2)) + 1e-9) * level, -1, 1).astype(np.float32)


def degrade(samples: Float, rng: np.random.Generator) -> tuple[Float, float]:
    """Speech (N,) at another level, between silences, and by chance with a breath, in a room and in noise.

    Returns:
        The sound, and the seconds by which the speech starts later.
    """
    before, after = rng.uniform(*PADDING, size=2)
    lead = round(before * SAMPLE_RATE / FRAME_SAMPLES) * FRAME_SAMPLES  # whole frames: phones keep their place on them
    speech = np.pad(samples, (lead, round(after * SAMPLE_RATE)))
    level = np.sqrt(np.mean(samples**2) + 1e-9)
    if rng.uniform() < BREATHING:
        breath = _breath(min(lead, round(rng.uniform(0.25, 0.6) * SAMPLE_RATE)), rng)
        end = lead - round(rng.uniform(0, 0.1) * SAMPLE_RATE)
        start = max(0, end - len(breath))
        speech[start:end] += breath[: end - start] * level * 10 ** (rng.uniform(*BREATH_LEVEL) / 20)
    if rng.uniform() < REVERBERANT:
        speech = reverberate(speech, float(rng.uniform(0.15, 0.6)), STRENGTHS, rng)
    if rng.uniform() < NOISY:
        noise = foreign_sound(str(rng.choice(MASKS)), len(speech) / SAMPLE_RATE, rng)
        noise *= level / (np.sqrt(np.mean(noise**2)) + 1e-6) * 10 ** (-rng.uniform(*SIGNAL_TO_NOISE) / 20)
        speech = speech + noise
    return np.clip(speech * 10 ** (rng.uniform(*GAINS) / 20), -1, 1).astype(np.float32), lead / SAMPLE_RATE


def convert_voice(
    samples: Float, rng: np.random.Generator, pitches: tuple[float, float] = PITCHES
) -> tuple[Float, float]:
    """Speech (N,) as another person's, slower or faster, and the factor of its speed."""
    speed = float(rng.uniform(*SPEEDS))
    pitch, formants = (float(np.exp(rng.uniform(*np.log(limits)))) for limits in (pitches, FORMANTS))
    return revoice(samples, pitch, formants, speed), speed


def _noise(color: str, count: int, rng: np.random.Generator) -> Float:
    """Noise whose power falls with frequency: not at all, by 3 dB an octave, or by 6."""
    spectrum = np.fft.rfft(rng.normal(size=count))
    frequency = np.maximum(np.arange(len(spectrum)), 1)
    slope = {"white": 0.0, "pink": 0.5, "brown": 1.0}[color]
    return np.fft.irfft(spectrum / frequency**slope, count).astype(np.float32)


def _hum(count: int, rng: np.random.Generator) -> Float:
    times = np.arange(count) / SAMPLE_RATE
    mains = rng.choice([50.0, 60.0, 120.0])
    harmonics = [rng.uniform(0.1, 1) / order * np.sin(2 * np.pi * mains * order * times) for order in range(1, 8)]
    return (np.sum(harmonics, axis=0) + 0.05 * rng.normal(size=count)).astype(np.float32)


def _music(count: int, rng: np.random.Generator) -> Float:
    """Notes and chords of plucked and held harmonic tones, with a beat."""
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
    """Breathing, and nothing else: in and out every few seconds."""
    sound = 1e-4 * rng.normal(size=count)
    start = 0
    while start < count:
        breath = _breath(min(count - start, round(rng.uniform(0.4, 1.2) * SAMPLE_RATE)), rng)
        sound[start : start + len(breath)] += breath * rng.uniform(0.5, 1)
        start += len(breath) + round(rng.uniform(0.2, 1.5) * SAMPLE_RATE)
    return sound.astype(np.float32)


def _chirps(count: int, rng: np.random.Generator) -> Float:
    """Birds: short tones that rise or fall and trill more or less, alone or in a row."""
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


def _breath(count: int, rng: np.random.Generator) -> Float:
    """Noise (count,) through an open mouth: a few broad resonances, swelling and fading."""
    spectrum = np.fft.rfft(rng.normal(size=count))
    frequency = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
    centres = rng.uniform([400, 1200, 2300], [1000, 2000, 3800])
    gain = sum(np.exp(-0.5 * np.square((frequency - centre) / 350)) for centre in centres) + 0.08
    shape = np.sin(np.pi * (np.arange(count) + 0.5) / max(count, 1)) ** 1.5
    sound = np.fft.irfft(spectrum * gain, count) * shape if count > 1 else np.zeros(count)
    return (sound / max(float(np.sqrt(np.mean(sound**2))) if count else 0.0, 1e-9)).astype(np.float32)
