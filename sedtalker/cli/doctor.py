"""`sedtalker doctor`: what runs on this machine, what does not, and what would make it."""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

GOOD, ABSENT, BROKEN = "ok", "--", "!!"  # works; optional and not here; needed and not working


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "doctor", parents=[common], help="what runs here, and what would make the rest run", description=__doc__
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one line a finding; exit code 1 if the main job cannot run here."""
    findings = [*_needed(), *_optional()]
    for state, name, said in findings:
        print(f"{state}  {name:<16} {said}")
    broken = [name for state, name, _ in findings if state == BROKEN]
    print(
        f"The main job does not run here: {', '.join(broken)}." if broken else "The main job runs here: sedtalker demo"
    )
    return 1 if broken else 0


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
