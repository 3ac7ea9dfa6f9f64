"""People by parameters: the packaged heads varied along the axes of sex, age, ancestry, weight and muscle.

`default:age=60,sex=0.3` is the head `default` whose shape is changed as MakeHuman's models change from the head's own
parameters to these; skin, hair and eyes stay those of the head. Between the modelled corners, shapes are interpolated
linearly.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from sedtalker import resources
from sedtalker.errors import FaceError, reason_of
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.rig import Face, Float

AXES_FILE = "axes.npz"
SEXES, AGES, ANCESTRIES = ("male", "female"), ("young", "old"), ("african", "asian", "caucasian")
EXTREMES = ("minweight", "maxweight", "minmuscle", "maxmuscle")
YOUNG, OLD = 25.0, 90.0  # years of the modelled ages; younger adults have the shape of YOUNG
YOUNGEST = 18.0

_LIMITS: dict[str, tuple[float, float]] = {
    "age": (YOUNGEST, OLD), "sex": (0.0, 1.0), "african": (0.0, 1.0), "asian": (0.0, 1.0), "caucasian": (0.0, 1.0),
    "weight": (0.0, 1.0), "muscle": (0.0, 1.0),
}  # fmt: skip
PARAMETERS = tuple(_LIMITS)
_MEANINGS = "age in years 18 to 90; sex 0 male to 1 female; african, asian, caucasian shares; weight, muscle 0 to 1"


@dataclass(frozen=True)
class Person:
    """The parameters of a head's shape."""

    age: float = YOUNG
    sex: float = 0.5
    african: float = 0.0
    asian: float = 0.0
    caucasian: float = 1.0
    weight: float = 0.5
    muscle: float = 0.5


HEADS: Mapping[str, Person] = {
    "default": Person(25.0, 0.85, 0.2, 0.25, 0.55, 0.42, 0.5),
    "man": Person(25.0, 0.0, muscle=0.6),
    "woman_african": Person(25.0, 1.0, 1.0, 0.0, 0.0),
    "man_old": Person(84.0, 0.0, weight=0.55, muscle=0.45),
    "woman_asian": Person(25.0, 1.0, 0.0, 1.0, 0.0, 0.42),
}
"""Parameters of the packaged heads."""


def is_person(text: str) -> bool:
    """Whether a face's name has parameters: `default:age=60`."""
    name, mark, rest = text.partition(":")
    return bool(mark) and name in HEADS and "=" in rest


def parse_person(text: str) -> tuple[str, Person]:
    """The head and the parameters of a text like `default:age=60,sex=0.3`.

    Raises:
        FaceError: an unknown head or parameter, or a value out of its range.
    """
    name, _, rest = text.partition(":")
    if name not in HEADS:
        raise FaceError(f"no head has this name: {name!r:.40}. Choose one of {', '.join(HEADS)}")
    values: dict[str, float] = {}
    for pair in rest.split(","):
        key, mark, number = pair.strip().partition("=")
        low, high = _LIMITS.get(key, (0.0, -1.0))
        try:
            value = float(number)
        except ValueError:
            value = np.nan
        if not mark or not low <= value <= high:
            raise FaceError(f"not a parameter of a head: {pair.strip()!r:.40} in {text!r:.80}. Known are {_MEANINGS}")
        values[key] = value
    shares = [values.get(name, 0.0) for name in ANCESTRIES]
    if any(name in values for name in ANCESTRIES):
        if not sum(shares) > 0:
            raise FaceError(f"african, asian and caucasian are all 0 in {text!r:.80}. One of them must be more")
        values |= dict(zip(ANCESTRIES, shares, strict=True))
    return name, replace(HEADS[name], **values)


def vary_face(face: Face, own: Person, person: Person) -> Face:
    """A packaged head with the shape of other parameters.

    The lids close as before: eyeBlink is scaled with the opening of the eyes.
    """
    change = (shape_of(person) - shape_of(own)).astype(np.float32)
    template = face.template + change
    assert face.blendshapes is not None
    blendshapes = face.blendshapes.copy()
    for side in ("left", "right"):
        upper, lower = (face.landmarks[f"lid_{side}_{half}"] for half in ("upper", "lower"))
        before, after = (float(points[upper, 1] - points[lower, 1]) for points in (face.template, template))
        blendshapes[ARKIT_NAMES.index(f"eyeBlink{side.title()}")] *= np.float32(after / before)
    return replace(face, template=template, blendshapes=blendshapes)


def shape_of(person: Person) -> Float:
    """The change (V, 3) in metres from the reference shape to that of a person; the eyes stay in place."""
    corners, extremes = _axes()
    old = float(np.clip((person.age - YOUNG) / (OLD - YOUNG), 0, 1))
    ages, sexes = (1 - old, old), (1 - person.sex, person.sex)
    total = person.african + person.asian + person.caucasian
    ancestry = (person.african / total, person.asian / total, person.caucasian / total)
    result = np.einsum("s,a,r,sarvc->vc", sexes, ages, ancestry, corners, optimize=True)
    steps = (
        max(0.5 - person.weight, 0) * 2, max(person.weight - 0.5, 0) * 2,
        max(0.5 - person.muscle, 0) * 2, max(person.muscle - 0.5, 0) * 2,
    )  # fmt: skip
    shaped: Float = (result + np.einsum("s,e,sevc->vc", sexes, steps, extremes, optimize=True)).astype(np.float32)
    return shaped


def shape_modes(count: int) -> Float:
    """The `count` largest principal components (K, V, 3) of the modelled shapes, each as large as its spread."""
    corners, extremes = _axes()
    rows = np.concatenate([corners.reshape(-1, *corners.shape[-2:]), extremes.reshape(-1, *extremes.shape[-2:])])
    flat = rows.reshape(len(rows), -1) - rows.reshape(len(rows), -1).mean(axis=0)
    _, spread, directions = np.linalg.svd(flat, full_matrices=False)
    modes = directions[:count] * (spread[:count] / np.sqrt(len(rows)))[:, None]
    shaped: Float = modes.reshape(-1, *rows.shape[1:]).astype(np.float32)
    return shaped


def random_person(seed: int) -> tuple[str, Person]:
    """A packaged head and random parameters near to it, so that skin and hair suit the shape."""
    random = np.random.default_rng(seed)
    name = str(random.choice(list(HEADS)))
    own = HEADS[name]
    age = random.uniform(60, OLD) if own.age > 60 else random.uniform(YOUNG, 55)
    sex = np.clip(own.sex + random.uniform(-0.2, 0.2), 0, 1)
    shares = np.array([own.african, own.asian, own.caucasian]) + random.dirichlet([0.5, 0.5, 0.5]) * 0.4
    shares /= shares.sum()
    weight, muscle = np.clip(random.normal(0.5, 0.2, 2), 0, 1)
    rounded = [round(float(value), 2) for value in (sex, *shares, weight, muscle)]
    return name, Person(round(float(age)), *rounded)


def describe_person(name: str, person: Person) -> str:
    """The text that `parse_person` reads."""
    values = ((key, getattr(person, key)) for key in PARAMETERS)
    return f"{name}:" + ",".join(f"{key}={value:g}" for key, value in values)


@cache
def _axes() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Changes at the corners (sex, age, ancestry, V, 3) and of the extremes (sex, extreme, V, 3) in metres."""
    path = resources.asset("face") / AXES_FILE
    try:
        with np.load(path) as stored:
            corners, extremes = stored["corners"].astype(np.float32), stored["extremes"].astype(np.float32)
    except (OSError, ValueError, KeyError) as error:
        raise FaceError(
            f"the head's axes cannot be read: {path} ({reason_of(error)}). Install the package again"
        ) from error
    return corners, extremes


def corner_words() -> list[tuple[str, str, str]]:
    """Sex, age and ancestry of each corner, in the order of the file."""
    return list(itertools.product(SEXES, AGES, ANCESTRIES))
