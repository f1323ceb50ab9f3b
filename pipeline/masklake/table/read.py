"""Reading a table: every row, or the newest answer of each image and task, as Arrow or as Python values."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from masklake import storage
from masklake.database import connect
from masklake.errors import Refused
from masklake.schema import NEWNESS, NEWNESS_SQL, aligned, table_schema
from masklake.sql import expression, shown
from masklake.table import damage
from masklake.table.damage import open_delta
from masklake.table.keys import sql_text

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

_MOST_VALUES, _MOST_PARTS = 10_000, 1_000  # constants of a condition, and all else: delta-rs crashes at 30,000 and at 5,000
_MEMORY = "512MB"  # for the keys of the newest rows; beyond it, they spill to disk
_ROWS, _ROWS_WITH_MASKS = 2048, 128  # of a batch that `newest` reads
_PIECE_BYTES = 4 << 20


def open_table(uri: str) -> MaskTable:
    """The table at `uri`, as it is now; open it again to see later commits.

    Raises:
        Refused: there is no table.
    """
    uri = storage.normalise(uri).rstrip("/")
    try:
        return MaskTable(open_delta(uri), uri)
    except TableNotFoundError:
        raise Refused(f"{uri}: there is no table: name the folder that segment has as --output") from None


class MaskTable:
    """A table of masks at one version; `delta` is the Delta table itself, `images` which images' rows it shows (None: of all)."""

    def __init__(self, delta: DeltaTable, uri: str = "") -> None:
        self.uri = uri
        self.delta = delta
        self.images: frozenset[str] | None = None
        there, known = pa.schema(delta.schema().to_arrow()), table_schema(delta.metadata().partition_columns)
        # A table of an older schema version lacks some; fields that its segments lack are null.
        ours = [field.with_type(aligned(there.field(field.name).type, field.type, True)) for field in known if field.name in there.names]
        self.schema = pa.schema([*ours, *(field for field in there if field.name not in known.names)])

    def of_images(self, uris: Iterable[str]) -> Self:
        """The same table, of these images alone: any number of them, which a condition could not name.

        Args:
            uris: as in `image_uri`.

        Example:
            for row in table.of_images(Path("chosen.txt").read_text().splitlines()).newest(task="panoptic"):
                print(row["image_uri"])
        """
        part = copy(self)
        part.images = frozenset(uris)
        return part

    def newest(self, task: str | None = None, columns: Sequence[str] | None = None, where: str | None = None) -> Newest:
        """The newest row of each image and task as Python values, in no particular order; masks are never all in memory at once.
        Or all at once: `.to_arrow()`, `.to_polars()`, `.to_pandas()`.

        Newest is the row of the run that began last by the table's log, whatever the clocks of the machines said.

        Args:
            task: this task's rows only.
            columns: the columns wanted; all by default. Leave `segments` out where masks are not needed.
            where: an SQL condition on the table's columns. It is applied first: `"status = 'ok'"` gives each image's newest *successful*
                answer, `"fingerprint = '...'"` the answers of one model and its settings. Conditions on partition columns skip files.

        Example:
            for row in table.newest(task="instance", where="dt = '2026-11-22' AND status = 'ok'"):
                print(row["image_uri"], [segment["label"] for segment in row["segments"]])
            sizes = table.newest(columns=["image_uri", "width", "height"]).to_polars()
        """
        return Newest(self.newest_arrow(task, columns, where))

    def newest_arrow(self, task: str | None = None, columns: Sequence[str] | None = None, where: str | None = None) -> pa.RecordBatchReader:
        """`newest` as a stream of Arrow record batches, for millions of rows.

        Example:
            sizes = table.newest_arrow(columns=["image_uri", "width", "height"]).read_pandas()
        """
        wanted = self._fields(columns)
        conditions = [condition(where)] if where else []
        if task is not None:
            conditions.append(f"task = {sql_text(task)}")
        return pa.RecordBatchReader.from_batches(wanted, self._newest(wanted, " AND ".join(conditions) or None))

    def rows(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """Every row, whatever its run, older answers included: an Arrow table, all in memory.

        Example:
            errors = table.rows(columns=["image_uri", "error_code", "processed_at"], where="status = 'error'")
        """
        wanted = self._fields(columns)
        return self._scan(wanted.names, condition(where) if where else None).read_all().select(wanted.names).cast(wanted)

    def tasks(self, where: str | None = None) -> list[str]:
        """The tasks of rows that fit a condition, sorted.

        Example:
            assert set(table.tasks()) <= {"panoptic", "instance", "semantic"}
        """
        batches = self._scan(["task"], where)
        return sorted({task for batch in batches for task in pc.unique(batch.column(0)).to_pylist()})

    def known(self, uris: Iterable[str]) -> set[str]:
        """Those of these images of which there are rows, whatever they say."""
        some = self.of_images(uris)
        return {uri for batch in some._scan(["image_uri"], None) for uri in batch.column(0).to_pylist()}

    def _fields(self, columns: Sequence[str] | None) -> pa.Schema:
        return self.schema if columns is None else pa.schema([self.schema.field(name) for name in columns])

    def _newest(self, wanted: pa.Schema, predicate: str | None) -> Iterator[pa.RecordBatch]:
        """Two passes over the same version: the first finds out which rows are newest, by their keys, the second picks them."""
        with (
            damage.named(self.uri, self.delta),
            tempfile.TemporaryDirectory(prefix="masklake-read-") as scratch,
            connect() as database,
        ):
            database.execute(f"SET memory_limit = '{_MEMORY}'; SET preserve_insertion_order = false; SET enable_progress_bar = false")
            database.execute("SET temp_directory = $folder", {"folder": scratch})
            # Left to itself, the optimiser may put the rows with their masks into the join's hash table instead of the keys.
            database.execute("SET disabled_optimizers = 'join_order, build_side_probe_side'")
            ordered_by = [name for name in NEWNESS if name in self.schema.names]  # a table of an older schema version lacks the first
            stamp = NEWNESS_SQL if ordered_by == list(NEWNESS) else f"({', '.join(ordered_by)})"
            keys = ["image_uri", "task", *ordered_by]
            database.register("keys", self._scan(keys, predicate))
            database.execute(f"CREATE TABLE newest AS SELECT image_uri, task, max({stamp}) AS stamp FROM keys GROUP BY ALL")  # noqa: S608
            database.register("rows", _in_pieces(self._rough(dict.fromkeys([*wanted.names, *keys]), predicate)))
            columns = ", ".join(f'"{name}"' for name in wanted.names)
            rows = database.sql(
                f"SELECT {columns} FROM rows SEMI JOIN newest ON rows.image_uri = newest.image_uri AND rows.task = newest.task "  # noqa: S608
                f"AND {stamp} = newest.stamp"
            )
            for batch in rows.to_arrow_reader(_ROWS_WITH_MASKS if "segments" in wanted.names else _ROWS):
                yield from pa.Table.from_batches([batch]).cast(wanted).to_batches()

    def _scan(self, columns: Iterable[str], predicate: str | None) -> pa.RecordBatchReader:
        """The rows that fit, with these columns, and with the images' URIs where they say which rows are meant."""
        if self.images is None:
            return self._rough(columns, predicate)
        fields, images = self._fields(list(dict.fromkeys([*columns, "image_uri"]))), self.images
        reader = self._rough(fields.names, predicate)
        return pa.RecordBatchReader.from_batches(fields, (part for batch in reader for part in _of(batch, images, fields)))

    def _rough(self, columns: Iterable[str], predicate: str | None) -> pa.RecordBatchReader:
        """As `_scan`, perhaps with rows of other images."""
        bounded = predicate if self.images is None else _within(self.images, predicate)
        reader = pa.RecordBatchReader.from_stream(self.delta.scan(columns=list(columns), predicate=bounded))

        def batches() -> Iterator[pa.RecordBatch]:
            with damage.named(self.uri, self.delta):
                yield from reader

        return pa.RecordBatchReader.from_batches(reader.schema, batches())


class Newest(Iterator[dict[str, Any]]):
    """The rows that `MaskTable.newest` found, to be read once: row by row, or all together in a form of somebody's."""

    def __init__(self, batches: pa.RecordBatchReader) -> None:
        self._batches = batches
        self._rows = (row for batch in batches for row in batch.to_pylist())

    def __next__(self) -> dict[str, Any]:
        return next(self._rows)

    def to_arrow(self) -> pa.Table:
        """What is left of them as an Arrow table, all in memory.

        Example:
            uris = table.newest(columns=["image_uri"]).to_arrow()["image_uri"].to_pylist()
        """
        return self._batches.read_all()

    def to_polars(self) -> pl.DataFrame:
        """As `to_arrow`, for polars, which must be installed.

        Example:
            table.newest(columns=["task", "status"]).to_polars().group_by("task", "status").len()
        """
        import polars

        frame = polars.from_arrow(self.to_arrow())
        assert isinstance(frame, polars.DataFrame)
        return frame

    def to_pandas(self) -> pd.DataFrame:
        """As `to_arrow`, for pandas, which must be installed.

        Example:
            table.newest(columns=["task", "status"]).to_pandas().value_counts()
        """
        return self._batches.read_pandas()


def condition(where: str) -> str:
    """An SQL condition on columns, to be put beside others: delta-rs itself would read one expression, and pass over whatever follows.

    Raises:
        Refused: it is not one expression, or more than delta-rs takes without a crash.
    """
    nodes = [node["class"] for node in expression(where) if "class" in node]
    values = nodes.count("CONSTANT")
    if values > _MOST_VALUES or len(nodes) - values > _MOST_PARTS:
        raise Refused(
            f"--where {shown(where)}: it has {values:,} values and {len(nodes) - values:,} other parts, where {_MOST_VALUES:,} and "
            f"{_MOST_PARTS:,} can be: name many images in a list, by --uris FILE (from Python: table.of_images)"
        )
    return f"({where}\n)"  # a comment at its end is closed


def _within(images: frozenset[str], predicate: str | None) -> str:
    """A condition that holds for all of these images, by which files are skipped."""
    bounds = f"image_uri BETWEEN {sql_text(min(images))} AND {sql_text(max(images))}" if images else "1 = 0"
    return f"{bounds} AND ({predicate}\n)" if predicate else bounds


def _of(batch: pa.RecordBatch, images: frozenset[str], fields: pa.Schema) -> Iterable[pa.RecordBatch]:
    """The rows of these images, in these types: Arrow filters no views, which delta-rs gives. Its own `is_in` would build its index of the
    images anew for each batch."""
    kept = pa.array([uri in images for uri in batch["image_uri"].to_pylist()], pa.bool_())
    parts: list[pa.RecordBatch] = pa.Table.from_batches([batch]).select(fields.names).cast(fields).filter(kept).to_batches()
    return parts


def _in_pieces(batches: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """The same rows in batches of bounded size: 2,000 rows with masks can be a gigabyte, and several copies are under way at once."""

    def pieces() -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = max(1, batch.num_rows * _PIECE_BYTES // max(1, batch.nbytes))
            yield from (batch.slice(first, rows) for first in range(0, batch.num_rows, rows))

    return pa.RecordBatchReader.from_batches(batches.schema, pieces())
