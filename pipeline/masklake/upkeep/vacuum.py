"""Deleting data files that the table does not need: those that only old versions hold, and those that no version ever held.

Nothing else below the table's folder is touched. A file may go only where this table's log, its checkpoints included, names it, or where it
lies in one of the table's own partitions under a name that a run of this log gave it. What lies in a table further down is that table's.
Once Delta has dropped old entries of the log, it names less, and less may go: never more.

Which file may go is decided from things seen in this order: the dead runs are closed in the log, the files are listed, the markers of
unfinished runs are read, the log is read. A run has its marker from before its first file until after its last commit; so a file whose run
has none by then, and which no version holds by then, will never be committed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from masklake import storage
from masklake.errors import MasklakeError
from masklake.storage import StoredFile
from masklake.table import log, runs
from masklake.table.overlap import LOOK_SECONDS, Watch
from masklake.table.own_files import OwnFiles
from masklake.table.runs import Marker
from masklake.upkeep.upkeep import UpkeepTable

_PLANNING_HOURS = 168  # a work list without a marker may be of a run that is still planning for so long
_PLAN = re.compile(r"_masklake/runs/[^/]+/plan-[^/]+")


@dataclass(frozen=True)
class Vacuumed:
    """What was deleted, or, of a dry run, would be."""

    files: int = 0
    bytes: int = 0
    dead_runs: tuple[str, ...] = ()
    """Runs that showed no sign of life: they can commit no more."""


def vacuum(
    table: UpkeepTable, hours: float, lease_seconds: float = 30.0, dry_run: bool = False, say: Callable[[str], None] = print
) -> Vacuumed:
    """Delete the data files that the table's present version does not hold, of its past `hours` none does, and no live run wrote.

    Args:
        hours: versions so old can be read no more afterwards; with 0, only the present one can.
        lease_seconds: a run that does not respond for so long is dead. Only runs that began before these `hours` are looked at.
        dry_run: only name and count the files.
        say: told of dead runs, and of each file that a dry run leaves.

    Raises:
        MasklakeError: the log does not reach back so many hours, or the store is in trouble.
    """
    dead = _dead_runs(table, hours, lease_seconds)
    if dead:
        say(f"{', '.join(marker.run_id for marker in dead)}: no response for {lease_seconds:g} s, treated as dead")
    dead_ids = {marker.run_id for marker in dead}
    if not dry_run:
        table.close_dead(dead_ids)
    present = {file.path for file in table.files()}
    own, plans = OwnFiles(table.uri, table.partition_by), list[StoredFile]()
    for page in storage.list_files(table.uri + "/"):
        own.add([file for file in page if own.path(file) not in present])
        plans += [file for file in page if _PLAN.fullmatch(own.path(file))]
    alive = {marker.run_id for marker in runs.markers(table.uri)} - dead_ids
    held = {file.path for file in table.files()}
    found = log.listed(table.uri)  # after that: what was removed since is among those held
    held |= _held_since(table.uri, found.entries, hours)
    suspects = [file for file in own.files() if own.path(file) not in held]
    useless = _may_go(table, own, suspects, found, alive, dead) if suspects else []
    useless += [file for file in plans if _is_abandoned(file, _latest(found.entries.values()), alive)]
    for file in useless if dry_run else ():
        say(f"would delete {file.uri}")
    if not dry_run:
        storage.delete_files([file.uri for file in useless])
        for run_id in dead_ids:
            runs.delete_work_list(table.uri, run_id)
        runs.unmark(table.uri, dead_ids)
    return Vacuumed(len(useless), sum(file.size or 0 for file in useless), tuple(sorted(dead_ids)))


def _may_go(
    table: UpkeepTable, own: OwnFiles, suspects: list[StoredFile], found: log.Listed, alive: Collection[str], dead: Iterable[Marker]
) -> list[StoredFile]:
    """Of files that no version of the past hours holds: those that one held before, and those that were never committed and never will be.

    The first are those that the log says were removed: one that is only added there may be of a commit that was made just now. Of the
    others, only a name that a run of this log gave tells whose a file is; that run has no marker, so it is over.
    """
    removed, of_log = log.removed_and_runs(table.uri, found)
    of_log |= {marker.run_id for marker in dead if marker.table == table.table_id}
    finished = of_log - set(alive)
    return [file for file in suspects if own.path(file) in removed or (own.in_partition(file) and own.writer(file) in finished)]


def _dead_runs(table: UpkeepTable, hours: float, lease_seconds: float) -> list[Marker]:
    """Unfinished runs whose markers are so old, and do not change while we look."""
    folder = f"{table.uri}/_masklake/live/"
    pages = storage.list_files(folder) if storage.list_names(folder) else ()
    modified = {_name(file).removesuffix(".json"): file.modified for page in pages for file in page}
    latest = _latest(modified.values())  # our own marker's, so it is the store's now
    old = {run_id for run_id, time in modified.items() if time and latest - time >= timedelta(hours=hours)} - {table.job_id}
    watch = Watch(lease_seconds)
    while True:
        markers = [marker for marker in runs.markers(table.uri) if marker.run_id in old]
        not_dead = watch.look(markers, time.monotonic())
        if all(not_dead.values()):
            return sorted((marker for marker in markers if marker.run_id not in not_dead), key=lambda marker: marker.run_id)
        time.sleep(LOOK_SECONDS)


def _held_since(table_uri: str, times: Mapping[int, datetime | None], hours: float) -> set[str]:
    """Paths of the files that were part of the table at some time of the past hours, and are no more."""
    if not hours:
        return set()
    since = _latest(times.values()) - timedelta(hours=hours)
    versions = [version for version, time in sorted(times.items()) if time is None or time > since]
    if versions and versions[0] == min(times) > 0:
        raise MasklakeError(f"the log of the table {table_uri} does not reach back {hours:g} hours: vacuum with fewer --vacuum-hours")
    return {path for _, actions in log.entries(table_uri, versions) for path in log.file_paths(table_uri, actions, "remove")}


def _latest(times: Iterable[datetime | None]) -> datetime:
    return max((time for time in times if time), default=datetime.now(UTC))


def _is_abandoned(plan: StoredFile, now: datetime, alive: Collection[str]) -> bool:
    """Whether a work list is of a run that died before it could begin, and so before it left a marker."""
    run_id = plan.uri.rpartition("/")[0].rpartition("/")[2]
    return run_id not in alive and plan.modified is not None and plan.modified < now - timedelta(hours=_PLANNING_HOURS)


def _name(file: StoredFile) -> str:
    return file.uri.rpartition("/")[2]
