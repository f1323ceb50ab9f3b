"""A table and its runs as one JSON object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from masklake import storage
from masklake.errors import MasklakeError, Refused
from masklake.segment import known
from masklake.status.coverage import Answers, Coverage, Group, Held, Partition, coverage, partition_names
from masklake.status.lag import Lag, lag, settings_of
from masklake.status.moved import Counted, Moved, moved
from masklake.status.past import Run, past
from masklake.status.settings import StatusConfig
from masklake.table.append import Table
from masklake.table.definition import check_log, schema_version
from masklake.table.read import MaskTable, open_table
from masklake.table.reports import last_reports

_REPORTS = 20  # in which the settings of the last run on an input are looked for


def status(config: StatusConfig) -> dict[str, Any]:
    """Look at a table; nothing is started and nothing changed.

    Raises:
        Refused: there is no table, or the input cannot be read.
        MasklakeError: the table's log, a file of it or a marker is damaged.
    """
    uri = storage.normalise(config.table).rstrip("/")
    check_log(config.table, "TABLE")
    writable = Table.open(uri)
    if writable is None:
        raise Refused(f"TABLE {config.table}: there is no table: name the folder that segment has as --output")
    table = open_table(uri)
    held, names = coverage(table), partition_names(table)
    behind = None if config.input is None else _lag(config.input, writable, held, names)
    seen = past(uri, config.runs, config.lease_seconds)
    now = datetime.now(UTC)
    return {
        "outcome": "done",
        "table": uri,
        **_versions(table),
        "runs": [_run(run) for run in seen.runs],
        "older_runs_not_shown": not seen.complete,
        "answers": [_answers(each, held, told) for told in [_facts(uri)] for each in held.answers],
        "partitions": [*_partitions(held, names, behind)],
        "moved": [_moved(each, names) for each in changes(held.groups)],
        "lag": None if behind is None else _behind(behind, now),
    }


def changes(groups: Mapping[Group, Held]) -> list[Moved[Group]]:
    """The classes that moved: each partition against the others of the same task and fingerprint."""
    alike: dict[tuple[str, str], dict[Group, Counted]] = {}
    for group, held in groups.items():
        alike.setdefault((group.task, group.fingerprint), {})[group] = Counted(held.done, held.classes)
    return [each for partitions in alike.values() for each in moved(partitions)]


def _lag(input_uri: str, table: Table, held: Coverage, names: list[str]) -> Lag:
    meant = storage.normalise(input_uri)
    like = next((settings_of(report) for report in last_reports(table.uri, _REPORTS) if _is_of(report, meant)), {})
    return lag(input_uri, table, held.newest(), like, names)


def _is_of(report: Mapping[str, Any], input_uri: str) -> bool:
    try:
        return storage.normalise(str(report.get("input"))) == input_uri
    except MasklakeError:
        return False


def _versions(table: MaskTable) -> dict[str, Any]:
    actions = pa.table(table.delta.get_add_actions(flatten=True))
    sizes = actions["size_bytes"].to_pylist() if actions.num_rows else []
    return {
        "version": table.delta.version(),
        "schema_version": schema_version(table.delta),
        "files": len(sizes),
        "bytes": sum(sizes),
    }


def _run(run: Run) -> dict[str, Any]:
    report = run.report
    told = {name: report[name] for name in ("images", "errors", "seconds", "versions") if name in report}
    return {
        "run_id": run.run_id,
        "state": run.state,
        "input": run.input or None,
        "began": _time(run.began),
        "last_commit": _time(run.last_commit),
        "rows": run.rows,
        **({"errors": {code: each["rows"] for code, each in told.pop("errors").items()}} if "errors" in told else {}),
        **told,
    }


def _facts(uri: str) -> dict[str, Mapping[str, Any]]:
    return {each.fingerprint: each.facts for each in known.remembered(uri)}


def _answers(each: Answers, held: Coverage, facts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    theirs = [found for group, found in held.groups.items() if (group.task, group.fingerprint) == (each.task, each.fingerprint)]
    return {
        "task": each.task,
        "fingerprint": each.fingerprint,
        "model": each.model,
        "model_revision": each.revision,
        "precision": facts.get(each.fingerprint, {}).get("precision"),
        "newest": held.newest()[each.task] == each.fingerprint,
        "images": sum(found.images for found in theirs),
        "done": sum(found.done for found in theirs),
        "errors": _sum(found.errors for found in theirs),
    }


def _partitions(held: Coverage, names: Sequence[str], behind: Lag | None) -> Iterable[dict[str, Any]]:
    """Each group; of the newest fingerprints, also what is to do, in partitions among them of which the table has nothing yet."""
    newest = held.newest()
    todo = behind.todo_by_partition if behind else {}
    rows = dict(held.groups)
    for partition in todo:
        for task, fingerprint in newest.items() or [("", "")]:
            rows.setdefault(Group(partition, task, fingerprint), Held())
    for group, found in rows.items():
        waits = behind is not None and newest.get(group.task, "") == group.fingerprint
        yield {
            "partition": _named(names, group.partition),
            "task": group.task or None,
            "fingerprint": group.fingerprint or None,
            "images": found.images,
            "done": found.done,
            "errors": dict(sorted(found.errors.items())),
            **({"todo": todo.get(group.partition, 0)} if waits else {}),
            "classes": dict(sorted(found.classes.items(), key=lambda each: (-each[1], each[0]))),
        }


def _moved(each: Moved[Group], names: Sequence[str]) -> dict[str, Any]:
    return {
        "partition": _named(names, each.partition.partition),
        "task": each.partition.task,
        "fingerprint": each.partition.fingerprint,
        "label": each.label,
        "images": each.here,
        "of": each.of,
        "elsewhere": each.elsewhere,
        "of_others": each.of_others,
        "p": each.p,
    }


def _behind(found: Lag, now: datetime) -> dict[str, Any]:
    seconds = found.seconds(now)
    return {
        "input": found.input,
        "images": found.images,
        "todo_images": found.todo_images,
        "todo_bytes": found.todo_bytes,
        "oldest_uri": found.oldest_uri,
        "oldest_modified": _time(found.oldest_modified),
        "seconds": None if seconds is None else round(seconds),
    }


def _named(names: Sequence[str], values: Partition) -> dict[str, str | None]:
    return dict(zip(names, values, strict=True))


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            total[name] = total.get(name, 0) + count
    return dict(sorted(total.items()))


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat(timespec="seconds")
