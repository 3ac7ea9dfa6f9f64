"""Pairs, groups, intervals, masks, baselines, reports and videos of the evaluation of talkers."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import vertex_corpora as made
from made_face import bare_face

from sedtalker.animation import Animation
from sedtalker.cli.main import main
from sedtalker.data.prepare import prepare
from sedtalker.data.vertex_corpora.emovoca import read_emovoca
from sedtalker.data.vertex_store import Store, open_store
from sedtalker.emotion.track import EmotionTrack
from sedtalker.errors import DataError, SEDTalkerError
from sedtalker.evaluation.extremes import choose_face, select_extremes
from sedtalker.evaluation.masks import read_masks
from sedtalker.evaluation.report import TALKER_FORMATS, format_text, write_report
from sedtalker.evaluation.systems import linear_regression, make_systems, mean_motion, still_face
from sedtalker.evaluation.talker import Result, Workload, evaluate, evaluate_systems, summarise
from sedtalker.evaluation.truth import Item, open_truth, read_predictions
from sedtalker.face.vertex_masks import FLAME_REGIONS, mask_hash
from sedtalker.phones import Phone

MASKS = {"lips": [1, 2, 3], "upper_face": [10, 11], "emotion": [1, 2, 10, 12]}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three subjects, two sentences, two variants; features that encode the frame's phase."""
    made.generator_layout(tmp_path)
    prepare(read_emovoca(tmp_path), tmp_path / "store")
    opened = open_store(tmp_path / "store")
    (opened.root / "features").mkdir()
    for key in {clip.audio for clip in opened}:
        rng = np.random.default_rng(sum(key.encode()))
        np.save(opened.root / "features" / f"{key}.npy", rng.standard_normal((50, 2, 4)).astype(np.float16))
    return opened


@pytest.fixture
def masks(tmp_path: Path):
    path = tmp_path / "masks.json"
    path.write_text(json.dumps(MASKS))
    return read_masks(path, made.VERTICES)


def write_predictions(store: Store, folder: Path, error: float = 0.001) -> Path:
    """The true motion of the test split, displaced by `error` metres times the clip's level."""
    folder.mkdir()
    for clip in store.select("test"):
        np.save(folder / f"{clip.id}.npy", store.motion(clip) + np.float32(error * clip.level))
    return folder


def test_figures_overall_and_by_group(store: Store, masks, tmp_path: Path) -> None:
    truth = open_truth(store.root)
    predict = read_predictions(write_predictions(store, tmp_path / "pred"), truth.fps)
    summary = summarise([evaluate("talker", predict, truth, masks)], truth, masks)
    groups = summary["systems"]["talker"]
    offset = np.sqrt(3) * 0.001
    assert groups["by emotion"]["happy"]["mve"]["value"] == pytest.approx(3 * offset, rel=1e-4)  # level 3
    assert groups["by emotion"]["fear"]["lve"]["value"] == pytest.approx(offset**2, rel=1e-4)  # level 1
    assert groups["overall"]["mve"]["value"] == pytest.approx(2 * offset, rel=1e-4)
    assert groups["overall"]["fdd_abs"]["value"] >= abs(groups["overall"]["fdd"]["value"])
    assert set(groups["by level"]) == {"1", "3"} and set(groups["by emotion and level"]) == {"fear 1", "happy 3"}
    assert list(groups["by subject"]) == [made.TEST]
    assert (summary["sequences"], summary["frames"], summary["fps"], summary["split"]) == (4, 120, 30.0, "test")
    lips = summary["measures"]["lve"]["mask"]
    assert lips == {"name": "masks.json: lips", "vertices": 3, "sha256": mask_hash(np.array([3, 1, 2]))}


def test_interval_holds_the_value_and_depends_on_the_seed_alone(store: Store, masks, tmp_path: Path) -> None:
    folder = write_predictions(store, tmp_path / "pred")
    for number, path in enumerate(sorted(folder.iterdir())):
        np.save(path, np.load(path) + np.float32(0.0003 * number))
    truth = open_truth(store.root)
    result = evaluate("talker", read_predictions(folder, truth.fps), truth, masks)
    first, again = (summarise([result], truth, masks)["systems"]["talker"]["overall"]["mve"] for _ in range(2))
    assert first == again and first["low"] < first["value"] < first["high"]


def test_one_sentence_has_no_interval(store: Store, masks, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = write_predictions(store, tmp_path / "pred")
    for path in folder.glob("*sentence22*"):
        path.unlink()
    truth = open_truth(store.root)
    result = evaluate("talker", read_predictions(folder, truth.fps), truth, masks)
    summary = summarise([result], truth, masks)
    figure = summary["systems"]["talker"]["overall"]["mve"]
    assert summary["sequences"] == 2 and figure["value"] > 0 and figure["low"] is None and figure["high"] is None
    row = next(line for line in format_text(summary).splitlines() if line.startswith("mve "))
    assert row.endswith(f"  {figure['value']:.3e}")
    write_report(summary, tmp_path / "report.html", TALKER_FORMATS)
    assert (tmp_path / "report.html").is_file()


def test_failed_pairs_and_cut_frames_are_reported(store: Store, masks, tmp_path: Path) -> None:
    folder = write_predictions(store, tmp_path / "pred")
    missing, short, other, good = sorted(folder.iterdir())
    missing.unlink()
    np.save(short, np.load(short)[:-2])
    np.save(other, np.load(other)[:, :-1])
    truth = open_truth(store.root)
    result = evaluate("talker", read_predictions(folder, truth.fps), truth, masks)
    assert list(result.figures) == [good.stem] and result.cut == {}
    assert "no prediction" in result.bad[missing.stem]
    assert "28 frames predicted, 30 true" in result.bad[short.stem] and "--tolerance 2" in result.bad[short.stem]
    assert "39 vertices predicted, 40 true" in result.bad[other.stem]
    tolerant = evaluate("talker", read_predictions(folder, truth.fps), truth, masks, tolerance=2)
    assert tolerant.cut == {short.stem: 2} and tolerant.frames[short.stem] == 28
    assert "1 sequences cut to the shorter length, 2 frames" in format_text(summarise([tolerant], truth, masks))


def test_loud_sentences_and_moving_lips_correlate_by_speaker(store: Store, masks, tmp_path: Path) -> None:
    """Against scipy, over numbers taken from the files by hand."""
    stats = pytest.importorskip("scipy.stats")
    soundfile = pytest.importorskip("soundfile")
    truth = open_truth(store.root)
    predict = read_predictions(write_predictions(store, tmp_path / "pred"), truth.fps)
    summary = summarise([evaluate("talker", predict, truth, masks)], truth, masks)
    loud, moved = [], []
    for clip in store.select("test"):  # of one subject
        samples = soundfile.read(store.sound(clip))[0]
        loud.append(np.sqrt((samples**2).mean()))
        steps = np.linalg.norm(np.diff(store.motion(clip)[:, MASKS["lips"]].astype(float), axis=0), axis=-1)
        moved.append(np.sqrt((steps.mean(axis=1) ** 2).mean()))
    figures = summary["systems"]["talker"]["overall"]
    assert figures["slcc"]["value"] == pytest.approx(stats.pearsonr(loud, moved).statistic, abs=1e-3)
    assert figures["slcc"]["low"] <= figures["slcc"]["value"] <= figures["slcc"]["high"]
    assert summary["measures"]["slcc"]["mask"]["vertices"] == 3


def test_closures_follow_the_phones(store: Store, masks, tmp_path: Path) -> None:
    """A true motion that closes at its /p/, a talker that closes elsewhere, and a face that never opens."""
    masks.regions["lip_pair"] = np.array([1, 2])
    times = (np.arange(30) + 0.5) / 30

    def motion(closed_at: float, open_by: float = 0.02):
        gap = open_by * np.clip((np.abs(times - closed_at) - 0.04) / 0.1, 0, 1)

        def predict(item):
            template = store.templates[item.subject]
            apart = template[1] - template[2]
            moved = np.tile(template, (30, 1, 1))
            moved[:, 1] += gap[:, None] * apart / np.linalg.norm(apart)
            return moved

        return predict

    truth = open_truth(store.root)
    truth.motion = motion(0.5)
    names = [("AA", 0.1, 0.45), ("P", 0.45, 0.55), ("AA", 0.55, 0.9)]
    phones = {item.sound: [Phone("x", *phone) for phone in names] for item in truth.items}
    systems = {"talker": motion(0.75), "still": motion(0.5, 0.0), "truth": truth.motion}
    results = [evaluate(name, predict, truth, masks) for name, predict in systems.items()]
    summary = summarise(results, truth, masks, phones=phones)
    recall = {name: figures["closure_recall"] for name, figures in summary["closures"].items()}
    score = {name: figures["bilabial_closure_score"] for name, figures in summary["closures"].items()}
    assert (recall["talker"], recall["truth"], score["talker"], score["still"]) == (0, 1, 0, 1)
    assert 0.6 < score["truth"] < 0.8 and summary["closures"]["truth"]["bilabials"] == 4
    assert "closure_recall" in format_text(summary)
    write_report(summary, tmp_path / "report.md", TALKER_FORMATS)
    assert "of p95 within 60 ms of the start" in (tmp_path / "report.md").read_text()
    with pytest.raises(DataError, match="none of the sequences"):
        summarise(results, truth, masks, phones={})
    with pytest.raises(DataError, match="without a lip_pair"):
        summarise([evaluate("talker", motion(0.5), truth, None)], truth, None, phones=phones)


def test_undefined_metrics_are_reported(store: Store, masks) -> None:
    truth = open_truth(store.root)
    masks.regions["lip_pair"] = np.array([1, 2])
    summary = summarise([evaluate("still", still_face(truth), truth, masks)], truth, masks)
    assert summary["systems"]["still"]["overall"]["mtm"] == {"value": None, "low": None, "high": None}
    line = next(line for line in format_text(summary).splitlines() if line.startswith("mtm"))
    assert "not defined" in line


def test_plain_folders_and_left_out_measures(tmp_path: Path) -> None:
    rest = made.template()
    for name in ("truth", "pred"):
        (tmp_path / name).mkdir()
        moved = made.motion(rest, 20) + (0.001 if name == "pred" else 0)
        np.save(tmp_path / name / f"{made.TEST}_sentence21_Sad1_2.npy", moved.reshape(20, -1).astype(np.float32))
    truth = open_truth(tmp_path / "truth", fps=25)
    summary = summarise([evaluate("talker", read_predictions(tmp_path / "pred", truth.fps), truth, None)], truth, None)
    assert set(summary["measures"]) == {"mve", "mod", "ae", "tc", "ffe"} and "lve" in summary["left_out"]
    assert "sad" in summary["systems"]["talker"]["by emotion"]
    (tmp_path / "templates.pkl").write_bytes(made.python2_pickle({made.TEST: rest}))
    with_rest = open_truth(tmp_path / "truth", templates=tmp_path / "templates.pkl")
    np.testing.assert_allclose(with_rest.template(with_rest.items[0]), rest, atol=1e-7)


def test_an_animation_at_another_rate_is_refused(store: Store, tmp_path: Path) -> None:
    truth = open_truth(store.root)
    item = truth.items[0]
    triangles = np.array([[0, 1, 2]], np.int32)
    (tmp_path / "pred").mkdir()
    for fps, frames in ((25, 25), (30, 30)):
        moved = truth.motion(item)[:frames]
        track = EmotionTrack.neutral(frames / fps, fps)
        animation = Animation(store.templates[item.subject], triangles, fps, track, dense=moved)
        animation.save(tmp_path / "pred" / f"{item.id}.npz")
        if fps == 25:
            with pytest.raises(DataError, match="25 fps predicted, 30 true"):
                evaluate("talker", read_predictions(tmp_path / "pred", truth.fps), truth, None)
    result = evaluate("talker", read_predictions(tmp_path / "pred", truth.fps), truth, None)
    assert result.figures[item.id]["mve"] == 0


def test_baselines(store: Store, masks) -> None:
    truth = open_truth(store.root)
    systems = {
        "still": still_face(truth),
        "mean": mean_motion(truth),
        "linear": linear_regression(truth),
    }
    item = truth.items[0]
    np.testing.assert_array_equal(systems["still"](item)[7], store.templates[made.TEST])
    train = np.concatenate([store.displacements(clip) for clip in store.select("train")])
    np.testing.assert_allclose(systems["mean"](item)[3] - store.templates[made.TEST], train.mean(axis=0), atol=1e-7)
    figures = {name: evaluate(name, predict, truth, masks).figures[item.id]["mve"] for name, predict in systems.items()}
    assert all(np.isfinite(list(figures.values()))) and len(set(figures.values())) == 3


def assert_same_results(results: list[Result], expected: list[Result]) -> None:
    for one, other in zip(results, expected, strict=True):
        assert (one.name, one.frames, one.bad, one.cut) == (other.name, other.frames, other.bad, other.cut)
        assert one.figures.keys() == other.figures.keys()
        for item, figures in one.figures.items():  # processes may have other numbers of threads
            assert figures == pytest.approx(other.figures[item], rel=1e-5, nan_ok=True)


@pytest.mark.parametrize("executor", ["local", "slurm"])
def test_processes_and_a_cluster_measure_the_same(
    store: Store, masks, executor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if executor == "slurm":
        pytest.importorskip("submitit")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    folder, truth = write_predictions(store, tmp_path / "pred"), open_truth(store.root)
    (folder / f"{truth.items[0].id}.npy").unlink()
    systems = {"talker": read_predictions(folder, truth.fps), "mean": mean_motion(truth)}
    systems |= {"linear": linear_regression(truth), "truth": truth.motion}
    alone = evaluate_systems(systems, truth, masks)
    workload = Workload(2, executor, tmp_path / "jobs", "local" if executor == "slurm" else None)
    shared = evaluate_systems(systems, truth, masks, workload=workload)
    assert_same_results(shared, alone)
    assert "no prediction" in alone[0].bad[truth.items[0].id] and len(alone[1].figures) == len(truth.items)


def test_a_crash_of_a_process_is_an_error_of_one_line(store: Store, masks) -> None:
    truth = open_truth(store.root)
    with pytest.raises(SEDTalkerError, match="was killed by SIGKILL"):
        evaluate_systems({"dying": _Dying()}, truth, masks, workload=Workload(2))


class _Dying:
    def __call__(self, item: Item) -> np.ndarray:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_linear_regression_learns_a_linear_relation(store: Store) -> None:
    for clip in store:
        features = np.load(store.root / "features" / f"{clip.audio}.npy").astype(np.float32)
        nearest = features[((np.arange(clip.frames) + 0.5) / 30 * 50).astype(int), -1]
        moved = 0.001 * nearest[:, :1] - 0.0005 * nearest[:, 2:3]  # the same direction for every vertex and axis
        np.save(store.root / "clips" / f"{clip.id}.npy", np.repeat(moved, made.VERTICES * 3, 1).reshape(-1, 40, 3))
    truth = open_truth(store.root)
    predict, item = linear_regression(truth), truth.items[0]
    error = np.abs(predict(item) - truth.motion(item)).mean()
    assert error < 0.05 * np.abs(truth.motion(item) - truth.template(item)).mean()


def test_the_folder_of_a_training_run_is_told(store: Store, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"a training run: .*Name the talker in it, .*model$"):
        make_systems(tmp_path, open_truth(store.root))


def test_baselines_need_features_and_training_clips(store: Store, tmp_path: Path) -> None:
    next((store.root / "features").glob(f"{made.TRAIN}*")).unlink()
    with pytest.raises(DataError, match="no speech features"):
        linear_regression(open_truth(store.root))
    with pytest.raises(DataError, match="no clips of the quiz split"):
        open_truth(store.root, "quiz")


def test_flame_masks(tmp_path: Path) -> None:
    parts = {part for names in FLAME_REGIONS.values() for part in names}
    masks = {name: np.array([number, number + 10], np.int64) for number, name in enumerate(sorted(parts | {"neck"}))}
    path = tmp_path / "FLAME_masks.pkl"
    path.write_bytes(pickle.dumps(masks, protocol=2))
    regions = read_masks(path, 40).regions
    np.testing.assert_array_equal(regions["lips"], masks["lips"])
    np.testing.assert_array_equal(regions["upper_face"], np.unique([*masks["forehead"], *masks["eye_region"]]))
    with pytest.raises(DataError, match="names vertex 12 of 12"):
        read_masks(path, 12)
    del masks["lips"]
    path.write_bytes(pickle.dumps(masks))
    with pytest.raises(DataError, match="no mask 'lips'"):
        read_masks(path, 40)


def test_codetalker_regions(tmp_path: Path) -> None:
    (tmp_path / "lve.txt").write_text("3, 1,2,\n")
    (tmp_path / "fdd.txt").write_text("10 11")
    masks = read_masks(tmp_path, 40)
    assert {name: index.tolist() for name, index in masks.regions.items()} == {
        "lips": [1, 2, 3],
        "upper_face": [10, 11],
    }


def test_reports(store: Store, masks, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    truth = open_truth(store.root)
    predict = read_predictions(write_predictions(store, tmp_path / "pred"), truth.fps)
    systems = {"talker": predict, "still face": still_face(truth)}
    summary = summarise([evaluate(name, one, truth, masks) for name, one in systems.items()], truth, masks)
    for suffix in ("json", "md", "html"):
        write_report(summary, tmp_path / f"report.{suffix}", TALKER_FORMATS)
    assert json.loads((tmp_path / "report.json").read_text()) == summary
    text = (tmp_path / "report.md").read_text()
    assert (
        "mean_t max_L d^2" in text and mask_hash(np.array(MASKS["lips"])) in text and "| happy | still face |" in text
    )
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3 and "<script" not in page
    assert ".number{white-space:nowrap}" in page
    cells = re.findall(r"<td( class=number)?>(-?\d?)", page)
    assert any(figure for _, figure in cells) and all(bool(kind) == bool(figure.strip("-")) for kind, figure in cells)


ERRORS = {"a": 0.001, "b": 0.004, "c": 0.002, "d": 0.0}  # metres by clip
FRAMES, FPS = 6, 25.0


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Predicted and true animations of a bare mesh."""
    face, track = bare_face(), EmotionTrack.neutral(FRAMES / FPS)
    swell = 1 + 0.05 * np.sin(np.arange(FRAMES))[:, None, None]
    for name, error in ERRORS.items():
        for kind, moved in (("truth", 0.0), ("predicted", error)):
            dense = (face.template * swell + [0, moved, 0]).astype(np.float32)
            animation = Animation(face.template, face.faces, FPS, track, dense=dense, rig=face)
            animation.save(tmp_path / kind / f"{name}.npz")
    return tmp_path / "predicted", tmp_path / "truth"


def test_the_command_renders_worst_median_and_best(folders: tuple[Path, Path], tmp_path: Path) -> None:
    predicted, truth = map(str, folders)
    assert main(["evaluate", "talker", predicted, truth, "--fps", "25", "--render", str(tmp_path / "videos")]) == 0
    videos = sorted(path.name for path in (tmp_path / "videos").iterdir())
    assert videos == ["best_d.mp4", "median_a.mp4", "worst_b.mp4"]
    with av.open(str(tmp_path / "videos" / "worst_b.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in video.decode(video=0)]
    assert len(frames) == FRAMES
    third = frames[0].shape[1] // 3
    heat = frames[0][150:230, 2 * third + 130 : 2 * third + 250]
    with av.open(str(tmp_path / "videos" / "best_d.mp4")) as video:
        pale = next(video.decode(video=0)).to_ndarray(format="rgb24").astype(int)[150:230, 2 * third + 130 :][:, :120]
    assert heat[..., 2].mean() < pale[..., 2].mean() - 30  # 4 mm are orange, no error is pale


def test_a_clip_is_shown_once() -> None:
    figures = {"x": {"mve": 1.0, "lve_l2": 2.0}, "y": {"mve": 2.0, "lve_l2": 1.0}}
    assert select_extremes(Result("talker", figures)) == {"worst": "x", "median": "y"}
    assert select_extremes(Result("talker", {"x": {"mve": 1.0}})) == {"worst": "x"}


def test_motion_without_triangles_asks_for_a_mesh(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((5, 7, 3), np.float32))
    truth = open_truth(tmp_path)
    with pytest.raises(DataError, match=r"no triangles are known.*--face"):
        choose_face(truth)
    with pytest.raises(DataError, match=r"default has .* vertices, the motion has 7"):
        choose_face(truth, "default")


@pytest.fixture
def bare_folder(tmp_path: Path) -> Path:
    np.save(tmp_path / "a_sentence01.npy", np.zeros((4, 3, 3), np.float32))
    return tmp_path


def test_a_folder_without_templates_allows_no_baselines(bare_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    systems = make_systems(bare_folder, open_truth(bare_folder))
    assert list(systems) == ["talker", "truth"]
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "without the baseline 'mean motion'",
        "without the baseline 'linear'",
    ]


def test_a_named_baseline_that_does_not_work_is_an_error(bare_folder: Path) -> None:
    truth = open_truth(bare_folder)
    assert list(make_systems(bare_folder, truth, ("none",))) == ["talker", "truth"]
    with pytest.raises(DataError, match="baseline 'mean' needs the training split of a store"):
        make_systems(bare_folder, truth, ("mean",))
    (bare_folder / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"a talker's folder needs a store as the truth: .*Run sedtalker data prepare"):
        make_systems(bare_folder, truth)
