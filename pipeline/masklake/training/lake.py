"""Examples from a table of masks: a model's own answers, all of them or those that score well (self-training)."""

from __future__ import annotations

from collections import Counter

from masklake import reading
from masklake.errors import Refused
from masklake.table.selection import Choice, check_condition
from masklake.training.examples import DataSet, Example, Runs, count_labels


def read_table(uri: str, task: str, where: str | None, min_score: float) -> DataSet:
    """The newest successful answer of each image to `task`, as truth.

    Args:
        uri: the table's folder.
        task: panoptic, instance or semantic.
        where: an SQL condition on the table's columns.
        min_score: segments that score less are left out, and with them their pixels: they become pixels without truth.

    Raises:
        Refused: no row has segments, `where` is no condition, or a label is a thing in some rows and none in others.
        MasklakeError: there is no table.
    """
    table = reading.open_table(uri)
    check_condition(table, where)
    rows = table.newest(task=task, columns=["image_uri", "height", "width", "segments"], where=Choice(where=where).condition())
    skipped: Counter[str] = Counter()
    labels: dict[str, bool] = {}
    order: dict[str, int] = {}
    found: list[tuple[str, tuple[int, int], list[tuple[bytes, str]]]] = []
    for row in rows:
        segments = [segment for segment in row["segments"] if segment["score"] >= min_score]
        skipped[f"segments that score below {min_score:g}"] += len(row["segments"]) - len(segments)
        for segment in segments:
            if labels.setdefault(segment["label"], segment["isthing"]) != segment["isthing"]:
                raise Refused(f"{uri}: the label {segment['label']!r} is a thing in some rows and none in others: choose rows with --where")
            order[segment["label"]] = min(order.get(segment["label"], segment["label_id"]), segment["label_id"])
        if segments:
            found.append((row["image_uri"], (row["height"], row["width"]), [(each["counts"], each["label"]) for each in segments]))
        else:
            skipped["images without segments"] += 1
    if not found:
        raise Refused(f"{uri}: no successful {task} row with segments" + (" fits --where and --min-score" if where or min_score else ""))
    ids = {label: index for index, label in enumerate(sorted(labels, key=lambda label: (order[label], label)))}
    found.sort(key=lambda each: each[0])  # rows come in no particular order
    examples = tuple(
        Example(image, Runs(size, tuple((counts, ids[label], False) for counts, label in segments))) for image, size, segments in found
    )
    things = frozenset(ids[label] for label, thing in labels.items() if thing)
    return DataSet({i: label for label, i in ids.items()}, things, examples, count_labels(examples), +skipped, f"{task} rows of {uri}")
