"""Checkpoints of the Hugging Face hub: only JSON, tokenizer text, cards and weights are ever downloaded.

Many repositories hold pickled weights alone on their main branch, and the same as safetensors in an open pull request of the hub's own
conversion bot: these are taken, where nothing else differs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from masklake.errors import Refused, Say, first_line, unsaid
from masklake.inference.files import TEXTS, needed, pickles

BOT = "SFconvertbot"
_TIMEOUT = 10.0  # seconds until the hub must have answered
_PAGES_MOST = 200  # discussions that are looked through


def resolve_hub(model_id: str, revision: str | None = None, say: Say = unsaid, weights: bool = True) -> tuple[Path, str]:
    """Download a checkpoint (or find it in the hub's cache): its folder, and the commit that `revision` is.

    Without network, what the cache has of that revision is used.

    Args:
        model_id: owner/name.
        revision: a branch, tag, commit or `refs/pr/N`; None is the main branch, or the conversion bot's pull request into it.
        say: takes a sentence where it is that.
        weights: whether these are needed; a tokenizer alone has none.

    Raises:
        Refused: there is no such model or revision, it is gated, it has no weights, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    if revision and re.fullmatch(r"[0-9a-f]{40}", revision):
        folder = _cached(model_id, revision, weights)
        if folder is not None:
            return folder, revision
    info = _information(model_id, revision)
    if info is None:
        folder = _cached(model_id, revision, weights) or _bots_from_cache(model_id, revision, weights)
        if folder is None:
            raise Refused(f"{model_id}: the Hugging Face hub cannot be reached from here, and its cache does not hold the model")
        return folder, folder.name
    wanted = needed(_names(info))
    if weights and not any(name.endswith((".safetensors", ".bin")) for name in wanted):
        raise Refused(f"{model_id}: has no model.safetensors on the Hugging Face hub, and no pytorch_model.bin")
    if weights and revision is None and pickles(wanted):
        revision, wanted = _bots_revision(model_id, info, say) or (None, wanted)
    try:
        # By the revision's name, which the cache then remembers for a day without network; all files are of the one commit it is now.
        folder = Path(snapshot_download(model_id, revision=revision, allow_patterns=wanted, etag_timeout=_TIMEOUT))
    except Exception as error:
        raise Refused(_explain(model_id, revision, error)) from None
    return folder, folder.name


def _information(model_id: str, revision: str | None, blobs: bool = False) -> Any | None:
    """What the hub says of a revision; None where it cannot be reached.

    Raises:
        Refused: the hub has no such model or revision, or does not give it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return HfApi().model_info(model_id, revision=revision, timeout=_TIMEOUT, files_metadata=blobs)
    except (HfHubHTTPError, HFValidationError) as error:
        raise Refused(_explain(model_id, revision, error)) from None
    except Exception:  # offline mode, or whatever the HTTP library of the day raises where there is no network
        return None


def _names(info: Any) -> list[str]:
    return [file.rfilename for file in info.siblings or []]


def _bots_revision(model_id: str, main: Any, say: Say) -> tuple[str, list[str]] | None:
    """The newest open pull request of the conversion bot (`refs/pr/N`) and its needed files: main's, and safetensors beside them."""
    before = _contents(_information(model_id, main.sha, blobs=True))
    for reference in _bots_references(model_id):
        with suppress(Refused):  # a pull request whose branch is gone
            info = _information(model_id, reference, blobs=True)
            after = _contents(info)
            wanted = needed(after)
            if any(name.endswith(".safetensors") for name in wanted) and all(after.get(name) == blob for name, blob in before.items()):
                say(
                    f"{model_id} has pickled weights on its main branch: the safetensors that the hub's conversion bot made of them are "
                    f"taken, {reference} at commit {info.sha[:12]}"  # type: ignore[union-attr]
                )
                return reference, wanted
    return None


def _contents(info: Any) -> dict[str, str]:
    """Name -> content's checksum of what a revision holds of a model, the card aside: weights, settings, tokenizer."""
    files = {file.rfilename: str(file.lfs.sha256 if file.lfs else file.blob_id) for file in (info.siblings if info else None) or []}
    kept = [*needed(files), *(name for name in files if name.endswith(".bin"))]
    return {name: files[name] for name in kept if name != "README.md"}


def _bots_references(model_id: str) -> Iterator[str]:
    """`refs/pr/N` of the bot's open pull requests, the newest first."""
    from huggingface_hub import get_repo_discussions

    found = []
    with suppress(Exception):  # whoever forbids or breaks this list leaves us with what main has
        for place, each in enumerate(get_repo_discussions(model_id, discussion_type="pull_request", discussion_status="open", author=BOT)):
            if each.is_pull_request and each.status == "open" and each.author == BOT:
                found.append(each.num)
            if place >= _PAGES_MOST:
                break
    yield from (f"refs/pr/{number}" for number in sorted(found, reverse=True))


def _cached(model_id: str, revision: str | None, weights: bool) -> Path | None:
    """The revision's folder in the hub's cache, where it is whole."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(model_id, revision=revision, local_files_only=True, allow_patterns=[*TEXTS], ignore_patterns=["*/*"])
        )
        wanted = needed(path.name for path in folder.iterdir())
        complete = not weights or any(name.endswith((".safetensors", ".bin")) for name in wanted)
    except Exception:  # several kinds of "not in the cache"
        return None
    return folder if complete else None


def _bots_from_cache(model_id: str, revision: str | None, weights: bool) -> Path | None:
    """Where main is asked for without network: a pull request that was taken in its place before."""
    from huggingface_hub import constants

    if revision is not None:
        return None
    references = Path(constants.HF_HUB_CACHE) / f"models--{model_id.replace('/', '--')}" / "refs" / "refs" / "pr"
    numbers = sorted((path.name for path in references.glob("*") if path.name.isdigit()), key=int, reverse=True)
    return next((folder for number in numbers if (folder := _cached(model_id, f"refs/pr/{number}", weights))), None)


def _explain(model_id: str, revision: str | None, error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return f"{model_id}: its owner asks you to accept terms on the Hugging Face hub first; do so, and give a token in HF_TOKEN"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{model_id}: has no revision {revision} on the Hugging Face hub"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{model_id}: there is no such model on the Hugging Face hub, or it is private and HF_TOKEN does not open it"
    return f"{model_id}: cannot be downloaded from the Hugging Face hub: {first_line(error) or type(error).__name__}"
