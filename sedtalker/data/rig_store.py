"""Training store of rig clips: speech with ARKit weights, as the talker is trained and evaluated on. Format version 1.

    STORE/manifest.json   version, frame_rate (50), names (52 ARKit blendshapes), clips: the fields of `RigClip`;
                          openings: true once every clip animated by rules has a pseudo-labelled jaw opening
    STORE/clips/ID.npz    float16: weights, trust, expression (T, 52), posterior (T, C), intensity, closed (T,) and,
                          where the lips were pseudo-labelled, opening (T, 2). `trust` holds `RigArrays.loss_weight`
    STORE/features/ID.npy (T, L, D) float16 hidden states of the speech encoder (`sedtalker.data.features`)
    STORE/features-MS/    the same with a look-ahead of MS milliseconds, for an encoder whose look-ahead can be chosen;
                          `features` then has the longest one
    STORE/openings/ID.npy (T, 2) float16 lip gap and widening in mm of the pseudo-labelling teacher, before they are
                          applied to clips
    STORE/phones.tsv      phones of the clips that were aligned (`sedtalker.data.alignment`)

This module holds the only writer and the only reader of manifest and clips.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from sedtalker.errors import DataError, reason_of
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.files import atomic_write
from sedtalker.mel import FRAME_RATE

VERSION = 1
FEATURES = "features"  # folder of the features, and with a suffix of those with other look-aheads
OPENINGS = "openings"  # folder of the teacher's openings, and the manifest's mark that every clip has its own
STORED_NAMES = {"loss_weight": "trust"}  # array -> its key in the .npz, where the two differ

Array = NDArray[np.floating]


@dataclass(frozen=True)
class RigClip:
    """One entry of the manifest."""

    id: str  # also the name of its files
    audio: str  # path of the recording
    speaker: str
    source: str  # tts, grid, facegood or an acted corpus; any of these with the suffix -voices; foreign
    split: str  # train, validation or test
    language: str
    frames: int = 0  # of 20 ms


@dataclass(frozen=True)
class RigArrays:
    """Targets of one clip."""

    weights: Array  # (T, 52), the pose to learn
    loss_weight: Array  # (T, 52), weight of each channel in the loss, 0 where the pose is unknown
    expression: Array  # (T, 52), the part of `weights` that the emotion adds
    posterior: Array  # (T, C) emotion posterior
    intensity: Array  # (T,) in 0..1
    closed: Array  # (T,), weight of closed lips in the loss
    opening: Array | None = None  # (T, 2), pseudo-labelled lip gap and widening in mm, if any


@dataclass(frozen=True)
class RigManifest:
    """Contents of `manifest.json`."""

    clips: list[RigClip]
    openings_applied: bool  # whether every clip animated by rules has its pseudo-labelled opening


def write_rig_store(root: Path, clips: Iterable[tuple[RigClip, RigArrays]]) -> list[RigClip]:
    """Write clips and their manifest; returns the clips with their lengths. Features are a separate step."""
    written = []
    for clip, arrays in tqdm(clips, desc=f"store -> {root}", unit="clip"):
        write_arrays(root, clip.id, arrays)
        written.append(replace(clip, frames=len(arrays.weights)))
    _write_manifest(root, RigManifest(written, openings_applied=False))
    return written


def write_arrays(root: Path, clip_id: str, arrays: RigArrays) -> None:
    """Write `clips/ID.npz` as float16."""
    stored = {STORED_NAMES.get(name, name): array for name, array in vars(arrays).items() if array is not None}
    with atomic_write(root / "clips" / f"{clip_id}.npz") as temp_path:
        np.savez_compressed(temp_path, **{name: array.astype(np.float16) for name, array in stored.items()})


def mark_openings_applied(root: Path) -> None:
    """Record in the manifest that every clip animated by rules has its pseudo-labelled opening.

    Raises:
        DataError: `root` is not a rig store.
    """
    _write_manifest(root, replace(read_rig_manifest(root), openings_applied=True))


def _write_manifest(root: Path, manifest: RigManifest) -> None:
    document = {
        "version": VERSION,
        "frame_rate": FRAME_RATE,
        "names": list(ARKIT_NAMES),
        "clips": [asdict(clip) | {"audio": _stored_path(clip.audio, root)} for clip in manifest.clips],
    }
    if manifest.openings_applied:
        document[OPENINGS] = True
    with atomic_write(root / "manifest.json") as temp_path:
        temp_path.write_text(json.dumps(document, indent=1), encoding="utf-8")


def _stored_path(audio: str, root: Path) -> str:
    """Path of a recording relative to the store if it is inside it, otherwise absolute."""
    path, store = Path(audio).resolve(), root.resolve()
    return path.relative_to(store).as_posix() if path.is_relative_to(store) else str(path)


def read_rig_manifest(root: Path) -> RigManifest:
    """Read the manifest; the clips have usable paths of their recordings.

    Raises:
        DataError: `root` is not a rig store, or has other blendshapes, another frame rate or another version.
    """
    path = root / "manifest.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        version, names, rate = document["version"], tuple(document["names"]), document["frame_rate"]
        clips = [RigClip(**entry | {"audio": str(root / entry["audio"])}) for entry in document["clips"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"not a rig store: {root} ({reason_of(error)}). Make one with: sedtalker data synthesize --to store"
        ) from error
    if version != VERSION:
        raise DataError(
            f"rig store of version {version}: {path}. This sedtalker reads version {VERSION}; make it again"
        )
    if names != ARKIT_NAMES or rate != FRAME_RATE:
        raise DataError(f"other blendshapes or another frame rate: {path}. Use {FRAME_RATE} Hz and ARKit's order")
    return RigManifest(clips, bool(document.get(OPENINGS, False)))


def read_arrays(root: Path, clip_id: str) -> RigArrays:
    """Read `clips/ID.npz`, float16. Raises DataError if the file is missing, damaged, or lacks an array."""
    path = root / "clips" / f"{clip_id}.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            keys = {field.name: STORED_NAMES.get(field.name, field.name) for field in fields(RigArrays)}
            arrays = {name: stored[key] for name, key in keys.items() if key in stored.files}
        return RigArrays(**arrays)
    except TypeError as error:
        missing = next(key for name, key in keys.items() if name not in arrays)
        raise DataError(f"clip without {missing!r}: {path}. Make the store again") from error
    except (OSError, ValueError, BadZipFile) as error:
        raise DataError(f"clip cannot be read: {path} ({reason_of(error)}). Make the store again") from error


def feature_folders(root: Path) -> list[str]:
    """Names of the folders of features of a store, `features` first, then those of shorter look-aheads."""
    return [FEATURES, *sorted(path.name for path in root.glob(f"{FEATURES}-*") if path.is_dir())]


def features_folder(look_ahead: int | None = None) -> str:
    """Name of the folder of features with a look-ahead in ms; of the longest, or only, one by default."""
    return FEATURES if look_ahead is None else f"{FEATURES}-{look_ahead}"


def features_path(root: Path, clip_id: str, folder: str = FEATURES) -> Path:
    """Path of the cached speech features of a clip."""
    return root / folder / f"{clip_id}.npy"


def read_features(root: Path, clip_id: str, start: int = 0, stop: int | None = None, folder: str = FEATURES) -> Tensor:
    """Frames start..stop of a clip's features (T, L, D) float16; only these are read from the disk."""
    stored = np.load(features_path(root, clip_id, folder), mmap_mode="r", allow_pickle=False)
    return torch.from_numpy(np.array(stored[start:stop]))


def require_features(root: Path, clip_ids: Sequence[str], folder: str = FEATURES) -> None:
    """Check that every clip has features. Raises DataError if a clip lacks them."""
    missing = [clip_id for clip_id in clip_ids if not features_path(root, clip_id, folder).is_file()]
    if missing:
        raise DataError(
            f"no features of {missing[0]} and {len(missing) - 1} more of {len(clip_ids)} clips: {root / folder}. "
            f"Compute them: python -m sedtalker.recipes cache_features {root / 'manifest.json'} -o {root / folder}"
        )
