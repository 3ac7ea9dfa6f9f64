"""Polish spelling -> ARPAbet: the nearest English phones, for forced alignment with an English model.

Letters are matched from the left, the longest group first. Sounds that English lacks become
similar ones: both series of sibilants are SH, ZH, CH, JH, nasal vowels are a vowel with a nasal consonant. Devoicing is
ignored, because it does not change the lips.
"""

from __future__ import annotations

VOWELS = frozenset("aeiouy\u0105\u0119\u00f3")

GROUPS: dict[str, str] = {
    "dzi": "JH", "dz": "D Z", "d\u017a": "JH", "d\u017c": "JH", "ch": "HH", "cz": "CH", "sz": "SH", "rz": "ZH",
    "ci": "CH", "si": "SH", "zi": "ZH", "ni": "N Y", "\u0105": "AO N", "\u0119": "EH N", "\u00f3": "UW", "\u0142": "W",
    "\u015b": "SH", "\u0107": "CH", "\u0144": "N Y", "\u017a": "ZH", "\u017c": "ZH",
    "a": "AA", "b": "B", "c": "T S", "d": "D", "e": "EH", "f": "F", "g": "G", "h": "HH", "i": "IY", "j": "Y", "k": "K",
    "l": "L", "m": "M", "n": "N", "o": "AO", "p": "P", "q": "K", "r": "R", "s": "S", "t": "T", "u": "UW", "v": "V",
    "w": "V", "x": "K S", "y": "IH", "z": "Z",
}  # fmt: skip

LONGEST = max(map(len, GROUPS))


def polish_phones(word: str) -> list[str]:
    """ARPAbet phones of a lower-case Polish word; letters that Polish does not have are ignored."""
    phones: list[str] = []
    place = 0
    while place < len(word):
        group = next(
            (word[place : place + n] for n in range(LONGEST, 0, -1) if word[place : place + n] in GROUPS), None
        )
        if group is None:
            place += 1
            continue
        phones += GROUPS[group].split()
        place += len(group)
        before_vowel = place < len(word) and word[place] in VOWELS
        if len(group) > 1 and group.endswith("i") and not before_vowel:
            phones += ["IY"]  # before a consonant the letter softens the group and is also a vowel
    return phones
