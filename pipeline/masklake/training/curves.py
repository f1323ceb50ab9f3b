"""The curves of a run as a picture: an SVG of the loss and the validation scores over the steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 720, 240, 60, 30, 50
_COLOURS = ("#2a6fdb", "#d9622b", "#2b9a66")

Points = list[tuple[float, float]]


def svg(history: Sequence[Mapping[str, Any]]) -> str:
    """The picture of what a run has logged: `loss` in one panel, the scores of `validation` in another, where there are any."""
    loss: Points = [(line["step"], line["loss"]) for line in history if "loss" in line]
    scores: dict[str, Points] = {}
    for line in history:
        for name, value in line.get("validation", {}).items():
            if math.isfinite(value):
                scores.setdefault(name, []).append((line["step"], value))
    last = max((x for x, _ in [*loss, *(point for points in scores.values() for point in points)]), default=1)
    panels = [_panel({"loss": loss}, _TOP, last, "loss")]
    if scores:
        panels.append(_panel(scores, _TOP + _HEIGHT + _GAP, last, "validation", (0.0, 1.0)))
    height = _TOP + len(panels) * (_HEIGHT + _GAP)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 20} {height}" font-family="sans-serif" font-size="12">'
    return "\n".join([head, f'<rect width="{_LEFT + _WIDTH + 20}" height="{height}" fill="white"/>', *panels, "</svg>\n"])


def _panel(lines: Mapping[str, Points], top: int, last: float, title: str, bounds: tuple[float, float] | None = None) -> str:
    values = [y for points in lines.values() for _, y in points]
    low, high = bounds or (min([0.0, *values]), max([1e-9, *values]))
    parts = [f'<text x="{_LEFT}" y="{top - 8}">{escape(title)}</text>']
    parts.append(f'<rect x="{_LEFT}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#999"/>')
    for share in (0.0, 0.5, 1.0):
        y = top + _HEIGHT * (1 - share)
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{low + share * (high - low):.3g}</text>')
        x = _LEFT + _WIDTH * share
        parts.append(f'<text x="{x:.1f}" y="{top + _HEIGHT + 16}" text-anchor="middle">{last * share:.0f}</text>')
    for colour, (name, points) in zip(_COLOURS, lines.items(), strict=False):
        places = [(_LEFT + _WIDTH * x / last, top + _HEIGHT * (1 - (y - low) / ((high - low) or 1))) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.extend(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{colour}"/>' for x, y in places[-1:])
        if places:
            x, y = places[-1]
            parts.append(
                f'<text x="{x - 4:.1f}" y="{y - 6:.1f}" text-anchor="end" fill="{colour}">{escape(name)} {points[-1][1]:.3f}</text>'
            )
    return "\n".join(parts)
