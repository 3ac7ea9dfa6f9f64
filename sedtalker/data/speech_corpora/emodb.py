"""EmoDB (Burkhardt et al. 2005), German: `wav/03a01Wa.wav` = speaker, text, emotion, take. Boredom has no label
here.
"""

from __future__ import annotations

import os
import re

from sedtalker.data.manifest import Manifest, SkipCounter, Utterance, audio_files, finish

EMOTIONS = {"W": "angry", "E": "disgust", "A": "fear", "F": "happy", "T": "sad", "N": "neutral"}
WOMEN = frozenset({"08", "09", "13", "14", "16"})
_NAME = re.compile(r"(?P<speaker>\d\d)(?P<text>[ab]\d\d)(?P<emotion>[WLEAFTN])(?P<take>[a-f])")
TEXTS = {
    "a01": "Der Lappen liegt auf dem Eisschrank.", "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.", "a07": "In sieben Stunden wird es soweit sein.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}  # fmt: skip


def read_emodb(folder: str | os.PathLike[str]) -> Manifest:
    """Read EmoDB."""
    skipped = SkipCounter()
    utterances = []
    for path in audio_files(folder):
        match = _NAME.fullmatch(path.stem)
        if match is None:
            skipped.skip("not an EmoDB name")
            continue
        emotion = EMOTIONS.get(match["emotion"])
        if emotion is None:
            skipped.skip("an emotion without a label (boredom)")
            continue
        utterances.append(
            Utterance(
                id=f"emodb/{path.stem}",
                path=str(path.relative_to(folder)),
                corpus="emodb",
                speaker=f"emodb-{match['speaker']}",
                gender="female" if match["speaker"] in WOMEN else "male",
                language="de",
                emotion=emotion,
                intensity=0.0 if emotion == "neutral" else None,
                transcript=TEXTS.get(match["text"], ""),
            )
        )
    return finish(folder, utterances, skipped)
