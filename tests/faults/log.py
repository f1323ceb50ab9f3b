"""The table's log, read as JSON: none of the product's reading."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote


@dataclass(frozen=True)
class Added:
    """A file that a commit adds."""

    path: str
    size: int
    rows: int


@dataclass(frozen=True)
class Commit:
    """One entry of the table's log; paths are relative to the table, named as in the store."""

    version: int
    event: str
    run_id: str
    scope: str
    adds: tuple[Added, ...]
    removes: tuple[str, ...]


def commit(version: int, text: str) -> Commit:
    """What an entry says."""
    actions = [json.loads(line) for line in text.splitlines() if line.strip()]
    said: dict[str, Any] = next((action["commitInfo"].get("masklake") or {} for action in actions if "commitInfo" in action), {})
    return Commit(
        version,
        said.get("event", ""),
        said.get("run_id", ""),
        said.get("scope", ""),
        tuple(_added(action["add"]) for action in actions if "add" in action),
        tuple(unquote(action["remove"]["path"]) for action in actions if "remove" in action),
    )


def _added(add: dict[str, Any]) -> Added:
    return Added(unquote(add["path"]), add["size"], json.loads(add["stats"])["numRecords"])


def data_commits(log: Sequence[Commit], run_id: str = "") -> Iterator[Commit]:
    """The commits with files of a run, or of any."""
    return (each for each in log if each.event == "data" and run_id in ("", each.run_id))


def present(log: Sequence[Commit]) -> dict[str, Added]:
    """The files of the newest version, by replaying the log."""
    files: dict[str, Added] = {}
    for each in log:
        for path in each.removes:
            files.pop(path, None)
        files.update((added.path, added) for added in each.adds)
    return files
