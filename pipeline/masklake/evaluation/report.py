"""What an evaluation says: the figures, what did not match, what was missed. All of it is JSON."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, NamedTuple

from masklake.evaluation.pairs import Pairing
from masklake.evaluation.scoring import Scoring, Tally
from masklake.evaluation.settings import EvaluateConfig
from masklake.quality.instance import InstanceStats
from masklake.quality.panoptic import PanopticStats, Quality
from masklake.quality.semantic import SemanticStats
from masklake.schema import Task
from masklake.spelling import plural
from masklake.truth.formats import Truth

Report = dict[str, Any]
"""`evaluation.json`. Figures are 0..1, None where there was nothing to judge."""

BY_CLASS = {Task.PANOPTIC: ("pq", "sq", "rq"), Task.SEMANTIC: ("iou", "accuracy"), Task.INSTANCE: ("ap", "ap50")}
"""The figures of a class, the first one most of all."""

UNITS = {Task.PANOPTIC: "segments", Task.SEMANTIC: "pixels", Task.INSTANCE: "instances"}
"""What `true` and `predicted` of a class count; crowds are left out, and pixels that are not judged."""

_NAMED = 5  # images or labels that a sentence names


def report(settings: EvaluateConfig, truth: Truth, scoring: Scoring, pairing: Pairing, tally: Tally) -> Report:
    """Everything that is known at the end."""
    scores, by_class = _figures(scoring, tally)
    counts = _counts(scoring, tally)
    found: Report = _plain(
        {
            "outcome": "done",
            "task": scoring.task,
            "scores": scores,
            "images": _images(truth, pairing, tally),
            "table": settings.table_uri,
            "truth": truth.uri,
            "truth_format": truth.format,
            "where": settings.where,
            "uris": settings.uris,
            "max_detections": scoring.max_detections,
            "images_with_more_detections": tally.stats.cut if isinstance(tally.stats, InstanceStats) else 0,
            "answers": [asdict(each) for each in pairing.answers],
            "unit": UNITS[scoring.task],
            "classes": _classes(scoring, by_class, counts),
            "unmatched": _unmatched(scoring, tally, counts),
            "other_names": _other_names(scoring, tally),
            "missed": [{"image": miss.name, "reason": miss.reason} for miss in tally.misses],
            "worst": [{"image": judged.name, "image_uri": judged.uri, "score": judged.score} for judged in tally.worst],
            "confusion": {
                "unit": "instances" if scoring.task is Task.INSTANCE else "pixels",
                "matrix": tally.confusion.confusion.tolist(),
            },
        }
    )
    return found


class _Counts(NamedTuple):
    """Of each judged class, by its index."""

    segments: Counter[int]
    """The table's, whatever the task."""
    true: Counter[int]
    """In `UNITS` of the task."""
    predicted: Counter[int]


def _counts(scoring: Scoring, tally: Tally) -> _Counts:
    segments: Counter[int] = Counter()
    for label, count in tally.labels.items():
        if (index := scoring.classes.of_label(label)) is not None:
            segments[index] += count
    if scoring.task is not Task.SEMANTIC:
        return _Counts(segments, tally.true, segments)
    matrix = tally.confusion.confusion
    return _Counts(segments, Counter(dict(enumerate(matrix.sum(1).tolist()))), Counter(dict(enumerate(matrix.sum(0).tolist()))))


def _images(truth: Truth, pairing: Pairing, tally: Tally) -> dict[str, int]:
    return {
        "truth": len(truth.images),
        "scored": tally.images - len(tally.misses),
        "missed": len(tally.misses),
        "table_only": pairing.without_truth,
        "matched_by_file_name_alone": pairing.by_name_alone,
    }


def _classes(scoring: Scoring, by_class: dict[int, dict[str, float]], counts: _Counts) -> list[Report]:
    return [
        {
            "label": each.label,
            "truth": list(each.categories),
            "isthing": each.isthing,
            **by_class.get(index, {}),
            "true": counts.true[index],
            "predicted": counts.predicted[index],
        }
        for index, each in enumerate(scoring.classes.judged)
    ]


def _unmatched(scoring: Scoring, tally: Tally, counts: _Counts) -> Report:
    """Classes that only one side knows, the most frequent first, and those that are not judged."""
    of_truth = sorted(enumerate(scoring.classes.judged), key=lambda item: -counts.true[item[0]])
    return {
        "truth": [
            {"label": each.label, "truth": list(each.categories), "true": counts.true[index]}
            for index, each in of_truth
            if not counts.segments[index]
        ],
        "table": [
            {"label": label, "segments": count} for label, count in tally.labels.most_common() if scoring.classes.of_label(label) is None
        ],
        "not_judged": list(scoring.classes.not_judged),
    }


def _other_names(scoring: Scoring, tally: Tally) -> list[dict[str, str]]:
    """Labels of the table that the ground truth calls otherwise."""
    judged = scoring.classes.judged
    return [
        {"label": label, "truth": judged[index].label}
        for label in sorted(tally.labels)
        if (index := scoring.classes.of_label(label)) is not None and judged[index].label.casefold() != label.casefold()
    ]


def _figures(scoring: Scoring, tally: Tally) -> tuple[dict[str, Any], dict[int, dict[str, float]]]:
    """The figures of all, and of each class that has any."""
    stats = tally.stats
    if isinstance(stats, PanopticStats):
        result = stats.result({index for index, each in enumerate(scoring.classes.judged) if each.isthing})
        whole = {"pq": result.pq, "sq": result.sq, "rq": result.rq, "things": asdict(result.things), "stuff": asdict(result.stuff)}
        return whole | {"classes": len(result.per_class)}, {index: _of_quality(quality) for index, quality in result.per_class.items()}
    if isinstance(stats, SemanticStats):
        quality = stats.result()
        figures = asdict(quality)
        iou, accuracy = figures.pop("iou"), figures.pop("accuracy")
        by_class = {index: {"iou": iou[index], "accuracy": accuracy[index]} for index in range(len(iou)) if not math.isnan(iou[index])}
        return figures | {"classes": len(by_class)}, by_class
    assert isinstance(stats, InstanceStats)
    found = asdict(stats.result())
    ap, ap50 = found.pop("per_class"), found.pop("per_class50")
    return found | {"classes": len(ap)}, {index: {"ap": ap[index], "ap50": ap50[index]} for index in ap}


def _of_quality(quality: Quality) -> dict[str, float]:
    return {"pq": quality.pq, "sq": quality.sq, "rq": quality.rq}


def summary(found: Report) -> Report:
    """The report without its long lists, as the last line says it."""
    short = {name: value for name, value in found.items() if name not in ("classes", "confusion", "worst", "answers", "missed")}
    return short | {"missed": found["missed"][:_NAMED]}


def remarks(found: Report) -> Iterator[str]:
    """A sentence for everything that lowers the figures, or keeps something out of them, without being a wrong mask."""
    images, unmatched = found["images"], found["unmatched"]
    if found["missed"]:
        named = [f"{miss['image']} ({miss['reason']})" for miss in found["missed"]]
        of = plural(images["truth"], "image")
        yield f"{plural(images['missed'], f'of {of} counts', f'of {of} count')} as missed, with all that is there: {_some(named)}"
    if images["matched_by_file_name_alone"]:
        yield f"{plural(images['matched_by_file_name_alone'], 'image')} matched by file name alone: the folders differ"
    if cut := found["images_with_more_detections"]:
        yield (
            f"{plural(cut, 'image has', 'images have')} more than {found['max_detections']} detections of a class: "
            "those of the lowest scores do not count, as for pycocotools; see --max-detections"
        )
    if found["other_names"]:
        named = [f"{each['label']} is {each['truth']}" for each in found["other_names"]]
        yield f"labels with another name in the ground truth: {_some(named)}"
    if unmatched["truth"]:
        named = [_in_words(each) for each in unmatched["truth"]]
        classes = plural(len(named), "class of the ground truth is", "classes of the ground truth are")
        yield f"{classes} the label of no segment, which counts as missed: {_some(named)}"
    if unmatched["table"]:
        named = [f"{each['label']} ({plural(each['segments'], 'segment')})" for each in unmatched["table"]]
        labels = plural(len(named), "label of the table is no class", "labels of the table are no classes")
        yield f"{labels} of the ground truth; such segments are removed: {_some(named)}; see --categories"
    if unmatched["not_judged"]:
        left_out = unmatched["not_judged"]
        classes = plural(len(left_out), "category of the ground truth is", "categories of the ground truth are")
        yield f"{classes} not judged, by --categories: {_some(left_out)}"


def _in_words(each: Report) -> str:
    """A class of the ground truth, with the label that was looked for where that has another name."""
    names = " and ".join(each["truth"])
    return names if each["truth"] == [each["label"]] else f"{names} (as {each['label']})"


def _some(names: list[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def as_json(found: Report) -> str:
    """The report as a file, the matrix last and a row of it in a line."""
    rest = {name: value for name, value in found.items() if name != "confusion"}
    rows = ",\n".join(f"      {json.dumps(row)}" for row in found["confusion"]["matrix"])
    unit = json.dumps(found["confusion"]["unit"])
    return f'{json.dumps(rest, indent=2)[:-2]},\n  "confusion": {{\n    "unit": {unit},\n    "matrix": [\n{rows}\n    ]\n  }}\n}}\n'


def _plain(value: Any) -> Any:
    """NaN is not JSON: None."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
