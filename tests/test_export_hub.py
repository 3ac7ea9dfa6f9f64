"""Upload to the Hugging Face hub and download, with folders in place of the network."""

from __future__ import annotations

import fnmatch
import shutil
from pathlib import Path
from unittest.mock import create_autospec

import huggingface_hub
import pytest
import torch

import sedtalker
from sedtalker import resources
from sedtalker.checkpoint import save_checkpoint
from sedtalker.errors import CheckpointError
from sedtalker.export.hub import push_to_hub


class LocalHub:
    """Repositories as folders. Calls must match the signatures of the installed huggingface_hub."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.api = create_autospec(huggingface_hub.HfApi, instance=True)
        self.api.create_repo.side_effect = self._create
        self.api.upload_folder.side_effect = self._upload
        self.api_class = create_autospec(huggingface_hub.HfApi, return_value=self.api)
        download = create_autospec(huggingface_hub.snapshot_download, side_effect=self._download)
        monkeypatch.setattr(huggingface_hub, "HfApi", self.api_class)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)

    def _create(self, repo_id: str, exist_ok: bool = False, **_: object) -> None:
        (self.root / repo_id).mkdir(parents=True, exist_ok=exist_ok)

    def _upload(self, repo_id: str, folder_path: str, allow_patterns: list[str], **_: object) -> None:
        for path in Path(folder_path).iterdir():
            if any(fnmatch.fnmatch(path.name, pattern) for pattern in allow_patterns):
                shutil.copy(path, self.root / repo_id / path.name)

    def _download(self, repo_id: str, **_: object) -> str:
        if not (self.root / repo_id).is_dir():
            raise OSError("404")
        return str(self.root / repo_id)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalHub:
    return LocalHub(tmp_path / "hub", monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    save_checkpoint(path, "talker", {"width": 4}, {"weight": torch.arange(4.0)})
    (path / "README.md").write_text("# Card\n")
    return path


def test_an_uploaded_talker_is_loaded_by_its_name(hub: LocalHub, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(resources.asset("talker", "default"), folder)
    (folder / "notes.txt").write_text("private\n")
    address = push_to_hub(folder, "someone/my-talker", private=True, token="secret")
    assert address == "https://huggingface.co/someone/my-talker"
    assert hub.api_class.call_args.kwargs == {"token": "secret"} and hub.api.create_repo.call_args.kwargs["private"]
    uploaded = sorted(path.name for path in (hub.root / "someone" / "my-talker").iterdir())
    assert uploaded == ["README.md", "config.json", "model.safetensors"]
    shutil.rmtree(folder)
    loaded, packaged = sedtalker.load("someone/my-talker", device="cpu"), sedtalker.load(device="cpu")
    assert loaded.model.config == packaged.model.config
    assert loaded.weights["talker"]["sha256"] == packaged.weights["talker"]["sha256"]


def test_incomplete_folders_and_wrong_names_are_refused_before_the_upload(hub: LocalHub, folder: Path) -> None:
    with pytest.raises(CheckpointError, match="owner/name"):
        push_to_hub(folder, "my-talker")
    with pytest.raises(CheckpointError, match="not a diarizer"):
        push_to_hub(folder, "a/b", kind="diarizer")
    (folder / "README.md").unlink()
    with pytest.raises(CheckpointError, match=r"lacks README\.md"):
        push_to_hub(folder, "a/b")
    assert not hub.api_class.called


def test_errors_of_the_hub_become_one_line(hub: LocalHub, folder: Path) -> None:
    hub.api.create_repo.side_effect = OSError("401 Unauthorized")
    with pytest.raises(CheckpointError, match="the hub refuses a/b: 401 Unauthorized"):
        push_to_hub(folder, "a/b")
    with pytest.raises(CheckpointError, match=r"unknown/model.*404"):
        sedtalker.load("unknown/model", device="cpu")
