"""Weights between two trainings: `python -m sedtalker.training.average FIRST SECOND --share 0.5 -o FOLDER`.

Where the second training went on from the first, what lies between them often keeps what each is good at.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from sedtalker.corpora.manifest import load_manifest
from sedtalker.emotion.diarizer import Diarizer, load_diarizer, save_diarizer
from sedtalker.errors import DataError
from sedtalker.training.diarizer import calibrated
from sedtalker.training.emotional_mixes import Clip


def averaged(first: Diarizer, second: Diarizer, share: float) -> Diarizer:
    """The diarizer with `share` of the second's weights and the rest of the first's; its temperature is 1.

    Raises:
        DataError: the two differ in more than their temperature.
    """
    config = replace(first.config, temperature=1.0)
    if replace(second.config, temperature=1.0) != config:
        raise DataError("diarizers of different sizes or labels cannot be averaged. Train both with one `model`")
    between, other = Diarizer(config), second.state_dict()
    between.load_state_dict({name: x + share * (other[name] - x) for name, x in first.state_dict().items()})
    return between.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="of the second")
    parser.add_argument("--manifest", type=Path, required=True, help="its validation speakers set the temperature")
    parser.add_argument("--features", type=Path, required=True, help="their cached features")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    between = averaged(load_diarizer(arguments.first), load_diarizer(arguments.second), arguments.share)
    # Plain reading is too easy to calibrate by: only corpora with emotions that the labels cover count.
    heard = set(between.config.labels) - set(between.config.absent)
    manifest, spoken = load_manifest(arguments.manifest), dict[str, set[str]]()
    for item in manifest:
        spoken.setdefault(item.corpus, set()).add(item.emotion)
    held_out = [
        item for item in manifest.select("validation") if len(spoken[item.corpus]) > 1 and spoken[item.corpus] <= heard
    ]
    save_diarizer(calibrated(between, [Clip(item, [arguments.features]) for item in held_out]), arguments.output)


if __name__ == "__main__":
    main()
