"""Where a model comes from: a hub id with optional revision, a folder here, or a folder in object storage."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from masklake import storage
from masklake.errors import Refused, Say, unsaid
from masklake.inference import hub, pickles
from masklake.inference.files import needed

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True)
class ModelSource:
    """Enough to get the same checkpoint on any node: `revision` is the commit on the hub, empty for folders."""

    kind: Literal["hub", "folder", "storage"]
    name: str
    revision: str = ""
    setting: str = "--model"
    """Where the user named it."""
    asked: str = ""
    """What the user wrote; messages call the model so."""
    weights: bool = True
    """Whether it is a model, or a tokenizer alone."""

    def fetch(self, say: Say = unsaid) -> Path:
        """The checkpoint as a local folder, downloaded where it is not here yet, and with pickled weights as safetensors.

        Raises:
            Refused: it cannot be had on this machine, or its pickles hold more than tensors.
        """
        folder = self._folder()
        return pickles.as_safetensors(folder, storage.cache_root() / "converted", self.asked or self.name, say) if self.weights else folder

    def _folder(self) -> Path:
        if self.kind == "hub":
            return hub.resolve_hub(self.name, self.revision, weights=self.weights)[0]
        if self.kind == "storage":
            return self._copied()
        folder = Path(self.name)
        if not folder.is_dir():
            raise Refused(
                f"{self.setting} {self.name}: no such folder on this node; put it in object storage, or into the job's working directory"
            )
        return folder

    def _copied(self) -> Path:
        """The files that a model needs; looked for before anything is copied, since a prefix may hold a whole lake."""
        try:
            if self.weights and not storage.exists(f"{self.name.rstrip('/')}/config.json"):
                raise Refused(f"{self.setting} {self.name}: holds no checkpoint: there is no config.json directly in it")
            return storage.cached_folder(self.name, needed(storage.list_names(self.name)))
        except storage.StorageError as error:
            raise Refused(f"{self.setting} {self.name}: {error}") from None


def kept(name: str) -> Path:
    """The folder, by this name, of what is made of models on this machine and kept between runs."""
    return storage.cache_root() / name


def resolve(model: str, setting: str = "--model", say: Say = unsaid, weights: bool = True) -> ModelSource:
    """Say what `--model`, or another setting, names; for a hub id, pin its revision to a commit (and download it).

    Args:
        model: what the user wrote.
        setting: where.
        say: takes a sentence where another revision than main is taken, or weights are converted.
        weights: False for a tokenizer alone.

    Raises:
        Refused: nothing that could be a model is named, the hub does not have it, or its store cannot be reached or gives no access.
    """
    if "://" in model:
        storage.check_input(model, setting)
        return ModelSource("storage", model, "", setting, model, weights)
    if Path(model).is_dir():
        return ModelSource("folder", model, "", setting, model, weights)
    if not _HUB_ID.fullmatch(model) or model.startswith((".", "/")):
        raise Refused(f"{setting} {model}: no such folder, and not a hub id such as facebook/mask2former-swin-tiny-coco-panoptic@main")
    name, _, revision = model.partition("@")
    try:
        _, commit = hub.resolve_hub(name, revision or None, say, weights)
    except Refused as error:
        raise Refused(f"{error} (and there is no folder {model} here)") from None
    return ModelSource("hub", name, commit, setting, model, weights)
