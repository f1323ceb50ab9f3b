"""A status as a person reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from masklake.spelling import plural, visible

_MOST = 20  # partitions, and classes that moved, that are shown
_CODES = 3


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """A status, line by line; what others named in it is spelt out."""
    yield visible(f"{found['table']}: version {found['version']}, {plural(found['files'], 'file')}, {plural(found['bytes'], 'byte')}")
    yield ""
    yield from _table(("run", "state", "began", "last commit", "rows", "input"), map(_run, found["runs"]))
    if found["older_runs_not_shown"]:
        yield "(older runs are not shown)"
    yield ""
    answers = ("task", "model", "fingerprint", "images", "done", "errors")
    yield from _table(answers, ([each["task"], _model(each), each["fingerprint"][:12], *_counts(each)] for each in found["answers"]))
    yield ""
    yield from _partitions(found["partitions"])
    if found["moved"]:
        yield ""
        yield "classes found in more or fewer images of a partition than of the others, beyond chance:"
        yield from map(_moved, found["moved"][:_MOST])
        if len(found["moved"]) > _MOST:
            yield f"  and {len(found['moved']) - _MOST:,} more"
    if found["lag"]:
        yield ""
        yield _lag(found["lag"])


def _run(each: Mapping[str, Any]) -> list[str]:
    return [each["run_id"], each["state"], each["began"] or "-", each["last_commit"] or "-", f"{each['rows']:,}", each["input"] or "-"]


def _model(each: Mapping[str, Any]) -> str:
    return f"{each['model']} ({each['precision']})" if each["precision"] else str(each["model"])


def _counts(each: Mapping[str, Any]) -> list[str]:
    codes = sorted(each["errors"].items(), key=lambda item: (-item[1], item[0]))
    told = ", ".join(f"{count:,} {code}" for code, count in codes[:_CODES]) + (", ..." if len(codes) > _CODES else "")
    return [f"{each['images']:,}", f"{each['done']:,}", told or "-"]


def _partitions(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Those with something to do or with errors first, then the last by name."""
    shown = sorted(found, key=_place, reverse=True)
    with_todo = any("todo" in each for each in found)
    titles = ("partition", "task", "fingerprint", "images", "done", "errors", *(("to do",) if with_todo else ()))
    rows = (
        [
            _partition(each["partition"]),
            each["task"] or "-",
            (each["fingerprint"] or "-")[:12],
            *_counts(each),
            *([f"{each['todo']:,}" if "todo" in each else "-"] if with_todo else []),
        ]
        for each in shown[:_MOST]
    )
    yield from _table(titles, rows)
    if len(found) > _MOST:
        yield f"and {plural(len(found) - _MOST, 'more partition')}"


def _place(each: Mapping[str, Any]) -> tuple[bool, int, str]:
    return each.get("todo", 0) > 0, sum(each["errors"].values()), _partition(each["partition"])


def _partition(values: Mapping[str, str | None]) -> str:
    return "/".join(f"{name}={value}" for name, value in values.items()) or "all"


def _moved(each: Mapping[str, Any]) -> str:
    here, elsewhere = each["images"] / each["of"], each["elsewhere"] / each["of_others"]
    return visible(
        f"  {_partition(each['partition'])} {each['task']}: {each['label']} in {here:.1%} of {plural(each['of'], 'image')}, "
        f"elsewhere in {elsewhere:.1%} of {each['of_others']:,} (p = {each['p']:.1g})"
    )


def _lag(each: Mapping[str, Any]) -> str:
    if not each["todo_images"]:
        return visible(f"{each['input']}: {plural(each['images'], 'image')}, nothing to do")
    oldest = f", the oldest {each['oldest_uri']}, for {_span(each['seconds'])}" if each["seconds"] is not None else ""
    return visible(f"{each['input']}: {each['todo_images']:,} of {plural(each['images'], 'image')} to do{oldest}")


def _span(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return plural(round(seconds), "second")


def _table(titles: Sequence[str], rows: Iterator[list[str]] | map[list[str]]) -> Iterator[str]:
    """Columns with their titles; nothing where there is no row."""
    found = [list(titles), *([visible(cell) for cell in row] for row in rows)]
    if len(found) == 1:
        return
    widths = [max(len(row[column]) for row in found) for column in range(len(titles))]
    for row in found:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
