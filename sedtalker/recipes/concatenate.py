"""Write recordings whose emotion changes at known times, and a manifest with them and the corpora."""

from __future__ import annotations

import argparse
from pathlib import Path

from sedtalker.data.concatenation import write_recordings
from sedtalker.data.manifest import load_manifest, merge


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path, help="manifest of speech corpora")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the recordings and their manifest")
    parser.add_argument("--per-speaker", type=int, default=12, help="recordings of each speaker (default: 12)")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")


def run(arguments: argparse.Namespace) -> None:
    manifest = load_manifest(arguments.manifest)
    recordings = write_recordings(manifest, arguments.output, arguments.per_speaker, arguments.seed)
    merge([manifest, recordings]).save(arguments.output / "manifest.json")
    print(f"{arguments.output}: {len(recordings)} recordings")
