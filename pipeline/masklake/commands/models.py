"""List the released checkpoints that work."""

from __future__ import annotations

import shutil
import sys
from typing import Any

from masklake.commands.catalogue import FOOT, entries, shown
from masklake.commands.models_settings import ModelsConfig
from masklake.config.closest import closest
from masklake.errors import Refused
from masklake.inference.released import RELEASED, Released


def work(settings: ModelsConfig) -> dict[str, Any]:
    """Print the table; returns what is in it.

    Raises:
        Refused: no checkpoint is such a one.
    """
    found = entries([each for each in RELEASED if _fits(each, settings)])
    if not found:
        raise Refused(_nothing(settings))
    if settings.only_json:
        return {"outcome": "done", "kinds": len(found), "models": [entry.keys() for entry in found]}
    print(shown(found, shutil.get_terminal_size().columns if sys.stdout.isatty() else None))
    print(FOOT)
    return {"outcome": "done", "kinds": len(found)}


def _fits(released: Released, settings: ModelsConfig) -> bool:
    asked = settings.dataset
    return (settings.task is None or settings.task in released.tasks) and (
        asked is None or asked.lower() in (released.dataset.lower(), released.dataset.lower().partition(",")[0])
    )


def _nothing(settings: ModelsConfig) -> str:
    datasets = list(dict.fromkeys(each.dataset.partition(",")[0] for each in RELEASED))
    asked = settings.dataset or ""
    if asked and asked.lower() not in map(str.lower, datasets):
        close = closest(asked, datasets)
        return f"--dataset {asked}: " + (f"did you mean {close!r}?" if close else f"there are {', '.join(datasets)}")
    return f"--task {settings.task}: no released checkpoint answers it with the classes of {asked}"
