"""The page of an evaluation: one file that needs nothing else, for a desktop and a phone, in light and dark.

`pages/templates/evaluation.html.j2` is the page; here is what it shows.
"""

from __future__ import annotations

from collections.abc import Sequence

from masklake.evaluation.differences import MISSED, WRONG
from masklake.evaluation.pictures import Shown
from masklake.evaluation.report import BY_CLASS, Report
from masklake.pages import rendering
from masklake.pages.cards import Painting, kinds, shot
from masklake.quality.instance import CONFIDENT
from masklake.schema import Task
from masklake.spelling import plural
from masklake.table.masks import RGB

Legend = list[tuple[str, RGB | None, str]]
"""Labels, their colours, and how many or how much."""

_ABSENT = "\N{EN DASH}"
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
    Task.SEMANTIC: "IoU: the pixels that are of a class in both, divided by those that are of it in either. mIoU is its mean over classes, "
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
    """The whole page, as HTML; about 140 kB for each image that is shown."""
    name = found["table"].split("://", 1)[-1].strip("/") or found["table"]
    unmatched = found["unmatched"]
    labels, places = kinds([(*each.truth.legend, *each.prediction.legend) for each in shown])
    return rendering.render(
        "evaluation.html.j2",
        title=f"Quality of {name}",
        name=name,
        figures=[(title, percent(figure)) for title, figure in figures(found)],
        images=found["images"],
        unmatched=sum(each["true"] > 0 for each in unmatched["truth"]) + len(unmatched["table"]),
        explained=_EXPLAINED[found["task"]],
        facts=_facts(found),
        confusion=_confusion(found),
        shown=[{**_pair(each), "kinds": its} for each, its in zip(shown, places, strict=True)],
        kinds=labels,
        scored_by=_SCORE[found["task"]],
        confident=CONFIDENT if found["task"] == Task.INSTANCE else None,
        groups=_groups(found),
        missed=found["missed"],
        listed=_LISTED,
        **_classes(found),
    )


def figures(found: Report) -> list[tuple[str, float | None]]:
    """The figures of all classes, by their titles, the most important first."""
    scores = found["scores"]
    flat = [(TITLES[name], scores[name]) for name in TITLES if name in scores]
    parts = [(f"PQ {part}", scores[part]["pq"]) for part in ("things", "stuff") if part in scores]
    return flat + parts


def percent(figure: float | None) -> str:
    """A figure of 0..1 as papers print it: 43.2."""
    return _ABSENT if figure is None else f"{100 * figure:.1f}"


def _facts(found: Report) -> list[tuple[str, str]]:
    models = dict.fromkeys(f"{each['model']} at {each['model_revision'][:12]}" for each in found["answers"])
    return [
        ("Table", f"{found['table']}, version {found['table_version']}"),
        ("Ground truth", f"{found['truth']} ({found['truth_format']})"),
        ("Task", f"{found['task']}, where {found['where']}" if found["where"] else found["task"]),
        ("Model", ", ".join(models) or _ABSENT),
    ]


def _classes(found: Report) -> Report:
    """The bars and the table of classes, the best first; `figure` is what the bars show, `absent` counts classes that never occurred."""
    main, *others = BY_CLASS[found["task"]]
    judged = [each for each in found["classes"] if each.get(main) is not None]
    judged.sort(key=lambda each: (-each[main], each["label"]))
    names = (main, *others)
    rows = [
        (each["label"], [*(percent(each.get(name)) for name in names), f"{each['true']:,}", f"{each['predicted']:,}"]) for each in judged
    ]
    return {
        "figure": TITLES[main],
        "bars": [(each["label"], percent(each[main]), each[main]) for each in judged],
        "absent": len(found["classes"]) - len(judged),
        "columns": [*(TITLES[name] for name in names), f"True {found['unit']}", "Predicted"],
        "table": rows,
    }


def _pair(shown: Shown) -> Report:
    folder, name = rendering.name_of(shown.judged.uri)
    shares = [("missed", MISSED, shown.missed), ("wrong", WRONG, shown.wrong)]
    differs: Legend = [(text, colour, f"{100 * share:.1f} %") for text, colour, share in shares if share]
    sides = [
        ("Ground truth", shown.truth, _legend(shown.truth)),
        ("Prediction", shown.prediction, _legend(shown.prediction)),
        ("Difference", shown.difference, differs),
    ]
    return {
        "folder": folder,
        "name": name,
        "score": percent(shown.judged.score),
        "readable": shown.readable,
        "photo": rendering.photograph(shown.image),
        "sides": [_side(title, name, painting, legend) for title, painting, legend in sides],
    }


def _side(title: str, name: str, painting: Painting, legend: Legend) -> tuple[str, Report]:
    found = ", ".join(" ".join(filter(None, (figure, label))) for label, _, figure in legend) or "nothing"
    of = f"{title} of {name}"
    return title, {"shot": shot(of, f"{of}: {found}", painting), "legend": legend}


def _legend(painting: Painting) -> Legend:
    entries = sorted(painting.legend, key=lambda entry: entry.label)
    return [(entry.label, entry.colour, f"\N{MULTIPLICATION SIGN}{entry.count}" if entry.count != 1 else "") for entry in entries]


def _confusion(found: Report) -> Report | None:
    """The most confused classes in words, and the matrix of those with most truth; None where there is no truth."""
    matrix, labels = found["confusion"]["matrix"], [each["label"] for each in found["classes"]]
    totals = [sum(row) for row in matrix]
    chosen = sorted((index for index, total in enumerate(totals) if total), key=lambda index: (-totals[index], index))
    if not chosen:
        return None
    unit, nothing = found["confusion"]["unit"], len(labels)
    wrong = sorted(
        ((row[column] / total, index, column) for index, (row, total) in enumerate(zip(matrix, totals, strict=True)) if total
         for column in range(len(row)) if column != index and row[column]),
        reverse=True,
    )  # fmt: skip
    note = f"Each row says what the true {unit} of a class were taken for, in percent; in the last column nothing was found."
    if found["task"] == Task.INSTANCE:
        note += " Detections with a score of 0.5 or more and an IoU of 0.5 or more with an instance of any class."
    note += f" The {_MATRIX} classes of {len(chosen)} with most of them." if len(chosen) > _MATRIX else ""
    rows = chosen[:_MATRIX]
    columns = [*rows, nothing]
    return {
        "note": note,
        "pairs": [
            (f"{100 * share:.0f}", labels[index], None if column == nothing else labels[column]) for share, index, column in wrong[:_PAIRS]
        ],
        "columns": [[*labels, "nothing"][column] for column in columns],
        "rows": [(labels[row], [_cell(matrix[row][column] / totals[row], column == row) for column in columns]) for row in rows],
    }


def _cell(share: float, right: bool) -> tuple[float, str, str]:
    figure = "" if share == 0 else "<1" if share < 0.005 else f"{100 * share:.0f}"
    return share, figure, "right" if right else "wrong"


def _groups(found: Report) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """What did not match: title, note, and (name, figure) of each."""
    unmatched = found["unmatched"]
    return [
        (
            "Classes of the ground truth that no segment has",
            "They count, as missed, where they occur.",
            [_of_truth(each, found["unit"]) for each in unmatched["truth"]],
        ),
        (
            "Labels of the table that the ground truth does not have",
            "Their segments are left out: they are not false positives, and the pixels that they cover count as missed.",
            [(each["label"], plural(each["segments"], "segment")) for each in unmatched["table"]],
        ),
        (
            "Not judged",
            "The mapping leaves them out: predictions there are neither right nor wrong.",
            [(name, "") for name in unmatched["not_judged"]],
        ),
    ]


def _of_truth(each: Report, unit: str) -> tuple[str, str]:
    names = ", ".join(each["truth"])
    sought = "" if each["truth"] == [each["label"]] else f", sought as {each['label']}"
    return names, f"{each['true']:,} {unit}{sought}"
