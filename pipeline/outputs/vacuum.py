"""Deleting data files that the table does not need: those that only old versions hold, and those that no version ever held.

Which file may go is decided from things seen in this order: the dead runs are closed in the log, the files are listed, the markers of
unfinished runs are read, the log is read. A run has its marker from before its first file until after its last commit; so a file whose run
has none by then, and which no version holds by then, will never be committed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pipeline import storage
from pipeline.errors import MasklakeError
from pipeline.outputs import log, runs
from pipeline.outputs.overlap import LOOK_SECONDS, Watch
from pipeline.outputs.runs import Marker
from pipeline.outputs.upkeep import UpkeepTable
from pipeline.storage import StoredFile

_FOREIGN_HOURS = 168  # an uncommitted file of another program, or a work list, may be of something under way for so long
_PLAN = re.compile(r"/_masklake/runs/[^/]+/plan-[^/]+")
_LOG_ENTRY = re.compile(r"(\d{20})\.json")


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
        lease_seconds: a run that shows no sign of life for so long is dead. Only runs that began before these `hours` are looked at.
        dry_run: only count.
        say: told of dead runs, and what is deleted.

    Raises:
        MasklakeError: the log does not reach back so many hours, or the store is in trouble.
    """
    dead = _dead_runs(table, hours, lease_seconds)
    if dead:
        say(f"{', '.join(dead)}: no sign of life for {lease_seconds:g} s, taken for dead")
    if not dry_run:
        table.close_dead(dead)
    present = {file.name for file in table.files()}
    suspects, plans = list[StoredFile](), list[StoredFile]()
    for page in storage.list_files(table.uri + "/"):
        suspects += [file for file in page if _is_data(table.uri, file) and _name(file) not in present]
        plans += [file for file in page if _PLAN.match(file.uri.removeprefix(table.uri))]
    alive = {marker.run_id: marker for marker in runs.markers(table.uri) if marker.run_id not in dead}
    held = {file.name for file in table.files()}
    times = _log_times(table.uri)  # after that: what was removed since is among those held
    held |= _held_since(table.uri, times, hours)
    useless = _without_pending(table.uri, times, [file for file in suspects if _name(file) not in held], alive)
    useless += [file for file in plans if _is_abandoned(file, _latest(times.values()), alive)]
    if not dry_run:
        storage.delete_files([file.uri for file in useless])
        for run_id in dead:
            runs.delete_work_list(table.uri, run_id)
        runs.unmark(table.uri, dead)
    return Vacuumed(len(useless), sum(file.size or 0 for file in useless), tuple(dead))


def _dead_runs(table: UpkeepTable, hours: float, lease_seconds: float) -> list[str]:
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
            return sorted(marker.run_id for marker in markers if marker.run_id not in not_dead)
        time.sleep(LOOK_SECONDS)


def _held_since(table_uri: str, times: Mapping[int, datetime | None], hours: float) -> set[str]:
    """Names of the files that were part of the table at some time of the past hours, and are no more."""
    if not hours:
        return set()
    since = _latest(times.values()) - timedelta(hours=hours)
    versions = [version for version, time in sorted(times.items()) if time is None or time > since]
    if versions and versions[0] == min(times) > 0:
        raise MasklakeError(f"the log of the table {table_uri} does not reach back {hours:g} hours: vacuum with fewer --vacuum-hours")
    return _removed(table_uri, versions)


def _without_pending(
    table_uri: str, times: Mapping[int, datetime | None], files: list[StoredFile], alive: Mapping[str, Marker]
) -> list[StoredFile]:
    """The files without those that may still be committed: of live runs, and of other programs, which leave no marker.

    What the log says was removed has been committed before, and may go.
    """
    pending = {_name(file): _writer(file) for file in files if _writer(file) is None or _writer(file) in alive}
    if not pending:
        return files
    first = min(0 if writer is None else alive[writer].seen for writer in pending.values())
    past = _removed(table_uri, sorted(version for version in times if version >= first))
    since = _latest(times.values()) - timedelta(hours=_FOREIGN_HOURS)

    def may_go(file: StoredFile) -> bool:
        name = _name(file)
        return name not in pending or name in past or (pending[name] is None and file.modified is not None and file.modified < since)

    return [file for file in files if may_go(file)]


def _removed(table_uri: str, versions: Sequence[int]) -> set[str]:
    return {name for _, actions in log.entries(table_uri, versions) for name in log.file_names(actions, "remove")}


def _log_times(table_uri: str) -> dict[int, datetime | None]:
    """When each version that the log still has was committed, by the store's clock."""
    found = [(_LOG_ENTRY.fullmatch(_name(file)), file.modified) for page in storage.list_files(f"{table_uri}/_delta_log/") for file in page]
    return {int(entry[1]): modified for entry, modified in found if entry}


def _latest(times: Iterable[datetime | None]) -> datetime:
    return max((time for time in times if time), default=datetime.now(UTC))


def _is_data(table_uri: str, file: StoredFile) -> bool:
    """Whether this is a data file, committed or not, and nothing of the log's or of masklake's own."""
    folder, _, _ = file.uri.removeprefix(table_uri + "/").rpartition("/")
    return (not folder.startswith("_") or "=" in folder) and (file.uri.endswith(".parquet") or bool(_writer(file)))


def _is_abandoned(plan: StoredFile, now: datetime, alive: Mapping[str, Marker]) -> bool:
    """Whether a work list is of a run that died before it could begin, and so before it left a marker."""
    run_id = plan.uri.rpartition("/")[0].rpartition("/")[2]
    return run_id not in alive and plan.modified is not None and plan.modified < now - timedelta(hours=_FOREIGN_HOURS)


def _name(file: StoredFile) -> str:
    return file.uri.rpartition("/")[2]


def _writer(file: StoredFile) -> str | None:
    """The run or job that wrote a file; None for another program's."""
    ours = runs.FILE_NAME.fullmatch(_name(file))
    return ours["run_id"] if ours else None
