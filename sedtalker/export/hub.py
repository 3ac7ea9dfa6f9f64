"""Upload model folders to the Hugging Face hub, from where `sedtalker.load("owner/name")` reads them."""

from __future__ import annotations

from pathlib import Path

from sedtalker.checkpoint import read_config
from sedtalker.errors import CheckpointError, require

FILES = ("config.json", "model.safetensors", "README.md")  # of a model folder; no other file is uploaded


def push_to_hub(
    folder: Path | str, repository: str, *, kind: str = "talker", private: bool = False, token: str | None = None
) -> str:
    """Upload a model folder to `repository` ("owner/name"), created if it does not exist; returns its address.

    The model card README.md is required: it states the training data and the permitted use of the weights. `token` is
    the hub's; None uses the one that `hf auth login` stored.

    Raises:
        CheckpointError: the folder does not hold a model of this kind, lacks weights or card, or the hub refuses it.
        MissingExtraError: huggingface_hub is not installed.
    """
    folder = Path(folder)
    read_config(folder, kind)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"incomplete model folder: {folder} lacks {', '.join(missing)}. Add it before pushing")
    if repository.count("/") != 1:
        raise CheckpointError(f"not the name of a repository: {repository}. Write owner/name")
    api = require("huggingface_hub", "hub").HfApi(token=token)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=str(folder), allow_patterns=list(FILES))
    except Exception as error:  # the hub's errors share no base class: HTTP, network and validation
        raise CheckpointError(
            f"the hub refuses {repository}: {error}. Check the name, the token and the network"
        ) from error
    return f"https://huggingface.co/{repository}"
