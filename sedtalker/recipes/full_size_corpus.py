"""Write a synthetic corpus with the size and layout of EmoVOCA, VOCASET or BIWI, to test the tools without their data.

EmoVOCA's has 38 GB, VOCASET's 7.4 GB, BIWI's 36 GB (6 GB with --vertices 3895). With `--unique 0.28` the sentences of a
subject share files by hard links, so that EmoVOCA's takes 11 GB of disk.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from sedtalker.face.assets import load_face
from sedtalker.synthesis.full_size import (
    BIWI_VERTICES,
    synthesize_biwi_sized,
    synthesize_emovoca_sized,
    synthesize_vocaset_sized,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("corpus", choices=("emovoca", "vocaset", "biwi"))
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the corpus; it must not exist")
    parser.add_argument(
        "--unique",
        type=float,
        default=1.0,
        help="share of a subject's sentences with own files; the others are hard links to them (default: 1)",
    )
    parser.add_argument("--share", type=float, default=1.0, help="share of the full size, for trials (default: 1)")
    parser.add_argument("--vertices", type=int, choices=BIWI_VERTICES, default=BIWI_VERTICES[0], help="of BIWI")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")


def run(arguments: argparse.Namespace) -> None:
    start, face = time.perf_counter(), load_face()
    output, unique, share, seed = arguments.output, arguments.unique, arguments.share, arguments.seed
    if arguments.corpus == "emovoca":
        amount = synthesize_emovoca_sized(output, face, unique, share, seed)
    elif arguments.corpus == "vocaset":
        amount = synthesize_vocaset_sized(output, face, share, seed)
    else:
        amount = synthesize_biwi_sized(output, face, unique, share, seed, arguments.vertices)
    seconds = time.perf_counter() - start
    print(f"{output}: {amount.sequences} sequences, {amount.frames} frames")
    print(
        f"vertices: {amount.logical / 1e9:.2f} GB to read, {amount.unique / 1e9:.2f} GB on the disk"
        + (" (the rest are hard links)" if amount.unique < amount.logical else "")
        + f", written in {seconds:.0f} s, {amount.unique / 1e6 / seconds:.0f} MB/s"
    )
