"""Speech features of a store: once a sound, whatever the number of its variants; held to what a talker reads."""

from __future__ import annotations

import json
from pathlib import Path

from sedtalker.data.features import cache_features
from sedtalker.data.vertex_store import Store
from sedtalker.errors import DataError
from sedtalker.files import atomic_write
from sedtalker.speech import DEFAULT_ENCODER, load_encoder
from sedtalker.talker.model import TalkerConfig

RECORD = "encoder.json"  # beside the features: whose they are


def cache_store_features(store: Store, encoder: str = DEFAULT_ENCODER) -> int:
    """Write `features/KEY.npy` (T, L, D) at 50 Hz for every sound that lacks it; returns the number of sounds.

    Raises:
        DataError: features of another encoder stand there, or a sound cannot be read.
        CheckpointError: there is no such encoder.
    """
    folder = store.root / "features"
    record = folder / RECORD
    if record.is_file() and (earlier := json.loads(record.read_text(encoding="utf-8"))["encoder"]) != encoder:
        raise DataError(
            f"the folder has features of {earlier}, not of {encoder}: {folder}. Delete it, or use --encoder {earlier}"
        )
    with atomic_write(record) as temp_path:
        temp_path.write_text(json.dumps({"encoder": encoder}) + "\n", encoding="utf-8")
    sounds = {clip.audio: store.sound(clip) for clip in store}
    cache_features(sorted(sounds.items()), folder, load_encoder(encoder).encode)
    return len(sounds)


def check_features(model: TalkerConfig, store: Path, layers: int, width: int) -> None:
    """Refuse a store's features, `layers` hidden states of `width` each, where a talker reads others.

    Raises:
        DataError: they are of another encoder, or of other sizes.
    """
    record = store / "features" / RECORD
    encoder = json.loads(record.read_text(encoding="utf-8"))["encoder"] if record.is_file() else model.encoder
    if (encoder, layers, width) != (model.encoder, model.layers, model.feature_width):
        raise DataError(
            f"features of {encoder} ({layers} layers of {width}) for a talker that reads {model.encoder} "
            f"({model.layers} of {model.feature_width}): {store}. Prepare with --encoder {model.encoder} or train with "
            f"model.encoder={encoder} model.layers={layers} model.feature_width={width}"
        )
