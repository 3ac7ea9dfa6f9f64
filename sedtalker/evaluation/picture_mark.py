"""Measures of the mark in pictures: false alarms, visibility, time, and survival of compression, scaling and cuts.

The pictures are renderings of random expressions of the packaged heads from random cameras, with random backgrounds.
For false alarms, each is different: size, brightness and noise are random as well.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sedtalker.demux import ffmpeg_name
from sedtalker.face.assets import identities, load_face
from sedtalker.face.rig import Face
from sedtalker.provenance.mark import HASH_BYTES, Mark, read_mark
from sedtalker.provenance.record import describe
from sedtalker.provenance.verify import ALTERED, verify_file
from sedtalker.render.camera import portrait_camera
from sedtalker.render.soft import SoftRenderer
from sedtalker.render.video import write_video

Bytes = NDArray[np.uint8]

CHANCE = 2.0**-32  # of a random payload: 16 bits name the tool, 16 are a checksum
CRF, HEIGHT = 28, 360  # of the attack: x264's quality factor, and pixels
CLIP_FRAMES, FPS = 60, 30.0
PER_RENDERER = 100  # frames drawn with one camera and background


@dataclass(frozen=True)
class MarkReport:
    """Figures of the mark."""

    frames: int  # unmarked pictures
    false_alarms: int
    upper_bound: float  # of the rate of false alarms, one-sided 95 % (Clopper-Pearson)
    chance: float  # rate of false alarms by the bits of the payload
    psnr: float  # dB, of the least similar of the marked pictures
    milliseconds: float  # of a frame of a video at the default size, median
    clips: int
    survived: int  # clips whose mark was read after the attack
    survived_frames: float  # share of their frames whose mark was read alone

    def plain(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)


def measure_mark(frames: int = 10_000, seed: int = 0) -> MarkReport:
    """Measure the mark on `frames` unmarked pictures, and on one marked clip of every packaged head."""
    rng = np.random.default_rng(seed)
    alarms = sum(read_mark(frame) is not None for frame in random_pictures(frames, rng))
    mark = Mark(describe({"seed": seed}).digest)
    psnr, survived, alone = [], [], []
    for name in identities():
        clip = _draw_clip(load_face(name), rng)
        psnr.append(_psnr(clip[0], mark.add(clip[0])))
        whole, share = survive(clip)
        survived.append(whole)
        alone.append(share)
    upper = _upper_bound(alarms, frames)
    return MarkReport(
        frames, alarms, upper, CHANCE, min(psnr), _time_of_frame(mark), len(survived), sum(survived),
        float(np.mean(alone)),
    )  # fmt: skip


def random_pictures(count: int, rng: np.random.Generator, size: int = 160) -> Iterator[Bytes]:
    """Different unmarked pictures (H, W, 3)."""
    from PIL import Image

    faces = [load_face(name) for name in identities()]
    for number in range(count):
        if number % PER_RENDERER == 0:
            renderer = _random_renderer(faces[number // PER_RENDERER % len(faces)], rng, size)
        picture = renderer.frame(_random_pose(renderer.face, rng))
        height, width = (int(size * rng.uniform(0.6, 1.8)) for _ in range(2))
        resized = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC), np.float32)
        noise = rng.normal(0, rng.uniform(0, 4), resized.shape[:2])[..., None]
        yield np.clip(resized * rng.uniform(0.6, 1.2) + noise + 0.5, 0, 255).astype(np.uint8)


def _random_renderer(face: Face, rng: np.random.Generator, size: int) -> SoftRenderer:
    camera = replace(
        portrait_camera(face),
        yaw=float(rng.uniform(-60, 60)),
        pitch=float(rng.uniform(-15, 15)),
        field_of_view=float(rng.uniform(12, 24)),
    )
    background = tuple(rng.uniform(0, 1, 3).tolist()) if rng.random() < 0.7 else None
    return SoftRenderer(face, size, size, camera=camera, background=background)


def _random_pose(face: Face, rng: np.random.Generator) -> NDArray[np.float32]:
    weights = rng.beta(0.4, 2.0, len(face.blendshape_names)).astype(np.float32)
    vertices: NDArray[np.float32] = face.pose(weights[None])[0]
    return vertices


def _draw_clip(face: Face, rng: np.random.Generator) -> list[Bytes]:
    """Frames (H, W, 3) of a face that moves between random expressions, at the default size."""
    renderer = SoftRenderer(face)
    poses = [_random_pose(face, rng) for _ in range(4)]
    frames = []
    for place in np.linspace(0, len(poses) - 1.001, CLIP_FRAMES):
        first, share = int(place), place % 1
        frames.append(renderer.frame(((1 - share) * poses[first] + share * poses[first + 1]).astype(np.float32)))
    return frames


def survive(frames: list[Bytes]) -> tuple[bool, float]:
    """Mark a clip, compress, scale and cut it; returns whether its mark is read, and the share of single frames."""
    provenance = describe({})
    with tempfile.TemporaryDirectory() as folder:
        whole, attacked = Path(folder, "whole.mp4"), Path(folder, "attacked.mp4")
        write_video(whole, frames, FPS, provenance=provenance)
        decoded = attack(whole, attacked)
        found = verify_file(attacked)
    read = found.status == ALTERED and found.mark == provenance.digest[:HASH_BYTES].hex()
    return read, sum(read_mark(frame) is not None for frame in decoded) / len(decoded)


def attack(source: Path, target: Path) -> list[Bytes]:
    """Write the second half of a video at `HEIGHT` pixels and CRF `CRF`; returns some of its frames (H, W)."""
    import av

    with av.open(ffmpeg_name(source)) as container:
        frames = list(container.decode(video=0))
    frames = frames[len(frames) // 2 :]
    width = round(frames[0].width * HEIGHT / frames[0].height / 2) * 2
    with av.open(ffmpeg_name(target), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS), options={"crf": str(CRF), "preset": "medium"})
        stream.width, stream.height, stream.pix_fmt = width, HEIGHT, "yuv420p"
        for number, frame in enumerate(frames):
            small = frame.reformat(width, HEIGHT, "yuv420p", interpolation="BICUBIC")
            small.pts, small.time_base = number, 1 / Fraction(FPS)
            container.mux(stream.encode(small))
        container.mux(stream.encode(None))
    with av.open(ffmpeg_name(target)) as container:
        return [frame.to_ndarray(format="gray") for frame in container.decode(video=0)][::5]


def _psnr(first: Bytes, second: Bytes) -> float:
    error = np.mean((first.astype(np.float64) - second) ** 2)
    return float(10 * np.log10(255**2 / error))


def _time_of_frame(mark: Mark, size: int = 512, repeats: int = 200) -> float:
    plane, times = np.full((size, size), 100, np.uint8), []
    for _ in range(repeats):
        start = time.perf_counter()
        mark.add_to_luma(plane)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def _upper_bound(count: int, total: int) -> float:
    """One-sided 95 % bound of a rate, by bisection of the binomial distribution."""
    low, high = 0.0, 1.0
    for _ in range(60):
        rate = (low + high) / 2
        below = sum(math.comb(total, k) * rate**k * (1 - rate) ** (total - k) for k in range(count + 1))
        low, high = (rate, high) if below > 0.05 else (low, rate)
    return high


def format_mark(report: MarkReport) -> str:
    """The report as text."""
    return (
        f"false alarms: {report.false_alarms} of {report.frames} unmarked frames "
        f"(95 % bound {report.upper_bound:.1e}; by the payload's bits {report.chance:.1e})\n"
        f"difference: PSNR {report.psnr:.1f} dB or more; time: {report.milliseconds:.3f} ms a frame\n"
        f"second half at {HEIGHT} p, H.264 CRF {CRF}: mark read in {report.survived} of {report.clips} clips, "
        f"and in {report.survived_frames:.0%} of their frames alone"
    )
