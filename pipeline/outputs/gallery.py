"""The HTML gallery of a run: one file that needs nothing else, for a desktop and a phone, in light and dark.

Pictures are inlined; no script is used and a Content-Security-Policy forbids everything that would leave the page. URIs, labels and
messages come from the lake and are untrusted: they enter the page through `_text` only. Knows nothing of Ray, storage and models.
"""

from __future__ import annotations

import base64
import html
import io
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from pipeline.outputs.gallery_style import STYLE
from pipeline.outputs.masks import overlay, palette
from pipeline.outputs.report import RunFacts, RunTotals, by_count

LONG_SIDE = 640  # of an inlined picture, pixels
_QUALITY = 80
_ALPHA = 0.55  # stronger than usual, so that a colour reads as its legend on a small picture
_FIRST_CLASSES = 24  # shown at once; the others unfold
_ABSENT = "\N{EN DASH}"
_CONTENT_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class LegendEntry:
    """One label of one picture: its colour there (RGB, 0..255), the highest score and the number of its segments."""

    label: str
    colour: tuple[int, int, int]
    score: float
    count: int


@dataclass(frozen=True)
class Card:
    """One picture of the gallery: `image` and `overlay` are uint8 [H, W, 3] of one size."""

    uri: str
    task: str
    image: NDArray[np.uint8]
    overlay: NDArray[np.uint8]
    legend: tuple[LegendEntry, ...]


@dataclass(frozen=True)
class GalleryInput:
    """What the page says of a run; `cards` is read once, so that a generator keeps one picture in memory at a time."""

    facts: RunFacts
    totals: RunTotals
    cards: Iterable[Card]


def card_from(image: NDArray[np.uint8], row: Mapping[str, Any]) -> Card:
    """One row of the table beside its picture, both reduced to at most `LONG_SIDE` pixels; full-size masks are decoded one at a time.

    Args:
        image: uint8 [H, W, 3], the upright picture, of the row's size or reduced.
        row: `image_uri, task, height, width, segments` of a row with status `ok`.
    """
    scale = min(1.0, LONG_SIDE / max(image.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    small = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0))
    size = (row["height"], row["width"])
    segments = [{**segment, "counts": _reduced_counts(segment["counts"], size, (height, width))} for segment in row["segments"]]
    return Card(row["image_uri"], row["task"], small, overlay(small, segments, _ALPHA), _legend(segments))


def _reduced_counts(counts: bytes, size: tuple[int, int], reduced: tuple[int, int]) -> bytes:
    """The run lengths of a mask of [height, width] `size`, made smaller by taking the nearest pixels."""
    mask = coco_mask.decode({"size": list(size), "counts": counts})
    rows, columns = ((2 * np.arange(to) + 1) * full // (2 * to) for full, to in zip(size, reduced, strict=True))
    encoded: bytes = coco_mask.encode(np.asfortranarray(mask[np.ix_(rows, columns)]))["counts"]
    return encoded


def _legend(segments: Sequence[Mapping[str, Any]]) -> tuple[LegendEntry, ...]:
    """One entry per label, in the order of the segments: largest score first."""
    by_label: dict[tuple[int, str], list[float]] = {}
    for segment in segments:
        by_label.setdefault((segment["label_id"], segment["label"]), []).append(float(segment["score"]))
    return tuple(LegendEntry(label, palette(label_id), max(scores), len(scores)) for (label_id, label), scores in by_label.items())


def render_gallery(gallery: GalleryInput) -> str:
    """The whole page, as HTML; about 100 kB a card."""
    cards = [_card(card) for card in gallery.cards]
    name = gallery.facts.input_uri.split("://", 1)[-1].strip("/") or gallery.facts.input_uri
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_CONTENT_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            '<meta name="referrer" content="no-referrer">\n<link rel="icon" href="data:,">',
            f"<title>Masks of {_text(name, 80)}</title>\n<style>{STYLE}</style>\n</head>\n<body>",
            _header(gallery.facts, gallery.totals, name),
            "<main>",
            _samples(cards, gallery.totals),
            _classes(gallery.totals.label_counts),
            _failures(gallery.totals),
            _stages(gallery.totals.stage_seconds),
            "</main>\n</body>\n</html>\n",
        ]
    )


def names_on(page: str) -> set[str]:
    """The images that a page shows or names, as `shown_names` spells them."""
    cards = re.findall(r"<h3><bdi>(.*?)</bdi></h3><p class=\"folder\"><bdi>(.*?)</bdi></p>", page)
    return {folder + name for name, folder in cards} | set(re.findall(r'class="uri"><bdi>(.*?)</bdi>', page))


def shown_names(uris: Iterable[str]) -> set[str]:
    """How pages spell these images: in full among the failures; of a picture, folder and file name are shortened apart."""
    names: set[str] = set()
    for uri in uris:
        name = _file_name(uri)
        names |= {_text(uri, 1100), _text(uri[: len(uri) - len(name)], 300) + _text(name, 120)}
    return names


def _header(run: RunFacts, totals: RunTotals, name: str) -> str:
    failed = totals.failed_images
    tiles = [
        ("Images", f"{totals.images:,}", ""),
        ("Segments", f"{totals.segments:,}", ""),
        ("Failed images", f"{failed:,}", "bad" if failed else "good"),
        ("Images per second", _figure(totals.images_per_second), ""),
        ("Duration", _duration(totals.wall_seconds), ""),
    ]
    revision = f' <span class="muted">at {_text(run.model_revision[:12])}</span>' if run.model_revision else ""
    facts = [
        ("Input", _text(run.input_uri)),
        ("Table", _text(run.table_uri)),
        ("Model", _text(run.model) + revision),
        ("Tasks", _text(", ".join(run.tasks))),
        ("Run", _text(run.run_id)),
        ("Finished", _text(f"{run.finished_at:%Y-%m-%d %H:%M} {run.finished_at.tzname() or ''}".strip())),
    ]
    return (
        f'<header>\n<p class="brand">masklake</p>\n<h1>Masks of <bdi>{_text(name, 80)}</bdi></h1>\n<dl class="tiles">'
        + "".join(f'<div class="{kind}"><dt>{title}</dt><dd>{value}</dd></div>' for title, value, kind in tiles)
        + '</dl>\n<dl class="facts">'
        + "".join(f"<div><dt>{title}</dt><dd><bdi>{value}</bdi></dd></div>" for title, value in facts)
        + "</dl>\n</header>"
    )


def _samples(cards: Sequence[str], totals: RunTotals) -> str:
    if not cards:
        everything_failed = 0 < totals.images == totals.failed_images
        reason = "Every image of this run failed: see the failures below." if everything_failed else "There are no pictures to show."
        return f'<section><h2>Pictures</h2><p class="empty">{reason}</p></section>'
    noun = "picture" if len(cards) == 1 else "pictures"
    return (
        '<section class="samples"><h2>Pictures</h2>\n<input type="checkbox" id="masks" class="switch" role="switch" checked>'
        f'<label for="masks">Masks</label>\n<p class="muted">{len(cards)} {noun}, sampled from {_plural(totals.images, "image")}. '
        "Select one to see it without its masks. A label stands beside the number of its segments and the highest score.</p>\n"
        '<div class="grid">\n' + "\n".join(cards) + "\n</div></section>"
    )


def _card(card: Card) -> str:
    name = _file_name(card.uri)
    folder = card.uri[: len(card.uri) - len(name)]
    chips = "".join(_chip(entry) for entry in card.legend) or '<li class="none">Nothing found</li>'
    found = ", ".join(f"{entry.count} {entry.label}" for entry in card.legend) or "nothing"
    return (
        f'<article class="card"><label class="shot"><input type="checkbox" aria-label="{_text("Without masks: " + name, 120)}">'
        f"{_picture(card.image, 'plain', name)}{_picture(card.overlay, 'masked', f'{name} with masks: {found}')}"
        f'<span class="task">{_text(card.task)}</span></label>\n<h3><bdi>{_text(name, 120)}</bdi></h3>'
        f'<p class="folder"><bdi>{_text(folder, 300)}</bdi></p>\n<ul class="legend">{chips}</ul></article>'
    )


def _chip(entry: LegendEntry) -> str:
    count = f' <b title="segments">&times;{entry.count}</b>' if entry.count != 1 else ""
    score = f' <span title="highest score">{entry.score:.2f}</span>'
    return f'<li><i style="background:{_hex(entry.colour)}"></i><bdi>{_text(entry.label, 60)}</bdi>{count}{score}</li>'


def _picture(pixels: NDArray[np.uint8], kind: str, alternative: str) -> str:
    height, width, _ = pixels.shape
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=_QUALITY, method=4)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return f'<img class="{kind}" width="{width}" height="{height}" alt="{_text(alternative, 300)}" src="data:image/webp;base64,{data}">'


def _classes(counts: Mapping[str, int]) -> str:
    if not counts:
        return '<section><h2>Classes</h2><p class="empty">No segments were found.</p></section>'
    ordered = by_count(counts)
    rows = [(label, f"{count:,}", count / max(1, ordered[0][1])) for label, count in ordered]
    segments = _plural(sum(counts.values()), "segment")
    shown = f'<section><h2>Classes</h2>\n<p class="muted">{segments} in {_plural(len(rows), "class", "classes")}.</p>'
    shown += _bars(rows[:_FIRST_CLASSES])
    if rest := rows[_FIRST_CLASSES:]:
        shown += f"<details><summary>{len(rest)} more</summary>{_bars(rest)}</details>"
    return shown + "</section>"


def _stages(seconds: Mapping[str, float]) -> str:
    if not any(seconds.values()):
        return ""
    longest = max(seconds.values())
    rows = [(stage, _duration(value), value / longest) for stage, value in seconds.items()]
    return f'<section id="stages"><h2>Time by stage</h2>\n<p class="muted">Added up over all workers.</p>{_bars(rows)}</section>'


def _bars(rows: Sequence[tuple[str, str, float]]) -> str:
    """Horizontal bars of (name, figure, share of the longest)."""
    items = (
        f'<li><bdi class="name">{_text(name, 80)}</bdi>'
        f'<span class="track" aria-hidden="true"><i style="width:{100 * share:.1f}%"></i></span>'
        f'<span class="figure">{figure}</span></li>'
        for name, figure, share in rows
    )
    return f'<ul class="bars">{"".join(items)}</ul>'


def _failures(totals: RunTotals) -> str:
    if not totals.failed_rows:
        return '<section id="failures"><h2>Failures</h2><p class="empty good">No image failed.</p></section>'
    rows = []
    for code, count in by_count(totals.errors):
        examples = totals.examples.get(code) or ((_ABSENT, _ABSENT),)
        head = f'<th scope="rowgroup" rowspan="{len(examples)}"><code>{_text(code)}</code> <span>{_plural(count, "row")}</span></th>'
        for uri, message in examples:
            cells = f'<td role="cell" class="uri"><bdi>{_text(uri, 1100)}</bdi></td><td role="cell"><bdi>{_text(message, 500)}</bdi></td>'
            rows.append(f'<tr role="row">{head}{cells}</tr>')
            head = ""
    note = f"Showing {len(rows)} of {_plural(totals.failed_rows, 'failed row')}; the table holds them all, with status <code>error</code>."
    return (
        f'<section id="failures"><h2>Failures</h2>\n<p class="muted">{note}</p><table role="table">'
        f'<thead><tr role="row"><th scope="col">Code</th><th scope="col">Image</th><th scope="col">Message</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></section>"
    )


def _text(value: str, longest: int = 2000) -> str:
    """Untrusted text, safe between tags and inside double quotes.

    Controls, among them those that turn the reading direction around, are spelt out: they could make a text look like another.
    The middle of a text longer than `longest` characters is left out.
    """
    if len(value) > longest:
        value = f"{value[: longest // 2]}\N{HORIZONTAL ELLIPSIS}{value[-(longest // 2) :]}"
    return html.escape("".join(_visible(character) for character in value), quote=True)


def _visible(character: str) -> str:
    # Joiners belong to scripts and emoji; every other format character, control, surrogate and line separator is spelt out.
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and character not in "\u200c\u200d":
        return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"
    return character


def _file_name(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]


def _hex(colour: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{min(255, max(0, int(part))):02x}" for part in colour)


def _plural(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _figure(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return _ABSENT
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{_figure(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
