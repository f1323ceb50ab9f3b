"""List the released checkpoints that work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from masklake.commands.models_settings import ModelsConfig
from masklake.config.closest import closest
from masklake.errors import Refused
from masklake.inference.released import RELEASED, Released

_TITLES = ("", "checkpoints (*: sizes, backbones)", "classes of", "tasks")


def work(settings: ModelsConfig) -> dict[str, Any]:
    """Print the table; returns what is in it.

    Raises:
        Refused: no checkpoint is such a one.
    """
    found = [each for each in RELEASED if _fits(each, settings)]
    if not found:
        raise Refused(_nothing(settings))
    print(table(found))
    return {"outcome": "done", "kinds": len(found)}


def table(released: Sequence[Released]) -> str:
    """Lines of columns, with their titles."""
    rows = [_TITLES, *((each.kind, each.repositories, each.dataset, ", ".join(each.tasks)) for each in released)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_TITLES))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)


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
