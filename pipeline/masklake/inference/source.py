"""Where a model comes from: a hub id with optional revision, a folder here, or a folder in object storage."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from masklake import storage
from masklake.errors import Refused
from masklake.inference import hub

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True)
class ModelSource:
    """Enough to get the same checkpoint on any node: `revision` is the commit on the hub, empty for folders."""

    kind: Literal["hub", "folder", "storage"]
    name: str
    revision: str = ""
    setting: str = "--model"
    """Where the user named it."""

    def fetch(self) -> Path:
        """The checkpoint as a local folder, downloaded where it is not here yet.

        Raises:
            Refused: it cannot be had on this machine.
        """
        if self.kind == "hub":
            return hub.resolve_hub(self.name, self.revision)[0]
        if self.kind == "storage":
            try:
                return storage.cached_folder(self.name)
            except storage.StorageError as error:
                raise Refused(f"{self.setting} {self.name}: {error}") from None
        folder = Path(self.name)
        if not folder.is_dir():
            raise Refused(
                f"{self.setting} {self.name}: no such folder on this node; put it in object storage, or into the job's working directory"
            )
        return folder


def resolve(model: str, setting: str = "--model") -> ModelSource:
    """Tell what `--model`, or another setting, names; for a hub id, pin its revision to a commit (and download it).

    Raises:
        Refused: nothing that could be a model is named, or the hub does not have it.
    """
    if "://" in model:
        storage.normalise(model)  # refuses one with a password, which no message may repeat
        return ModelSource("storage", model, setting=setting)
    if Path(model).is_dir():
        return ModelSource("folder", model, setting=setting)
    if not _HUB_ID.fullmatch(model) or model.startswith((".", "/")):
        raise Refused(f"{setting} {model}: no such folder, and not a hub id such as facebook/mask2former-swin-tiny-coco-panoptic@main")
    name, _, revision = model.partition("@")
    try:
        _, commit = hub.resolve_hub(name, revision or None)
    except Refused as error:
        raise Refused(f"{error} (and there is no folder {model} here)") from None
    return ModelSource("hub", name, commit, setting)
