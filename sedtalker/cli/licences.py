"""`sedtalker licences`: the licences of code, weights, data, faces and sound."""

from __future__ import annotations

import argparse
import json
import textwrap
from typing import Any


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "licences",
        aliases=["licenses"],
        parents=[common],
        help="licences of code, weights, data, faces and sound",
        description=__doc__,
    )
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the table in `assets/licences.json`."""
    from sedtalker.resources import asset

    text = asset("licences.json").read_text(encoding="utf-8")
    if arguments.json:
        print(text, end="")
        return 0
    for entry in json.loads(text):
        print(f"{entry['name']}  [{entry['kind']}]")
        print(f"  {entry['licence']}; commercial use: {entry['commercial']}")
        print(textwrap.fill(f"{entry['source']}. {entry['note']}", 100, initial_indent="  ", subsequent_indent="  "))
    return 0
