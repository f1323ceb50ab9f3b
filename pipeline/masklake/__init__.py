"""masklake: a lake of images in, a table of segmentation masks out.

    discover -> plan -> load -> segment -> write -> commit -> report
    (---- driver ----)  (-- tasks, actors --)  (---- driver ----)

From Python:

    masklake.load(model)         a model to call with images: `masklake.direct`
    masklake.segment(...)        the job, with its settings as arguments: `masklake.segment`
    masklake.open_table(uri)     a table to read: `masklake.reading`
    masks, id_map, overlay, cutouts      what a row of it shows

pipeline/README.md says what is in which room. Nothing is imported before it is asked for:
`masklake.inference` can be taken to a machine that has torch and transformers alone, and reading a table needs neither torch nor Ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from masklake.direct.model import Model, load
    from masklake.errors import Fenced, MasklakeError, Refused
    from masklake.reading import Table, cutouts, id_map, masks, open_table, overlay
    from masklake.results import Result, Segment, Unusable
    from masklake.segment import segment as segment

__version__ = "0.2.0"

_FROM = {
    "masklake.direct.model": ("Model", "load"),
    "masklake.errors": ("Fenced", "MasklakeError", "Refused"),
    "masklake.reading": ("Table", "cutouts", "id_map", "masks", "open_table", "overlay"),
    "masklake.results": ("Result", "Segment", "Unusable"),
}
_NAMES = {name: module for module, names in _FROM.items() for name in names}
_NEEDS = {"masklake.direct.model": ("run",)}

__all__ = [
    "Fenced",
    "MasklakeError",
    "Model",
    "Refused",
    "Result",
    "Segment",
    "Table",
    "Unusable",
    "cutouts",
    "id_map",
    "load",
    "masks",
    "open_table",
    "overlay",
    "segment",
]


def __getattr__(name: str) -> Any:
    if name == "segment":
        return importlib.import_module("masklake.segment")
    if name not in _NAMES:
        raise AttributeError(f"module 'masklake' has no attribute {name!r}")
    module = _NAMES[name]
    if needs := _NEEDS.get(module):
        from masklake.config import extras

        extras.demand(needs, f"masklake.{name}")
    found = globals()[name] = getattr(importlib.import_module(module), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
