"""The Delta table that a run appends to: beginning a run, committing files that workers wrote, and what the table holds of an input.

Runs are fenced against newer ones on the same input by way of `commits`: a commit that *began* a run on overlapping input, read in the log
before ours is made, ends this one (`Fenced`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, Field
from deltalake.exceptions import DeltaError, TableNotFoundError

from masklake import storage
from masklake.errors import Fenced, MasklakeError, first_line
from masklake.schema import NOTHING_CARRIED, SCHEMA_VERSION, VERSION_PROPERTY
from masklake.table import log, runs
from masklake.table.commits import TROUBLES, WatchedTable, add_action
from masklake.table.damage import open_delta
from masklake.table.definition import check, check_carried, check_rules, create, missing_columns, schema_version
from masklake.table.keys import KEYS, KeyFile, Wanted, key_files, sql_condition, sql_text
from masklake.table.runs import Heartbeat, Marker
from masklake.table.write import FileRecord


class Table(WatchedTable):
    """A table of masks that this process may append to. Not for use from several threads at once."""

    def __init__(self, uri: str, delta: DeltaTable) -> None:
        super().__init__(uri, delta)
        self._run: Marker | None = None
        self._polite = False
        self._heartbeat: Heartbeat | None = None
        self._fenced_by: str | None = None
        self._taken_out = 0
        self._carried = NOTHING_CARRIED
        self.extensions = 0
        """Commits of this table that gave it columns, or another version of the schema."""
        self._committed: set[str] = set()  # paths of this run's files
        self._searched: dict[str, int] = {}  # of each run that has not begun: the version up to which we looked for its beginning

    @classmethod
    def open(cls, uri: str, partition_by: Sequence[str] | None = None, carried: pa.Schema = NOTHING_CARRIED) -> Self | None:
        """The table at this URI, or None where there is none yet; partitioned by these columns, or as it is.

        It gets the columns to carry that it lacks when a run begins.

        Raises:
            Refused: it is partitioned in another way, has such a column with another type, or is a Delta table of something else.
        """
        uri = storage.normalise(uri).rstrip("/")
        try:
            delta = open_delta(uri)
        except TableNotFoundError:
            return None
        check(uri, delta, partition_by, carried)
        if partition_by is not None:  # rows are to be added
            check_rules(uri, delta)
        table = cls(uri, delta)
        table._carried = carried
        return table

    @classmethod
    def open_or_create(cls, uri: str, partition_by: Sequence[str], carried: pa.Schema = NOTHING_CARRIED) -> Self:
        """The table at this URI, made now where there is none. Several processes may do so at once.

        Raises:
            Refused: see `open`.
        """
        trouble: Exception | None = None
        for attempt in range(TROUBLES):
            if table := cls.open(uri, partition_by, carried):
                return table
            time.sleep(random.uniform(0.01, 0.05 * 2**attempt) if attempt else 0)
            try:
                create(storage.normalise(uri).rstrip("/"), partition_by, carried)
            except (DeltaError, OSError) as error:  # another process made it just now, or the answer was lost: opening it tells
                trouble = error
        if table := cls.open(uri, partition_by, carried):
            return table
        reason = first_line(trouble) if trouble else "the store took its first commit and does not show it"
        raise MasklakeError(f"the table {uri} cannot be created: {reason}") from trouble

    @property
    def run_order(self) -> int:
        """What tells the rows of the run that has begun from those of earlier ones: the version of the log with which it began.

        Where the table already holds greater ones, because its rows were copied from another table, it goes on from these.
        """
        assert self._run
        self._catch_up()
        return max(self._run.begun, self._greatest_order() + 1)

    def run_folder(self, run_id: str) -> str:
        """Where a run keeps its work list (`plan-*`) and its report."""
        return runs.run_folder(self.uri, run_id)

    def unfinished(self, scope: str) -> list[Marker]:
        """The runs on overlapping input that began and have not finished, by the log and the markers of now; some may be dead."""
        self._catch_up()
        return [marker for marker in self._begun_runs() if runs.overlap(marker.scope, scope)]

    def never_begun(self, scope: str) -> list[Marker]:
        """The markers of runs on overlapping input that the log knows nothing of: they are about to begin, or died before they could.

        Also those of runs on a table that was here before, whose commits this one's log does not take. No run takes over from either; a
        compaction's or an erasure's marker is not among them, because a vacuum needs it to tell whose files lie there.
        """
        self._catch_up()
        of_before = [replace(marker, begun=-1) for marker in self._others() if marker.table != self.table_id]
        waiting = [marker for marker in self._settled_others() if marker.begun < 0 and marker.scope]
        return [*of_before, *(marker for marker in waiting if runs.overlap(marker.scope, scope))]

    def forget(self, run_ids: Sequence[str]) -> None:
        """Take away the markers and work lists of runs that never began, and so have left nothing else."""
        for run_id in run_ids:
            runs.delete_work_list(self.uri, run_id)
        runs.unmark(self.uri, run_ids)

    def begin_run(self, scope: str, run_id: str, polite: bool = False, beat: bool = True) -> bool:
        """Take over from unfinished runs on overlapping input, and delete what they left uncommitted.

        After this, no commit of theirs gets through. One may have got through before: if `version` has then grown by more than this
        beginning since the table was asked what it holds, a plan made from that does images twice. Make it anew.

        Args:
            scope: the normalised input: a prefix, a glob, a file or a manifest.
            run_id: unique; letters, digits and '-'.
            polite: do not begin where another run on overlapping input has begun since `version`, as `unfinished` left it. Of several that
                begin at the same instant, the log lets exactly one through.
            beat: show signs of life from a thread of its own, until `finish_run` or `rest`.

        Returns:
            Whether the run has begun.

        Raises:
            Fenced: a newer run on overlapping input has already begun.
            Refused: another run has meanwhile given the table a column to carry, of another type than this one's.
            MasklakeError: the store does not take the commit.
        """
        self._run, self._polite = Marker(run_id, scope, begun=-1, seen=self._seen, table=self.table_id), polite
        runs.mark(self.uri, self._run)
        self._heartbeat = Heartbeat(self.uri, self._run) if beat else None
        try:
            self._extend()
            self._append([], {"event": "begin", "run_id": run_id, "scope": scope})
            self.refuse_if_fenced()
        except Fenced:
            if self._run.begun >= 0:
                raise
            self.rest()
            runs.unmark(self.uri, [run_id])
            self._run, self._fenced_by = None, None
            return False
        if self._heartbeat is not None:
            self._heartbeat.marker = self._run
        runs.mark(self.uri, self._run)
        self._clean_up()
        return True

    def rest(self) -> None:
        """Show no more signs of life: the run is over, or failed. Its marker stays, and the next run cleans up behind it."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None

    def commit(self, records: Sequence[FileRecord]) -> None:
        """Append files to the table: all of them, or none.

        Raises:
            Fenced: a newer run on overlapping input has begun; nothing was committed.
            MasklakeError: the store does not take the commit.
        """
        if self._run is None:
            raise MasklakeError("nothing can be committed before a run has begun")
        if records:
            rows = sum(record.rows for record in records)
            self._append(
                [add_action(record) for record in records], {"event": "data", "run_id": self._run.run_id, "rows": rows}, self._no_rules
            )
            self._committed.update(record.path for record in records)

    def _no_rules(self) -> bool:
        check_rules(self.uri, self._delta)
        return False

    def refuse_if_fenced(self) -> None:
        """Look whether this run may still commit.

        Raises:
            Fenced: a newer run on overlapping input has begun.
        """
        self._catch_up()
        self._refuse_if_fenced()

    def finish_run(self) -> None:
        """Say that the run is complete, with nothing left to write or to commit. A run that is fenced or fails does not: the next one then
        cleans up behind it."""
        if self._run is None:
            return
        runs.delete_repeated(self.uri, self._run.run_id, self._committed)
        fenced = self._clean_up()
        for run_id in fenced:
            runs.delete_work_list(self.uri, run_id)
        self.rest()
        runs.unmark(self.uri, [*fenced, self._run.run_id])
        self._run = None

    def stop_run(self) -> None:
        """Of a run that was stopped and whose workers have ended: delete what it left uncommitted. It is unfinished, and not alive.

        The marker says so first, so that nobody waits for it should there be no time for the rest: a large table is listed whole.
        """
        if self._run is None:
            return
        marker = self._heartbeat.marker if self._heartbeat else None
        self.rest()
        if marker:
            runs.mark(self.uri, replace(marker, stopped=True))
        runs.delete_uncommitted(self.uri, self.partition_by, [self._run.run_id], {path.rpartition("/")[2] for path in self._committed})
        runs.delete_work_list(self.uri, self._run.run_id)
        runs.unmark(self.uri, [self._run.run_id])
        self._run = None

    def clean_up_if_fenced(self) -> None:
        """Of a run that was fenced, or lost its table: delete what it left uncommitted, once none of its workers can write any more.

        The run that took over has done so before, but what our workers wrote since, or a beat of our marker, it cannot have seen.
        """
        if self._run is None or not (self._fenced_by or self._replaced):
            return
        self.rest()
        if self._replaced:  # whose the files are that lie there now, only that table's log can say
            runs.unmark(self.uri, [self._run.run_id])
            return
        versions = range(max(self._run.begun, self._run.seen + 1), self._seen + 1)
        committed = {name for _, actions in log.entries(self.uri, versions) for name in log.file_names(actions, "add")}
        runs.delete_uncommitted(self.uri, self.partition_by, [self._run.run_id], committed)
        runs.delete_work_list(self.uri, self._run.run_id)
        runs.unmark(self.uri, [self._run.run_id])
        self._run = None

    def done_keys(self, wanted: Wanted) -> pa.RecordBatchReader:
        """What the table holds of what is wanted, streamed: `keys.KEYS`, one row per row of the table."""
        batches = self._scan(KEYS.names, sql_condition(wanted)) if wanted.fingerprints else iter(())
        return pa.RecordBatchReader.from_batches(KEYS, (_as_keys(batch) for batch in batches))

    def key_files(self, wanted: Wanted) -> list[KeyFile] | None:
        """The files of the table that may hold what is wanted, for `keys.read_keys` to read elsewhere.

        None where another program gave the table features, such as deletion vectors, that only `done_keys` knows.
        """
        self._catch_up()
        return key_files(self._delta, wanted) if self._delta.protocol().min_reader_version <= 1 else None

    def images(self, folder: str) -> pa.RecordBatchReader:
        """The `image_uri` of every row of an image below a folder (a URI that ends in '/'), streamed."""
        wanted = f"image_uri >= {sql_text(folder)} AND image_uri < {sql_text(folder + chr(0x10FFFF))}"
        schema = pa.schema([("image_uri", pa.string())])
        return pa.RecordBatchReader.from_batches(schema, (batch.cast(schema) for batch in self._scan(schema.names, wanted)))

    def rows_of_run(self, run_id: str) -> int:
        """How many rows of a run were committed: those that the table holds, whoever has compacted them since.

        Of the run that this table has begun, also those that were meanwhile erased, or dropped because newer ones superseded them.
        """
        held: int = sum(batch.num_rows for batch in self._scan(["run_id"], f"run_id = {sql_text(run_id)}"))
        return held + (self._taken_out if self._run and run_id == self._run.run_id else 0)

    def _greatest_order(self) -> int:
        """The greatest `run_order` that the table holds, by the statistics in its log; -1 where there is none."""
        files = pa.table(self._delta.get_add_actions(flatten=True))
        known = pc.max(files["max.run_order"]).as_py() if "max.run_order" in files.column_names else None
        return -1 if known is None else int(known)

    def _extend(self) -> None:
        """Give the table the columns to carry that it lacks; one of an older schema version those that it lacks, and the version."""
        partition_by = list(self._delta.metadata().partition_columns)

        def missing() -> list[Field]:
            check_carried(self.uri, self._delta, self._carried)
            return missing_columns(self._delta, partition_by, self._carried)

        def outdated() -> bool:
            return schema_version(self._delta) < SCHEMA_VERSION

        if missing():
            event = {"event": "extend", "columns": [field.name for field in missing()]}
            self.extensions += self._commit(
                lambda properties: self._delta.alter.add_columns(missing(), commit_properties=properties), event, lambda: not missing()
            )
        if outdated():
            version = {VERSION_PROPERTY: str(SCHEMA_VERSION)}
            self.extensions += self._commit(
                lambda properties: self._delta.alter.set_table_properties(version, False, commit_properties=properties),
                {"event": "extend"},
                lambda: not outdated(),
            )

    def _refuse_if_fenced(self) -> None:
        if self._fenced_by is not None:
            raise Fenced(
                f"{self._fenced_by} the table {self.uri}, and this run stops; what it committed stays, and a newer run does the rest"
            )

    def _notice(self, version: int, event: Mapping[str, Any]) -> None:
        if self._run is None:
            return
        self._taken_out += event.get("taken_out", {}).get(self._run.run_id, 0)
        if event["event"] == "begin" and event["run_id"] == self._run.run_id:
            self._run = replace(self._run, begun=version)
        elif event["event"] == "begin" and (self._run.begun >= 0 or self._polite) and runs.overlap(event["scope"], self._run.scope):
            self._fenced_by = self._fenced_by or f"a newer run, {event['run_id']}, works on the same input: it took over"
        elif self._run.run_id in event.get("dead", ()):
            self._fenced_by = self._fenced_by or f"{event['run_id']} took this run for dead: it closed"

    def _begun_runs(self) -> list[Marker]:
        """The markers of other runs that had begun at the version last looked at, and a few that began since.

        Those of a table that was here before are of no concern: they can commit nothing.
        """
        return [marker for marker in self._settled_others() if marker.begun >= 0]

    def _others(self) -> list[Marker]:
        ours = None if self._run is None else self._run.run_id
        return [marker for marker in runs.markers(self.uri) if marker.run_id != ours]

    def _settled_others(self) -> list[Marker]:
        settled = (self._settled(marker) for marker in self._others() if marker.table == self.table_id)
        return [marker for marker in settled if marker]

    def _settled(self, marker: Marker) -> Marker | None:
        """The marker with the version at which its run began, where it does not say so yet and the log does; None where nothing can tell.

        Log entries so old that they are gone are of a run that commits nothing more: it is no overlap, and what it left is the vacuum's.
        """
        if marker.begun < 0 and marker.scope:
            # A beginning that loses more races than this is not being made.
            last = min(self._seen, marker.seen + log.PAGE)
            versions = range(self._searched.get(marker.run_id, marker.seen) + 1, last + 1)
            try:
                for version, actions in log.entries(self.uri, versions):
                    event = log.event(actions)
                    if event and event["event"] == "begin" and event["run_id"] == marker.run_id:
                        return replace(marker, begun=version)
            except MasklakeError:
                return None
            self._searched[marker.run_id] = last
        return marker

    def _clean_up(self) -> list[str]:
        """Delete what the runs that this one fenced left uncommitted; returns their ids."""
        if self._run is None:
            return []
        ours = self._run
        fenced = [marker for marker in self._begun_runs() if marker.begun < ours.begun and runs.overlap(marker.scope, ours.scope)]
        if fenced:
            versions = range(min(marker.begun for marker in fenced), ours.begun)
            try:
                committed = {name for _, actions in log.entries(self.uri, versions) for name in log.file_names(actions, "add")}
            except MasklakeError:
                return []  # log entries so old that they are gone: without them, no file can be called uncommitted
            runs.delete_uncommitted(self.uri, self.partition_by, [marker.run_id for marker in fenced], committed)
        return [marker.run_id for marker in fenced]


def _as_keys(batch: pa.RecordBatch) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([batch.column(name).cast(pa.string()) for name in KEYS.names], schema=KEYS)
