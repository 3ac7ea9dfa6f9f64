"""Training of the talker: it learns, resumes, warns of a collapse, and exports the model."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import vertex_corpora as made
from PIL import Image
from torch import Tensor

pytest.importorskip("lightning")


from sedtalker.data.rig_store import read_features, read_rig_manifest
from sedtalker.data.vertex_store import VertexClip, write_manifest
from sedtalker.errors import DataError
from sedtalker.face.arkit import ARKIT_NAMES
from sedtalker.face.assets import load_face
from sedtalker.face.rig import Face
from sedtalker.labels import LABELS
from sedtalker.recipes.lip_teacher import TeacherTraining, label_openings, label_with_teacher, mix_style, train_network
from sedtalker.synthesis.rig_clips import LOSS_WEIGHTS
from sedtalker.talker.lip_opening import LipOpening, load_lip_opening, save_lip_opening
from sedtalker.talker.model import INJECTIONS, TalkerConfig, TalkerModel, load_talker_model, save_talker_model
from sedtalker.training.config import read_config
from sedtalker.training.losses import (
    USUAL,
    Lips,
    Mouth,
    Target,
    amplitude_error,
    contour_error,
    motion_spread,
    shape_amplitude_error,
    share_error,
    talker_losses,
)
from sedtalker.training.talker import TalkerModule, TalkerTraining, load_initial_weights, train_talker
from sedtalker.training.windows import (
    Batches,
    ClipInfo,
    Example,
    RigStore,
    WholeClips,
    Windows,
    collate,
    device_share,
)

LAYERS, WIDTH = 2, 12
TINY = {
    "model.layers": LAYERS, "model.feature_width": WIDTH, "model.width": 32, "model.order": "[mamba+moe, attention]",
    "model.expert_hidden": 32, "model.heads": 2, "model.kv_heads": 1, "model.window": 10, "model.dropout": 0,
    "trainer.enable_progress_bar": False, "trainer.enable_model_summary": False, "pictures": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five clips whose jaw and smile follow their features and emotion."""
    root = tmp_path_factory.mktemp("store")
    (root / "clips").mkdir()
    (root / "features").mkdir()
    rng = np.random.default_rng(0)
    listed = []
    for index, split in enumerate(("train", "train", "train", "validation", "test")):
        frames = 90 + 10 * index
        slow = np.cumsum(rng.normal(size=(frames, LAYERS, WIDTH)), axis=0)
        features = (slow - slow.mean(0)) / slow.std(0)
        lips, expression = np.zeros((frames, 52)), np.zeros((frames, 52))
        lips[:, ARKIT_NAMES.index("jawOpen")] = np.clip(0.3 + 0.2 * features[:, -1, 0], 0, 1)
        intensity = np.linspace(0, 1, frames)
        expression[:, ARKIT_NAMES.index("mouthSmileLeft")] = 0.6 * intensity
        posterior = np.tile(np.eye(len(LABELS))[LABELS.index("happy")], (frames, 1))
        arrays = {
            "weights": np.clip(lips + expression, 0, 1), "trust": np.ones((frames, 52)), "expression": expression,
            "posterior": posterior, "intensity": intensity, "closed": (lips.sum(1) < 0.05).astype(float),
        }  # fmt: skip
        np.savez(root / "clips" / f"clip{index}.npz", **{k: v.astype(np.float16) for k, v in arrays.items()})
        np.save(root / "features" / f"clip{index}.npy", features.astype(np.float16))
        listed.append(
            {
                "id": f"clip{index}",
                "audio": f"audio/clip{index}.wav",
                "speaker": f"speaker{index}",
                "source": "made",
                "split": split,
                "language": "en",
                "frames": frames,
            }
        )
    manifest = {"version": 1, "frame_rate": 50, "names": list(ARKIT_NAMES), "clips": listed}
    (root / "manifest.json").write_text(json.dumps(manifest))
    return root


@pytest.fixture
def configured(store: Path, tmp_path: Path):
    """The path of a configuration, and overrides for a run of it that takes seconds."""
    path = tmp_path / "talker.yaml"
    path.write_text("steps: 30\nvalidate_every: 10\nbatch_size: 4\nwindow: 1.0\nwarmup: 5\n")

    def overrides(output: str, **changes: object) -> list[str]:
        settings = {"store": store, "output": tmp_path / output, **TINY, **changes}
        return [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in settings.items()]

    return path, overrides


def csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def logged(output: Path) -> list[dict[str, float]]:
    """Rows of the validation metrics."""
    header, *rows = [
        line.split(",") for line in (output / "log" / "version_0" / "metrics.csv").read_text().splitlines()
    ]
    named = [dict(zip(header, row, strict=True)) for row in rows]
    return [{k: float(v) for k, v in row.items() if v} for row in named if row["val/loss"]]


@pytest.mark.slow
def test_it_overfits_one_clip(configured, tmp_path: Path) -> None:
    path, overrides = configured
    train_talker(path, overrides("run", overfit_one=True, steps=150, validate_every=50, lr=5e-3))
    figures = logged(tmp_path / "run")
    assert figures[-1]["val/values"] < 2e-4  # of a jaw that swings by 0.2 and a smile of 0.6
    assert 0.8 < figures[-1]["val/motion_ratio"] < 1.2


def test_lightnings_irrelevant_warnings_are_hidden(
    configured, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    path, overrides = configured
    train_talker(path, overrides("run", steps=2, validate_every=1))
    printed = [str(warning.message) for warning in recwarn]
    assert not [text for text in printed if "logging interval" in text or "LeafSpec" in text]


def test_a_resumed_run_ends_with_the_same_weights(configured, tmp_path: Path) -> None:
    path, overrides = configured
    changes = {"model.dropout": 0.1, "accumulate_grad_batches": 2}
    train_talker(path, overrides("whole", **changes))
    train_talker(path, overrides("stopped", **changes, **{"trainer.max_epochs": 1}))
    train_talker(path, overrides("stopped", **changes))
    whole, stopped = (torch.load(tmp_path / run / "last.ckpt", weights_only=False) for run in ("whole", "stopped"))
    assert whole["global_step"] == stopped["global_step"] == 30
    for name, value in whole["state_dict"].items():
        torch.testing.assert_close(stopped["state_dict"][name], value, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("window", [1.0, 0])
def test_two_processes_follow_the_curve_of_one_and_it_resumes_their_run(
    configured, tmp_path: Path, window: float
) -> None:
    """Two processes make half of the steps, then one process makes the others."""
    path, overrides = configured
    changes = {"window": window, "steps": 12, "validate_every": 6, "trainer.log_every_n_steps": 1}
    train_talker(path, overrides("one", **changes))
    devices = {"trainer.devices": 2, "trainer.strategy": "ddp", "trainer.accelerator": "cpu", "trainer.max_epochs": 1}
    command = [sys.executable, "-m", "sedtalker", "train", "talker", "--config", str(path)]
    finished = subprocess.run([*command, *overrides("two", **changes, **devices)], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    half = torch.load(tmp_path / "two" / "last.ckpt", weights_only=True)
    assert half["global_step"] == 6
    train_talker(path, overrides("two", **changes))

    def curve(run: str, name: str) -> list[float]:
        rows = [row for log in sorted((tmp_path / run / "log").glob("*/metrics.csv")) for row in csv_rows(log)]
        return [float(row[name]) for row in rows if row.get(name)]

    for name, length in (("train/loss", 12), ("val/loss", 2)):
        assert len(curve("one", name)) == len(curve("two", name)) == length
        np.testing.assert_allclose(curve("two", name), curve("one", name), rtol=2e-3)
    whole, resumed = (torch.load(tmp_path / run / "last.ckpt", weights_only=True) for run in ("one", "two"))
    for name, weights in whole["state_dict"].items():
        torch.testing.assert_close(resumed["state_dict"][name], weights, rtol=1e-2, atol=2e-4)


def test_mixed_precision_and_accumulated_gradients_train_on_the_cpu(configured, tmp_path: Path) -> None:
    path, overrides = configured
    settings = {"trainer.precision": "bf16-mixed", "accumulate_grad_batches": 2, "model.order": "[mamba, attention]"}
    train_talker(path, overrides("half", steps=4, validate_every=2, **settings))
    first, last = logged(tmp_path / "half")
    assert last["step"] == 3 and np.isfinite(last["val/loss"]) and last["val/loss"] < 2 * first["val/loss"]
    assert next(load_talker_model(tmp_path / "half" / "model").parameters()).dtype == torch.float32


def test_a_batch_that_devices_cannot_share_is_refused(configured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning.Trainer.world_size", 3)
    path, overrides = configured
    with pytest.raises(DataError, match="batch_size 4 for 3 devices"):
        train_talker(path, overrides("shared", steps=2))


def test_devices_share_the_batches_of_one() -> None:
    shares = [device_share(24, 6, rank, 3) for rank in range(3)]
    assert sorted(index for share in shares for index in share) == list(range(24))
    for first in range(0, 8, 2):
        together = {index for share in shares for index in share[first : first + 2]}
        assert together == set(range(3 * first, 3 * first + 6))


def test_a_run_is_logged_twice_with_a_line_of_progress(
    configured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    path, overrides = configured
    shown = {"logger": "both", "trainer.enable_progress_bar": True, "accumulate_grad_batches": 2}
    train_talker(path, overrides("run", steps=4, **shown))
    files = {path.name.split(".")[0] for path in (tmp_path / "run" / "log" / "version_0").iterdir()}
    assert {"metrics", "events"} <= files
    assert "training: 100%" in capsys.readouterr().err


def test_a_run_that_no_longer_improves_ends_early(configured, tmp_path: Path) -> None:
    path, overrides = configured
    train_talker(path, overrides("run", steps=100, lr=1e-12, patience=2))
    last = torch.load(tmp_path / "run" / "last.ckpt", weights_only=False)
    assert last["global_step"] <= 40  # a first validation, and two that are no better


def test_init_from_loads_an_exported_talker_of_the_same_sizes(configured, tmp_path: Path) -> None:
    path, overrides = configured
    first = train_talker(path, overrides("first", steps=10))
    again = train_talker(path, overrides("again", steps=10, lr=1e-9, init_from=first))
    before, after = (load_talker_model(folder).state_dict() for folder in (first, again))
    assert all(torch.allclose(before[name], after[name], atol=1e-3) for name in before)
    with pytest.raises(DataError, match="of other sizes"):
        train_talker(path, overrides("wider", **{"model.width": 64, "init_from": first}))


def test_a_talker_of_other_speakers_gives_them_its_mean_style(configured, tmp_path: Path) -> None:
    path, overrides = configured
    first = load_talker_model(train_talker(path, overrides("first", steps=5)))
    other = TalkerModel(replace(first.config, styles=first.config.styles + 3))
    torch.nn.init.normal_(other.styles.weight)
    save_talker_model(other, tmp_path / "other")
    again = load_talker_model(
        train_talker(path, overrides("again", steps=5, lr=1e-9, init_from=tmp_path / "other", weight_decay=0))
    )
    mean = other.styles.weight.mean(dim=0).expand(first.config.styles, -1)
    torch.testing.assert_close(again.styles.weight, mean, atol=1e-2, rtol=0)


@pytest.mark.parametrize("changes", [{"steps": 3}, {"steps": 1}, {"steps": 2, "warmup": 1}, {"steps": 7, "warmup": 0}])
def test_a_run_of_few_steps_validates_and_exports(configured, tmp_path: Path, changes: dict) -> None:
    path, overrides = configured
    folder = train_talker(path, overrides("run", validate_every=5, **changes))
    assert load_talker_model(folder) and logged(tmp_path / "run")


def test_a_finished_run_resumes_with_more_steps(configured, tmp_path: Path) -> None:
    path, overrides = configured
    changes = {"validate_every": 4, "warmup": 2}
    train_talker(path, overrides("run", steps=6, **changes))  # ends within an epoch
    train_talker(path, overrides("run", steps=12, lr=1e-4, **changes))
    last = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 12
    assert last["optimizer_states"][0]["param_groups"][0]["lr"] < 1e-4  # of this run, not of the earlier
    train_talker(path, overrides("run", steps=12, **changes))  # nothing more to do
    with pytest.raises(DataError, match=r"12 steps are done already, 8 were asked for: .*last\.ckpt"):
        train_talker(path, overrides("run", steps=8, **changes))
    with pytest.raises(DataError, match=r"weights of other sizes.*last\.ckpt"):
        train_talker(path, overrides("run", steps=20, **changes, **{"model.width": 64}))
    (tmp_path / "run" / "last.ckpt").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(DataError, match=r"damaged, or not a checkpoint: .*last\.ckpt") as refusal:
        train_talker(path, overrides("run", steps=20, **changes))
    assert "\n" not in str(refusal.value)


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def test_a_checkpoint_to_start_from_is_read_without_running_its_code(configured, tmp_path: Path) -> None:
    path, overrides = configured
    train_talker(path, overrides("first", steps=2))
    train_talker(path, overrides("second", steps=2, init_from=tmp_path / "first" / "last.ckpt"))
    trap = tmp_path / "trap.ckpt"
    torch.save({"state_dict": {}, "more": Trap(tmp_path / "sprung")}, trap)
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    for name in ("trap", "other", "text", "absent"):
        with pytest.raises(DataError, match=f"{name}.ckpt") as refusal:
            train_talker(path, overrides("third", steps=2, init_from=tmp_path / f"{name}.ckpt"))
        assert "\n" not in str(refusal.value)
    assert not (tmp_path / "sprung").exists()


def test_training_leaves_the_process_generators_alone(store: Path) -> None:
    model = TalkerConfig(layers=LAYERS, feature_width=WIDTH, width=16, order=("mamba",), dropout=0.5)
    module = TalkerModule(TalkerTraining("store", "output", model=model))
    module.log_dict = lambda figures, sync_dist: None
    torch.nn.init.normal_(module.talker.lips.weight)
    opened = RigStore(store)
    batch = collate([opened.example(opened.clips[0], 0, 50, 0)])
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (module.training_step(batch, index).item() for index in (0, 0, 1))
    torch.testing.assert_close(torch.rand(3), expected)
    assert again == pytest.approx(first, rel=1e-6)
    assert other != pytest.approx(first, rel=1e-4)  # dropout is drawn by the step


def test_devices_draw_different_dropout(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = TalkerConfig(layers=LAYERS, feature_width=WIDTH, width=16, order=("mamba",), dropout=0.5)
    module = TalkerModule(TalkerTraining("store", "output", model=model))
    module.log_dict = lambda figures, sync_dist: None
    torch.nn.init.normal_(module.talker.lips.weight)
    opened = RigStore(store)
    batch = collate([opened.example(opened.clips[0], 0, 50, 0)])
    losses = []
    for rank in (0, 1):
        monkeypatch.setattr(TalkerModule, "global_rank", rank)
        losses.append(module.training_step(batch, 0).item())
    assert losses[0] != losses[1]


def test_a_start_of_another_basis_is_refused(tmp_path: Path) -> None:
    sizes = TalkerConfig(
        layers=LAYERS, feature_width=WIDTH, width=16, order=("mamba",), head="pca", coefficients=4, vertices=7
    )
    module = TalkerModule(TalkerTraining("store", "output", model=sizes))
    torch.nn.init.normal_(module.talker.basis)
    save_talker_model(module.talker, tmp_path / "same")
    load_initial_weights(module, tmp_path / "same")
    module.talker.basis.neg_()
    with pytest.raises(DataError, match="another basis"):
        load_initial_weights(module, tmp_path / "same")


def test_the_exported_folder_speaks_the_same_in_a_new_process(configured, tmp_path: Path) -> None:
    path, overrides = configured
    folder = train_talker(path, overrides("run", steps=10))
    torch.manual_seed(0)
    inputs = torch.randn(1, 50, LAYERS, WIDTH), torch.rand(1, 50, len(LABELS)).softmax(-1), torch.rand(1, 50)
    here = load_talker_model(folder)(*inputs)
    torch.save(inputs, tmp_path / "inputs.pt")
    code = (
        "import sys, torch; from sedtalker.talker.model import load_talker_model; "
        "model = load_talker_model(sys.argv[1]); torch.save(model(*torch.load(sys.argv[2])), sys.argv[3])"
    )
    arguments = [str(folder), str(tmp_path / "inputs.pt"), str(tmp_path / "there.pt")]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)
    torch.testing.assert_close(torch.load(tmp_path / "there.pt"), here, rtol=0, atol=1e-6)


def test_a_clip_is_drawn_after_each_validation(configured, tmp_path: Path) -> None:
    path, overrides = configured
    train_talker(path, overrides("run", steps=20, pictures=True))
    drawn = sorted((tmp_path / "run" / "pictures").iterdir())
    assert [file.name for file in drawn] == ["step_000010.png", "step_000020.png"]
    sheet = np.asarray(Image.open(drawn[-1]))
    above, below = np.split(sheet.astype(int), 2)
    assert sheet.shape == (2 * 192, 6 * 192, 3)
    assert np.abs(above - below).max() > 50  # a talker of twenty steps is not there yet


def test_a_talker_that_stays_still_is_reported(configured, capsys: pytest.CaptureFixture[str]) -> None:
    path, overrides = configured
    train_talker(path, overrides("run", steps=10, lr=0.0))
    assert "collapse: predicted motion is 0% of the true motion" in capsys.readouterr().out


@pytest.mark.parametrize("head", ["basis", "pca"])
def test_it_trains_on_a_vertex_corpus(head: str, tmp_path: Path, configured) -> None:
    path, overrides = configured
    root, vertices, frames = tmp_path / "vertices", 7, 40
    (root / "clips").mkdir(parents=True)
    (root / "features").mkdir()
    rng = np.random.default_rng(0)
    clips = []
    for split in ("train", "validation"):
        np.save(root / "clips" / f"{split}.npy", rng.normal(0, 1e-3, (frames, vertices, 3)).astype(np.float32))
        np.save(root / "features" / f"{split}-sound.npy", rng.normal(size=(60, LAYERS, WIDTH)).astype(np.float16))
        clips.append(VertexClip(split, split, "s", split, "happy", 1.0, "Smile2", 3, frames, f"{split}-sound", 1.33))
    settings = {"corpus": "made", "fps": 30, "source_fps": 60, "dtype": "float32", "vertices": vertices}
    write_manifest(root, settings, clips, complete=True)
    np.save(root / "faces.npy", np.array([[0, 1, 2], [0, 2, 1], [3, 4, 5], [3, 5, 4]], np.int32))
    np.savez(root / "templates.npz", train=made.template(0, vertices), validation=made.template(1, vertices))
    changes = {"store": root, "model.head": head, "model.coefficients": 4, "model.vertices": vertices, "pictures": True}
    folder = train_talker(path, overrides("run", steps=10, **changes))
    model = load_talker_model(folder)
    inputs = torch.randn(1, 20, LAYERS, WIDTH), torch.rand(1, 20, len(LABELS)), torch.ones(1, 20)
    moved = model.displacements(model(*inputs)[0])
    assert moved.shape == (20, vertices, 3)
    assert moved.any()
    assert (tmp_path / "run" / "pictures" / "step_000010.png").is_file()


def test_whole_clips_come_in_batches_of_about_one_length(store: Path) -> None:
    opened = RigStore(store)
    clips = [replace(clip, frames=frames) for clip in opened.clips[:1] for frames in range(10, 90)]

    def batches(epoch: int) -> Batches:
        return Batches(opened, clips, {"speaker0": 0}, size=4, count=12, seed=3, epoch=epoch)

    first, again, later = batches(0), batches(0), batches(1)
    assert first.batches == again.batches != later.batches
    spans = [np.ptp([clips[number].frames for number in batch]) for batch in first.batches]
    assert np.mean(spans) < 10  # of clips that differ by 80
    lengths = [clips[batch[0]].frames for batch in first.batches]
    assert lengths != sorted(lengths)
    batch, frames = first[0], [clips[number].frames for number in first.batches[0]]
    assert batch.intensity.shape == (4, max(frames)) and batch.features.shape[:2] == (4, max(frames))
    assert batch.target.loss_weight[:, :, 0].sum(1).tolist() == frames


def test_it_trains_on_whole_clips(configured, tmp_path: Path) -> None:
    path, overrides = configured
    changes = {"window": 0, "overfit_one": True, "steps": 48, "validate_every": 24, "lr": 5e-3, "workers": 1}
    train_talker(path, overrides("run", **changes))
    first, second = logged(tmp_path / "run")
    assert second["val/loss"] < 0.7 * first["val/loss"]
    assert 0.8 < second["val/motion_ratio"] < 1.2


@pytest.mark.parametrize("changes", [{"model.layers": 3}, {"model.feature_width": 13}])
def test_features_that_do_not_fit_the_model_are_refused(configured, changes: dict) -> None:
    path, overrides = configured
    way_out = "train with model.encoder=whisper-tiny.en model.layers=2 model.feature_width=12"
    with pytest.raises(DataError, match=f"2 layers of 12.*{way_out}") as refusal:
        train_talker(path, overrides("run", **changes))
    assert "\n" not in str(refusal.value)


def test_a_store_that_was_not_made_is_told(configured, tmp_path: Path) -> None:
    path, overrides = configured
    with pytest.raises(DataError, match=r"no such store: .*data prepare"):
        train_talker(path, overrides("run", store=tmp_path / "absent"))


def test_a_store_that_does_not_fit_the_head_is_refused(configured, store: Path) -> None:
    path, overrides = configured
    with pytest.raises(DataError, match=r"not a vertex store, but model\.head is 'basis'"):
        train_talker(path, overrides("run", **{"model.head": "basis", "model.vertices": 7}))


def test_the_shipped_configurations_are_read() -> None:
    folder = Path(__file__).parent.parent / "configs" / "talker"
    assert {path.stem for path in folder.glob("*.yaml")} >= {"default", "paper"}
    for path in folder.glob("*.yaml"):
        read_config(path, (), TalkerTraining)


def test_windows_repeat_in_an_epoch_and_padding_has_no_loss_weight(store: Path) -> None:
    opened = RigStore(store)
    clips = [clip for clip in opened.clips if clip.split == "train"]

    def windows(epoch: int, frames: int = 50) -> Windows:
        return Windows(opened, clips, {"speaker0": 0}, frames, 8, seed=3, epoch=epoch)

    first, again, later = windows(0), windows(0), windows(1)
    assert all(torch.equal(first[i].features, again[i].features) for i in range(8))
    assert not all(torch.equal(first[i].features, later[i].features) for i in range(8))
    long = windows(0, frames=120)[0]
    real = int(long.target.loss_weight[:, 0].sum())
    assert len(long.intensity) == 120 and real in (90, 100, 110)
    assert not long.target.loss_weight[real:].any()


def test_windows_often_lie_at_the_ends_of_a_clip_and_reach_all_of_it() -> None:
    class Asked:
        clips = (ClipInfo("long", "someone", "tts", "train", 400),)

        def example(self, clip: ClipInfo, start: int, stop: int, style: int) -> Example:
            empty, target = torch.zeros(stop - start), Target(*torch.zeros(2, stop - start, 52), None, torch.zeros(1))
            return Example(empty, empty, empty, torch.tensor(start), target)

    windows = Windows(Asked(), Asked.clips, {}, 100, 600, seed=0)
    starts = np.array([int(windows[i].style) for i in range(600)])
    assert starts.min() == 0 and starts.max() == 300
    # 26 of 351 places each, where one of 301 is the chance of any other
    assert 0.04 < (starts == 0).mean() < 0.11 and 0.04 < (starts == 300).mean() < 0.11
    assert len(np.unique(starts)) > 200


def test_missing_features_name_the_way_to_make_them(store: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text((store / "manifest.json").read_text())
    with pytest.raises(DataError, match=r"no features of clip0 .*cache_features"):
        RigStore(tmp_path)
    with pytest.raises(DataError, match="not a rig store"):
        RigStore(tmp_path / "absent")


def middle_gaps(face: Face, weights: np.ndarray) -> np.ndarray:
    """Distances (T, 7) in mm between facing lip vertices of posed meshes: of the 13 pairs those nearest the middle."""
    assert face.lip_pairs is not None and len(face.lip_pairs) == 13
    temp_path = np.abs(face.template[face.lip_pairs].mean(axis=1)[:, 0])
    upper, lower = face.lip_pairs[np.argsort(temp_path)[:7]].T
    posed = face.pose(weights)
    return np.linalg.norm(posed[:, upper] - posed[:, lower], axis=-1) * 1000


def test_the_lip_gap_follows_the_face() -> None:
    face = load_face("default")
    assert face.lip_pairs is not None
    mouth = Mouth(face)
    torch.manual_seed(0)
    one, other = torch.rand(2, 4, 52) * 0.3
    moved = (face.pose(one.numpy()) - face.pose(other.numpy()))[:, face.masks["lips"]] * 1000
    expected = np.square(moved).sum(-1).mean(-1)
    got = mouth.squared_distance((one - other)[None])[0]
    np.testing.assert_allclose(got, expected, rtol=1e-3)
    gaps = middle_gaps(face, one.numpy())
    np.testing.assert_allclose(np.sort(mouth.gaps(one[None])[0]), np.sort(gaps), rtol=1e-3, atol=2e-3)
    assert not mouth.beyond_closed(torch.zeros(1, 1, 52)).any()


def test_an_amplitude_is_that_of_the_gap_where_the_truth_is_known() -> None:
    face = load_face("default")
    mouth = Mouth(face)
    jaw = ARKIT_NAMES.index("jawOpen")
    true = torch.zeros(1, 40, 52)
    true[0, ::2, jaw] = 0.4
    half = true / 2
    more, less = (middle_gaps(face, poses[0].numpy()).mean(-1).std() for poses in (true, half))
    target = made_target(true)
    assert talker_losses(half, half, torch.zeros(()), target, mouth, True)["amplitude"] == pytest.approx(
        (more - less) ** 2, rel=1e-3
    )
    assert amplitude_error(true + 0.0, target, mouth) < 1e-6
    unknown = torch.ones_like(true)
    unknown[:, 20:] = 0  # of the second half nothing is known, of the first all but the smile
    unknown[..., ARKIT_NAMES.index("mouthSmileLeft")] = 0
    astray = true.clone()
    astray[:, 20:, jaw] = 0.9
    astray[:, ::3, ARKIT_NAMES.index("mouthSmileLeft")] = 1.0
    assert amplitude_error(astray, target._replace(loss_weight=unknown), mouth) < 1e-6


def test_contour_and_shape_amplitude_depend_on_gap_and_width() -> None:
    mouth = Mouth(load_face("default"))
    jaw, funnel, blink = (ARKIT_NAMES.index(name) for name in ("jawOpen", "mouthFunnel", "eyeBlinkLeft"))
    stretch = [ARKIT_NAMES.index(f"mouthStretch{side}") for side in ("Left", "Right")]
    true = torch.zeros(1, 40, 52)
    true[0, :, jaw] = 0.2 + 0.2 * torch.sin(torch.arange(40) / 3)
    true[0, :, stretch] = (0.3 + 0.3 * torch.cos(torch.arange(40) / 4))[:, None]
    target = made_target(true)
    assert contour_error(true, target, mouth) == shape_amplitude_error(true, target, mouth) == 0
    blinking = true.clone()
    blinking[..., blink] = 1.0
    assert contour_error(blinking, target, mouth) == 0
    wider = true.clone()
    wider[..., stretch] += 0.1
    gap, width = mouth.gap_and_width(wider - true)[0, 0] / torch.tensor(USUAL[:2])
    assert contour_error(wider, target, mouth) == pytest.approx(float(gap**2 + width**2) / 2, rel=1e-3)
    assert shape_amplitude_error(wider, target, mouth) < 1e-4  # the spread is that of the truth
    errors = [float(shape_amplitude_error(share * true, target, mouth)) for share in (0.9, 0.6, 0.3)]
    assert 0 < errors[0] < errors[1] < errors[2]
    unknown = target._replace(loss_weight=torch.zeros_like(true))
    assert contour_error(0 * true, unknown, mouth) == shape_amplitude_error(0 * true, unknown, mouth) == 0
    fast, slow = true.clone(), true.clone()
    fast[:, ::2, funnel] = 0.3
    slow[:, :20, funnel] = 0.3
    assert shape_amplitude_error(fast, target, mouth) > shape_amplitude_error(slow, target, mouth)


def test_only_the_head_is_trained_when_the_rest_is_frozen(configured, tmp_path: Path) -> None:
    path, overrides = configured
    first = train_talker(path, overrides("first", steps=5))
    again = train_talker(path, overrides("again", steps=10, lr=1e-2, init_from=first, trainable="head"))
    before, after = (load_talker_model(folder).state_dict() for folder in (first, again))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"lips.weight", "lips.bias"}
    with pytest.raises(DataError, match="trainable is 'tail'"):
        train_talker(path, overrides("other", trainable="tail"))


def test_a_network_of_the_lip_gap_is_attached_and_stays_as_it_is(configured, tmp_path: Path) -> None:
    path, overrides = configured
    network, folder = LipOpening(LAYERS, WIDTH, 8), tmp_path / "opening"
    network.mean.copy_(torch.tensor([3.0, 0.0]))
    save_lip_opening(network, folder)
    rules = {"model.injection": "rules", "model.look_ahead": 0}
    attached = {"model.opening_width": 8, "opening": folder, **rules}
    first = train_talker(path, overrides("first", steps=5, **rules))
    again = train_talker(path, overrides("again", steps=10, lr=1e-2, init_from=first, **attached))
    trained, after = load_talker_model(again), load_talker_model(again).state_dict()
    assert all(torch.equal(after[f"opening.{name}"], x) for name, x in load_lip_opening(folder).state_dict().items())
    assert trained.opening_share is not None and trained.opening_share.weight[:, :-3].any()
    assert not torch.equal(load_talker_model(first).lips.weight, trained.lips.weight)
    further = train_talker(path, overrides("further", steps=2, lr=0, init_from=again, **attached))
    torch.testing.assert_close(load_talker_model(further).state_dict(), after)  # it had such a network already
    with pytest.raises(DataError, match=r"width 8.*opening_width=8"):
        train_talker(path, overrides("wider", steps=2, **{**attached, "model.opening_width": 16}))
    with pytest.raises(DataError, match="without a network"):
        train_talker(path, overrides("without", **{"model.opening_width": 8}, **rules))


def test_pseudo_labels_replace_openings_of_synthetic_motion(store: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    shutil.copytree(store, root)
    jaw, close = (ARKIT_NAMES.index(name) for name in ("jawOpen", "mouthClose"))
    for clip in ("clip0", "clip3"):
        path = root / "clips" / f"{clip}.npz"
        with np.load(path) as stored:
            arrays = {name: stored[name].astype(np.float32) for name in stored.files}
        arrays["trust"][:40, (jaw, close)] = LOSS_WEIGHTS.rule_opening  # the rules' opening counts little there
        arrays["expression"][:, jaw] = 0.05
        arrays["weights"][:, jaw] += 0.05
        np.savez(path, **{name: values.astype(np.float16) for name, values in arrays.items()})
    before = RigStore(root).example(RigStore(root).clips[0], 0, 90, 0).target

    def predict(features: torch.Tensor) -> np.ndarray:
        steps = np.arange(len(features))
        return np.stack([4 + 3 * np.sin(steps / 5), 2 * np.cos(steps / 7)], axis=1).astype(np.float32)

    (tmp_path / "bare").mkdir()
    shutil.copy(root / "manifest.json", tmp_path / "bare" / "manifest.json")
    asked = [clip.id for clip in label_openings(root, predict)]
    assert asked == ["clip0", "clip1", "clip2", "clip3"]  # not the one for testing
    with pytest.raises(DataError, match="no features"):  # found before a clip is changed
        label_openings(root.parent / "bare", predict)
    changed = {path.name: path.read_bytes() for path in (root / "clips").iterdir()}
    label_openings(root, predict)  # again: what is there stays
    assert {path.name: path.read_bytes() for path in (root / "clips").iterdir()} == changed
    teacher = torch.from_numpy(np.load(root / "openings" / "clip0.npy").astype(np.float32))
    assert teacher[:, 0].max() > 1  # mm
    after = RigStore(root).example(RigStore(root).clips[0], 0, 90, 0).target
    mouth = Mouth(load_face("default"))
    gap, width = mouth.gap_and_width(after.neutral).T
    inside = teacher[:40, 0] < 28  # mm, what jawOpen can do
    torch.testing.assert_close(gap[:40].clamp(min=0)[inside], teacher[:40, 0][inside], atol=0.4, rtol=0.05)
    wide = teacher[:40, 1] > 0
    assert width[:40][wide].mean() > width[:40][~wide].mean()
    before_gap = mouth.gap_and_width(before.neutral)[40:, 0].clamp(min=0)
    torch.testing.assert_close(gap[40:].clamp(min=0), before_gap, atol=0.3, rtol=0)
    torch.testing.assert_close(
        after.values[:40, jaw] - after.neutral[:40, jaw], torch.full((40,), 0.05), atol=2e-3, rtol=0
    )
    assert after.loss_weight[0, jaw] == pytest.approx(LOSS_WEIGHTS.pseudo_opening, abs=1e-3)
    validated = WholeClips(RigStore(root), RigStore(root).clips[3:4], 90)[0].target
    assert validated.loss_weight[0, jaw] == pytest.approx(LOSS_WEIGHTS.pseudo_opening, abs=1e-3)
    assert after.loss_weight[40, jaw] == 1


@pytest.mark.parametrize("injection", INJECTIONS)
def test_a_new_talker_with_closed_lips_learns_to_open_them(injection: str) -> None:
    model = TalkerModel(
        TalkerConfig(layers=LAYERS, feature_width=WIDTH, width=16, order=("mamba",), injection=injection)
    )
    posterior = torch.eye(8)[:1].expand(1, 5, 8)
    motion = model.motion(torch.randn(1, 5, LAYERS, WIDTH), posterior, torch.zeros(1, 5))
    (motion.coefficients - 0.3).square().mean().backward()
    gradient = model.lips.bias.grad
    assert gradient is not None and (gradient < 0).all()


def test_a_teacher_learns_tracked_lips_and_labels_other_voices(store: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    shutil.copytree(store, root)
    with pytest.raises(DataError, match="no training clips of grid"):
        label_with_teacher(root)
    manifest = json.loads((root / "manifest.json").read_text())
    manifest["clips"][0]["source"] = "grid"
    (root / "manifest.json").write_text(json.dumps(manifest))
    small = TeacherTraining(steps=2, width=8)
    labelled = [clip.id for clip in label_with_teacher(root, small, [replace(small, width=12), small])]
    assert labelled == ["clip1", "clip2", "clip3"]
    assert load_lip_opening(root / "opening-network").project.out_features == 8
    written = {path: path.read_bytes() for path in (root / "openings").iterdir()}
    assert label_with_teacher(root, replace(small, seed=1))  # nothing is left to label
    assert {path: path.read_bytes() for path in (root / "openings").iterdir()} == written


def test_a_network_follows_the_predictions_of_its_teachers(store: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    shutil.copytree(store, root)
    manifest = json.loads((root / "manifest.json").read_text())
    manifest["clips"][0]["source"] = "grid"
    (root / "manifest.json").write_text(json.dumps(manifest))
    clips, training = read_rig_manifest(root).clips, TeacherTraining(steps=40, width=8, lr=2e-2, mixing=0.0)
    gaps = []
    for gap in (2.0, 9.0):
        predicted = {"clip1": torch.tensor([[gap, 0.0]]).expand(90, 2)}
        network = train_network(root, clips[:1], training, ["clip0"], predicted)
        gaps.append(float(network(read_features(root, "clip1").float()[None])[1][..., 0].detach().mean()))
    assert gaps[1] > gaps[0] + 1


def test_the_style_of_another_voice_replaces_mean_and_deviation() -> None:
    torch.manual_seed(0)
    features, other = torch.randn(50, 2, 16), 3 * torch.randn(80, 2, 16) + torch.randn(2, 16)
    normed = torch.nn.functional.layer_norm(other, (16,))
    mixed = mix_style(features, other, 1.0)
    torch.testing.assert_close(mixed.mean(0), normed.mean(0), atol=1e-4, rtol=0)
    torch.testing.assert_close(mixed.std(0, correction=0), normed.std(0, correction=0), atol=0.01, rtol=0.01)
    torch.testing.assert_close(
        mix_style(features, other, 0.0), torch.nn.functional.layer_norm(features, (16,)), atol=0.02, rtol=0.02
    )


def test_windows_are_cut_from_the_features_of_every_look_ahead(store: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    shutil.copytree(store, root)
    clips = len(RigStore(root).clips)
    shutil.copytree(root / "features", root / "features-80")
    for path in (root / "features-80").glob("clip*.npy"):
        np.save(path, 0 * np.load(path))
    opened = RigStore(root)
    assert len(opened.clips) == 2 * clips
    folders = {clip.features: opened.example(clip, 0, 20, 0).features for clip in opened.clips if clip.id == "clip0"}
    assert folders["features"].any() and not folders["features-80"].any()
    next((root / "features-80").glob("clip*.npy")).unlink()
    with pytest.raises(DataError, match="features-80"):
        RigStore(root)


def test_a_folder_of_openings_changes_no_targets_by_itself(store: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    shutil.copytree(store, root)
    (root / "openings").mkdir()
    np.save(root / "openings" / "clip0.npy", np.zeros(90, np.float16))
    with pytest.raises(DataError, match=r"not applied to all clips.*lip_teacher"):
        RigStore(root)


def test_a_store_is_read_anew_when_it_is_opened_anew(store: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    shutil.copytree(store, root)
    opened = RigStore(root)
    before = opened.example(opened.clips[0], 0, 90, 0).target.values
    arrays = dict(np.load(root / "clips" / "clip0.npz"))
    np.savez(root / "clips" / "clip0.npz", **{**arrays, "weights": arrays["weights"] * 0})
    again = RigStore(root)
    assert before.any() and not again.example(again.clips[0], 0, 90, 0).target.values.any()


def test_a_damaged_clip_is_named(store: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    shutil.copytree(store, root)
    (root / "clips" / "clip0.npz").write_bytes(b"nothing")
    opened = RigStore(root)
    with pytest.raises(DataError, match=r"clip cannot be read.*clip0\.npz"):
        opened.example(opened.clips[0], 0, 9, 0)


def made_target(values: Tensor) -> Target:
    return Target(values, torch.ones_like(values), values, torch.ones(values.shape[:2]))


def test_lips_of_a_basis_are_those_of_its_vertices() -> None:
    rng = np.random.default_rng(0)
    basis = rng.normal(0, 1e-3, (4, 3 * 9)).astype(np.float32)  # metres
    values = torch.from_numpy(rng.normal(size=(2, 5, 4)).astype(np.float32))
    index = np.array([7, 2, 3])
    moved = (values.numpy() @ basis).reshape(2, 5, 9, 3)[:, :, index] * 1000
    expected = np.square(np.linalg.norm(moved, axis=-1)).mean(-1)
    np.testing.assert_allclose(Lips(index, basis).squared_distance(values), expected, rtol=1e-4)
    millimetres = torch.from_numpy(values.numpy() @ basis * 1000)
    np.testing.assert_allclose(Lips(index, None).squared_distance(millimetres), expected, rtol=1e-4)


def test_the_share_of_the_predicted_gap_is_0_where_something_closes_the_lips() -> None:
    roll = ARKIT_NAMES.index("mouthRollLower")
    values, closed = torch.zeros(1, 60, 52), torch.zeros(1, 60)
    closed[0, 20:22], closed[0, 50:], values[0, 35:38, roll] = 1.0, 2.0, 0.9  # /p/, silence, /f/
    target = made_target(values)._replace(closed=closed)
    logits = torch.full((1, 60), 3.0)
    always = share_error(logits, target)
    logits[0, 18:26], logits[0, 35:38], logits[0, 48:] = -3.0, -3.0, -3.0
    right = share_error(logits, target)
    assert right < 0.3 * always
    logits[0, 40] = -3.0  # closed where nothing determines it
    assert right < share_error(logits, target) < always
    logits[0, 40] = 3.0
    unknown = target._replace(loss_weight=torch.zeros_like(values), closed=torch.zeros_like(closed))
    assert share_error(logits, unknown) == 0
    assert talker_losses(values, values, torch.tensor(0.0), target, None, rig=True, share=logits)["share"] == right


def test_the_true_motion_has_no_loss_but_that_of_its_weights() -> None:
    torch.manual_seed(0)
    values = torch.rand(2, 20, 52)
    terms = talker_losses(values, values, torch.tensor(1.0), made_target(values), None, rig=True)
    assert all(terms[name] == 0 for name in ("values", "velocity", "acceleration", "neutral", "emotion"))
    assert terms["sparsity"] == values.mean()


def test_loss_weight_0_gives_no_loss() -> None:
    target = made_target(torch.zeros(1, 10, 52))
    wrong = torch.rand(1, 10, 52)
    unknown = target._replace(loss_weight=torch.zeros_like(target.loss_weight))
    terms = talker_losses(wrong, wrong, torch.tensor(1.0), unknown, None, rig=True)
    assert all(terms[name] == 0 for name in ("values", "velocity", "acceleration", "neutral", "emotion"))


def test_a_constant_error_has_no_velocity_where_the_loss_weight_changes() -> None:
    truth = torch.rand(1, 20, 52)
    loss_weight = torch.ones_like(truth)
    loss_weight[:, 8:12] = 8.0  # as measured openings have it
    loss_weight[:, 16:] = 0.0  # and as nothing is known after a sentence
    target = made_target(truth)._replace(loss_weight=loss_weight)
    terms = talker_losses(truth + 0.1, truth, torch.tensor(0.0), target, None, rig=True)
    assert terms["values"] > 0.01 and terms["velocity"] < 1e-10 and terms["acceleration"] < 1e-10
    moving = truth + 0.01 * torch.arange(20)[None, :, None] ** 2
    constant = target._replace(loss_weight=torch.full_like(loss_weight, 2.0))
    got = talker_losses(moving, truth, torch.tensor(0.0), constant, None, rig=True)
    errors = (moving - truth) * 2**0.5
    torch.testing.assert_close(got["velocity"], errors.diff(dim=1).square().mean())
    torch.testing.assert_close(got["acceleration"], errors.diff(n=2, dim=1).square().mean())


def test_half_the_motion_has_a_quarter_of_the_spread() -> None:
    truth = torch.rand(2, 50, 52)
    half = 0.5 * (truth - truth.mean(1, keepdim=True))
    spread, true_spread = motion_spread(half, made_target(truth))
    assert (spread / true_spread).item() == pytest.approx(0.25, rel=1e-3)
