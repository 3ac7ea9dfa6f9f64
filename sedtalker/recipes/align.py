"""Align the words of a corpus to its recordings: phones with times, by pocketsphinx."""

from __future__ import annotations

import argparse
from pathlib import Path

from sedtalker.data.alignment import align_corpus
from sedtalker.data.manifest import load_manifest
from sedtalker.phones import write_phones


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path, help="manifest of speech corpora with transcripts")
    parser.add_argument("-o", "--output", type=Path, required=True, help="table of phones (.tsv)")
    parser.add_argument("--corpus", help="only the utterances of this corpus")
    parser.add_argument("--every", type=int, default=1, help="only every Nth utterance of it")


def run(arguments: argparse.Namespace) -> None:
    manifest = load_manifest(arguments.manifest)
    utterances = [item for item in manifest if arguments.corpus in (None, item.corpus) and item.transcript]
    aligned, failed = align_corpus(Path(manifest.root), utterances[:: arguments.every])
    write_phones(arguments.output, aligned)
    print(f"{len(aligned)} aligned, {len(failed)} not; {arguments.output}")
