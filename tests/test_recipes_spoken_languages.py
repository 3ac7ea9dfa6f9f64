"""Phones of synthetic speech: IPA symbols and the events of the synthesizer."""

from __future__ import annotations

import pytest

from sedtalker.recipes.spoken_languages import to_arpabet, to_phones

IPA = {
    "pʲ": "P", "b": "B", "mː": "M", "ˈa": "AA", "õ": "OW", "ɯ": "IY", "tʃ": "T", "β": "T", "_:": "SIL", "ɛ̃": "AH",
}  # fmt: skip


@pytest.mark.parametrize(("symbol", "name"), IPA.items())
def test_ipa_symbols_are_classes_for_lips(symbol: str, name: str) -> None:
    assert to_arpabet(symbol) == name


def test_phones_of_events_cover_the_time_without_gaps() -> None:
    events = [("", 0.0), ("m", 0.1), ("a", 0.2), ("_:", 0.35), ("", 0.4), ("b", 0.5), ("b", 0.5)]
    spans = [(phone.name, phone.start, phone.end) for phone in to_phones(events, 0.6)]
    assert spans == [("SIL", 0, 0.1), ("M", 0.1, 0.2), ("AA", 0.2, 0.35), ("SIL", 0.35, 0.5), ("B", 0.5, 0.6)]
