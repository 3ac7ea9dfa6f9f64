"""`sedtalker doctor`: check which features work on this machine, or how a recording is read (`--audio FILE`)."""

from __future__ import annotations

import argparse
import math
import os
import platform
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sedtalker.cli.options import any_path, integer

if TYPE_CHECKING:
    from sedtalker.audio import Inspection

GOOD, ABSENT, BROKEN = "ok", "--", "!!"  # works; optional and not installed; required and not working


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "doctor", parents=[common], help="check this machine, or a recording (--audio FILE)", description=__doc__
    )
    parser.add_argument(
        "--audio",
        type=any_path,
        metavar="FILE",
        help="show how this recording is read: tracks, gaps, damage, loudness, downmix",
    )
    parser.add_argument("--audio-track", type=integer(1, 1000), metavar="N", help="number of the audio track, from 1")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one line per feature; exit code 1 if `sedtalker animate` cannot run on this machine."""
    if arguments.audio is not None:
        return _explain_audio(arguments.audio, arguments.audio_track)
    findings = [*_check_required(), *_check_optional()]
    for state, name, finding in findings:
        print(f"{state}  {name:<16} {finding}")
    broken = [name for state, name, _ in findings if state == BROKEN]
    print(
        f"sedtalker animate does not work here: {', '.join(broken)}."
        if broken
        else "sedtalker animate works here. Try: sedtalker demo"
    )
    return 1 if broken else 0


def _explain_audio(path: Path, track: int | None) -> int:
    """Print one line per property of a recording; exit code 1 if it has a problem."""
    from sedtalker.audio import AudioFile, inspect_audio

    inspection = inspect_audio(AudioFile(path, track))
    for name, value in _audio_facts(inspection):
        print(f"{name:<16} {value}")
    for problem in inspection.problems:
        print(f"{'problem':<16} {problem}")
    return 1 if inspection.problems else 0


def _audio_facts(inspection: Inspection) -> list[tuple[str, str]]:
    report = inspection.report
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
        ("duration", f"{inspection.seconds:.3f} s"),
        ("start", f"{report.start:.3f} s" + (", preceded by silence" if report.start else "")),
    ]
    facts += [("gap", f"{gap.seconds:.3f} s at {gap.start:.3f} s, replaced by silence") for gap in report.pauses]
    facts += [("damaged", f"{report.damaged} packets of {report.damaged + report.decoded}")]
    facts += [("lost", f"{gap.seconds:.3f} s at {gap.start:.3f} s, replaced by silence") for gap in report.lost]
    peak = 20 * math.log10(max(inspection.peak, 1e-5))
    return [
        *facts,
        (
            "loudness",
            f"{inspection.rms:.1f} dB of full scale (root mean square), {inspection.loudest:.1f} dB loudest 20 ms",
        ),
        ("peak", f"{peak:.1f} dB of full scale" + (", clipped in outputs" if inspection.peak > 1 else "")),
        ("downmix", report.downmix),
    ]


def _check_required() -> list[tuple[str, str, str]]:
    return [
        (
            GOOD,
            "python",
            f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        ),
        _renderer(),
        *_codecs(),
        _weights(),
        _cache(),
    ]


def _torch() -> tuple[str, str, str]:
    use = "GPUs, training, and models and encoders that are not packaged"
    if find_spec("torch") is None:
        return _extra("torch", "torch", use)
    try:
        import torch
    except (ImportError, OSError) as error:
        return ABSENT, "torch", f"optional, for {use}; does not import ({error}): pip install --force-reinstall torch"
    return GOOD, "torch", f"{torch.__version__}, CPU threads: {torch.get_num_threads()}"


def _renderer() -> tuple[str, str, str]:
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
    inspection = []
    for codec, use in (("libx264", "video (H.264)"), ("aac", "sound in videos (AAC)")):
        there = codec in av.codecs_available
        cure = "" if there else ". Install PyAV's own wheel: pip install --force-reinstall --only-binary av av"
        inspection.append((GOOD if there else BROKEN, codec, f"{use}, PyAV {av.__version__}{cure}"))
    return inspection


def _weights() -> tuple[str, str, str]:
    from sedtalker.checkpoint import load_arrays
    from sedtalker.errors import SEDTalkerError
    from sedtalker.resources import asset

    folders = {
        "speech-encoder": ("speech", "whisper-tiny.en"),
        "diarizer": ("diarizer", "default"),
        "talker": ("talker", "default"),
    }
    try:
        for kind, parts in folders.items():
            load_arrays(asset(*parts), kind)
    except SEDTalkerError as error:
        return BROKEN, "weights", str(error)
    return GOOD, "weights", "speech encoder, diarizer and talker are complete; their sha256 are correct"


def _cache() -> tuple[str, str, str]:
    from sedtalker.resources import cache_folder

    return GOOD, "cache", f"{cache_folder()} (compiled kernels; set SEDTALKER_CACHE to change it)"


def _check_optional() -> list[tuple[str, str, str]]:
    extras = [
        ("lightning", "train", "training"),
        ("torchaudio", "train", "augmentation in training"),
        ("transformers", "hub", "WavLM, wav2vec2, HuBERT and other Whispers as speech encoders"),
        ("pocketsphinx", "align", "phone alignment of speech with its text"),
        ("matplotlib", "plot", "pictures of emotion tracks (diarize --plot)"),
        ("starlette", "serve", "the live server (sedtalker serve)"),
    ]
    return [_torch(), _cuda(), _mamba(), _pyrender(), *(_extra(*extra) for extra in extras)]


def _cuda() -> tuple[str, str, str]:
    try:
        import torch
    except (ImportError, OSError):
        return ABSENT, "CUDA", "unknown without torch"
    if torch.cuda.is_available():
        return GOOD, "CUDA", f"{torch.cuda.get_device_name(0)}; --device cuda uses it"
    return (ABSENT, "CUDA", "torch finds no GPU; everything runs on the CPU. Only training gains much from a GPU")


def _mamba() -> tuple[str, str, str]:
    try:
        from sedtalker.mamba.scan import mamba_ssm_kernel
    except (ImportError, OSError):
        return ABSENT, "mamba-ssm", "unknown without torch"
    kernel = mamba_ssm_kernel()
    if kernel.scan is not None:
        return GOOD, "mamba-ssm", f"{kernel.reason}; used on a CUDA device"
    return (
        ABSENT,
        "mamba-ssm",
        f"{kernel.reason}. Optional: the built-in scan is used instead. mamba-ssm needs CUDA and nvcc",
    )


def _pyrender() -> tuple[str, str, str]:
    if find_spec("pyrender") is None:
        return (ABSENT, "pyrender", "optional, for --backend pyrender: pip install 'sedtalker[pyrender]'")
    from sedtalker.render.pyrender import probe

    works, finding = probe()
    return (GOOD if works else ABSENT), "pyrender", finding


def _extra(module: str, extra: str, use: str) -> tuple[str, str, str]:
    from importlib.metadata import version

    if find_spec(module) is None:
        return ABSENT, module, f"optional, for {use}: pip install 'sedtalker[{extra}]'"
    return GOOD, module, f"{version(module)}: {use}"
