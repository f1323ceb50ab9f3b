"""The table as its upkeep sees it (compaction, erasure, vacuum): file by file, and files put in the place of others, in the same log.

Such a job takes no epoch: it fences no run, and no run fences it. Its commits go through the same application transaction, so that none is
made on top of a version that was not looked at; one that would replace a file which is no longer there is not made at all.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.transaction import RemoveAction

from masklake import stopping, storage
from masklake.errors import MasklakeError, Refused
from masklake.schema import TABLE, aligned
from masklake.table import log, runs
from masklake.table.append import Table
from masklake.table.commits import add_action
from masklake.table.runs import Heartbeat, Marker
from masklake.table.write import NewFile

ICEBERG_FOLDER = "_masklake/iceberg"
"""Where the metadata of a table's Iceberg mirror lie, below the table, unless the user put them elsewhere."""


@dataclass(frozen=True)
class TableFile:
    """A file of the table as the log describes it; `path` is relative to the table and named as in the store."""

    path: str
    size: int
    partition_values: Mapping[str, str | None]
    first_uri: str | None
    """At most the smallest image URI in it; None where the log does not say."""
    last_uri: str | None
    """At least the largest."""
    fingerprint: str | None
    """At most the smallest."""

    @property
    def name(self) -> str:
        """The file's name without its folders, which no other file has."""
        return self.path.rpartition("/")[2]


class UpkeepTable(Table):
    """A table of masks whose files a job of upkeep may replace. Not for use from several threads at once."""

    def __init__(self, uri: str, delta: DeltaTable) -> None:
        super().__init__(uri, delta)
        self._gone: set[str] = set()

    @classmethod
    def existing(cls, uri: str) -> Self:
        """The table at this URI, to look at its files.

        Raises:
            Refused: there is no table, it is something else than masklake's, or uses features of Delta that masklake does not know.
        """
        table = cls.open(uri)
        if table is None:
            raise Refused(f"--table {uri}: there is no table: correct the URI")
        if table._delta.protocol().min_reader_version > 1:
            raise Refused(f"--table {uri}: another program gave the table features that masklake cannot handle: use that program instead")
        return table

    @classmethod
    @contextmanager
    def job(cls, uri: str, job_id: str, dry_run: bool = False, beat: bool = True) -> Iterator[UpkeepTable]:
        """The table at this URI for one job; meanwhile a marker lies beside it, so that no vacuum takes the job's files for rubbish.

        Args:
            uri: the table's folder.
            job_id: unique; letters, digits and '-'.
            dry_run: only look: there is no marker.
            beat: show signs of life from a thread of its own.

        Raises:
            Refused: see `existing`.
        """
        table = cls.existing(uri)
        if table._delta.metadata().configuration.get("delta.appendOnly", "").lower() == "true":
            raise Refused(f"--table {uri}: somebody made the table append-only (delta.appendOnly): nothing in it may be replaced or erased")
        table._run = Marker(job_id, "", begun=-1, seen=table.version, table=table.table_id)
        if not dry_run:
            runs.mark(table.uri, table._run)
            table._heartbeat = Heartbeat(table.uri, table._run) if beat else None
        try:
            yield table
            table.finish_run()
        except (stopping.Stopped, Refused):  # whose marker would have the next vacuum wait until it is taken for dead
            with suppress(MasklakeError):  # the next vacuum cleans up, then
                table.stop_run()
            raise
        finally:
            table.rest()

    def stop_run(self) -> None:
        """Of a job that was stopped or refused: delete what it wrote and did not commit, and its marker.

        What it committed, the log says: the stop may have come just after a commit.
        """
        if self._run is not None and self._heartbeat is not None:
            self._catch_up()
            versions = range(self._run.seen + 1, self._seen + 1)
            self._committed = {name for _, actions in log.entries(self.uri, versions) for name in log.file_names(actions, "add")}
            super().stop_run()

    @property
    def job_id(self) -> str:
        """Of the job that started: part of its files' names."""
        assert self._run
        return self._run.run_id

    @property
    def published(self) -> bool:
        """Whether metadata of an Iceberg mirror lie below the table."""
        return bool(storage.list_names(f"{self.uri}/{ICEBERG_FOLDER}/"))

    @property
    def schema(self) -> pa.Schema:
        """The table's columns, in order."""
        fields = pa.schema(self._delta.schema().to_arrow())
        known = {field.name: field for field in TABLE}
        return pa.schema(
            [known[each.name].with_type(aligned(each.type, known[each.name].type)) if each.name in known else each for each in fields]
        )

    @property
    def file_schema(self) -> pa.Schema:
        """What a file holds: the table's columns, in order, without those of the partitioning."""
        partition_by = self.partition_by
        return pa.schema([field for field in self.schema if field.name not in partition_by])

    def files(self) -> list[TableFile]:
        """The files of the table as it is now.

        Raises:
            MasklakeError: another program wrote one under a name that cannot be handled.
        """
        self._catch_up()
        actions = pa.table(self._delta.get_add_actions(flatten=True))
        if not actions.num_rows:
            return []
        wanted = {name: actions[name].to_pylist() if name in actions.column_names else [None] * len(actions) for name in _COLUMNS}
        by = self.partition_by
        values = {name: actions[f"partition.{name}"].to_pylist() for name in by}
        found = []
        for row, (path, size, first, last, fingerprint) in enumerate(zip(*(wanted[name] for name in _COLUMNS), strict=True)):
            stored = unquote(path)
            if stored.replace("%", "%25") != path:  # delta-rs would remove a file of another name than the one that was added
                raise MasklakeError(
                    f"{self.uri}: another program wrote {stored}, a name that masklake cannot handle: compact with that program"
                )
            found.append(TableFile(stored, size, {name: values[name][row] for name in by}, first, last, fingerprint))
        return found

    def swap(self, old: Sequence[TableFile], new: Sequence[NewFile], taken_out: Mapping[str, int] | None = None) -> bool:
        """Put new files in the place of old ones, in one commit.

        Args:
            old: files of the table, as `files` gave them.
            new: what they hold; nothing where all of it was taken out.
            taken_out: how many rows of each run are left out; None for none, and then readers are told that no data changed.

        Returns:
            False where one of the old files is no longer in the table; nothing is then committed.

        Raises:
            Fenced: a vacuum took this job for dead.
            MasklakeError: the store does not take the commit.
        """
        changes, now = bool(taken_out), round(time.time() * 1000)
        removed = [RemoveAction(file.path, changes, now, file.size, dict(file.partition_values)) for file in old]
        names = {file.name for file in old}
        alive = {marker.run_id for marker in runs.markers(self.uri)} if taken_out else set()
        counted = {run_id: rows for run_id, rows in (taken_out or {}).items() if run_id in alive}  # finished ones do not count any more
        event = {"event": "replace", "run_id": self.job_id, "taken_out": counted}
        return self._append(
            [*removed, *(add_action(file, changes) for file in new)], event, unless=lambda: not names.isdisjoint(self._gone)
        )

    def holds(self, files: Sequence[TableFile]) -> bool:
        """Whether all of these are still files of the table."""
        self._catch_up()
        return self._gone.isdisjoint(file.name for file in files)

    def close_dead(self, run_ids: Collection[str]) -> None:
        """Write down that a vacuum takes place, after which none of these runs can commit any more."""
        self._append([], {"event": "vacuum", "run_id": self.job_id, "dead": sorted(run_ids)})

    def _note_files(self, actions: log.Actions) -> None:
        self._gone.update(log.file_names(actions, "remove"))


_COLUMNS = ("path", "size_bytes", "min.image_uri", "max.image_uri", "min.fingerprint")
