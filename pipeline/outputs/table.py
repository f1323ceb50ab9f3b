"""The Delta table: opening it, and appending files that workers wrote, fenced against newer runs on the same input.

How the fence works. Every commit of this module carries the same Delta application transaction, so a commit fails if any other one
was made since the last version that this writer has looked at. It then reads the log entries in between: a commit that *began* a run on
overlapping input ends this one (`Fenced`); anything else, such as the files of a run on other input or a compaction, is passed over,
and the commit is tried again. Nothing is ever committed on top of a version that was not looked at.
"""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from pipeline import storage
from pipeline.errors import Fenced, ImageFailure, MasklakeError, Refused
from pipeline.outputs import runs
from pipeline.outputs.runs import Marker
from pipeline.outputs.write import FileRecord
from pipeline.schema import table_schema

DONE_KEYS = pa.schema([(name, pa.string()) for name in ("image_uri", "image_etag", "task", "fingerprint", "status")])
"""The columns of `Table.done_keys`."""

_APP_ID = "masklake"
_EVENT = "masklake"  # the key of our own record in a commit's metadata
_TROUBLES = 5  # attempts of a commit that fail although nobody else committed, each after object storage's own retries
_LOG_PAGE = 500  # log entries read at a time


class Table:
    """A table of masks that this process may append to. Not for use from several threads at once."""

    def __init__(self, uri: str, delta: DeltaTable) -> None:
        self.uri = uri
        self._delta = delta
        self._seen = int(delta.version())
        self._run: Marker | None = None
        self._fenced_by: str | None = None

    @classmethod
    def open(cls, uri: str, partition_by: Sequence[str]) -> Table | None:
        """The table at this URI, or None where there is none yet.

        Raises:
            Refused: it is partitioned in another way, or is a Delta table of something else.
        """
        uri = storage.normalise(uri).rstrip("/")
        try:
            delta = DeltaTable(storage.delta_uri(uri), storage_options=storage.delta_options(uri))
        except TableNotFoundError:
            return None
        _check(uri, delta, partition_by)
        return cls(uri, delta)

    @classmethod
    def open_or_create(cls, uri: str, partition_by: Sequence[str]) -> Table:
        """The table at this URI, made now where there is none. Several processes may do so at once.

        Raises:
            Refused: see `open`.
        """
        table = cls.open(uri, partition_by)
        if table is None:
            with suppress(DeltaError):  # made by another process just now; if not, opening it says what is wrong
                _create(storage.normalise(uri).rstrip("/"), partition_by)
            table = cls.open(uri, partition_by)
        if table is None:
            raise MasklakeError(f"the table {uri} cannot be created: the store took its first commit and does not show it")
        return table

    @property
    def version(self) -> int:
        """The Delta version that was last looked at."""
        return self._seen

    def run_folder(self, run_id: str) -> str:
        """Where a run keeps its work list (`plan-*`) and its report."""
        return runs.run_folder(self.uri, run_id)

    def begin_run(self, scope: str, run_id: str) -> None:
        """Take over from unfinished runs on overlapping input, and delete what they left uncommitted.

        After this, no commit of theirs gets through. One may have got through before: if `version` has then grown by more than this
        beginning since `done_keys` was asked, a plan made from that does images twice. Make it anew.

        Args:
            scope: the normalised input: a prefix, a glob, a file or a manifest.
            run_id: unique; letters, digits and '-'.

        Raises:
            Fenced: a newer run on overlapping input has already begun.
            MasklakeError: the store does not take the commit.
        """
        self._run = Marker(run_id, scope, begun=-1)
        self._append([], {"event": "begin", "run_id": run_id, "scope": scope})
        self._catch_up()
        self._refuse_if_fenced()
        runs.mark(self.uri, self._run)
        self._clean_up()

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
            self._append([_add_action(record) for record in records], {"event": "data", "run_id": self._run.run_id, "rows": rows})

    def finish_run(self) -> None:
        """Say that the run is complete. A run that is fenced or fails does not: the next one then cleans up behind it."""
        if self._run is None:
            return
        fenced = self._clean_up()
        for run_id in fenced:
            runs.delete_work_list(self.uri, run_id)
        runs.unmark(self.uri, [*fenced, self._run.run_id])
        self._run = None

    def done_keys(self, fingerprints: Collection[str], scope: str | None = None) -> pa.RecordBatchReader:
        """What the table holds for these fingerprints, streamed: `DONE_KEYS`, one row per row of the table.

        Args:
            fingerprints: fingerprints of the tasks that are asked for.
            scope: the normalised input; files that hold none of its images are skipped. None for a manifest, whose images may be anywhere.
        """
        wanted = [f"fingerprint IN ({', '.join(map(_literal, sorted(fingerprints)))})"]
        if scope is not None:
            prefix = runs.scope_prefix(scope).rstrip("/")
            wanted += [f"image_uri >= {_literal(prefix)}", f"image_uri < {_literal(prefix + chr(0x10FFFF))}"]
        batches = self._scan(DONE_KEYS.names, " AND ".join(wanted)) if fingerprints else iter(())
        return pa.RecordBatchReader.from_batches(DONE_KEYS, (_as_done_keys(batch) for batch in batches))

    def rows_of_run(self, run_id: str) -> int:
        """How many rows of a run the table holds, whoever has compacted them since."""
        return sum(batch.num_rows for batch in self._scan(["run_id"], f"run_id = {_literal(run_id)}"))

    def _scan(self, columns: Sequence[str], predicate: str) -> Iterator[pa.RecordBatch]:
        self._catch_up()
        return iter(pa.RecordBatchReader.from_stream(self._delta.scan(columns=list(columns), predicate=predicate)))

    def _append(self, actions: list[AddAction | RemoveAction], event: dict[str, Any]) -> None:
        """Commit, or find out why not. An attempt whose outcome is unknown is looked up by its token, so nothing is committed twice."""
        token = uuid.uuid4().hex
        properties = CommitProperties(app_transactions=[Transaction(_APP_ID, 1)], custom_metadata={_EVENT: {**event, "commit": token}})
        troubles = 0
        while True:
            before = self._seen
            try:
                if token in self._catch_up():
                    return
                self._refuse_if_fenced()
                partition_by = list(self._delta.metadata().partition_columns)
                self._delta.create_write_transaction(actions, "append", self._delta.schema(), partition_by, commit_properties=properties)
            except (DeltaError, OSError) as error:
                # Where the version moved on, others were faster: that is progress. Where it did not, the store is in trouble.
                troubles = 0 if self._seen > before else troubles + 1
                if troubles > _TROUBLES:
                    raise MasklakeError(f"the table {self.uri} cannot be committed to: {error}") from error
                time.sleep(random.uniform(0.01, 0.05 * 2**troubles))
            else:
                return

    def _catch_up(self) -> set[str]:
        """Look at every commit since the last time; returns their tokens."""
        self._delta.update_incremental()
        tokens = set()
        for version, actions in _log_entries(self.uri, range(self._seen + 1, int(self._delta.version()) + 1)):
            event = next((action["commitInfo"].get(_EVENT) for action in actions if "commitInfo" in action), None)
            if event is not None:
                tokens.add(event["commit"])
                self._notice(version, event)
            self._seen = version
        return tokens

    def _refuse_if_fenced(self) -> None:
        if self._fenced_by is not None:
            raise Fenced(
                f"a newer run, {self._fenced_by}, works on the same input: it took over the table {self.uri}, and this run stops; "
                "what it committed stays, and the newer run does the rest"
            )

    def _notice(self, version: int, event: Mapping[str, Any]) -> None:
        if self._run is None or event["event"] != "begin":
            return
        if event["run_id"] == self._run.run_id:
            self._run = Marker(self._run.run_id, self._run.scope, begun=version)
        elif self._run.begun >= 0 and runs.overlap(event["scope"], self._run.scope):
            self._fenced_by = self._fenced_by or event["run_id"]

    def _clean_up(self) -> list[str]:
        """Delete what the runs that this one fenced left uncommitted; returns their ids."""
        if self._run is None:
            return []
        fenced = runs.fenced_runs(self.uri, self._run)
        if fenced:
            versions = range(min(marker.begun for marker in fenced), self._run.begun)
            try:
                committed = {name for _, actions in _log_entries(self.uri, versions) for name in _added_names(actions)}
            except MasklakeError:
                return []  # log entries so old that they are gone: without them, no file can be called uncommitted
            runs.delete_uncommitted(self.uri, [marker.run_id for marker in fenced], committed)
        return [marker.run_id for marker in fenced]


def _create(uri: str, partition_by: Sequence[str]) -> None:
    DeltaTable.create(
        storage.delta_uri(uri),
        Schema.from_arrow(table_schema(partition_by)),
        partition_by=list(partition_by),
        storage_options=storage.delta_options(uri),
        # With retries, a creation that comes second would become version 1, and put its own schema and partitioning over the first's.
        commit_properties=CommitProperties(max_commit_retries=0),
    )


def _check(uri: str, delta: DeltaTable, partition_by: Sequence[str]) -> None:
    """Refuse a table that rows of this run do not fit."""
    there = list(delta.metadata().partition_columns)
    if there != list(partition_by):
        raise Refused(
            f"--partition-by {_names(partition_by)}: the table {uri} is partitioned by {_names(there)}; "
            f"say --partition-by {_names(there)}, or give --output another folder"
        )
    expected = {field["name"]: field["type"] for field in json.loads(Schema.from_arrow(table_schema(partition_by)).to_json())["fields"]}
    found = {field["name"]: field["type"] for field in json.loads(delta.schema().to_json())["fields"]}
    odd = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    if odd:
        raise Refused(f"--output {uri}: the Delta table there has other columns than masklake's ({', '.join(odd)}): give another folder")


def _names(columns: Sequence[str]) -> str:
    return ",".join(columns) if columns else "'' (nothing)"


def _add_action(record: FileRecord) -> AddAction | RemoveAction:
    modified = round(record.modified.timestamp() * 1000)
    return AddAction(record.path, record.size, dict(record.partition_values), modified, True, record.stats)


def _log_entries(table_uri: str, versions: range) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The actions of each version.

    Read from the log itself, because delta-rs' `history` numbers entries from the version that the handle knows, not from the log's.
    """
    for first in range(versions.start, versions.stop, _LOG_PAGE):
        page = range(first, min(first + _LOG_PAGE, versions.stop))
        uris = [f"{table_uri}/_delta_log/{version:020d}.json" for version in page]
        for version, content in zip(page, storage.read_many(uris), strict=True):
            if isinstance(content, ImageFailure):
                raise MasklakeError(f"the log of the table {table_uri} cannot be read at version {version}: {content.message}")
            yield version, [json.loads(line) for line in content.splitlines() if line.strip()]


def _added_names(actions: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for action in actions:
        if "add" in action:
            yield unquote(action["add"]["path"]).rpartition("/")[2]


def _as_done_keys(batch: pa.RecordBatch) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([batch.column(name).cast(pa.string()) for name in DONE_KEYS.names], schema=DONE_KEYS)


def _literal(text: str) -> str:
    """Text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
