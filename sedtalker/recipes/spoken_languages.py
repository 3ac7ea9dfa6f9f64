"""Sentences of several languages spoken by espeak-ng, with the time of every phone, to count lip closures.

The sentences are the first article of the Universal Declaration of Human Rights. espeak-ng's library reports each phone
when it synthesizes; IPA is mapped to the ARPAbet symbols that the closure metrics know, all others to `AH` or `T`.

    python -m sedtalker.recipes spoken_languages -o WORK
    sedtalker evaluate live --spoken WORK/pl --phones WORK/pl.tsv       # closures of each setting of the look-ahead
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import unicodedata
import wave
from collections.abc import Sequence
from pathlib import Path

from sedtalker.errors import DataError
from sedtalker.phones import SILENCE, Phone, write_phones

ARTICLE = {
    "en-us": "All human beings are born free and equal in dignity and rights. They are endowed with reason and "
    "conscience and should act towards one another in a spirit of brotherhood.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt "
    "und sollen einander im Geist der Brüderlichkeit begegnen.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y "
    "conciencia, deben comportarse fraternalmente los unos con los otros.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de "
    "conscience et doivent agir les uns envers les autres dans un esprit de fraternité.",
    "it": "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati di ragione e di "
    "coscienza e devono agire gli uni verso gli altri in spirito di fratellanza.",
    "pl": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Są oni obdarzeni rozumem i "
    "sumieniem i powinni postępować wobec innych w duchu braterstwa.",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью и "
    "должны поступать в отношении друг друга в духе братства.",
    "tr": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana sahiptirler ve "
    "birbirlerine karşı kardeşlik zihniyeti ile hareket etmelidirler.",
    "hi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। उन्हें बुद्धि और अन्तरात्मा की देन प्राप्त है "
    "और परस्पर उन्हें भाईचारे के भाव से बर्ताव करना चाहिए।",
    "bn": "সমস্ত মানুষ স্বাধীনভাবে সমান মর্যাদা এবং অধিকার নিয়ে জন্মগ্রহণ করে। তাঁদের বিবেক এবং বুদ্ধি আছে; সুতরাং সকলেরই একে "
    "অপরের প্রতি ভ্রাতৃত্বসুলভ মনোভাব নিয়ে আচরণ করা উচিত।",
    "cmn": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
}  # fmt: skip
"""The article by language, as espeak-ng names them."""
VOICES = (("", 150, 50), ("+m3", 170, 40), ("+f2", 140, 60), ("+f5", 165, 70))  # variant, words a minute, pitch

LABIALS = {"p": "P", "b": "B", "m": "M", "f": "F", "v": "V", "w": "W", "ɱ": "M"}
OPEN = {"a": "AA", "ɑ": "AA", "æ": "AE", "ɐ": "AA"}
ROUND = {"u": "UW", "o": "OW", "ɔ": "AO", "y": "UW", "ø": "UW", "œ": "UW", "ʊ": "UH", "ɒ": "AO", "ɯ": "IY"}
VOWELS = "aɑæɐuoɔyøœʊɒɯeiɪɛəɨɜʌɵ"

RETRIEVAL, PHONEME_EVENTS, PHONEME_IPA = 1, 1, 2  # AUDIO_OUTPUT_RETRIEVAL, espeakINITIALIZE_PHONEME_EVENTS, ..._IPA
EVENT_END, EVENT_PHONE = 0, 7  # espeakEVENT_LIST_TERMINATED, espeakEVENT_PHONEME
UTF8, PITCH, RATE = 1, 3, 1  # espeakCHARS_UTF8, espeakPITCH, espeakRATE


class _Number(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """espeak_EVENT of espeak-ng's speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int), ("unique_identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
        ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p), ("id", _Number),
    )  # fmt: skip


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Synthesizer:
    """espeak-ng's library."""

    def __init__(self) -> None:
        """Raises DataError: the library is missing."""
        name = ctypes.util.find_library("espeak-ng")
        if name is None:
            raise DataError("espeak-ng's library is missing. Install espeak-ng (Debian: apt install libespeak-ng1)")
        self._library = ctypes.CDLL(name)
        self._rate = self._library.espeak_Initialize(RETRIEVAL, 0, None, PHONEME_EVENTS | PHONEME_IPA)
        self._samples, self._events = bytearray(), list[tuple[str, float]]()
        self._callback = _Callback(self._receive)  # kept alive, the library calls it
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples: ctypes._Pointer[ctypes.c_short], count: int, events: ctypes._Pointer[_Event]) -> int:
        if samples and count:
            self._samples += ctypes.string_at(samples, 2 * count)
        number = 0
        while events[number].type != EVENT_END:
            if events[number].type == EVENT_PHONE:
                symbol = events[number].id.string.decode("utf-8", "ignore")
                self._events.append((symbol, events[number].audio_position / 1000))
            number += 1
        return 0

    def speak(self, text: str, language: str, variant: str, rate: int, pitch: int, path: Path) -> list[Phone]:
        """Write the text as WAV, and return its phones.

        Raises:
            DataError: espeak-ng does not speak the language.
        """
        if self._library.espeak_SetVoiceByName((language + variant).encode()) != 0:
            raise DataError(f"espeak-ng has no voice {language}{variant}. Install espeak-ng-data")
        self._library.espeak_SetParameter(RATE, rate, 0)
        self._library.espeak_SetParameter(PITCH, pitch, 0)
        self._samples.clear()
        self._events.clear()
        content = text.encode() + b"\0"
        self._library.espeak_Synth(content, ctypes.c_size_t(len(content)), 0, 0, 0, UTF8, None, None)
        self._library.espeak_Synchronize()
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(self._rate)
            file.writeframes(bytes(self._samples))
        return to_phones(self._events, len(self._samples) / 2 / self._rate)


def to_phones(events: Sequence[tuple[str, float]], duration: float) -> list[Phone]:
    """Phones of IPA symbols and their starts in seconds; consecutive silences are one."""
    phones: list[Phone] = []
    ends = [start for _, start in events[1:]] + [duration]
    for (symbol, start), end in zip(events, ends, strict=True):
        name = to_arpabet(symbol)
        if end <= start:
            continue
        if phones and phones[-1].name == name == SILENCE:
            start = phones.pop().start
        phones.append(Phone("", name, start, end))
    return phones


def to_arpabet(symbol: str) -> str:
    """The class of an IPA symbol for lips: SIL, a labial, an open or rounded vowel, another vowel, or T."""
    letters = [c for c in unicodedata.normalize("NFD", symbol) if unicodedata.category(c).startswith("L")]
    for letter in letters:
        for table in (LABIALS, OPEN, ROUND):
            if letter in table:
                return table[letter]
        if letter in VOWELS:
            return "AH"
        if letter not in "ˈˌːʰʲʷˠˤˑ":
            return "T"
    return SILENCE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the recipe's options."""
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for WAV and tables")
    parser.add_argument("--languages", nargs="+", choices=ARTICLE, default=list(ARTICLE), help="default: all")


def run(arguments: argparse.Namespace) -> int:
    """Synthesize the article in each language and voice."""
    synthesizer = Synthesizer()
    for language in arguments.languages:
        folder = arguments.output / language
        folder.mkdir(parents=True, exist_ok=True)
        spoken = {}
        for variant, rate, pitch in VOICES:
            name = f"{language}{variant.replace('+', '-')}"
            spoken[name] = synthesizer.speak(ARTICLE[language], language, variant, rate, pitch, folder / f"{name}.wav")
        write_phones(arguments.output / f"{language}.tsv", spoken)
        bilabials = sum(phone.name in ("P", "B", "M") for phones in spoken.values() for phone in phones)
        print(f"{language}: {len(spoken)} recordings, {bilabials} of /p b m/")
    return 0
