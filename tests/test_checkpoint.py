"""Model folders: plain config and safetensors with sha256, and atomic writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from sedtalker.checkpoint import load_checkpoint, load_weights, save_checkpoint
from sedtalker.errors import CheckpointError, SEDTalkerError
from sedtalker.files import atomic_write
from sedtalker.talker.config import TalkerConfig
from sedtalker.talker.model import TalkerModel, load_talker_model, save_talker_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    state = {"a": torch.linspace(-1, 1, 5), "count": torch.tensor([3])}
    save_checkpoint(tmp_path / "model", "talker", {"width": 8, "order": ["mamba"]}, state)
    return tmp_path / "model"


def test_round_trip_is_float32_of_float16(folder: Path) -> None:
    config, state = load_checkpoint(folder, "talker")
    assert config == {"width": 8, "order": ["mamba"]}
    assert state["a"].dtype == torch.float32 and state["count"].dtype == torch.int64
    torch.testing.assert_close(state["a"], torch.linspace(-1, 1, 5).half().float(), atol=0, rtol=0)


def test_other_users_can_read_the_weights_as_the_configuration(folder: Path) -> None:
    assert (folder / "model.safetensors").stat().st_mode == (folder / "config.json").stat().st_mode


def test_tensors_in_8_bits_have_a_scale_for_each_row(tmp_path: Path) -> None:
    weight = torch.randn(4, 3, 50) * torch.tensor([1e-3, 1.0, 30.0, 0.0])[:, None, None]
    save_checkpoint(tmp_path, "talker", {}, {"a": torch.ones(2, 2), "b.weight": weight}, eight_bits=["b.weight"])
    _, state = load_checkpoint(tmp_path, "talker")
    assert set(state) == {"a", "b.weight"} and state["b.weight"].shape == weight.shape
    error = (state["b.weight"] - weight).abs().amax((1, 2))
    assert (error <= weight.abs().amax((1, 2)) / 125).all()


def test_other_kinds_missing_and_damaged_files_are_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="not a diarizer"):
        load_checkpoint(folder, "diarizer")
    with pytest.raises(CheckpointError, match=r"no model folder.*choose a packaged talker: default$"):
        load_checkpoint(folder / "absent", "talker")
    with pytest.raises(CheckpointError, match=r"choose a packaged diarizer: default, open$"):
        load_checkpoint("closed", "diarizer")
    with pytest.raises(CheckpointError, match=r"Check the path$"):
        load_checkpoint("closed", "speech-encoder")
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="sha256"):
        load_checkpoint(folder, "talker")
    weights.unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        load_checkpoint(folder, "talker")


def test_the_folder_of_a_training_run_names_the_model_in_it(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(folder, run / "model")
    with pytest.raises(CheckpointError, match=r"no model folder: .*run has .*Name .*run.model$"):
        load_checkpoint(run, "talker")


def test_weights_of_another_model_are_refused_in_one_line(folder: Path) -> None:
    _, state = load_checkpoint(folder, "talker")
    with pytest.raises(CheckpointError, match="train with this version") as caught:
        load_weights(torch.nn.Linear(2, 2), state, folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"kind": "talker"}', '{"kind": "talker", "config": {}, "version": 99}']
)
def test_invalid_configurations_are_refused_in_one_line(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(CheckpointError) as refusal:
        load_checkpoint(folder, "talker")
    assert "\n" not in str(refusal.value)


def test_weights_with_nan_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        save_checkpoint(tmp_path / "bad", "talker", {}, {"a": torch.tensor([float("nan")])})
    assert not (tmp_path / "bad").exists()


def test_config_is_plain_json(folder: Path) -> None:
    assert json.loads((folder / "config.json").read_text())["kind"] == "talker"


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half() -> None:
        with atomic_write(path) as temp_path:
            temp_path.write_text("ha")
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SEDTalkerError, match="cannot write"), atomic_write(tmp_path / "file" / "a.txt") as temp_path:
        temp_path.write_text("x")


def test_sizes_without_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("width", "window", "experts", "emotion_kernel_frames"):
        with pytest.raises(CheckpointError, match=f"{name} is 1000000000, need a whole number from 1 to 1000000"):
            TalkerConfig(**{name: 10**9})

    def allocate(config: TalkerConfig) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")  # torch's MemoryError

    save_talker_model(TalkerModel(TalkerConfig(width=16, order=("mamba",), heads=2)), tmp_path)
    monkeypatch.setattr("sedtalker.talker.model.TalkerModel", allocate)
    with pytest.raises(CheckpointError, match="do not fit their configuration") as caught:
        load_talker_model(tmp_path)
    assert "\n" not in str(caught.value)
