"""The sound of an animation: where it is, and how it is put beside or into an export."""

from __future__ import annotations

import io
import wave
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sedtalker.audio import SAMPLE_RATE, load_audio
from sedtalker.files import sha256, written_whole

if TYPE_CHECKING:
    from sedtalker.animation import Animation

Samples = NDArray[np.float32]


def source_samples(animation: Animation) -> Samples | None:
    """Samples (N,) at 16 kHz of the file the animation was made from; None where it is no longer that file."""
    path = Path(animation.meta.get("audio") or "")
    if not path.is_file() or animation.meta.get("audio_sha256") != sha256(path):
        return None
    return load_audio(path)


def write_wav(samples: Samples, path: Path) -> None:
    """Write 16-bit mono at 16 kHz."""
    with written_whole(path) as aside, wave.open(str(aside), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(_integers(samples).tobytes())


def flac_bytes(samples: Samples) -> bytes:
    """FLAC, 16-bit mono: every browser plays it, and unlike MP3 and AAC it starts with no delay of a codec."""
    import av

    stored = io.BytesIO()
    with av.open(stored, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono", format="s16")
        values = _integers(samples)
        for start in range(0, len(values), SAMPLE_RATE):
            frame = av.AudioFrame.from_ndarray(values[None, start : start + SAMPLE_RATE], format="s16", layout="mono")
            frame.rate, frame.pts = SAMPLE_RATE, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return stored.getvalue()


def _integers(samples: Samples) -> NDArray[np.int16]:
    return np.round(np.clip(samples, -1, 1) * 32767).astype("<i2")
