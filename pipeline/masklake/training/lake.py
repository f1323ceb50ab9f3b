"""A table of masks as truth: a model's own answers, all of them or those that score well (self-training)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from masklake import reading
from masklake.errors import Refused
from masklake.named import chosen
from masklake.schema import Task
from masklake.table.selection import Choice, check_condition
from masklake.training.settings import DataConfig
from masklake.truth.coco_instances import CocoMasks
from masklake.truth.formats import Category, Listed, Truth, TruthImage
from masklake.truth.settings import Format


def read_table(uri: str, settings: DataConfig) -> Truth:
    """The newest successful answer of each image, as truth.

    Args:
        uri: the table's folder.
        settings: which rows; segments that score less than `min_score` are left out, and with them their pixels: they become pixels
            without truth.

    Raises:
        Refused: there is no table, no row has segments, `where` is not a condition, a list cannot be read, or a label is a thing in some
            rows only.
    """
    task, where, min_score = settings.task, settings.where, settings.min_score
    told: list[str] = []
    table, unknown = chosen(reading.open_table(uri), settings.uris, told.append)
    check_condition(table, where)
    columns = ["image_uri", "height", "width", "segments"]
    rows = list(table.newest(task=task, columns=columns, where=Choice(where=where).condition()))
    rows.sort(key=lambda row: row["image_uri"])  # rows come in no particular order
    left_out: Counter[str] = Counter(dict.fromkeys(told, len(unknown)))
    for row in rows:
        kept = [segment for segment in row["segments"] if segment["score"] >= min_score]
        left_out[f"segments that score below {min_score:g}"] += len(row["segments"]) - len(kept)
        row["segments"] = kept
    labels = _labels(uri, rows)
    if not labels:
        raise Refused(
            f"{uri}: no successful {task} row with segments"
            + (" fits --where, --uris and --min-score" if where or settings.uris or min_score else "")
        )
    ids = {label: number for number, label in enumerate(labels)}
    return Truth(
        Format.TABLE,
        f"{task} rows of {uri}",
        tuple(Category(ids[label], label, thing) for label, thing in labels.items()),
        tuple(
            TruthImage(order, row["image_uri"], uri=row["image_uri"], size=(row["height"], row["width"]), segments=tuple(_listed(row, ids)))
            for order, row in enumerate(rows)
        ),
        CocoMasks((task,), objects_only=task is Task.INSTANCE),
        left_out=+left_out,
    )


def _labels(uri: str, rows: list[dict[str, Any]]) -> dict[str, bool]:
    """Whether each label is a thing, in the order of the label ids."""
    things: dict[str, bool] = {}
    order: dict[str, int] = {}
    for segment in (segment for row in rows for segment in row["segments"]):
        if things.setdefault(segment["label"], segment["isthing"]) != segment["isthing"]:
            raise Refused(f"{uri}: the label {segment['label']!r} is a thing in some rows and none in others: choose rows with --where")
        order[segment["label"]] = min(order.get(segment["label"], segment["label_id"]), segment["label_id"])
    return {label: things[label] for label in sorted(things, key=lambda label: (order[label], label))}


def _listed(row: Mapping[str, Any], ids: Mapping[str, int]) -> Iterator[Listed]:
    for each in row["segments"]:
        mask = {"size": [row["height"], row["width"]], "counts": each["counts"]}
        yield Listed(each["segment_id"], ids[each["label"]], area=float(each["area"]), mask=mask)
