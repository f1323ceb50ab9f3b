"""The HTML gallery of a run: one file that needs nothing else, for a desktop and a phone, in light and dark.

Pictures are inlined; no script is used and a Content-Security-Policy forbids everything that would leave the page. URIs, labels and
messages come from the lake and are untrusted: they enter the page through `page.text` only. Knows nothing of Ray, storage and models.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from masklake.pages import page
from masklake.pages.cards import Card, LegendEntry
from masklake.pages.style import STYLE
from masklake.segment.report import RunFacts, RunTotals, by_count

_FIRST_CLASSES = 24  # shown at once; the others unfold
_ABSENT = "\N{EN DASH}"


@dataclass(frozen=True)
class GalleryInput:
    """What the page says of a run; `cards` is read once, so that a generator keeps one picture in memory at a time."""

    facts: RunFacts
    totals: RunTotals
    cards: Iterable[Card]


def render_gallery(gallery: GalleryInput) -> str:
    """The whole page, as HTML; about 100 kB a card."""
    cards = [_card(card) for card in gallery.cards]
    name = gallery.facts.input_uri.split("://", 1)[-1].strip("/") or gallery.facts.input_uri
    body = [
        _header(gallery.facts, gallery.totals, name),
        "<main>",
        _samples(cards, gallery.totals),
        _classes(gallery.totals.label_counts),
        _failures(gallery.totals),
        _stages(gallery.totals.stage_seconds),
        "</main>",
    ]
    return page.document(f"Masks of {page.text(name, 80)}", STYLE, body)


def names_on(shown: str) -> set[str]:
    """The images that a page shows or names, as `shown_names` spells them."""
    cards = re.findall(r"<h3><bdi>(.*?)</bdi></h3><p class=\"folder\"><bdi>(.*?)</bdi></p>", shown)
    return {folder + name for name, folder in cards} | set(re.findall(r'class="uri"><bdi>(.*?)</bdi>', shown))


def shown_names(uris: Iterable[str]) -> set[str]:
    """How pages spell these images: in full among the failures; of a picture, folder and file name are shortened apart."""
    names: set[str] = set()
    for uri in uris:
        name = page.file_name(uri)
        names |= {page.text(uri, 1100), page.text(uri[: len(uri) - len(name)], 300) + page.text(name, 120)}
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
    revision = f' <span class="muted">at {page.text(run.model_revision[:12])}</span>' if run.model_revision else ""
    facts = [
        ("Input", page.text(run.input_uri)),
        ("Table", page.text(run.table_uri)),
        ("Model", page.text(run.model) + revision),
        ("Tasks", page.text(", ".join(run.tasks))),
        ("Run", page.text(run.run_id)),
        ("Finished", page.text(f"{run.finished_at:%Y-%m-%d %H:%M} {run.finished_at.tzname() or ''}".strip())),
    ]
    return (
        f'<header>\n<p class="brand">masklake</p>\n<h1>Masks of <bdi>{page.text(name, 80)}</bdi></h1>\n'
        f"{page.tiles(tiles)}{page.facts(facts)}\n</header>"
    )


def _samples(cards: Sequence[str], totals: RunTotals) -> str:
    if not cards:
        everything_failed = 0 < totals.images == totals.failed_images
        reason = "Every image of this run failed: see the failures below." if everything_failed else "There are no pictures to show."
        return f'<section><h2>Pictures</h2><p class="empty">{reason}</p></section>'
    noun = "picture" if len(cards) == 1 else "pictures"
    return (
        '<section class="samples"><h2>Pictures</h2>\n<input type="checkbox" id="masks" class="switch" role="switch" checked>'
        f'<label for="masks">Masks</label>\n<p class="muted">{len(cards)} {noun}, sampled from {page.plural(totals.images, "image")}. '
        "Select one to see it without its masks. A label stands beside the number of its segments and the highest score.</p>\n"
        '<div class="grid">\n' + "\n".join(cards) + "\n</div></section>"
    )


def _card(card: Card) -> str:
    name = page.file_name(card.uri)
    folder = card.uri[: len(card.uri) - len(name)]
    chips = "".join(_chip(entry) for entry in card.legend) or '<li class="none">Nothing found</li>'
    found = ", ".join(f"{entry.count} {entry.label}" for entry in card.legend) or "nothing"
    return (
        f'<article class="card"><label class="shot"><input type="checkbox" aria-label="{page.text("Without masks: " + name, 120)}">'
        f"{page.picture(card.image, 'plain', name)}{page.picture(card.overlay, 'masked', f'{name} with masks: {found}')}"
        f'<span class="task">{page.text(card.task)}</span></label>\n<h3><bdi>{page.text(name, 120)}</bdi></h3>'
        f'<p class="folder"><bdi>{page.text(folder, 300)}</bdi></p>\n<ul class="legend">{chips}</ul></article>'
    )


def _chip(entry: LegendEntry) -> str:
    count = f' <b title="segments">&times;{entry.count}</b>' if entry.count != 1 else ""
    score = f' <span title="highest score">{entry.score:.2f}</span>'
    return f'<li><i style="background:{page.hex_colour(entry.colour)}"></i><bdi>{page.text(entry.label, 60)}</bdi>{count}{score}</li>'


def _classes(counts: Mapping[str, int]) -> str:
    if not counts:
        return '<section><h2>Classes</h2><p class="empty">No segments were found.</p></section>'
    ordered = by_count(counts)
    rows = [(label, f"{count:,}", count / max(1, ordered[0][1])) for label, count in ordered]
    segments = page.plural(sum(counts.values()), "segment")
    shown = f'<section><h2>Classes</h2>\n<p class="muted">{segments} in {page.plural(len(rows), "class", "classes")}.</p>'
    shown += page.bars(rows[:_FIRST_CLASSES])
    if rest := rows[_FIRST_CLASSES:]:
        shown += f"<details><summary>{len(rest)} more</summary>{page.bars(rest)}</details>"
    return shown + "</section>"


def _stages(seconds: Mapping[str, float]) -> str:
    if not any(seconds.values()):
        return ""
    longest = max(seconds.values())
    rows = [(stage, _duration(value), value / longest) for stage, value in seconds.items()]
    return f'<section id="stages"><h2>Time by stage</h2>\n<p class="muted">Added up over all workers.</p>{page.bars(rows)}</section>'


def _failures(totals: RunTotals) -> str:
    if not totals.failed_rows:
        return '<section id="failures"><h2>Failures</h2><p class="empty good">No image failed.</p></section>'
    rows = []
    for code, count in by_count(totals.errors):
        examples = totals.examples.get(code) or ((_ABSENT, _ABSENT),)
        head = (
            f'<th scope="rowgroup" rowspan="{len(examples)}"><code>{page.text(code)}</code> <span>{page.plural(count, "row")}</span></th>'
        )
        for uri, message in examples:
            shown = page.text(uri, 1100), page.text(message, 500)
            cells = f'<td role="cell" class="uri"><bdi>{shown[0]}</bdi></td><td role="cell"><bdi>{shown[1]}</bdi></td>'
            rows.append(f'<tr role="row">{head}{cells}</tr>')
            head = ""
    note = (
        f"Showing {len(rows)} of {page.plural(totals.failed_rows, 'failed row')}; the table holds them all, with status <code>error</code>."
    )
    return (
        f'<section id="failures"><h2>Failures</h2>\n<p class="muted">{note}</p><table role="table">'
        f'<thead><tr role="row"><th scope="col">Code</th><th scope="col">Image</th><th scope="col">Message</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></section>"
    )


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
