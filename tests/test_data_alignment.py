"""Forced alignment of known texts, and Polish spelling as phones."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from sedtalker.audio import load_audio
from sedtalker.data.alignment import Aligner
from sedtalker.data.polish import polish_phones
from sedtalker.errors import DataError

SPEECH = Path(__file__).parent / "data" / "1001_IEO_ANG_HI.opus"  # "It's eleven o'clock."


def test_a_known_sentence_is_aligned():
    pytest.importorskip("pocketsphinx")
    samples = load_audio(SPEECH)
    phones = Aligner().align(samples, "It's eleven o'clock.")
    assert phones is not None
    spoken = [phone.name for phone in phones if phone.name != "SIL"]
    assert spoken[-4:] == ["K", "L", "AA", "K"]
    assert all(a.end <= b.start + 0.011 for a, b in pairwise(phones))
    assert phones[-1].end <= len(samples) / 16_000 + 0.02


def test_an_unknown_word_is_an_error_that_names_it():
    pytest.importorskip("pocketsphinx")
    with pytest.raises(DataError, match="zzxqj"):
        Aligner().align(load_audio(SPEECH), "it's zzxqj")


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("szczęście", "SH CH EH N SH CH EH"),
        ("próba", "P R UW B AA"),
        ("zima", "ZH IY M AA"),
        ("niebo", "N Y EH B AO"),
        ("dźwięki", "JH V IY EH N K IY"),
    ],
)
def test_polish_spelling_becomes_phones(word: str, phones: str):
    assert " ".join(polish_phones(word)) == phones
