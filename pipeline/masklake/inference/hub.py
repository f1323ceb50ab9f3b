"""Checkpoints of the Hugging Face hub: only JSON, tokenizer text and safetensors are ever downloaded."""

from __future__ import annotations

import re
from pathlib import Path

from masklake.errors import Refused
from masklake.inference.files import pickle_message

_WANTED = ["*.json", "merges.txt", "vocab.txt", "README.md", "*.safetensors"]
_TIMEOUT = 10.0  # seconds until the hub must have answered


def resolve_hub(model_id: str, revision: str | None = None) -> tuple[Path, str]:
    """Download a checkpoint (or find it in the hub's cache): its folder, and the commit that `revision` is.

    Without network, what the cache has of that revision is used.

    Raises:
        Refused: there is no such model or revision, it is gated, it has no safetensors, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
        folder = _cached(model_id, revision)
        if folder is not None:
            return folder, revision
    if not _is_reachable(model_id, revision):
        folder = _cached(model_id, revision)
        if folder is None:
            raise Refused(f"{model_id}: the Hugging Face hub cannot be reached from here, and its cache does not hold the model")
        return folder, folder.name
    try:
        # By the revision's name, which the cache then remembers for a day without network; all files are of the one commit it is now.
        folder = Path(snapshot_download(model_id, revision=revision, allow_patterns=_WANTED, etag_timeout=_TIMEOUT))
    except Exception as error:
        raise Refused(_explain(model_id, revision, error)) from None
    return folder, folder.name


def _is_reachable(model_id: str, revision: str | None) -> bool:
    """Whether the hub answers; what it has there must be usable.

    Raises:
        Refused: the hub has no such model or revision, does not give it, or has pickles only.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        info = HfApi().model_info(model_id, revision=revision, timeout=_TIMEOUT)
    except (HfHubHTTPError, HFValidationError) as error:
        raise Refused(_explain(model_id, revision, error)) from None
    except Exception:  # offline mode, or whatever the HTTP library of the day raises where there is no network
        return False
    names = [file.rfilename for file in info.siblings or []]
    if not any(name in ("model.safetensors", "model.safetensors.index.json") for name in names):
        pickles = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl"))]
        raise Refused(pickle_message(model_id, pickles[0]) if pickles else f"{model_id}: has no model.safetensors on the Hugging Face hub")
    return True


def _cached(model_id: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(model_id, revision=revision, allow_patterns=_WANTED, local_files_only=True))
    except Exception:  # several kinds of "not in the cache"
        return None
    complete = (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
    return folder if complete else None


def _explain(model_id: str, revision: str | None, error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return f"{model_id}: its owner asks you to accept terms on the Hugging Face hub first; do so, and give a token in HF_TOKEN"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{model_id}: has no revision {revision} on the Hugging Face hub"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{model_id}: there is no such model on the Hugging Face hub, or it is private and HF_TOKEN does not open it"
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"{model_id}: cannot be had from the Hugging Face hub: {first}"
