"""The expression that the rules add to lips: full in the upper face, limited by speech in the mouth, gradual."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sedtalker.face.action_units import emotion_weights
from sedtalker.face.arkit import ARKIT_NAMES, JAW_OPEN, MOUTH_PUCKER, arkit_columns
from sedtalker.face.assets import load_face
from sedtalker.face.mouth_measures import GAP, mouth_measures
from sedtalker.face.rig import Face
from sedtalker.labels import LABELS
from sedtalker.talker.expression import ExpressionRules, activate, repeat_first, sharpen

EMOTIONS = [label for label in LABELS if label != "neutral"]
UPPER = [i for i, name in enumerate(ARKIT_NAMES) if name.startswith(("brow", "eye", "cheekSquint", "nose"))]
FRAMES = 50


@pytest.fixture(scope="module")
def rules() -> ExpressionRules:
    return ExpressionRules(LABELS, FRAMES)


@pytest.fixture(scope="module")
def face() -> Face:
    return load_face()


def emotion(label: str, intensity: float) -> torch.Tensor:
    return intensity * torch.eye(len(LABELS))[LABELS.index(label)]


def lips(**weights: float) -> torch.Tensor:
    row = torch.zeros(len(ARKIT_NAMES))
    for name, weight in weights.items():
        row[list(arkit_columns(name))] = weight
    return row


SPEECH = [lips(), lips(jawOpen=0.06, mouthClose=0.06), lips(jawOpen=0.4), lips(mouthPucker=0.8, jawOpen=0.15)]


@pytest.mark.parametrize("label", EMOTIONS)
def test_brows_lids_cheeks_and_nose_show_the_whole_expression_whatever_is_said(rules: ExpressionRules, label: str):
    wanted = emotion_weights()[LABELS.index(label), UPPER]
    assert wanted.max() >= 0.6
    for mouth in SPEECH:
        np.testing.assert_allclose(rules(mouth, emotion(label, 1.0))[UPPER], wanted, atol=1e-6)


@pytest.mark.parametrize("label", EMOTIONS)
def test_no_weight_of_an_expression_shrinks_as_the_intensity_grows(rules: ExpressionRules, label: str):
    for mouth in SPEECH:
        faces = torch.stack([rules(mouth, emotion(label, level)) for level in torch.linspace(0, 1, 9).tolist()])
        change = (faces[1:] - faces[:-1]).numpy()
        jaw = change[:, JAW_OPEN]  # opens less in sad speech
        assert np.delete(change, JAW_OPEN, 1).min() >= -1e-6
        assert (jaw >= -1e-6).all() or (jaw <= 1e-6).all()
        torch.testing.assert_close(faces[0], mouth)


@pytest.mark.parametrize("label", EMOTIONS)
def test_closed_lips_stay_closed(rules: ExpressionRules, label: str):
    measures = mouth_measures(load_face())
    for mouth in SPEECH[:2]:
        before = measures.of_weights(mouth.numpy())[GAP]
        assert measures.of_weights(rules(mouth, emotion(label, 1.0)).numpy())[GAP] < before + 0.3  # mm


@pytest.mark.parametrize("label", EMOTIONS)
def test_a_smile_leaves_the_lower_lip_at_the_teeth_that_f_and_v_touch(rules, label: str, face: Face):
    rise = mouth_measures(face).lower_rise
    assert rise[list(arkit_columns("mouthSmile"))].sum() > 4  # mm, so that only the necks of the teeth would be seen
    contact = lips(mouthRollLower=0.6, jawOpen=0.1, mouthUpperUp=0.1)
    for level in (0.3, 0.6, 1.0):
        lift = (rules(contact, emotion(label, level)) - contact).numpy() @ rise
        assert lift < 0.5  # mm; sad speech opens the mouth less


def test_half_the_intensity_shows_two_thirds_of_the_expression_as_in_actors(rules: ExpressionRules):
    brow = arkit_columns("browDown")[0]
    shown = [float(rules(SPEECH[0], emotion("angry", level))[brow]) for level in (0.0, 0.5, 1.0)]
    assert shown == pytest.approx([0.0, 0.66, 1.0], abs=0.01)


def test_rounded_lips_smile_less_than_spread_ones(rules: ExpressionRules):
    smile = arkit_columns("mouthSmile")[0]
    spread, rounded = (rules(mouth, emotion("happy", 1.0)) for mouth in (SPEECH[2], SPEECH[3]))
    assert rounded[smile] < 0.75 * spread[smile]
    assert rounded[MOUTH_PUCKER] == SPEECH[3][MOUTH_PUCKER]


def test_expressions_differ_from_each_other():
    rows = emotion_weights()[[LABELS.index(label) for label in EMOTIONS]]
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    likeness = rows @ rows.T - np.eye(len(rows))
    assert likeness.max() < 0.85


def test_an_expression_rises_and_falls_in_a_third_of_a_second_and_never_before_its_cause(rules: ExpressionRules):
    intensity = torch.zeros(1, 300)
    intensity[:, 100:200] = 1
    activation = activate(torch.eye(len(LABELS))[None, None, 1].expand(1, 300, -1), intensity)
    curve = rules.average(repeat_first(activation, FRAMES - 1))[0, :, 1].numpy()
    assert np.abs(curve[:100]).max() == 0
    assert curve[160] == pytest.approx(1, abs=0.01)
    assert np.abs(curve[250:]).max() < 1e-6
    times = np.arange(300) / 50
    rise = np.interp([0.1, 0.9], curve[100:200], times[100:200])
    assert 0.25 < rise[1] - rise[0] < 0.5
    assert (np.diff(curve[:200]) >= -1e-6).all() and (np.diff(curve[199:]) <= 1e-6).all()


def test_expression_shapes_move_as_far_as_an_actor_and_leave_the_gap_of_the_lips(face: Face):
    """Millimetres at weight 1 that a stranger sees: brows, wings of the nose, corners of the mouth."""
    assert face.blendshapes is not None
    moved = 1000 * face.blendshapes[:, :, 1]  # upwards

    def most(name: str) -> float:
        rows = moved[list(arkit_columns(name))]
        return float(rows.max() if name != "mouthFrown" and name != "browDown" else -rows.min())

    assert most("browInnerUp") > 8
    assert most("browOuterUp") > 8
    assert most("browDown") > 6
    assert most("mouthFrown") > 7
    wings = (np.abs(face.template[:, 0] - 0.017) < 0.006) & (
        np.abs(face.template[:, 1] - face.template[face.landmarks["nose_tip"], 1]) < 0.006
    )
    assert moved[arkit_columns("noseSneer")[0], wings].max() > 3
    gap = mouth_measures(face).matrix[:, GAP]
    for name in ("noseSneer", "mouthSmile", "mouthFrown"):
        assert np.abs(gap[list(arkit_columns(name))]).max() < 0.3


def test_an_uncertain_posterior_shows_mostly_its_first_emotion():
    uncertain = torch.tensor([[0.5, 0.3, 0.2], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    shown = sharpen(uncertain)
    torch.testing.assert_close(shown[0], torch.tensor([0.25, 0.09, 0.04]) / 0.38)
    torch.testing.assert_close(shown[1:], uncertain[1:])  # one emotion, or none that the talker knows
    np.testing.assert_allclose(sharpen(uncertain.numpy()), shown)
