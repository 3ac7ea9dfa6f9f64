"""How far mouths open that were never measured: `python -m sedtalker.training.openings STORE --teacher TALKER`.

Rules say when lips close and touch, and little about how far they part in between; a talker that saw speech of
measured faces alone (and sounds at which nobody speaks) knows that, and what it knows carries over to other voices.
Its openings, without emotion, are written beside the clips of made motion as `STORE/openings/ID.npy` (T,) float16.
From then on `sedtalker.training.talker_data` takes them where nothing else holds the opening, in training and in the
validation that chooses among its steps. Remove the folder to have the rules' openings again.

A teacher may look further ahead than the talker: `configs/talker/default-teacher.yaml`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from sedtalker.corpora.synthesize import CLOSE, JAW, held_track
from sedtalker.emotion.labels import LABELS, NEUTRAL
from sedtalker.files import written_whole
from sedtalker.talker.model import TalkerModel, load_talker_model
from sedtalker.training.talker_data import ClipInfo, RigStore, forget_clips

KNOWN = ("grid", "facegood", "foreign")  # sources, and those that begin like them, whose openings need no teacher


def write_openings(root: Path, teacher: TalkerModel) -> list[ClipInfo]:
    """Write the openings of a store's clips of made motion, but for those of the test split; what is there stays.

    Raises:
        DataError: no such store, or its features are missing.
    """
    made = [clip for clip in RigStore(root).clips if clip.split != "test" and not clip.source.startswith(KNOWN)]
    for clip in tqdm(made, desc=f"openings -> {root / 'openings'}", unit="clip"):
        target = root / "openings" / f"{clip.id}.npy"
        if not target.exists():
            features = np.load(root / "features" / f"{clip.id}.npy", allow_pickle=False)
            with written_whole(target) as aside:
                np.save(aside, opening(teacher, torch.from_numpy(features).float()).astype(np.float16))
    forget_clips()
    return made


@torch.inference_mode()
def opening(teacher: TalkerModel, features: torch.Tensor) -> NDArray[np.float32]:
    """How far the lips part (T,) in speech with features (T, L, D), said without emotion; in units of jawOpen."""
    posterior, intensity = map(torch.from_numpy, held_track(LABELS[NEUTRAL], 0.0, len(features)))
    weights = teacher(features[None], posterior[None], intensity[None])[0].clamp(0, 1)
    return (weights[:, JAW] - weights[:, CLOSE]).clamp(min=0).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--teacher", type=Path, required=True, help="folder of a trained talker")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    made = write_openings(arguments.store, load_talker_model(arguments.teacher))
    print(f"{arguments.store / 'openings'}: {len(made)} clips")


if __name__ == "__main__":
    main()
