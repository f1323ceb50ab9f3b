"""A Delta table whose log is looked at commit by commit, and committed to on top of nothing that was not looked at.

How the fence works. Every commit of this module carries the same Delta application transaction, so a commit fails if any other one
was made since the last version that this writer has looked at. It then reads the log entries in between, and whoever derives from this
says what they mean: a commit that *began* a run on overlapping input ends this one (`Fenced`); anything else, such as the files of a run on
other input or a compaction, is passed over, and the commit is tried again.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, RemoveAction

from masklake.errors import MasklakeError, one_line
from masklake.storage.faults import with_retries
from masklake.table import damage, log
from masklake.table.definition import table_id
from masklake.table.write import NewFile

_TRANSACTION = Transaction("masklake", 1)
TROUBLES = 5
"""Attempts of a commit that fail although nobody else committed, each after object storage's own retries."""


class WatchedTable:
    """A table, as of the version that was last looked at. Not for use from several threads at once."""

    def __init__(self, uri: str, delta: DeltaTable) -> None:
        self.uri = uri
        self._delta = delta
        self._seen = int(delta.version())
        self._last_entry = log.digest(uri, self._seen)  # by which this log is known again
        self._replaced = False

    @property
    def version(self) -> int:
        """The Delta version that was last looked at."""
        return self._seen

    @property
    def table_id(self) -> str:
        """What tells this table from any other, also from one that was or will be at the same place."""
        return str(self._delta.metadata().id)

    @property
    def partition_by(self) -> list[str]:
        """The columns of the partitioning, in order."""
        return list(self._delta.metadata().partition_columns)

    def telling_damage(self) -> AbstractContextManager[None]:
        """While files of the table are read otherwise: see `damage.named`."""
        return damage.named(self.uri, self._delta)

    def _scan(self, columns: Sequence[str], predicate: str) -> Iterator[pa.RecordBatch]:
        self._catch_up()
        with damage.named(self.uri, self._delta):
            yield from pa.RecordBatchReader.from_stream(self._delta.scan(columns=list(columns), predicate=predicate))

    def _append(self, actions: list[AddAction | RemoveAction], event: dict[str, Any], unless: Callable[[], bool] = lambda: False) -> bool:
        """Commit actions; see `_commit`."""

        def append(properties: CommitProperties) -> None:
            schema, partition_by = self._delta.schema(), list(self._delta.metadata().partition_columns)
            self._delta.create_write_transaction(actions, "append", schema, partition_by, commit_properties=properties)

        return self._commit(append, event, unless)

    def _commit(self, make: Callable[[CommitProperties], None], event: dict[str, Any], unless: Callable[[], bool] = lambda: False) -> bool:
        """Commit, or find out why not. An attempt whose outcome is unknown is looked up by its token, so nothing is committed twice.

        Returns:
            False where `unless` said, of the version on top of which this was to be committed, that it must not be.
        """
        token = uuid.uuid4().hex
        # With retries of its own, delta-rs would pass over a commit of another program that it takes for harmless, such as a compaction.
        properties = CommitProperties({log.EVENT: {**event, "commit": token}}, max_commit_retries=0, app_transactions=[_TRANSACTION])
        troubles = 0
        while True:
            before = self._seen
            try:
                if token in self._catch_up():
                    return True
                self._refuse_if_fenced()
                if unless():
                    return False
                make(properties)
            except (DeltaError, OSError) as error:
                # Where the version moved on, others were faster: that is progress. Where it did not, the store is in trouble.
                troubles = 0 if self._seen > before else troubles + 1
                if troubles > TROUBLES:
                    raise MasklakeError(f"the table {self.uri} cannot be committed to: {one_line(error)}") from error
                time.sleep(random.uniform(0.01, 0.05 * 2**troubles))
            else:
                return True

    def _catch_up(self) -> set[str]:
        """Look at every commit since the last time; returns their tokens.

        Raises:
            MasklakeError: the log is not the one that was looked at before.
        """
        try:
            with_retries(self._delta.update_incremental)
        except (DeltaError, OSError):
            self._refuse_if_replaced()
            raise
        self._refuse_if_replaced()
        tokens = set()
        for version, actions in log.entries(self.uri, range(self._seen + 1, int(self._delta.version()) + 1)):
            event = log.event(actions)
            if event is not None:
                tokens.add(event["commit"])
                self._notice(version, event)
            self._note_files(actions)
            self._seen, self._last_entry = version, log.digest_of(actions)
        return tokens

    def _refuse_if_replaced(self) -> None:
        """See that the log is still that of the table which was opened: no other has the entry that was looked at last."""
        found = log.digest(self.uri, self._seen)
        if found != self._last_entry or found is None:
            # Delta may have dropped the entry as old, of a job that was paused for a month; then the table's id tells.
            self._replaced = bool(found and self._last_entry) or table_id(self.uri) != self.table_id
        if self._replaced:
            raise MasklakeError(
                f"the table {self.uri} was deleted, and perhaps created again, while this job was at work: "
                "it commits nothing more; start it again"
            )

    def _note_files(self, actions: log.Actions) -> None:
        """For those who must know what became of each file."""

    def _notice(self, version: int, event: Mapping[str, Any]) -> None:
        """For those whom a commit of ours or of another run concerns."""

    def _refuse_if_fenced(self) -> None:
        """For those who may lose the right to commit: raises `Fenced`, after a commit that was noticed has taken it."""


def add_action(file: NewFile, changes: bool = True) -> AddAction | RemoveAction:
    """What a commit says of a new file; `changes` is False where its rows were in the table before."""
    modified = round(file.modified.timestamp() * 1000)
    return AddAction(file.path, file.size, dict(file.partition_values), modified, changes, file.stats)
