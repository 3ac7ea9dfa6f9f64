"""Model folders to the Hugging Face hub; `sedtalker.load("owner/name")` reads them from there."""

from __future__ import annotations

from pathlib import Path

from sedtalker.checkpoint import read_config
from sedtalker.errors import CheckpointError, require

FILES = ("config.json", "model.safetensors", "README.md")  # of a model folder; nothing else is sent


def push_to_hub(
    folder: Path | str, repository: str, *, kind: str = "talker", private: bool = False, token: str | None = None
) -> str:
    """Send a model folder to `repository` ("owner/name"), made if it is not there; returns its address.

    The model card README.md goes along and must be there: it says what the weights were trained on and may be used for.
    `token` is the hub's; None takes the one that `hf auth login` stored.

    Raises:
        CheckpointError: the folder is no model of this kind, has no weights or no card, or the hub refuses it.
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
            f"the hub refuses {repository}: {error}. Check the name, the token and the net"
        ) from error
    return f"https://huggingface.co/{repository}"
