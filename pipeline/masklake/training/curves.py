"""The curves of a run as a picture: an SVG of the loss and the validation scores over the steps, for light and dark pages."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from masklake.pages import rendering

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 720, 240, 60, 30, 60
_LABELS = 150  # beside the frame, for the names of the lines
_APART = 16.0  # of two names

Points = list[tuple[float, float]]


def svg(history: Sequence[Mapping[str, Any]]) -> str:
    """The picture of what a run has logged: `loss` in one panel, the scores of `validation` in another, where there are any."""
    loss: Points = [(line["step"], line["loss"]) for line in history if math.isfinite(line.get("loss", math.nan))]
    scores: dict[str, Points] = {}
    for line in history:
        for name, value in line.get("validation", {}).items():
            if math.isfinite(value):
                scores.setdefault(name, []).append((line["step"], value))
    last = max((x for x, _ in [*loss, *(point for points in scores.values() for point in points)]), default=1)
    values = [y for _, y in loss]
    panels = [_panel("loss", {"loss": loss}, _TOP, last, _ticks(min([0.0, *values]), max([1e-9, *values])))]
    if scores:
        panels.append(_panel("validation", scores, _TOP + _HEIGHT + _GAP, last, _ticks(0.0, 1.0)))
    height = _TOP + len(panels) * (_HEIGHT + _GAP)
    sides = {"left": _LEFT, "right": _LEFT + _WIDTH}
    return rendering.render("curves.svg.j2", width=_LEFT + _WIDTH + _LABELS, height=height, panels=panels, **sides)


def _panel(title: str, lines: Mapping[str, Points], top: int, last: float, ticks: Sequence[float]) -> dict[str, Any]:
    """Where a panel's lines, ticks and names stand; the ticks are those of the vertical axis, from its foot to its head."""
    low, high = ticks[0], ticks[-1]

    def across(x: float) -> float:
        return _LEFT + _WIDTH * x / last

    def down(y: float) -> float:
        return top + _HEIGHT * (1 - (y - low) / (high - low))

    drawn: list[dict[str, Any]] = [
        {
            "name": f"{name} {points[-1][1]:.3f}",
            "points": " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in points),
            "x": across(points[-1][0]),
            "y": down(points[-1][1]),
        }
        for name, points in lines.items()
        if points
    ]
    for line, place in zip(drawn, _apart([line["y"] for line in drawn], top, top + _HEIGHT), strict=True):
        line["label_y"] = place
    return {
        "title": title,
        "top": top,
        "bottom": top + _HEIGHT,
        "rows": [(down(tick), f"{tick:g}") for tick in ticks],
        "columns": [(across(tick), f"{tick:,g}") for tick in _ticks(0, last) if tick <= last],
        "lines": drawn,
    }


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers, three to seven of them, from at most `low` to at least `high`."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _apart(places: Sequence[float], top: float, bottom: float) -> list[float]:
    """The places in the same order, moved so that any two are `_APART` apart and, where there is room, all lie between top and bottom."""
    moved = list(places)
    order = sorted(range(len(places)), key=lambda index: places[index])
    for before, index in itertools.pairwise(order):
        moved[index] = max(moved[index], moved[before] + _APART)
    limit = bottom
    for index in reversed(order):
        moved[index] = min(moved[index], limit)
        limit = moved[index] - _APART
    return moved
