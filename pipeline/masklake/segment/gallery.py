"""The HTML gallery of a run: one file that needs nothing else, for a desktop and a phone, in light and dark.

`pages/templates/gallery.html.j2` is the page; here is what it shows. Knows nothing of Ray, storage and models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from masklake.pages import rendering
from masklake.pages.cards import Card, kinds, shot
from masklake.segment.report import RunFacts, RunTotals, by_count
from masklake.spelling import plural
from masklake.table.masks import RGB

_ABSENT = "\N{EN DASH}"


@dataclass(frozen=True)
class Encoded:
    """A card as the page's template takes it, of about 120 kB."""

    card: Mapping[str, Any]


@dataclass(frozen=True)
class GalleryInput:
    """What the page says of a run; `cards` is read once, so that a generator keeps one picture in memory at a time."""

    facts: RunFacts
    totals: RunTotals
    cards: Iterable[Card | Encoded]


@dataclass(frozen=True)
class Gallery:
    """The page, about 120 kB a card, and the URIs of the images of which it has pictures."""

    html: str
    pictures: tuple[str, ...]


def render_gallery(gallery: GalleryInput) -> Gallery:
    """The whole page."""
    run, totals = gallery.facts, gallery.totals
    cards, labels = _cards(gallery.cards)
    counts = by_count(totals.label_counts)
    errors = [(code, count, totals.examples.get(code) or ((_ABSENT, _ABSENT),)) for code, count in by_count(totals.errors)]
    name = _short_name(run.input_uri)
    html = rendering.render(
        "gallery.html.j2",
        title=f"Masks of {name}",
        heading="Masks of",
        name=name,
        tiles=_tiles(totals),
        facts=_facts(run, totals),
        kinds=labels,
        cards=cards,
        sampled=f"sampled from {plural(totals.images, 'image')}",
        all_failed=0 < totals.images == totals.failed_images,
        segments=totals.segments,
        counts=[(label, f"{count:,}", count / max(1, counts[0][1])) for label, count in counts],
        errors=errors,
        listed=sum(len(examples) for _, _, examples in errors),
        failures=f"of {plural(totals.failed_rows, 'failed row')}; the table holds them all, with status",
        stages=_stages(totals),
    )
    return Gallery(html, tuple(dict.fromkeys(card["uri"] for card in cards)))


@dataclass(frozen=True)
class PreviewPage:
    """What a preview shows: figures as (title, figure, kind), facts, cards, segments by label, (image URI, message) of failures by code."""

    input_uri: str
    tiles: Sequence[tuple[str, str, str]]
    facts: Sequence[tuple[str, str]]
    cards: Iterable[Card]
    labels: Mapping[str, int]
    failures: Mapping[str, Sequence[tuple[str, str]]]
    picked: int
    images: int


def render_preview(page: PreviewPage) -> str:
    """The gallery's page, of a few images that were answered before any run."""
    cards, labels = _cards(page.cards)
    counts = by_count(page.labels)
    failed = sum(map(len, page.failures.values()))
    name = _short_name(page.input_uri)
    return rendering.render(
        "gallery.html.j2",
        title=f"Preview of {name}",
        heading="Preview of",
        name=name,
        tiles=page.tiles,
        facts=page.facts,
        kinds=labels,
        cards=cards,
        sampled=f"of {plural(page.picked, 'image')} picked over the {page.images:,} of the input",
        all_failed=bool(page.failures) and not cards,
        segments=sum(page.labels.values()),
        counts=[(label, f"{count:,}", count / max(1, counts[0][1])) for label, count in counts],
        errors=[(code, len(found), found) for code, found in page.failures.items()],
        listed=failed,
        failures=f"of {plural(failed, 'image')} that cannot be used; a run makes each a row with status",
        stages=[],
    )


def _short_name(uri: str) -> str:
    return uri.split("://", 1)[-1].strip("/") or uri


def _tiles(totals: RunTotals) -> list[tuple[str, str, str]]:
    return [
        ("Images", f"{totals.images:,}", ""),
        ("Segments", f"{totals.segments:,}", ""),
        ("Failed images", f"{totals.failed_images:,}", "bad" if totals.failed_images else "good"),
        ("Images per second", _figure(totals.images_per_second), ""),
        ("Duration", _duration(totals.wall_seconds), ""),
    ]


def _facts(run: RunFacts, totals: RunTotals) -> list[tuple[str, str]]:
    first = totals.first_commit_seconds
    return [
        ("Input", run.input_uri),
        ("Table", run.table_uri),
        ("Model", f"{run.model} at {run.model_revision[:12]}" if run.model_revision else run.model),
        ("Tasks", ", ".join(run.tasks)),
        ("Run", run.run_id),
        ("Finished", f"{run.finished_at:%Y-%m-%d %H:%M} {run.finished_at.tzname() or ''}".strip()),
        *([("First commit", f"after {_duration(first)}")] if first is not None else []),
    ]


def _cards(given: Iterable[Card | Encoded]) -> tuple[list[dict[str, Any]], list[tuple[str, RGB | None, int]]]:
    """The cards as the template takes them, and the labels by which they can be chosen."""
    cards = [(card if isinstance(card, Encoded) else encoded(card)).card for card in given]
    labels, places = kinds([card["legend"] for card in cards])
    return [{**card, "kinds": its} for card, its in zip(cards, places, strict=True)], labels


def encoded(card: Card) -> Encoded:
    """A card with its pictures encoded."""
    folder, name = rendering.name_of(card.uri)
    legend = card.painting.legend
    found = ", ".join(f"{entry.count} {entry.label}" for entry in legend) or "nothing"
    shows = f"{name} with masks: {found}"
    pictures = shot(name, shows, card.painting, card.image)
    return Encoded({"uri": card.uri, "folder": folder, "task": card.task, "legend": legend, "shot": pictures})


def _stages(totals: RunTotals) -> list[tuple[str, str, float]]:
    seconds = totals.stage_seconds
    longest = max(seconds.values(), default=0.0)
    return [(stage, _duration(value), value / longest) for stage, value in seconds.items()] if longest else []


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
