"""Write the frame-level benchmark of emotion diarization: audio, true segments and frame labels, from CREMA-D.

`sedtalker evaluate diarization DIR HYPOTHESIS` scores the output of any system. `--draw` makes a new list of pieces
from a manifest instead.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sedtalker.data.frame_benchmark import PIECES, draw_pieces, format_pieces, read_pieces, write_benchmark
from sedtalker.data.manifest import load_manifest
from sedtalker.files import atomic_write


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="folder of CREMA-D, or with --draw a manifest of speech corpora")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the benchmark, or the new list")
    parser.add_argument("--pieces", type=Path, default=PIECES, help="list of pieces (default: the packaged one)")
    parser.add_argument("--draw", action="store_true", help="draw a list of pieces from the split test of a manifest")
    parser.add_argument("--seed", type=int, default=0, help="of --draw (default: 0)")


def run(arguments: argparse.Namespace) -> None:
    if arguments.draw:
        pieces = draw_pieces(load_manifest(arguments.source), seed=arguments.seed)
        with atomic_write(arguments.output) as temp_path:
            temp_path.write_text(format_pieces(pieces), encoding="utf-8")
        print(f"{arguments.output}: {len({piece.recording for piece in pieces})} recordings")
        return
    recordings = read_pieces(arguments.pieces)
    write_benchmark(arguments.source, arguments.output, recordings)
    print(f"{arguments.output}: {len(recordings)} recordings")
