"""Runs beside each other on one table: which inputs overlap, who has not finished, and what a fenced run left behind.

A run leaves a marker while it is under way. Markers only say where to look for rubbish: that a fenced run cannot commit is the
business of the table's log, and holds without them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass

from pipeline import storage
from pipeline.errors import ImageFailure

_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@dataclass(frozen=True)
class Marker:
    """A run under way, or one that died: its input, and the table version of the commit with which it began."""

    run_id: str
    scope: str
    begun: int


def scope_prefix(input_uri: str) -> str:
    """What every image URI of an input starts with: the folder with its '/', or the part of a glob before its first wildcard.

    A single file or a manifest counts as a folder of its own, which overlaps with nothing but itself and the folders above it.
    """
    plain = re.split(r"[*?\[]", input_uri, maxsplit=1)[0]
    return plain if plain != input_uri else input_uri.rstrip("/") + "/"


def overlap(left: str, right: str) -> bool:
    """Whether two inputs may hold the same image: they are equal, or one lies inside the other."""
    first, second = scope_prefix(left), scope_prefix(right)
    return first.startswith(second) or second.startswith(first)


def run_folder(table_uri: str, run_id: str) -> str:
    """Where a run keeps its work list and its report."""
    return f"{table_uri}/_masklake/runs/{run_id}/"


def mark(table_uri: str, marker: Marker) -> None:
    """Say that a run is under way."""
    storage.write_bytes(_marker_uri(table_uri, marker.run_id), json.dumps(asdict(marker)).encode())


def unmark(table_uri: str, run_ids: Collection[str]) -> None:
    """Say that runs are over, and that nothing of them is left to clean up."""
    storage.delete_files([_marker_uri(table_uri, run_id) for run_id in run_ids])


def _marker_uri(table_uri: str, run_id: str) -> str:
    return f"{table_uri}/_masklake/live/{run_id}.json"


def fenced_runs(table_uri: str, by: Marker) -> list[Marker]:
    """The unfinished runs that a run fenced: they began before it, on overlapping input."""
    uris = [_marker_uri(table_uri, name.removesuffix(".json")) for name in storage.list_names(f"{table_uri}/_masklake/live/")]
    contents = [content for content in storage.read_many(uris) if not isinstance(content, ImageFailure)]  # gone: it finished just now
    markers = [Marker(**json.loads(content)) for content in contents]
    return [marker for marker in markers if marker.begun < by.begun and marker.run_id != by.run_id and overlap(marker.scope, by.scope)]


def delete_uncommitted(table_uri: str, run_ids: Collection[str], committed: Collection[str]) -> int:
    """Delete the data files of dead runs that are not among the `committed` file names; returns how many.

    Only names that these runs gave are considered, so files of live runs and of compactions stay.
    """
    ours = re.compile(f"part-(?:{'|'.join(map(re.escape, run_ids))})-{_UUID}\\.parquet")
    deleted = 0
    for page in storage.list_files(table_uri + "/"):
        names = [(file.uri, file.uri.rpartition("/")[2]) for file in page]
        orphans = [uri for uri, name in names if ours.fullmatch(name) and name not in committed]
        storage.delete_files(orphans)
        deleted += len(orphans)
    return deleted


def delete_work_list(table_uri: str, run_id: str) -> None:
    """Delete a run's work list; its report stays."""
    folder = run_folder(table_uri, run_id)
    storage.delete_files([folder + name for name in storage.list_names(folder) if name.startswith("plan-")])
