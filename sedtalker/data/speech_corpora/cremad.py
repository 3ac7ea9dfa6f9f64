"""CREMA-D (Cao et al. 2014), ODbL 1.0: `AudioWAV/1001_IEO_ANG_HI.wav`, `VideoDemographics.csv`,
`processedResults/summaryTable.csv`.

What the actor meant stands in the file's name; what people heard in the sound alone stands in the summary table. Its
votes name only the winner (or the winners of a tie), which share the whole of `perceived`.

Intensity is the acted level where there is one (LO, MD, HI: 1/3, 2/3, 1). Elsewhere it is what was heard: the rated
level of the vote, of which ratings from 30 to 90 span 0 to 1; a clip meant emotionally and heard as neutral gets
`HEARD_NEUTRAL`.
"""

from __future__ import annotations

import os
from pathlib import Path

from sedtalker.data.manifest import Manifest, SkipCounter, Utterance, audio_files, finish
from sedtalker.data.tables import index_rows, match_names, read_table

EMOTIONS = {"NEU": "neutral", "HAP": "happy", "SAD": "sad", "ANG": "angry", "DIS": "disgust", "FEA": "fear"}
VOTES = {"N": "neutral", "H": "happy", "S": "sad", "A": "angry", "D": "disgust", "F": "fear"}
LEVELS = {"LO": 1 / 3, "MD": 2 / 3, "HI": 1.0}
HEARD_NEUTRAL = 0.25
SENTENCES = {
    "IEO": "It's eleven o'clock.", "TIE": "That is exactly what happened.", "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.", "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.", "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.", "ITS": "I think I've seen this before.", "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}  # fmt: skip


def read_cremad(folder: str | os.PathLike[str]) -> Manifest:
    """Read CREMA-D with its listeners' votes."""
    root = Path(folder)
    files = audio_files(folder)
    actors, heard_as = root / "VideoDemographics.csv", root / "processedResults" / "summaryTable.csv"
    people = index_rows(read_table(actors, ("ActorID", "Sex")), "ActorID", actors)
    people = match_names(people, sorted({path.stem.split("_")[0] for path in files}), actors, complete=False)
    votes = index_rows(read_table(heard_as, ("FileName", "VoiceVote", "VoiceLevel")), "FileName", heard_as)
    votes = match_names(votes, [path.stem for path in files], heard_as, complete=False)
    skipped = SkipCounter()
    utterances = []
    for path in files:
        fields = path.stem.split("_")
        if len(fields) != 4 or fields[2] not in EMOTIONS:
            skipped.skip("not a CREMA-D name")
            continue
        actor, sentence, emotion, level = fields
        heard = votes.get(path.stem)
        utterances.append(
            Utterance(
                id=f"crema-d/{path.stem}",
                path=str(path.relative_to(root)),
                corpus="crema-d",
                speaker=f"crema-d-{actor}",
                gender=people[actor]["Sex"].lower() if actor in people else "unknown",
                language="en",
                emotion=EMOTIONS[emotion],
                intensity=_intensity(EMOTIONS[emotion], level, heard),
                transcript=SENTENCES.get(sentence, ""),
                perceived=_shares(heard),
            )
        )
    return finish(folder, utterances, skipped)


def _shares(heard: dict[str, str] | None) -> dict[str, float]:
    """The winners of the sound-only vote, with equal shares."""
    if heard is None:
        return {}
    winners = [VOTES[letter] for letter in heard["VoiceVote"].split(":") if letter in VOTES]
    return {winner: 1 / len(winners) for winner in winners}


def _intensity(emotion: str, level: str, heard: dict[str, str] | None) -> float | None:
    if emotion == "neutral":
        return 0.0
    if level in LEVELS:
        return LEVELS[level]
    shares = _shares(heard)
    if heard is None or not shares:
        return None
    if emotion not in shares and "neutral" in shares:
        return HEARD_NEUTRAL
    ratings = [float(rating) for rating in heard["VoiceLevel"].split(":")]
    return min(1.0, max(0.0, (sum(ratings) / len(ratings) - 30) / 60))
