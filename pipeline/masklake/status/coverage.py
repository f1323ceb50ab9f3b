"""What a table holds, by partition, task and fingerprint: images, errors, classes. Memory grows with the groups, not with the rows."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from masklake.database import connect
from masklake.schema import NEWNESS, NEWNESS_SQL, TABLE, Status
from masklake.table.narrow import narrow_rows
from masklake.table.read import MaskTable

_MEMORY = "512MB"  # beyond it, keys spill to disk

Partition = tuple[str | None, ...]
"""The values of the columns that `partition_names` names."""


@dataclass(frozen=True)
class Group:
    """The images of a partition that were asked for one task, with one fingerprint."""

    partition: Partition
    task: str
    fingerprint: str


@dataclass
class Held:
    """What the table holds of a group: of each image, its newest row."""

    images: int = 0
    done: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)
    """Of each class, in how many images it was found."""


@dataclass(frozen=True)
class Answers:
    """Whose answers a fingerprint's are."""

    task: str
    fingerprint: str
    model: str
    revision: str
    newest: int
    """The greatest `run_order` of its rows; -1 where they have none."""


@dataclass(frozen=True)
class Coverage:
    """All groups, and all fingerprints, the newest of each task first."""

    groups: Mapping[Group, Held]
    answers: tuple[Answers, ...]

    def newest(self) -> dict[str, str]:
        """The fingerprint of each task with which the run worked that began last."""
        return {each.task: each.fingerprint for each in reversed(self.answers)}


def partition_names(table: MaskTable) -> list[str]:
    """The columns by which a table is partitioned that tell images apart, and not what was asked or answered."""
    return [name for name in table.delta.metadata().partition_columns if name not in TABLE.names]


def coverage(table: MaskTable) -> Coverage:
    """Read what the table holds; masks are not read.

    Raises:
        MasklakeError: a file of the table is damaged or gone.
    """
    names = partition_names(table)
    columns = "".join(f'"{name}", ' for name in names)
    told = ["image_uri", "task", "fingerprint", *NEWNESS, *names, "status", "error_code", "model", "model_revision"]
    with tempfile.TemporaryDirectory(prefix="masklake-status-") as scratch, connect(Path(scratch, "rows.duckdb")) as database:
        database.execute(f"SET memory_limit = '{_MEMORY}'; SET preserve_insertion_order = false; SET enable_progress_bar = false")
        database.execute("SET temp_directory = $folder", {"folder": str(Path(scratch, "spilled"))})
        database.execute("SET disabled_optimizers = 'join_order, build_side_probe_side'")  # see `MaskTable`
        database.register("incoming", narrow_rows(table.uri, table.delta, told, labels=True))
        database.execute(
            f"""
            CREATE TABLE rows AS SELECT md5_number(image_uri) AS image, {NEWNESS_SQL} AS stamp, {columns} task, fingerprint, status,
                error_code, model, model_revision, coalesce(run_order, -1) AS run_order, list_distinct(labels) AS labels FROM incoming;
            CREATE TABLE newest AS SELECT image, task, fingerprint, max(stamp) AS stamp FROM rows GROUP BY ALL
            """  # noqa: S608
        )
        found = database.execute(
            # Each image counts once without a label, and once with each of its own.
            f"SELECT {columns} task, fingerprint, status, error_code, label, count(*), max(model), max(model_revision), max(run_order) "  # noqa: S608
            "FROM (SELECT *, unnest(list_prepend(NULL, labels)) AS label "
            "FROM rows SEMI JOIN newest USING (image, task, fingerprint, stamp)) GROUP BY ALL"
        ).fetchall()
    groups: dict[Group, Held] = {}
    answers: dict[tuple[str, str], Answers] = {}
    for row in found:
        partition, (task, fingerprint, status, code, label, count, model, revision, order) = row[: len(names)], row[len(names) :]
        held = groups.setdefault(Group(partition, task, fingerprint), Held())
        if label is not None:
            held.classes[label] = held.classes.get(label, 0) + count
            continue
        held.images += count
        if status == Status.OK:
            held.done += count
        else:
            held.errors[code or "unknown"] = held.errors.get(code or "unknown", 0) + count
        before = answers.get((task, fingerprint))
        answers[task, fingerprint] = Answers(task, fingerprint, model, revision, max(order, before.newest if before else -1))
    ordered = sorted(answers.values(), key=lambda each: (each.task, -each.newest, each.fingerprint))
    in_order = sorted(groups.items(), key=lambda each: (each[0].task, each[0].fingerprint, tuple(map(str, each[0].partition))))
    return Coverage(dict(in_order), tuple(ordered))
