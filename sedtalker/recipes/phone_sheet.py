"""Close-ups of a talker's mouth by phone: six examples of each of twelve phones.

    python -m sedtalker.recipes phone_sheet MODEL STORE -o SHEET.webp

The examples are the middles of phones in validation clips of a rig store whose phones are known (STORE/phones.tsv).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from sedtalker.data.rig_store import RigClip, read_features, read_rig_manifest
from sedtalker.emotion.track import constant_track
from sedtalker.errors import DataError
from sedtalker.face.assets import load_face
from sedtalker.face.rig import Face
from sedtalker.files import atomic_write
from sedtalker.labels import LABELS, NEUTRAL
from sedtalker.mel import FRAME_RATE
from sedtalker.phones import Phone, read_phones
from sedtalker.render.camera import Camera
from sedtalker.render.soft import SoftRenderer
from sedtalker.render.views import grid
from sedtalker.talker.model import TalkerModel, load_talker_model

ROWS = ("B", "F", "TH", "W", "R", "SH", "S", "L", "IY", "UW", "OW", "AA")
EXAMPLES, COLUMNS, SIDE = 6, 12, 132  # SIDE in pixels
SHORTEST = 0.06  # seconds of a phone
MADE = ("grid", "tts", "crema-d")  # sources without converted voices


def mouth_camera(face: Face) -> Camera:
    """Return a camera that shows the lower face."""
    assert face.lip_pairs is not None
    x, y, z = face.template[np.ravel(face.lip_pairs)].mean(axis=0).tolist()
    return Camera(target=(x, y - 0.008, z - 0.01), distance=0.5, field_of_view=11.0)


def find_examples(
    clips: Sequence[RigClip], phones: Mapping[str, Sequence[Phone]], seed: int = 0
) -> dict[str, list[tuple[str, Phone]]]:
    """Return up to EXAMPLES (clip id, phone) for each of ROWS, at most one from a clip."""
    found: dict[str, list[tuple[str, Phone]]] = {name: [] for name in ROWS}
    for index in np.random.default_rng(seed).permutation(len(clips)):
        clip = clips[index]
        for phone in phones[clip.id]:
            if len(found.get(phone.name, ROWS)) < EXAMPLES and phone.end - phone.start >= SHORTEST:
                found[phone.name].append((clip.id, phone))
                break
    return found


def phone_sheet(model: TalkerModel, store: Path) -> NDArray[np.uint8]:
    """Draw the sheet.

    Raises:
        DataError: the store cannot be read, or no validation clip of it has phones.
    """
    phones = {name.replace("/", "_"): found for name, found in read_phones(store / "phones.tsv").items()}
    clips = [
        clip
        for clip in read_rig_manifest(store).clips
        if clip.split == "validation" and clip.source in MADE and clip.id in phones
    ]
    if not clips:
        raise DataError(f"no validation clips with phones: {store}. Use a store with phones.tsv")
    face = load_face()
    renderer = SoftRenderer(face, SIDE, SIDE, camera=mouth_camera(face))

    def pictures() -> Iterator[tuple[NDArray[np.uint8], str]]:
        for name, examples in find_examples(clips, phones).items():
            for clip_id, phone in examples:
                weights = _neutral_weights(model, read_features(store, clip_id).float())
                frame = min(len(weights) - 1, int((phone.start + phone.end) / 2 * FRAME_RATE))
                yield renderer.frame(face.pose(weights[frame])), f"/{name.lower()}/ {phone.word}"
            for _ in range(EXAMPLES - len(examples)):
                yield np.zeros((SIDE, SIDE, 3), np.uint8), ""

    drawn, labels = zip(*pictures(), strict=True)
    return grid(list(drawn), COLUMNS, list(labels))


@torch.inference_mode()
def _neutral_weights(model: TalkerModel, features: torch.Tensor) -> NDArray[np.float32]:
    posterior, intensity = map(torch.from_numpy, constant_track(LABELS[NEUTRAL], 0.0, len(features)))
    return model(features[None], posterior[None], intensity[None])[0].clamp(0, 1).numpy()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe's arguments."""
    parser.add_argument("model", type=Path, help="folder of a talker")
    parser.add_argument("store", type=Path, help="rig store with phones.tsv")
    parser.add_argument("-o", "--output", type=Path, required=True, help="picture, .webp or .png")


def run(arguments: argparse.Namespace) -> None:
    """Run the recipe."""
    sheet = phone_sheet(load_talker_model(arguments.model), arguments.store)
    with atomic_write(arguments.output) as temp_path:
        Image.fromarray(sheet).save(temp_path, format=arguments.output.suffix[1:], quality=80)
    print(arguments.output)
