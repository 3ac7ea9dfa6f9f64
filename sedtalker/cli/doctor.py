"""`sedtalker doctor`: what runs on this machine, what does not, and what would make it; or how a file would be read."""

from __future__ import annotations

import argparse
import math
import os
import platform
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sedtalker.cli.options import whole

if TYPE_CHECKING:
    from sedtalker.audio import Inspection

GOOD, ABSENT, BROKEN = "ok", "--", "!!"  # works; optional and not here; needed and not working


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "doctor", parents=[common], help="what runs here, and what would make the rest run", description=__doc__
    )
    parser.add_argument(
        "--audio",
        type=Path,
        metavar="FILE",
        help="instead, how this recording would be read",
    )
    parser.add_argument("--audio-track", type=whole(1, 1000), metavar="N", help="the sound track to look at")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one line a finding; exit code 1 if the main job cannot run here."""
    if arguments.audio is not None:
        return _explain_audio(arguments.audio, arguments.audio_track)
    findings = [*_needed(), *_optional()]
    for state, name, said in findings:
        print(f"{state}  {name:<16} {said}")
    broken = [name for state, name, _ in findings if state == BROKEN]
    print(
        f"The main job does not run here: {', '.join(broken)}." if broken else "The main job runs here: sedtalker demo"
    )
    return 1 if broken else 0


def _explain_audio(path: Path, track: int | None) -> int:
    """Print one line a fact about a recording; exit code 1 if something is wrong with it."""
    from sedtalker.audio import AudioFile, inspect_audio

    found = inspect_audio(AudioFile(path, track))
    for name, value in _audio_facts(found):
        print(f"{name:<16} {value}")
    for problem in found.problems:
        print(f"{'problem':<16} {problem}")
    return 1 if found.problems else 0


def _audio_facts(found: Inspection) -> list[tuple[str, str]]:
    report = found.report
    facts = [("file", report.name), ("container", report.container)]
    for track in report.tracks:
        marks = [
            f"{track.codec}, {track.rate} Hz, {track.channels} channel{'s' * (track.channels != 1)}",
            *([f"language {track.language}"] if track.language else []),
            *(["default"] if track.default else []),
            *(["chosen"] if track.number == report.chosen else []),
        ]
        facts.append((f"track {track.number}", ", ".join(marks)))
    facts += [
        ("duration", f"{found.seconds:.3f} s"),
        ("start", f"{report.start:.3f} s" + (", silence before" if report.start else "")),
    ]
    facts += [("gap", f"{gap.seconds:.3f} s at {gap.start:.3f} s, silence instead") for gap in report.pauses]
    facts += [("damaged", f"{report.damaged} packets of {report.damaged + report.decoded}")]
    facts += [("lost", f"{gap.seconds:.3f} s at {gap.start:.3f} s, silence instead") for gap in report.lost]
    peak = 20 * math.log10(max(found.peak, 1e-5))
    return [
        *facts,
        ("loudness", f"{found.rms:.1f} dB of full scale (root mean square), {found.loudest:.1f} dB the loudest 20 ms"),
        ("peak", f"{peak:.1f} dB of full scale" + (", clipped in what is written" if found.peak > 1 else "")),
        ("downmix", report.downmix),
    ]


def _needed() -> list[tuple[str, str, str]]:
    return [
        (
            GOOD,
            "python",
            f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        ),
        _torch(),
        _renderer(),
        *_codecs(),
        _weights(),
        _cache(),
    ]


def _torch() -> tuple[str, str, str]:
    try:
        import torch
    except (ImportError, OSError) as error:
        return BROKEN, "torch", f"does not import ({error}). Install it again: pip install --force-reinstall torch"
    return GOOD, "torch", f"{torch.__version__}, {torch.get_num_threads()} threads on the CPU"


def _renderer() -> tuple[str, str, str]:
    from sedtalker.resources import use_numba_cache

    use_numba_cache()
    try:
        import numba
    except ImportError as error:
        return (
            BROKEN,
            "soft renderer",
            f"numba does not import ({error}). Install it again: pip install --force-reinstall numba",
        )
    return GOOD, "soft renderer", f"numba {numba.__version__}; needs no OpenGL, display or GPU"


def _codecs() -> list[tuple[str, str, str]]:
    try:
        import av
    except ImportError as error:
        return [(BROKEN, "PyAV", f"does not import ({error}). Install it again: pip install --force-reinstall av")]
    found = []
    for codec, use in (("libx264", "video (H.264)"), ("aac", "sound in videos (AAC)")):
        there = codec in av.codecs_available
        cure = "" if there else ". Install PyAV's own wheel: pip install --force-reinstall --only-binary av av"
        found.append((GOOD if there else BROKEN, codec, f"{use}, PyAV {av.__version__}{cure}"))
    return found


def _weights() -> tuple[str, str, str]:
    from sedtalker.checkpoint import load_checkpoint
    from sedtalker.errors import SEDTalkerError
    from sedtalker.resources import asset

    folders = {
        "speech-encoder": ("speech", "whisper-tiny.en"),
        "diarizer": ("diarizer", "default"),
        "talker": ("talker", "default"),
    }
    try:
        for kind, parts in folders.items():
            load_checkpoint(asset(*parts), kind)
    except SEDTalkerError as error:
        return BROKEN, "weights", str(error)
    return GOOD, "weights", "speech encoder, diarizer and talker are here, and their sha256 are right"


def _cache() -> tuple[str, str, str]:
    from sedtalker.resources import cache_folder

    return GOOD, "cache", f"{cache_folder()} (compiled kernels; SEDTALKER_CACHE moves it)"


def _optional() -> list[tuple[str, str, str]]:
    extras = [
        ("lightning", "train", "training"),
        ("torchaudio", "train", "augmentation in training"),
        ("transformers", "hub", "WavLM, wav2vec2, HuBERT and other Whispers as speech encoders"),
        ("pocketsphinx", "align", "making a talking-head corpus from speech and its text"),
        ("matplotlib", "plot", "pictures of emotion tracks (diarize --plot)"),
    ]
    return [_cuda(), _mamba(), _pyrender(), *(_extra(*extra) for extra in extras)]


def _cuda() -> tuple[str, str, str]:
    try:
        import torch
    except (ImportError, OSError):
        return ABSENT, "CUDA", "unknown without torch"
    if torch.cuda.is_available():
        return GOOD, "CUDA", f"{torch.cuda.get_device_name(0)}; --device cuda uses it"
    return (
        ABSENT,
        "CUDA",
        "no GPU that this torch can use; everything runs on the CPU. It helps training, not the main job",
    )


def _mamba() -> tuple[str, str, str]:
    try:
        from sedtalker.mamba.scan import mamba_ssm_kernel
    except (ImportError, OSError):
        return ABSENT, "mamba-ssm", "unknown without torch"
    kernel = mamba_ssm_kernel()
    if kernel.scan is not None:
        return GOOD, "mamba-ssm", f"{kernel.reason}: it serves on a CUDA device"
    return ABSENT, "mamba-ssm", f"{kernel.reason}. Not needed: the built-in scan serves. Its kernel needs CUDA and nvcc"


def _pyrender() -> tuple[str, str, str]:
    if find_spec("pyrender") is None:
        return (
            ABSENT,
            "pyrender",
            "not needed: the soft renderer serves. For --backend pyrender: pip install 'sedtalker[pyrender]'",
        )
    from sedtalker.render.pyrender import probe

    works, said = probe()
    return (GOOD if works else ABSENT), "pyrender", said


def _extra(module: str, extra: str, use: str) -> tuple[str, str, str]:
    if find_spec(module) is None:
        return ABSENT, module, f"for {use}: pip install 'sedtalker[{extra}]'"
    return GOOD, module, f"{version(module)}: {use}"
