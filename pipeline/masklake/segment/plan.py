"""What is to do: the listed images minus those that the table already holds, as a work list in Parquet.

Both sides may be far larger than memory: they go through DuckDB, which spills to disk beyond a bound on its memory. Groups of the work list
have a fixed size, so that a worker finds the i-th group by arithmetic, without any index.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from masklake import storage
from masklake.database import connect
from masklake.errors import Refused
from masklake.images.conditions import COLUMNS, Condition, refusal
from masklake.images.keys import NOT_CARRIED, Carried, with_carried, with_keys
from masklake.images.pages import PAGE_SCHEMA
from masklake.segment.concepts import HELD, Held, count_held, held_column, join_held
from masklake.segment.digests import DIGESTS, OF_IMAGE, OF_URI, streamed
from masklake.segment.picks import Some, pick
from masklake.sql import LOCK

GROUP_ROWS = 64
"""Images per group of the work list: what one worker fetches and decodes at a time."""
GROUPS_PER_FILE = 64  # a worker reads a whole file to get at one group: some 70 kB
_GROUP_ROWS = b"group_rows"
_MEMORY = "256MB"  # DuckDB's share of the driver's memory; beyond it, it spills to disk
_THREADS = 2  # each needs its own buffers
_BATCH_ROWS = 32_768  # inserted together: smaller ones take twice as long

_LISTING = pa.schema([field.with_nullable(True) for field in PAGE_SCHEMA])
# Columns that are null take as long to put in as others, so pages that tell no more than this have a table of their own.
_USUAL = ["image_uri", "image_etag", "image_bytes", "image_modified"]
_TYPES = {pa.string(): "VARCHAR", pa.int64(): "BIGINT", pa.int32(): "INTEGER", pa.timestamp("us", tz="UTC"): "TIMESTAMPTZ"}
# Neighbours in a folder share a partition; neighbours in a tar file or a table are worth reading together. Sorting so takes more memory.
_ORDER = "image_uri"
_ORDER_IN_CONTAINERS = "coalesce(left(image_uri, image_container), image_uri), image_start, image_uri"


@dataclass(frozen=True)
class Plan:
    """What a run will do. Counts of rows are of images times tasks; `groups` groups hold the work list."""

    images: int
    """Distinct images of the input."""
    bytes: int
    """Their size in the store, where it is known."""
    done_images: int
    """Images with nothing to do."""
    todo_images: int
    """Images to process in this run, after `--limit`."""
    todo_rows: int
    todo_bytes: int
    retried_errors: int
    """Of `todo_rows`: those that failed before."""
    kept_errors: int
    """Rows that failed before and are left alone; `--retry-errors` picks them up."""
    groups: int
    left_out: int = 0
    """Entries of the listing of which the condition is not true."""
    excluded: int = 0
    """Images that patterns leave out, and objects that hold some."""
    older: int = 0
    """Of the others, those that were modified too early."""
    unlike_images: int = 0
    """Of the listing's entries, objects that are not images by their names."""
    in_tables: int = 0
    """Of the others, those that lie in a Delta table."""
    oldest_modified: float | None = None
    """Unix time at which the oldest of the images to process was modified, where that is known."""
    concepts: int = 0
    """What is asked of each image, where the table holds answers to some of it."""
    held: tuple[tuple[int, int], ...] = ()
    """So many of the images to process have answers to so many concepts in the table."""

    @property
    def model_images(self) -> int:
        """Images of which anything is asked of the model."""
        return self.todo_images - sum(images for images, concepts in self.held if concepts == self.concepts)

    def passes(self, concepts: int) -> int:
        """How many concepts are asked of all images together, where the run looks for so many in each."""
        return self.todo_images * concepts - sum(images * held for images, held in self.held)


@dataclass(frozen=True)
class WorkList:
    """Where the work list goes: a folder URI, rows per group, the hive-style keys that become columns, and what is carried beside."""

    folder: str
    group_rows: int = GROUP_ROWS
    hive_columns: tuple[str, ...] = ()
    carried: Carried = NOT_CARRIED
    some: Some | None = None
    """Only these few images, whether they are done or not, for all tasks."""


@dataclass(frozen=True)
class Filter:
    """Which of the listed images are work, as far as they are not done."""

    where: Condition | None = None
    """Only images of which this is true."""
    retry_errors: bool = False
    """Whether failed rows are work."""
    limit: int | None = None
    """Process at most so many images, the first in the order of the work list: a store lists in no particular order."""
    tables: Collection[str] = ()
    """Folders, each with its slash, of which nothing is an image; looked at once the listing is complete."""


def make_plan(
    pages: Iterable[pa.Table],
    done: Iterable[pa.RecordBatch] | None,
    fingerprints: Mapping[str, str],
    chosen: Filter = Filter(),
    work_list: WorkList | None = None,
    held: Held | None = None,
) -> Plan:
    """Compare a listing with what is done; write the work list, if one is wanted.

    An image's task is done where there is a row of the same URI, etag and fingerprint with status `ok`, or `error` unless errors are
    retried. A listing may name an image twice: its first mention counts.

    Args:
        pages: `pages.PAGE_SCHEMA`, or some of its columns.
        done: `digests.DIGESTS` of rows of the table, in any order, read once; None where there is no table yet.
        fingerprints: the fingerprint of each task that is asked for.
        chosen: which images are work at all.
        work_list: where to write it; None to get the numbers only. Work is ordered by URI, within a tar file or table by place: neighbours
            share folders, so partitions, and are read together.
        held: what the table holds of the concepts that are asked for, in rows that are not done.
    """
    with tempfile.TemporaryDirectory(prefix="masklake-plan-") as scratch:
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": _MEMORY,
            "threads": _THREADS,
            "temp_directory": str(Path(scratch, "spill")),
            "preserve_insertion_order": False,
        }
        with connect(config=settings) as database:  # not in a file, which compresses and logs what is read once
            database.execute("SET TimeZone = 'UTC'")
            database.execute("SET enable_progress_bar = false")  # it would go to standard output, where the job's JSON is
            # Left to itself, the optimiser may keep the side of a join of which it knows nothing, which is the table's.
            database.execute("SET disabled_optimizers = 'join_order, build_side_probe_side'")
            database.execute(LOCK)  # the condition is the user's own SQL
            left_out = _load_listing(database, pages, chosen.where)
            in_tables = _leave_out(database, chosen.tables)
            _compare(database, done, (1 << len(fingerprints)) - 1, chosen.retry_errors)
            order = _ORDER_IN_CONTAINERS if _numbers(database, "SELECT count(image_container) FROM listing")[0] else _ORDER
            _choose(database, order, chosen.limit)
            if held:
                join_held(database, held)
            groups = 0 if work_list is None else _write(database, list(fingerprints), work_list, order, held)
            known = (len(held.asked), count_held(database, held)) if held else (0, ())
            return replace(_count(database, groups), left_out=left_out, in_tables=in_tables, concepts=known[0], held=known[1])


def read_group(folder: str, index: int) -> pa.Table:
    """Group `index` of the work list in a folder: one row per image.

    Columns: those of `pages.PAGE_SCHEMA`, `tasks` (list of string), the hive-style keys, and `carried` (struct) and `concepts.HELD` where
    there is such.
    """
    number, group = divmod(index, GROUPS_PER_FILE)
    rows = pq.read_table(io.BytesIO(storage.read_bytes(_file_uri(folder, number))))
    size = int(rows.schema.metadata[_GROUP_ROWS])
    return rows.slice(group * size, size).replace_schema_metadata()


def _file_uri(folder: str, number: int) -> str:
    return f"{folder.rstrip('/')}/plan-{number:05d}.parquet"


def _load_listing(database: duckdb.DuckDBPyConnection, pages: Iterable[pa.Table], where: Condition | None) -> int:
    """Put the listing into the database, but for images that a condition leaves out; returns how many those are.

    Raises:
        Refused: the condition names a key that no path has, or does not suit some value.
    """
    for table, names in (("usual", _USUAL), ("rest", _LISTING.names)):
        typed = ", ".join(f"{name} {_TYPES[_LISTING.field(name).type]}" for name in names)
        database.execute(f"CREATE TABLE {table} (listing_order BIGINT, {typed})")
    database.execute("CREATE VIEW listing AS FROM rest UNION ALL BY NAME FROM usual")
    unseen = set(where.keys if where else ())
    seen = 0
    for page in _gathered(pages):
        columns = {"listing_order": pa.array(np.arange(seen, seen + len(page)))}
        for field in _LISTING:
            given = field.name in page.column_names
            columns[field.name] = page[field.name].cast(field.type) if given else pa.nulls(len(page), field.type)
        rows = pa.table(columns)
        if where:
            rows = with_keys(rows, where.keys)
            unseen -= {name for name in unseen if rows[name].null_count < len(rows)}
        is_usual = all(rows[name].null_count == len(rows) for name in _LISTING.names if name not in _USUAL)
        table, names = ("usual", _USUAL) if is_usual else ("rest", _LISTING.names)
        query = f"INSERT INTO {table} SELECT {', '.join(['listing_order', *names])} FROM incoming"  # noqa: S608 - constants
        if where:
            query += f" WHERE {where.sql}"  # the user's own SQL
        try:
            _insert(database, query, rows)
        except duckdb.DataError as error:
            raise refusal(where.text if where else "", error) from None
        seen += len(page)
    if where and seen and unseen:
        known = ", ".join(COLUMNS)
        absent = ", ".join(sorted(unseen))
        raise Refused(f"--where {where.text}: no image has {absent} in its path, as a key=value folder; beside such keys there are {known}")
    return seen - _numbers(database, "SELECT count(*) FROM listing")[0]


def _leave_out(database: duckdb.DuckDBPyConnection, folders: Collection[str]) -> int:
    """Take what lies in some folders out of the listing; returns how much that is."""
    before = _numbers(database, "SELECT count(*) FROM listing")[0]
    for folder in folders:
        for table in ("usual", "rest"):
            database.execute(f"DELETE FROM {table} WHERE starts_with(image_uri, ?)", [folder])  # noqa: S608 - constants
    return before - _numbers(database, "SELECT count(*) FROM listing")[0]


def _gathered(pages: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The pages, several together: each insert has a price of its own."""
    waiting: list[pa.Table] = []
    for page in pages:
        waiting.append(page)
        if sum(len(page) for page in waiting) >= _BATCH_ROWS:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _insert(database: duckdb.DuckDBPyConnection, query: str, incoming: pa.Table) -> None:
    database.register("incoming", incoming)
    database.execute(query)
    database.unregister("incoming")


def _compare(database: duckdb.DuckDBPyConnection, done: Iterable[pa.RecordBatch] | None, everything: int, retry_errors: bool) -> None:
    """The table `work`: of each listed image's first mention, the masks of its rows that failed before and of its tasks to do now.

    The listing's digests are what a join keeps, in memory or on disk; those of the table only pass by.
    """
    if done is None:
        database.execute(
            f"""
            CREATE TABLE work AS
            SELECT min(listing_order) AS listing_order, {everything}::BIGINT AS todo, 0::BIGINT AS failed
            FROM (SELECT listing_order, {OF_URI} AS name FROM listing) GROUP BY name
            """  # noqa: S608 - constants
        )
        return
    database.execute(
        f"""
        CREATE TABLE mentioned AS
        SELECT min(listing_order) AS listing_order, arg_min(image, listing_order) AS image
        FROM (SELECT listing_order, {OF_URI} AS name, {OF_IMAGE} AS image FROM listing) GROUP BY name
        """  # noqa: S608 - constants
    )
    with streamed(database, "done", DIGESTS, done):
        database.execute(
            """
            CREATE TABLE held AS
            SELECT listing_order, bit_or(ok)::BIGINT AS ok, bit_or(failed)::BIGINT AS failed
            FROM done JOIN mentioned ON done.image = mentioned.image GROUP BY listing_order
            """
        )
    counted = "coalesce(ok, 0)" + ("" if retry_errors else " | coalesce(failed, 0)")
    database.execute(
        f"""
        CREATE TABLE work AS
        SELECT listing_order, {everything} & ~({counted}) AS todo, coalesce(failed & ~ok, 0) AS failed
        FROM mentioned LEFT JOIN held USING (listing_order)
        """  # noqa: S608 - numbers only
    )
    database.execute("DROP TABLE mentioned; DROP TABLE held")


def _choose(database: duckdb.DuckDBPyConnection, order: str, limit: int | None) -> None:
    """The view `chosen`: the work that `limit` leaves in."""
    bound = "" if limit is None else f" ORDER BY {order} LIMIT {limit}"
    database.execute(f"CREATE VIEW chosen AS FROM listing JOIN work USING (listing_order) WHERE todo <> 0{bound}")


def _count(database: duckdb.DuckDBPyConnection, groups: int) -> Plan:
    everything = "count(*), coalesce(sum(image_bytes), 0), count(*) FILTER (todo = 0), coalesce(sum(bit_count(failed & ~todo)), 0)"
    chosen = "count(*), coalesce(sum(bit_count(todo)), 0), coalesce(sum(image_bytes), 0), coalesce(sum(bit_count(failed & todo)), 0)"
    work = "FROM listing JOIN work USING (listing_order)"
    images, size, done_images, kept_errors = _numbers(database, f"SELECT {everything} {work}")
    todo_images, todo_rows, todo_bytes, retried_errors = _numbers(database, f"SELECT {chosen} FROM chosen")  # noqa: S608 - constants
    (oldest,) = _numbers(database, "SELECT coalesce(epoch_us(min(image_modified)), -1) FROM chosen")
    plan = Plan(images, size, done_images, todo_images, todo_rows, todo_bytes, retried_errors, kept_errors, groups)
    return replace(plan, oldest_modified=None if oldest < 0 else oldest / 1e6)


def _numbers(database: duckdb.DuckDBPyConnection, query: str) -> list[int]:
    (row,) = database.execute(query).fetchall()  # to the end of the result: until then the connection is taken
    return [int(number) for number in row]


def _write(database: duckdb.DuckDBPyConnection, tasks: Sequence[str], work_list: WorkList, order: str, held: Held | None) -> int:
    """Write the work list, a file at a time; returns the number of row groups."""
    columns, todo, chosen = ", ".join(_LISTING.names), "todo", "chosen"
    if work_list.some is not None:
        pick(database, work_list.some)
        todo, chosen, held = f"{(1 << len(tasks)) - 1}::BIGINT AS todo", "listing JOIN picked USING (listing_order)", None
    if held:
        columns, chosen = f"{columns}, kinds, lie", "chosen LEFT JOIN held USING (listing_order)"
    reader = database.sql(f"SELECT {columns}, {todo} FROM {chosen} ORDER BY {order}").to_arrow_reader(_BATCH_ROWS)  # noqa: S608 - constants
    named = [[task for bit, task in enumerate(tasks) if mask >> bit & 1] for mask in range(1 << len(tasks))]
    masks = pa.array(named, pa.list_(pa.string()))
    finished = (_finish(pa.Table.from_batches([batch]), masks, work_list, held) for batch in reader)
    groups = 0
    for number, rows in enumerate(_regroup(finished, work_list.group_rows * GROUPS_PER_FILE)):
        sink = io.BytesIO()
        named = rows.replace_schema_metadata({_GROUP_ROWS: str(work_list.group_rows)})
        # Row groups of a few rows would take ten times as long, and twice the room.
        pq.write_table(named, sink, compression="lz4", use_dictionary=False, write_statistics=False)
        storage.write_bytes(_file_uri(work_list.folder, number), sink.getvalue())
        groups += -(-rows.num_rows // work_list.group_rows)
    return groups


def _finish(batch: pa.Table, masks: pa.ListArray, work_list: WorkList, held: Held | None) -> pa.Table:
    """The rows of the work list: task names in place of the mask, the keys of each image, what is carried, and what is held."""
    rows = batch.select(_LISTING.names).cast(_LISTING).append_column("tasks", masks.take(batch["todo"].combine_chunks()))
    if held:
        rows = rows.append_column(HELD, held_column(batch, held))
    return with_keys(with_carried(rows, work_list.carried), work_list.hive_columns).drop_columns(["image_keys"])


def _regroup(tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """The same rows in tables of exactly `size`, the last one excepted."""
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        waiting.append(table)
        rows += table.num_rows
        while rows >= size:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, size)
            waiting, rows = [whole.slice(size)], rows - size
    if rows:
        yield pa.concat_tables(waiting)
