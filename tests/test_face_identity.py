"""People by parameters: the shape changes along the axes, lids and lips close, and a seed makes the same person."""

from __future__ import annotations

import numpy as np
import pytest

from sedtalker.cli.main import main
from sedtalker.errors import FaceError
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.assets import identities, load_face
from sedtalker.face.identity import HEADS, Person, describe_person, parse_person, random_person, shape_of
from sedtalker.face.mouth_measures import GAP, mouth_measures


def test_every_head_has_parameters() -> None:
    assert {*HEADS} == {*identities()}


def test_own_parameters_change_nothing() -> None:
    face, same = load_face("man"), load_face(describe_person("man", HEADS["man"]))
    np.testing.assert_allclose(same.template, face.template, atol=1e-6)
    np.testing.assert_allclose(same.blendshapes, face.blendshapes, atol=1e-6)


def test_the_axes_approach_the_packaged_heads() -> None:
    """The shapes of man and of an African woman are nearer to their parameters' than to the default's."""
    default = load_face()
    for name in ("man", "woman_african", "woman_asian"):
        face = load_face(name)
        eyes = np.concatenate([face.parts["eye_left"], face.parts["eye_right"]])
        moved = face.template - face.template[eyes].mean(0) - (default.template - default.template[eyes].mean(0))
        modelled = shape_of(HEADS[name]) - shape_of(HEADS["default"])
        skin = face.parts["skin"]
        assert np.square(moved - modelled)[skin].sum() < 0.35 * np.square(moved)[skin].sum(), name


@pytest.mark.parametrize("spec", ["default:age=85,sex=0", "woman_african:weight=1", "man:asian=1,age=60"])
def test_varied_faces_close(spec: str) -> None:
    face = load_face(spec)
    own = load_face(spec.partition(":")[0])
    assert face.name == spec and np.abs(face.template - own.template).max() > 0.003
    measures = mouth_measures(face)
    weights = np.zeros(52, np.float32)
    weights[[ARKIT_NAMES.index("jawOpen"), ARKIT_NAMES.index("mouthClose")]] = 0.3
    assert abs(measures.of_weights(weights)[GAP]) < 1.5
    for side in ("left", "right"):
        column = ARKIT_NAMES.index(f"eyeBlink{side.title()}")
        upper, lower = (face.landmarks[f"lid_{side}_{half}"] for half in ("upper", "lower"))
        closed = face.template + face.blendshapes[column]
        gap = face.template[upper, 1] - face.template[lower, 1]
        assert abs(closed[upper, 1] - closed[lower, 1]) < 0.25 * gap


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("default:age=120", "not a parameter"), ("default:height=1", "not a parameter"), ("default:sex", "not a param"),
        ("default:sex=nan", "not a parameter"), ("default:african=0,asian=0,caucasian=0", "all 0"),
        ("nobody:age=30", "no head has this name"),
    ],
)  # fmt: skip
def test_wrong_parameters(text: str, words: str) -> None:
    with pytest.raises(FaceError, match=words):
        parse_person(text)


def test_random_people_differ_and_are_repeatable(capsys: pytest.CaptureFixture[str]) -> None:
    people = [random_person(seed) for seed in range(60)]
    assert len({describe_person(*person) for person in people}) == 60
    assert {name for name, _ in people} == {*HEADS}
    assert people[3] == random_person(3)
    assert parse_person(describe_person(*people[3])) == people[3]
    assert main(["face", "random", "--seed", "3", "-n", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [describe_person(*people[3]), describe_person(*people[4])]
    assert isinstance(people[0][1], Person)
