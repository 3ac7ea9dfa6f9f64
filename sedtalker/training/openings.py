"""How far mouths open that were never measured: `python -m sedtalker.training.openings STORE --teacher TALKER`.

Rules say when lips close and touch, and little about how far they part in between; a talker that saw speech of
measured faces alone (and sounds at which nobody speaks) knows that, and what it knows carries over to other voices.
Its openings, without emotion, are kept as `STORE/openings/ID.npy` (T,) float16, and written into the clips of made
motion (`clips/ID.npz`) where nothing else holds the opening: training and validation read them from there. A clip's own
array `opening` says that this was done; the manifest's `openings` says it of all clips. A run that was stopped goes on.
To have the rules' openings again, make the store again.

A teacher may look further ahead than the talker: `configs/talker/default-teacher.yaml`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from sedtalker.corpora.motion_store import with_opening
from sedtalker.corpora.synthesize import CLOSE, JAW, held_track
from sedtalker.emotion.labels import LABELS, NEUTRAL
from sedtalker.files import written_whole
from sedtalker.talker.model import TalkerModel, load_talker_model
from sedtalker.training.talker_data import OPENINGS, ClipInfo, read_arrays, read_rig_manifest, require_features

KNOWN = ("grid", "facegood", "foreign")  # sources, and those that begin like them, whose openings need no teacher


def write_openings(root: Path, teacher: TalkerModel) -> list[ClipInfo]:
    """Write a teacher's openings into a store's clips of made motion, but for those of the test split.

    Openings that are there already stay.

    Raises:
        DataError: no such store, or its features are missing.
    """
    clips, _ = read_rig_manifest(root)
    made = [clip for clip in clips if clip.split != "test" and not clip.source.startswith(KNOWN)]
    require_features(root, [clip.id for clip in made])
    for clip in tqdm(made, desc=f"openings -> {root / OPENINGS}", unit="clip"):
        kept = root / OPENINGS / f"{clip.id}.npy"
        if not kept.exists():
            features = np.load(root / "features" / f"{clip.id}.npy", allow_pickle=False)
            with written_whole(kept) as aside:
                np.save(aside, opening(teacher, torch.from_numpy(features).float()).astype(np.float16))
        _apply(root, clip, np.load(kept, allow_pickle=False))
    manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
    with written_whole(root / "manifest.json") as aside:
        aside.write_text(json.dumps(manifest | {OPENINGS: True}, indent=1), encoding="utf-8")
    return made


def _apply(root: Path, clip: ClipInfo, parted: NDArray[np.float16]) -> None:
    """Write an opening (T,) into a clip, once: the trust that says where it belongs changes with it."""
    arrays = read_arrays(root, clip.id)
    if "opening" not in arrays:
        with written_whole(root / "clips" / f"{clip.id}.npz") as aside:
            changed: dict[str, Any] = {**with_opening(arrays, parted), "opening": parted}
            np.savez_compressed(aside, **changed)


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
