"""Models to the hub and back, without a network: a fake takes the hub's place."""

from __future__ import annotations

import fnmatch
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import torch

from sedtalker.checkpoint import load_checkpoint, save_checkpoint
from sedtalker.errors import CheckpointError
from sedtalker.export.hub import push_to_hub
from sedtalker.pipeline import _model_folder


class FakeHub:
    """Repositories as folders, behind the names of huggingface_hub that are used."""

    def __init__(self, root: Path) -> None:
        self.root, self.tokens, self.private = root, [], {}

    def HfApi(self, token: str | None = None) -> FakeHub:
        self.tokens.append(token)
        return self

    def create_repo(self, repo_id: str, private: bool, exist_ok: bool) -> None:
        (self.root / repo_id).mkdir(parents=True, exist_ok=exist_ok)
        self.private[repo_id] = private

    def upload_folder(self, repo_id: str, folder_path: str, allow_patterns: list[str]) -> None:
        for path in Path(folder_path).iterdir():
            if any(fnmatch.fnmatch(path.name, pattern) for pattern in allow_patterns):
                shutil.copy(path, self.root / repo_id / path.name)

    def snapshot_download(self, repo_id: str, allow_patterns: list[str]) -> str:
        if not (self.root / repo_id).is_dir():
            raise OSError("404")
        return str(self.root / repo_id)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(tmp_path / "hub")
    for name in ("HfApi", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub, name, getattr(fake, name))
    return fake


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    save_checkpoint(folder, "talker", {"width": 4}, {"weight": torch.arange(4.0)})
    (folder / "README.md").write_text("# Card\n")
    (folder / "notes.txt").write_text("mine\n")
    return folder


def test_there_and_back(hub: FakeHub, model: Path) -> None:
    address = push_to_hub(model, "someone/my-talker", private=True, token="secret")
    assert address == "https://huggingface.co/someone/my-talker"
    assert hub.tokens == ["secret"] and hub.private == {"someone/my-talker": True}
    folder = _model_folder("someone/my-talker")
    config, state = load_checkpoint(folder, "talker")
    assert config == {"width": 4} and torch.equal(state["weight"], torch.arange(4.0))
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_what_cannot_be_pushed(hub: FakeHub, model: Path) -> None:
    with pytest.raises(CheckpointError, match="owner/name"):
        push_to_hub(model, "my-talker")
    with pytest.raises(CheckpointError, match="not a diarizer"):
        push_to_hub(model, "a/b", kind="diarizer")
    (model / "README.md").unlink()
    with pytest.raises(CheckpointError, match=r"lacks README\.md"):
        push_to_hub(model, "a/b")
    assert not hub.root.exists()


def test_the_hub_says_no(hub: FakeHub, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("401 Unauthorized")

    monkeypatch.setattr(hub, "create_repo", refuse)
    with pytest.raises(CheckpointError, match="the hub refuses a/b: 401 Unauthorized"):
        push_to_hub(model, "a/b")
    with pytest.raises(CheckpointError, match="the hub cannot provide it"):
        _model_folder("nobody/nothing")
