"""Forced alignment of a recording with its words by pocketsphinx:
`python -m sedtalker.recipes align MANIFEST -o phones.tsv`.

Times are multiples of 10 ms. Phones are ARPAbet without stress (CMUdict's), `SIL` for silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sedtalker.audio import load_audio
from sedtalker.data.manifest import Utterance
from sedtalker.data.polish import polish_phones
from sedtalker.errors import DataError, require
from sedtalker.phones import SILENCE, Phone

ALIGNER_RATE = 100  # frames a second


class Aligner:
    """Finds the times of the phones of a known text in a recording."""

    def __init__(self) -> None:
        pocketsphinx = require("pocketsphinx", "align")
        # The second and third pass fail on emotional speech far more often than the first, which is all we need.
        self.decoder = pocketsphinx.Decoder(lm=None, fwdflat=False, bestpath=False, loglevel="FATAL")

    def align(self, samples: NDArray[np.float32], transcript: str, language: str = "en") -> tuple[Phone, ...] | None:
        """Phones of 16 kHz samples (N,) with a known transcript; None if the aligner finds no path through the text.

        Polish ("pl") is converted to English phones by rules (`sedtalker.data.polish`).

        Raises:
            DataError: a word is not in the pronouncing dictionary.
        """
        words = self._polish(transcript) if language == "pl" else _words(transcript)
        unknown = [word for word in words if self.decoder.lookup_word(word) is None]
        if unknown:
            raise DataError(f"words without a known pronunciation: {', '.join(unknown)}. Spell them out")
        sound = (np.clip(samples, -1, 1) * 32767).astype(np.int16).tobytes()
        self.decoder.set_align_text(" ".join(words))
        if not self._pass_over(sound) or self.decoder.hyp() is None:
            return None
        self.decoder.set_alignment()  # the second pass divides the words of the first into phones
        if not self._pass_over(sound):
            return None
        alignment = self.decoder.get_alignment()
        return tuple(_phones(alignment)) if alignment else None

    def _polish(self, transcript: str) -> list[str]:
        words = re.findall(r"[^\W\d_]+", transcript.lower())
        for word in words:
            if self.decoder.lookup_word(word) is None:
                self.decoder.add_word(word, " ".join(polish_phones(word)), True)
        return words

    def _pass_over(self, sound: bytes) -> bool:
        try:
            self.decoder.start_utt()
            self.decoder.process_raw(sound, full_utt=True)
            self.decoder.end_utt()
        except RuntimeError:  # "Failed to stop utterance processing": the search died
            return False
        return True


def _words(transcript: str) -> list[str]:
    return re.findall(r"[a-z']+", transcript.lower().replace("\u2019", "'"))


def _phones(alignment: Any) -> Iterator[Phone]:
    for word in alignment:
        for phone in word:
            spoken = phone.name.isalpha() and phone.name != SILENCE  # fillers are named like +NSN+
            name = phone.name if spoken else SILENCE
            start = phone.start / ALIGNER_RATE
            # A word with several pronunciations is named "a(2)".
            yield Phone(word.name.split("(")[0], name, start, (phone.start + phone.duration) / ALIGNER_RATE)


def align_corpus(root: Path, utterances: Iterable[Utterance]) -> tuple[dict[str, tuple[Phone, ...]], list[str]]:
    """Phones of every utterance that aligns, and the ids of those that do not."""
    aligner, aligned, failed = Aligner(), {}, []
    for utterance in tqdm(list(utterances), desc="align", unit="clip"):
        try:
            phones = aligner.align(load_audio(root / utterance.path), utterance.transcript, utterance.language)
        except DataError as error:
            tqdm.write(f"{utterance.id}: {error}")
            phones = None
        if phones is None:
            failed.append(utterance.id)
        else:
            aligned[utterance.id] = phones
    return aligned, failed
