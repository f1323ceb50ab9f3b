"""The parts that pages are made of: the frame, bars, pictures, and text that is safe there.

No script is used and a Content-Security-Policy forbids everything that would leave the page. URIs, labels and messages come from the lake
and are untrusted: they enter a page through `text` only.
"""

from __future__ import annotations

import base64
import html
import io
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_QUALITY = 80
_CONTENT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def document(title: str, style: str, body: Sequence[str]) -> str:
    """A whole page; `title` and `body` are HTML."""
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_CONTENT_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            '<meta name="referrer" content="no-referrer">\n<link rel="icon" href="data:,">',
            f"<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>",
            *body,
            "</body>\n</html>\n",
        ]
    )


def tiles(figures: Sequence[tuple[str, str, str]]) -> str:
    """Large figures of (title, figure, kind); the kind is `good`, `bad` or nothing."""
    items = (f'<div class="{kind}"><dt>{title}</dt><dd>{value}</dd></div>' for title, value, kind in figures)
    return f'<dl class="tiles">{"".join(items)}</dl>'


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Small print of (title, text); both are HTML."""
    return '<dl class="facts">' + "".join(f"<div><dt>{title}</dt><dd><bdi>{value}</bdi></dd></div>" for title, value in pairs) + "</dl>"


def picture(pixels: NDArray[np.uint8], kind: str, alternative: str) -> str:
    """An inlined picture of uint8 [H, W, 3]; `kind` is its class in the style sheet, `alternative` says what it shows."""
    height, width, _ = pixels.shape
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=_QUALITY, method=4)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return f'<img class="{kind}" width="{width}" height="{height}" alt="{text(alternative, 300)}" src="data:image/webp;base64,{data}">'


def bars(rows: Sequence[tuple[str, str, float]]) -> str:
    """Horizontal bars of (name, figure, share of the longest)."""
    items = (
        f'<li><bdi class="name">{text(name, 80)}</bdi>'
        f'<span class="track" aria-hidden="true"><i style="width:{100 * share:.1f}%"></i></span>'
        f'<span class="figure">{figure}</span></li>'
        for name, figure, share in rows
    )
    return f'<ul class="bars">{"".join(items)}</ul>'


def text(value: str, longest: int = 2000) -> str:
    """Untrusted text, safe between tags and inside double quotes.

    Controls, among them those that turn the reading direction around, are spelt out: they could make a text look like another.
    The middle of a text longer than `longest` characters is left out.
    """
    if len(value) > longest:
        value = f"{value[: longest // 2]}\N{HORIZONTAL ELLIPSIS}{value[-(longest // 2) :]}"
    return html.escape("".join(visible(character) for character in value), quote=True)


def visible(character: str) -> str:
    """A character as it is, or its code where it would not be seen."""
    # Joiners belong to scripts and emoji; every other format character, control, surrogate and line separator is spelt out.
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and character not in "\u200c\u200d":
        return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"
    return character


def file_name(uri: str) -> str:
    """What comes after the last slash."""
    return uri.rsplit("/", 1)[-1]


def hex_colour(colour: tuple[int, int, int]) -> str:
    """RGB, 0..255, as CSS writes it."""
    return "#" + "".join(f"{min(255, max(0, int(part))):02x}" for part in colour)


def plural(count: int, one: str, many: str | None = None) -> str:
    """A count and its noun."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
