"""Models whose weights were found whole on this machine: to check them again would import torch, which takes seconds, and says the same."""

from __future__ import annotations

import hashlib
import json
import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from masklake.inference import checkpoint
from masklake.inference.checkpoint import ModelDescription
from masklake.segment.machine import own_version
from masklake.storage import cache_root

_READERS = ("torch", "transformers", "safetensors")
_NO_NOTE = (OSError, metadata.PackageNotFoundError)


def check_weights(model: ModelDescription, folder: Path) -> None:
    """As `checkpoint.verify`, once for the same bytes of a checkpoint (`digest`) and the same versions of what reads it.

    The process that runs the model checks again what it loads, so that this answers early and is not relied on.

    Raises:
        Refused: weights are missing or of another shape.
    """
    with suppress(*_NO_NOTE):
        if _note(model).is_file():
            return
    checkpoint.verify(model, folder)
    with suppress(*_NO_NOTE):  # then the next run checks as well
        note = _note(model)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()


def _note(model: ModelDescription) -> Path:
    """Where a check that found nothing wrong is noted: the name says of what, and by which versions."""
    versions = [own_version(), platform.python_version(), *(metadata.version(package) for package in _READERS)]
    told = json.dumps([model.digest, model.family, sorted(model.concepts), versions])
    return cache_root() / "checked" / hashlib.sha256(told.encode()).hexdigest()[:32]
