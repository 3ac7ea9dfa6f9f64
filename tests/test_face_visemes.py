"""Phones, visemes, and the division of an opening between jaw and lips."""

from __future__ import annotations

import numpy as np
import pytest

from sedtalker.face.arkit import ARKIT_NAMES, arkit_columns
from sedtalker.face.visemes import (
    BILABIALS,
    PHONES,
    SHAPE_CHANNELS,
    VISEMES,
    shape_targets,
    split_opening,
)

# CMUdict's 39 phones, from its documentation.
CMUDICT = {
    "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH", "IH", "IY", "JH", "K",
    "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH",
}  # fmt: skip


def test_every_arpabet_phone_has_visemes_that_exist():
    assert set(PHONES) == {*CMUDICT, "SIL"}
    assert {viseme for visemes in PHONES.values() for viseme in visemes} == set(VISEMES)


def test_only_diphthongs_have_two_visemes():
    assert {phone for phone, visemes in PHONES.items() if len(visemes) == 2} == {"AW", "AY", "EY", "OW", "OY"}


def test_bilabials_are_closed_and_low_vowels_open_most():
    assert all(VISEMES[PHONES[phone][0]].opening == 0 for phone in BILABIALS)
    opening = {name: viseme.opening for name, viseme in VISEMES.items()}
    assert max(opening, key=opening.get) == "aa"
    assert opening["uw"] < opening["ow"] < opening["aa"]


def test_rounded_phones_pucker_and_do_not_spread():
    for name in ("uw", "ow", "w"):
        shape = dict(zip(SHAPE_CHANNELS, shape_targets(VISEMES[name]), strict=True))
        assert shape["mouthPucker"] > max(0.6, 3 * shape["mouthStretch"])  # a little stretch keeps the width
        assert shape["mouthSmile"] == 0


@pytest.mark.parametrize("name", SHAPE_CHANNELS)
def test_columns_are_those_of_one_side_or_both(name: str):
    assert {ARKIT_NAMES[i].removesuffix("Left").removesuffix("Right") for i in arkit_columns(name)} == {name}


def test_mouth_close_cancels_the_jaw():
    opening = np.linspace(0, 0.5, 11).astype(np.float32)
    jaw, close = split_opening(opening, np.ones(11, np.float32))
    np.testing.assert_allclose(jaw - close, opening, atol=1e-6)
    assert jaw[0] == pytest.approx(0.05)  # the jaw stays lowered behind closed lips
    assert (close >= 0).all()


def test_in_silence_both_weights_are_zero():
    jaw, close = split_opening(np.zeros(3, np.float32), np.zeros(3, np.float32))
    assert jaw.tolist() == close.tolist() == [0, 0, 0]
