"""Speech features of a vertex store: once a sound, whatever the number of its variants."""

from __future__ import annotations

import json

from sedtalker.corpora.store import Store
from sedtalker.errors import DataError
from sedtalker.files import written_whole
from sedtalker.speech import DEFAULT_ENCODER, load_encoder
from sedtalker.training.features import cache_features


def cache_store_features(store: Store, encoder: str = DEFAULT_ENCODER) -> int:
    """Write `features/KEY.npy` (T, L, D) at 50 Hz for every sound that lacks it; returns the number of sounds.

    Raises:
        DataError: features of another encoder stand there, or a sound cannot be read.
        CheckpointError: there is no such encoder.
    """
    folder = store.root / "features"
    record = folder / "encoder.json"
    if record.is_file() and (earlier := json.loads(record.read_text(encoding="utf-8"))["encoder"]) != encoder:
        raise DataError(f"features of {earlier} stand in {folder}, not of {encoder}. Delete the folder, or keep to it")
    with written_whole(record) as aside:
        aside.write_text(json.dumps({"encoder": encoder}) + "\n", encoding="utf-8")
    sounds = {clip.audio: store.sound(clip) for clip in store}
    unreadable = cache_features(sorted(sounds.items()), folder, load_encoder(encoder))
    if unreadable:
        raise DataError(
            f"no features of {unreadable[0]} and {len(unreadable) - 1} more: {store.root}. Prepare it again"
        )
    return len(sounds)
