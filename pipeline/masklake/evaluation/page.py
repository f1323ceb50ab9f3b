"""The page of an evaluation: one file that needs nothing else, for a desktop and a phone, in light and dark.

Names, labels and messages come from the lake and from truth, and are untrusted: they enter the page through `text` only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from masklake.evaluation.page_style import STYLE
from masklake.evaluation.pictures import Shown
from masklake.evaluation.report import BY_CLASS, Report
from masklake.pages import page
from masklake.pages.cards import Card
from masklake.pages.page import plural, text
from masklake.quality.instance import CONFIDENT
from masklake.schema import Task

_ABSENT = "\N{EN DASH}"
_FIRST_CLASSES = 30  # shown at once; the others unfold
_MATRIX = 24  # classes of the confusion matrix, those with most truth
_PAIRS = 8  # of confused classes, in words
_LISTED = 200  # missed images, unmatched labels

TITLES = {
    "pq": "PQ",
    "sq": "SQ",
    "rq": "RQ",
    "miou": "mIoU",
    "frequency_weighted_iou": "FW IoU",
    "pixel_accuracy": "Pixel accuracy",
    "mean_accuracy": "Mean accuracy",
    "iou": "IoU",
    "accuracy": "Accuracy",
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "AP small",
    "ap_medium": "AP medium",
    "ap_large": "AP large",
    "ar": "AR",
}
"""How the report's figures are called."""

_EXPLAINED = {
    Task.PANOPTIC: "Panoptic quality: SQ, the mean IoU of the segments that were found, times RQ, their F1. A segment is found where its "
    "IoU with a true one of its class is above 0.5. All means are over classes.",
    Task.SEMANTIC: "IoU: the pixels that are rightly of a class, of those that are, or were said to be. mIoU is its mean over classes, "
    "FW IoU weighs them by their pixels.",
    Task.INSTANCE: "Average precision as COCO computes it: over ten IoU from 0.50 to 0.95, all recalls, and classes. "
    "Small is below 32 x 32 pixels, large above 96 x 96.",
}
_SCORE = {
    Task.PANOPTIC: "PQ of the image, all classes together",
    Task.SEMANTIC: "mIoU of the image",
    Task.INSTANCE: "best F1 of the image at an IoU of 0.5",
}


def render_page(found: Report, shown: Sequence[Shown]) -> str:
    """The whole page, as HTML; about 150 kB for each image that is shown."""
    name = found["table"].split("://", 1)[-1].strip("/") or found["table"]
    body = [
        _header(found, name),
        "<main>",
        _classes(found),
        _confusion(found),
        _worst(found, shown),
        _unmatched(found),
        _missed(found),
        "</main>",
    ]
    return page.document(f"Quality of {text(name, 80)}", STYLE, body)


def figures(found: Report) -> list[tuple[str, float | None]]:
    """The figures of all classes, by their titles, the most important first."""
    scores = found["scores"]
    flat = [(TITLES[name], scores[name]) for name in TITLES if name in scores]
    parts = [(f"PQ {part}", scores[part]["pq"]) for part in ("things", "stuff") if part in scores]
    return flat + parts


def percent(figure: float | None) -> str:
    """A figure of 0..1 as papers print it: 43.2."""
    return _ABSENT if figure is None else f"{100 * figure:.1f}"


def _header(found: Report, name: str) -> str:
    images = found["images"]
    tiles = [(title, percent(figure), "") for title, figure in figures(found)]
    unmatched = sum(each["true"] > 0 for each in found["unmatched"]["truth"]) + len(found["unmatched"]["table"])
    tiles.append(("Images scored", f"{images['scored']:,}", ""))
    tiles.append(("Missed", _link("missed", images["missed"]), "bad" if images["missed"] else "good"))
    tiles.append(("Unmatched names", _link("unmatched", unmatched), "bad" if unmatched else "good"))
    models = ", ".join(dict.fromkeys(f"{each['model']} at {each['model_revision'][:12]}" for each in found["answers"])) or _ABSENT
    facts = [
        ("Table", text(f"{found['table']}, version {found['table_version']}")),
        ("Truth", text(f"{found['truth']} ({found['truth_format']})")),
        ("Task", text(found["task"]) + (f", where {text(found['where'])}" if found["where"] else "")),
        ("Model", text(models)),
    ]
    return (
        f'<header>\n<p class="brand">masklake</p>\n<h1>Quality of <bdi>{text(name, 80)}</bdi></h1>\n'
        f'{page.tiles(tiles)}\n<p class="note">In percent. {_EXPLAINED[found["task"]]}</p>{page.facts(facts)}\n</header>'
    )


def _link(section: str, count: int) -> str:
    return f'<a href="#{section}">{count:,}</a>' if count else "0"


def _classes(found: Report) -> str:
    main, *others = BY_CLASS[found["task"]]
    judged = [each for each in found["classes"] if each.get(main) is not None]
    if not judged:
        return '<section><h2>Classes</h2><p class="empty">No class occurred.</p></section>'
    judged.sort(key=lambda each: (-each[main], each["label"]))
    rows = [(each["label"], percent(each[main]), each[main]) for each in judged]
    absent = len(found["classes"]) - len(judged)
    note = f"{TITLES[main]} of {plural(len(judged), 'class', 'classes')}, the best first."
    note += f" {plural(absent, 'class', 'classes')} of the truth never occurred." if absent else ""
    shown = f'<section id="classes"><h2>Classes</h2>\n<p class="muted">{note}</p>{page.bars(rows[:_FIRST_CLASSES])}'
    if rest := rows[_FIRST_CLASSES:]:
        shown += f"<details><summary>{len(rest)} more</summary>{page.bars(rest)}</details>"
    return f"{shown}<details><summary>All figures</summary>{_table(judged, (main, *others), found['unit'])}</details></section>"


def _table(judged: Sequence[Report], names: Sequence[str], unit: str) -> str:
    head = "".join(f'<th scope="col">{TITLES[name]}</th>' for name in names)
    head += f'<th scope="col">True {unit}</th><th scope="col">Predicted</th>'
    rows = "".join(
        f'<tr><th scope="row"><bdi>{text(each["label"], 80)}</bdi></th>'
        + "".join(f"<td>{percent(each.get(name))}</td>" for name in names)
        + f"<td>{each['true']:,}</td><td>{each['predicted']:,}</td></tr>"
        for each in judged
    )
    return _wide("figures", f'<th scope="col">Class</th>{head}', rows)


def _wide(kind: str, head: str, rows: str) -> str:
    """A table that scrolls by itself where the window is narrow."""
    return f'<div class="wide" tabindex="0"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _worst(found: Report, shown: Sequence[Shown]) -> str:
    if not shown:
        return ""
    noun = "image" if len(shown) == 1 else f"{len(shown)} images"
    note = f"The {noun} of {found['images']['scored']:,} with the lowest score: {_SCORE[found['task']]}. A class has one colour in all."
    if found["task"] == "instance":
        note += f" Of predictions, those that score {CONFIDENT} or more are painted."
    cards = "\n".join(_pair(each) for each in shown)
    return f'<section id="worst"><h2>Worst images</h2>\n<p class="muted">{note}</p>\n<div class="pairs">\n{cards}\n</div></section>'


def _pair(shown: Shown) -> str:
    name = page.file_name(shown.judged.uri)
    folder = shown.judged.uri[: len(shown.judged.uri) - len(name)]
    unreadable = "" if shown.readable else '<p class="folder bad">The image cannot be read any more.</p>'
    return (
        f'<article class="pair"><div class="title"><div><h3><bdi>{text(name, 120)}</bdi></h3>'
        f'<p class="folder"><bdi>{text(folder, 300)}</bdi></p>{unreadable}</div>'
        f'<p class="score">{percent(shown.judged.score)}</p></div>\n<div class="sides">'
        f"{_side('Truth', shown.truth, name)}{_side('Prediction', shown.prediction, name)}</div></article>"
    )


def _side(title: str, card: Card, name: str) -> str:
    chips = "".join(
        f'<li><i style="background:{page.hex_colour(entry.colour)}"></i><bdi>{text(entry.label, 60)}</bdi>'
        + (f" <b>&times;{entry.count}</b>" if entry.count != 1 else "")
        + "</li>"
        for entry in sorted(card.legend, key=lambda entry: entry.label)
    )
    picture = page.picture(card.overlay, "side", f"{title} of {name}: {', '.join(entry.label for entry in card.legend) or 'nothing'}")
    return f'<figure><figcaption>{title}</figcaption>{picture}<ul class="legend">{chips or "<li class=none>Nothing</li>"}</ul></figure>'


def _confusion(found: Report) -> str:
    matrix, labels = found["confusion"]["matrix"], [each["label"] for each in found["classes"]]
    totals = [sum(row) for row in matrix]
    chosen = sorted((index for index, total in enumerate(totals) if total), key=lambda index: (-totals[index], index))
    if not chosen:
        return ""
    unit, nothing = found["confusion"]["unit"], len(labels)
    wrong = sorted(
        ((row[column] / total, index, column) for index, (row, total) in enumerate(zip(matrix, totals, strict=True)) if total
         for column in range(len(row)) if column != index and row[column]),
        reverse=True,
    )  # fmt: skip
    pairs = "".join(
        f"<li><b>{100 * share:.0f} %</b> of <bdi>{text(labels[index], 60)}</bdi> "
        + ("missed" if column == nothing else f"taken for <bdi>{text(labels[column], 60)}</bdi>")
        + "</li>"
        for share, index, column in wrong[:_PAIRS]
    )
    note = f"Each row: what became of the true {unit} of a class, in percent; the last column is what nothing was found for."
    if found["task"] == Task.INSTANCE:
        note += " Detections with a score of 0.5 or more and an IoU of 0.5 or more with an instance of any class."
    note += f" The {_MATRIX} classes of {len(chosen)} with most of them." if len(chosen) > _MATRIX else ""
    shown = chosen[:_MATRIX]
    columns = [*shown, nothing]
    head = "".join(f'<th scope="col"><span><bdi>{text([*labels, "nothing"][column], 40)}</bdi></span></th>' for column in columns)
    rows = "".join(_matrix_row(labels[index], matrix[index], totals[index], index, columns) for index in shown)
    return (
        f'<section id="confusion"><h2>Confusion</h2>\n<p class="muted">{note}</p><ul class="confused">{pairs}</ul>'
        + _wide("matrix", f'<th scope="col">True class</th>{head}', rows)
        + "</section>"
    )


def _matrix_row(label: str, row: Sequence[int], total: int, index: int, columns: Sequence[int]) -> str:
    cells = "".join(_cell(row[column] / total, column == index) for column in columns)
    return f'<tr><th scope="row"><bdi>{text(label, 40)}</bdi></th>{cells}</tr>'


def _cell(share: float, right: bool) -> str:
    shown = "" if share == 0 else "&lt;1" if share < 0.005 else f"{100 * share:.0f}"
    return f'<td class="{"right" if right else "wrong"}" style="--share:{share:.3f}">{shown}</td>'


def _unmatched(found: Report) -> str:
    unmatched = found["unmatched"]
    groups = [
        (
            "Classes of the truth that no segment has",
            "They count, as missed, where they occur.",
            [_of_truth(each, found["unit"]) for each in unmatched["truth"]],
        ),
        (
            "Labels of the table that the truth does not have",
            "Their segments are taken away: they are no false positives, and what they cover is missed.",
            [(each["label"], plural(each["segments"], "segment")) for each in unmatched["table"]],
        ),
        (
            "Not judged",
            "The mapping takes them out: predictions there are neither right nor wrong.",
            [(name, "") for name in unmatched["not_judged"]],
        ),
    ]
    shown = "".join(_list(title, note, items) for title, note, items in groups if items)
    if not shown:
        return '<section id="unmatched"><h2>Unmatched categories</h2><p class="empty good">All names match.</p></section>'
    return f'<section id="unmatched"><h2>Unmatched categories</h2>{shown}</section>'


def _of_truth(each: Report, unit: str) -> tuple[str, str]:
    names = ", ".join(each["truth"])
    sought = "" if each["truth"] == [each["label"]] else f", sought as {each['label']}"
    return names, f"{each['true']:,} {unit}{sought}"


def _list(title: str, note: str, items: Sequence[tuple[str, str]]) -> str:
    chips = "".join(f"<li><bdi>{text(name, 120)}</bdi> <span>{text(figure, 120)}</span></li>" for name, figure in items[:_LISTED])
    more = f"<li>{len(items) - _LISTED:,} more, see evaluation.json</li>" if len(items) > _LISTED else ""
    return (
        f'<h3>{title} <span class="muted">{len(items):,}</span></h3><p class="muted">{note}</p><ul class="legend names">{chips}{more}</ul>'
    )


def _missed(found: Report) -> str:
    missed: list[dict[str, Any]] = found["missed"]
    if not missed:
        return '<section id="missed"><h2>Missed images</h2><p class="empty good">Every image of the truth has an answer.</p></section>'
    rows = "".join(
        f'<tr role="row"><td role="cell" class="uri"><bdi>{text(miss["image"], 1100)}</bdi></td>'
        f'<td role="cell"><bdi>{text(miss["reason"], 500)}</bdi></td></tr>'
        for miss in missed[:_LISTED]
    )
    note = f"{plural(len(missed), 'image')} of the truth without an answer: all that is in them counts as missed."
    note += f" The first {_LISTED}; evaluation.json has them all." if len(missed) > _LISTED else ""
    return (
        f'<section id="missed"><h2>Missed images</h2>\n<p class="muted">{note}</p><table role="table">'
        f'<thead><tr role="row"><th scope="col">Image</th><th scope="col">Why</th></tr></thead><tbody>{rows}</tbody></table></section>'
    )
