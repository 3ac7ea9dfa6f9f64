"""What generated expressions add to a recogniser, on made action units."""

from __future__ import annotations

import numpy as np

from sedtalker.face.association import UNITS
from sedtalker.recipes.expression_gain import MatchedGenerator, compare, generate, pool_units

SMILE, BROW = UNITS.index(12), UNITS.index(4)


def test_generated_sequences_are_pooled_in_openface_units() -> None:
    x, emotions = generate(20, ("fear", "disgust"), 0)
    assert x.shape == (20, 51) and set(emotions) == {"fear", "disgust"} and x.max() < 5
    assert pool_units(np.ones((10, 17)))[:17].tolist() == [1.0] * 17


def _matched(actors: int = 4) -> tuple[MatchedGenerator, np.ndarray]:
    """Happy and angry patterns of other people, and neutral, happy and angry sequences of some actors."""
    rng = np.random.default_rng(0)
    sequences, emotions, owners = [], [], []
    for actor in range(actors):
        for emotion in ("neutral", "happy", "angry") * 2:
            units = rng.normal(0, 0.1, (60, len(UNITS)))
            units[:, SMILE] += 2 * (emotion == "happy")
            units[:, BROW] += 2 * (emotion == "angry")
            sequences.append(units)
            emotions.append(emotion)
            owners.append(f"{actor:02d}")
    patterns = np.zeros((6, len(UNITS)))
    patterns[2:4, SMILE] = patterns[4:, BROW] = 2
    patterns[::2, 0] = 99  # of the actor who is left out
    names = np.repeat(["neutral", "happy", "angry"], 2)
    generator = MatchedGenerator(sequences, np.array(emotions), patterns, names, np.array(["00", "77"] * 3), 30)
    return generator, np.array(owners)


def test_matched_sequences_show_the_patterns_of_other_people() -> None:
    generator, _ = _matched()
    x, emotions = generator("00", np.arange(len(generator.sequences)), 1)
    assert x.shape == (30, 51) and x[:, 0].max() < 5
    happy, angry = (x[emotions == emotion].mean(0) for emotion in ("happy", "angry"))
    assert happy[SMILE] > 1.5 > 0.2 > abs(happy[BROW]) and angry[BROW] > 1.5
    assert happy[len(UNITS) + SMILE] > 0.2  # they rise and fall


def test_recall_is_that_of_unseen_actors_and_rare_emotions_gain() -> None:
    generator, owners = _matched()
    x = np.array([pool_units(units) for units in generator.sequences])
    right = compare(x, generator.emotions, owners, {"matched": generator}, long_tail=False)
    assert right["real"].shape == (len(x),) and right["matched"].mean() > 0.9
