"""Runs beside each other on one table: which inputs overlap, who has not finished, who is alive, and what a fenced run left behind.

A run leaves a marker while it is under way, and rewrites it every few seconds: one that does not change is of a run that died. Markers
say where to look for rubbish, and serve politeness between runs: that a fenced run cannot commit is the business of the table's log, and
holds without them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass, fields, replace
from itertools import product

from masklake import storage
from masklake.errors import ErrorCode, ImageFailure, MasklakeError
from masklake.storage import StorageError
from masklake.table.own_files import OwnFiles

BEAT_SECONDS = 3.0
"""How often a run that lives rewrites its marker."""


@dataclass(frozen=True)
class Marker:
    """A run under way, or one that died; also a compaction or an erasure, whose `scope` is empty, for it never begins a run.

    It is written before the commit with which the run begins, so that whoever finds that commit in the log finds the marker as well.
    """

    run_id: str
    scope: str
    """The normalised input."""
    begun: int
    """The table version of the commit with which it began; -1 where that is not known yet."""
    seen: int = -1
    """A table version from before that commit."""
    beat: int = 0
    """Grows while the run lives."""
    stopped: bool = False
    """It was stopped, and cleans up: nobody needs to wait for it."""
    table: str = ""
    """The id of the Delta table, which another one at the same place does not have."""


def _prefixes(input_uri: str) -> list[str]:
    """What every image URI of an input starts with, one of these: the folder with its '/', or the part of a glob before its first wildcard.

    A single file or a manifest counts as a folder of its own, which overlaps with nothing but itself and the folders above it.
    """
    patterns = storage.alternatives(input_uri)
    return [storage.fixed_part(each) if storage.is_glob(each) else each.rstrip("/") + "/" for each in patterns]


def overlap(left: str, right: str) -> bool:
    """Whether two inputs may hold the same image: they are equal, or one lies inside the other."""
    pairs = product(_prefixes(left), _prefixes(right))
    return any(first.startswith(second) or second.startswith(first) for first, second in pairs)


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


def markers(table_uri: str) -> list[Marker]:
    """The runs that have not finished, dead ones among them.

    Raises:
        StorageError: a marker cannot be read, after retries.
    """
    names = storage.list_names(f"{table_uri}/_masklake/live/")
    uris = [_marker_uri(table_uri, name.removesuffix(".json")) for name in names if name.endswith(".json")]
    found = []
    for uri, content in zip(uris, storage.read_many(uris), strict=True):
        if not isinstance(content, ImageFailure):
            found.append(_known(uri, content))
        elif content.code != ErrorCode.NOT_FOUND:  # that one finished just now; of any other, nobody can say whether it lives
            raise StorageError(uri, content)
    return found


def _known(uri: str, content: bytes) -> Marker:
    """What a marker says.

    Raises:
        MasklakeError: it is none.
    """
    with suppress(ValueError, KeyError, TypeError):
        known = json.loads(content)
        marker = Marker(**{each.name: known[each.name] for each in fields(Marker)})
        typed = all(type(value).__name__ == each.type for each, value in zip(fields(Marker), astuple(marker), strict=True))
        if typed and uri.endswith(f"/{marker.run_id}.json") and "/" not in marker.run_id:  # a name, and no path to what is not the run's
            return marker
    raise MasklakeError(f"{uri}: this is not the marker of a run, so whether a run is alive cannot be told: see what it is, and delete it")


class Heartbeat:
    """Rewrites a run's marker every few seconds, in a thread of its own, whatever the run is busy with."""

    def __init__(self, table_uri: str, marker: Marker) -> None:
        self.marker = marker
        self._table_uri = table_uri
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Beat no more; returns when the marker is not being written any more."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        beat = 0
        while not self._stopped.wait(BEAT_SECONDS):
            beat += 1
            with suppress(MasklakeError):  # a store in trouble may take the next one; at worst, others take this run for dead
                mark(self._table_uri, replace(self.marker, beat=beat))


def delete_uncommitted(table_uri: str, partition_by: Sequence[str], run_ids: Collection[str], committed: Collection[str]) -> int:
    """Delete the data files of dead runs that are not among the `committed` file names; returns how many.

    Only names that these runs gave are considered, so files of live runs and of compactions stay; and only in the table's own partitions.
    """
    own = OwnFiles(table_uri, partition_by)
    for page in storage.list_files(table_uri + "/"):
        own.add([file for file in page if "/_delta_log/" in file.uri or own.writer(file) in run_ids])
    orphans = [file.uri for file in own.files() if own.in_partition(file) and file.uri.rpartition("/")[2] not in committed]
    storage.delete_files(orphans)
    return len(orphans)


def delete_repeated(table_uri: str, run_id: str, committed: Collection[str]) -> int:
    """Delete the data files of a run that has nothing more to commit and that are not among the `committed` paths; returns how many.

    Where a worker dies just after its write, the engine writes the same rows again: the first file is then no part of the table, and lies
    in a folder that holds a committed one. Only names that begin with this run's are listed, a request per folder and thousand files.
    """
    deleted = 0
    for folder in sorted({path.rpartition("/")[0] for path in committed}):
        prefix = "/".join(part for part in (table_uri, folder, f"part-{run_id}-") if part)
        with suppress(FileNotFoundError):
            for page in storage.list_prefix(prefix):
                orphans = [file.uri for file in page if file.uri.removeprefix(table_uri + "/") not in committed]
                storage.delete_files(orphans)
                deleted += len(orphans)
    return deleted


def delete_work_list(table_uri: str, run_id: str) -> None:
    """Delete a run's work list; its report stays."""
    folder = run_folder(table_uri, run_id)
    storage.delete_files([folder + name for name in storage.list_names(folder) if name.startswith("plan-")])
