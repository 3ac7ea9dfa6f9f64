"""`sedtalker verify`: what files state about their origin, and whether that is intact."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from sedtalker.cli.each_file import process_each
from sedtalker.cli.options import any_path


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "verify",
        parents=[common],
        help="files -> their provenance: intact, altered or none",
        description=__doc__,
        epilog="exit code: 0 if every file is intact, else 1",
    )
    parser.add_argument("files", nargs="+", type=any_path, metavar="FILE", help="video, picture, .glb or .html file")
    parser.add_argument("--json", action="store_true", help="print JSON: a list with an object for each file")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one line for each file and one for each finding."""
    from sedtalker.provenance.verify import INTACT, verify_file

    found = []

    def verify(path: Path) -> None:
        one = verify_file(path)
        found.append(one)
        if not arguments.json:
            print(f"{one.file}: {one.status}")
            for note in one.notes:
                print(f"  {note}")
            for line in _describe_record(one.record):
                print(f"  {line}")

    failed = process_each(arguments.files, verify)
    if arguments.json:
        print(json.dumps([one.plain() for one in found], indent=2))
    return 1 if failed or any(one.status != INTACT for one in found) else 0


def _describe_record(record: dict[str, Any] | None) -> list[str]:
    if record is None:
        return []
    models = record.get("models") or {}
    named = [f"{kind} {one.get('name')} {(one.get('sha256') or '?')[:12]}" for kind, one in models.items()]
    return [
        f"{record.get('tool')} {record.get('version')}, {record.get('digital_source_type')}",
        f"models: {', '.join(named)}; sound: {(record.get('audio_sha256') or 'unknown')[:12]}; {record.get('face')}; "
        f"mark: {record.get('mark')}",
    ]
