"""The released checkpoints with what is published and measured of them.

`published.json` is from papers, model zoos and cards, each figure with its source; what was found nowhere is not in it. `measured.json` is
made from benchmarks' results by `python -m jobs.benchmarks.tables`, `tried.json` by `python -m tests.released.tried`, which loads and
asks a small checkpoint of each kind.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from masklake.inference.released import NAMED, Released

_TITLES = ("", "checkpoints (*: sizes, backbones)", "classes of", "tasks", "quality", "licence", "parameters", "input", "images/s", "tried")
_INDENT = "    "
FOOT = """\
Quality as published, in percent, on the dataset's own validation set. What is empty was found nowhere.
Tried: small checkpoints with random weights, laid out as transformers of this version wrote them, fetched under these names and asked for
these tasks. Released weights were not at hand. --json has every size, and where each figure is from."""


@dataclass(frozen=True)
class Entry:
    """Checkpoints of one kind, as the files beside this module tell of them."""

    released: Released
    published: Mapping[str, Any]
    measured: Sequence[Mapping[str, Any]]
    tried: Mapping[str, Any]

    def quality(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest of its sizes, by metric, in percent."""
        found: dict[str, list[float]] = {}
        for variant in self.variants:
            for metric, value in variant["quality"].items():
                found.setdefault(metric, []).append(value)
        return {metric: (min(values), max(values)) for metric, values in found.items()}

    @property
    def variants(self) -> Sequence[Mapping[str, Any]]:
        found: Sequence[Mapping[str, Any]] = self.published.get("variants", ())
        return found

    def size(self) -> str:
        """Parameters, where they are known, else megabytes on disk."""
        millions = [variant["parameters_m"] for variant in self.variants if "parameters_m" in variant]
        megabytes = [variant["megabytes"] for variant in self.variants if "megabytes" in variant]
        return _range(millions, " M") if millions else _range(megabytes, " MB") if megabytes else ""

    def licence(self) -> str:
        """What it is, and whether its owner wants to be asked."""
        return ", ".join([self.published.get("licence", ""), *(["gated"] if self.published.get("gated") else [])])

    def layouts(self) -> str:
        """The versions of transformers of which a layout was tried."""
        versions = sorted({str(version) for version in self.tried["layouts"].values()})
        return ", ".join(versions) or "small copy"

    def cells(self) -> tuple[str, ...]:
        """Its line of the table; of the quality the first metric."""
        told = self.released
        best = next((f"{metric} {_range(values)}" for metric, values in self.quality().items()), "")
        rate = ", ".join(f"{each['images_per_second']:,.0f}" for each in self.measured)
        tasks = ", ".join(told.tasks)
        size, pixels = self.size(), self.published.get("input", "")
        return told.kind, told.repositories, told.dataset, tasks, best, self.licence(), size, pixels, rate, self.layouts()

    def block(self, width: int) -> str:
        """The same and more, in lines that fit."""
        told = self.released
        quality = ", ".join(f"{metric} {_range(values)}" for metric, values in self.quality().items())
        words = [
            ", ".join(told.tasks),
            quality,
            f"licence {self.licence()}" if self.licence() else "",
            self.size() and self.size() + ("" if "MB" in self.size() else " parameters"),
            f"input {self.published['input']}" if "input" in self.published else "",
            *(f"{each['images_per_second']:,.0f} images/s ({each['variant']}, {each['device']})" for each in self.measured),
            self.published.get("note", ""),
            f"tried: {self.layouts()}",
        ]
        head = [told.repositories, f"{_INDENT}{told.kind}" + ("" if told.dataset == NAMED else f", classes of {told.dataset}")]
        text = "; ".join(word for word in words if word)
        return "\n".join([*head, *textwrap.wrap(text, width, initial_indent=_INDENT, subsequent_indent=_INDENT)])

    def keys(self) -> dict[str, Any]:
        """As JSON: of every size its figures, and where each comes from."""
        told = self.released
        named = {"kind": told.kind, "repositories": told.repositories, "dataset": told.dataset, "tasks": list(told.tasks)}
        return {**named, **self.published, "measured": list(self.measured), "tried": self.tried}


def entries(released: Sequence[Released]) -> list[Entry]:
    """What is known of each."""
    published, measured, tried = _file("published.json"), _file("measured.json"), _file("tried.json")
    return [
        Entry(
            each,
            published.get(each.repositories, {}),
            [one for one in measured if one["repositories"] == each.repositories],
            tried[each.repositories],
        )
        for each in released
    ]


def shown(found: Sequence[Entry], width: int | None) -> str:
    """A table; or, where that is wider than `width`, a block of lines each."""
    rows = [_TITLES, *(entry.cells() for entry in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_TITLES))]
    if width is None or sum(widths) + 2 * (len(widths) - 1) <= width:
        return "\n".join(_line(row, widths) for row in rows)
    return "\n".join(entry.block(width) for entry in found)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _range(values: Sequence[float], unit: str = "") -> str:
    low, high = (f"{value:g}" for value in (min(values), max(values)))
    return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"


def _file(name: str) -> Any:
    return json.loads(resources.files("masklake.commands").joinpath(name).read_text(encoding="utf-8"))
