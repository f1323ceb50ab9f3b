"""What an export takes: the newest ok answer of each image and task, numbered, and of its segments those that the filters leave.

Two passes over one version of the table. The first reads what is needed to number and name the images, into a DuckDB database on disk;
the second streams the rows with their masks past it. Memory is bounded in both; what does not fit spills to the scratch folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import pyarrow as pa

from masklake.database import connect
from masklake.errors import MasklakeError, Refused
from masklake.export.categories import Categories
from masklake.export.doubt import keep_least_certain
from masklake.export.format import Format
from masklake.export.official import Official
from masklake.export.settings import ExportConfig
from masklake.schema import TABLE
from masklake.spelling import plural
from masklake.table.keys import sql_text
from masklake.table.masks import UNPAINTED
from masklake.table.read import MaskTable
from masklake.table.selection import Answers, check_condition
from masklake.tasks import Task
from masklake.truth.coco import Id

Row = dict[str, Any]

_MEMORY = "512MB"  # beyond it, DuckDB spills to disk
_KEYS = ("image_uri", "task", "width", "height", "model", "model_revision", "fingerprint")
_IMAGES_AT_ONCE = 4096
_ROWS_AT_ONCE = 64  # rows that are Python values at the same time


class Selection:
    """The rows of one export. `answers` says whose they are; `root` is what all image URIs begin with, up to a slash; `rows` counts; `task`
    is whose they are, None where they are of all tasks."""

    def __init__(self, table: MaskTable, settings: ExportConfig, scratch: Path, progress: Callable[[str], None] = lambda _: None) -> None:
        """Find out which rows are meant; `progress` is told from time to time how far the reading of segments is.

        Raises:
            Refused: `--where` is not a condition on this table, no row is meant, or it takes a task to say which.
        """
        self._table, self._settings, self._progress = table, settings, progress
        self._where = settings.choice(None).condition()
        check_condition(table, settings.where)
        self.task = settings.task or _only_task(table, settings.chosen_format, self._where)
        self._database = connect(scratch / "images.duckdb")
        self._database.execute(f"SET memory_limit = '{_MEMORY}'; SET preserve_insertion_order = false; SET enable_progress_bar = false")
        # Left to itself, the optimiser may put the rows with their masks into a join's hash table instead of the images.
        self._database.execute("SET disabled_optimizers = 'join_order, build_side_probe_side'")
        self._database.register("newest", table.newest_arrow(self.task, _KEYS, self._where))
        self._database.execute("CREATE TABLE picked AS FROM newest")
        self._database.unregister("newest")
        if settings.least_certain is not None:
            keep_least_certain(self._database, table, self.task, self._where, partition_columns(table), settings.least_certain)
        self._rows = "rows" if settings.least_certain is None else "(FROM rows SEMI JOIN picked USING (image_uri)) AS rows"
        self.answers = self._answers()
        self.rows = self.asked = sum(answers.rows for answers in self.answers)
        self._official: Official | None = None
        self._named: dict[str, tuple[Id, str]] = {}
        if not self.rows:
            raise Refused(self._nothing())
        self.root = self._root()

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def _answers(self) -> tuple[Answers, ...]:
        found = self._database.execute(
            "SELECT task, model, model_revision, fingerprint, count(*) AS rows FROM picked GROUP BY ALL "
            "ORDER BY task, rows DESC, fingerprint, model, model_revision"
        )
        return tuple(Answers(*row) for row in found.fetchall())

    def _nothing(self) -> str:
        text = f"there is nothing to export from {self._settings.table_uri}: no row with status ok fits"
        if self.task is None:
            return f"{text} --where, --uris, --model and --fingerprint"
        tasks = self._table.tasks(self._where)
        there = (
            f"; it has rows of {', '.join(tasks)}" if tasks else ", nor one of another task; see --where, --uris, --model and --fingerprint"
        )
        return f"{text} --task {self.task}{there}"

    def _root(self) -> str:
        ((first, last),) = self._database.execute("SELECT min(image_uri), max(image_uri) FROM picked").fetchall()
        common = "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
        return common[: common.rfind("/") + 1]

    def number_images(self) -> None:
        """Give every image its id, its position in the order of URIs from 1 on, and the names of its files: needed by all that follows
        but `flat_segments`."""
        self._database.execute(
            r"""
            CREATE TABLE images AS
            WITH named AS (
                SELECT row_number() OVER (ORDER BY image_uri) AS id, image_uri, width, height, substr(image_uri, $skip) AS file_name,
                    regexp_replace(file_name, '([^/])\.[^./]*$', '\1') AS stem
                FROM picked
            )
            SELECT id, image_uri, file_name, width, height,
                if(count(*) OVER (PARTITION BY stem) > 1 OR stem IN (SELECT file_name FROM named), file_name, stem) || '.png' AS png
            FROM named
            """,
            {"skip": len(self.root) + 1},
        )

    def take_ids_of(self, official: Official) -> None:
        """Give the images the ids and names of an official file, after `number_images`; leave out what it does not have.

        Raises:
            Refused: it has none of them, or one is of another size there.
        """
        rows = self._database.execute("SELECT image_uri, width, height FROM images").fetchall()
        found = official.images_of([uri for uri, _, _ in rows])
        for uri, width, height in rows:
            if uri in found and official.size_of(found[uri][0]) != (height, width):
                there = official.size_of(found[uri][0])
                raise Refused(f"{uri}: is {width} x {height}, and {there[1]} x {there[0]} in {official.uri}: it is another image")
        self._official, self._named = official, dict(found)
        self._database.register("named", pa.table({"image_uri": list(found)}))
        self._database.execute("CREATE OR REPLACE TABLE images AS SELECT images.* FROM images JOIN named USING (image_uri)")
        self._database.unregister("named")
        self.asked, self.rows = self.rows, len(found)

    def check_names(self) -> None:
        """Raises Refused where an image's name cannot be that of a file: a key in a store may hold `..` or `//`, which lead elsewhere."""
        odd = self._database.execute(r"SELECT image_uri FROM images WHERE regexp_matches('/' || file_name || '/', '/\.{0,2}/') LIMIT 1")
        for (uri,) in odd.fetchall():
            raise Refused(f"{uri}: no file can be named after this image ('.', '..' or nothing between slashes): leave it out by --where")

    def check_stems(self, form: str) -> None:
        """Raises Refused where two images differ by the ending of their name alone: `form` names files by what comes before."""
        query = r"SELECT image_uri FROM images WHERE png = file_name || '.png' AND regexp_matches(file_name, '[^/]\.[^./]*$') LIMIT 1"
        for (uri,) in self._database.execute(query).fetchall():
            raise Refused(f"--format {form}: {uri} and another image differ by their ending alone, and would share files: see --where")

    def labels(self) -> dict[int, str]:
        """The labels of the segments that will be written, by label id: a reading of all of them.

        Raises:
            Refused: a label id means two things.
        """
        segments = f"SELECT image_uri, unnest({self._kept()}) AS s FROM {self._rows}"  # noqa: S608
        of_kind = "SELECT s.label_id, s.label, s.isthing, any_value(image_uri) AS uri"
        found = self._stream(f"{of_kind} FROM ({segments}) GROUP BY ALL ORDER BY ALL", ()).read_all().to_pylist()
        categories = Categories()
        for row in found:
            categories.note(row, row["uri"])
        return categories.labels

    def images(self) -> Iterator[Row]:
        """`id, image_uri, file_name, width, height` of each image, by id. To be read to its end before `numbered_rows`."""
        query = self._database.sql("SELECT id, image_uri, file_name, width, height FROM images ORDER BY id")
        for batch in query.to_arrow_reader(_IMAGES_AT_ONCE):
            yield from map(self._as_official, batch.to_pylist())

    def _as_official(self, row: Row) -> Row:
        if self._official is not None:
            row["id"], row["file_name"] = self._named[row["image_uri"]]
        return row

    def _with_categories(self, row: Row) -> Row:
        """The row with its image's id, as before by `number`, and its segments' `category_id`; without those that have none."""
        row["number"] = row["id"]
        for segment in row["segments"]:
            official = self._official
            segment["category_id"] = segment["label_id"] + 1 if official is None else official.category_of(segment["label"])
        row["segments"] = [segment for segment in row["segments"] if segment["category_id"] is not None]
        if self._official is not None:
            row["id"] = self._named[row["image_uri"]][0]
        return row

    def numbered_rows(self) -> Iterator[Row]:
        """`id, number, png, image_uri, width, height, segments` of each row, in no particular order; `png` is the name of its picture, and
        `number` its place among all; segments have a `category_id`, which begins at 1, since 0 means none to many tools.

        Raises:
            MasklakeError: the table holds a row twice, or lost one while it was read.
        """
        named = "images.id, images.png, images.png[:-5] AS stem, images.file_name"
        columns = f"{named}, rows.image_uri, rows.width, rows.height, {self._kept()} AS segments"
        reader = self._stream(f"SELECT {columns} FROM rows JOIN images ON rows.image_uri = images.image_uri", ())  # noqa: S608
        seen = 0
        for batch in reader:
            self._progress(f"{seen:,} of {plural(self.rows, 'image')}")
            seen += batch.num_rows
            for first in range(0, batch.num_rows, _ROWS_AT_ONCE):
                yield from map(self._with_categories, batch.slice(first, _ROWS_AT_ONCE).to_pylist())
        if seen != self.rows:
            raise MasklakeError(
                f"{self._settings.table_uri} gave {plural(seen, 'row')} in place of {self.rows:,}: an image has its newest row twice"
            )

    def flat_segments(self, columns: Sequence[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        """One row per segment: `columns` of its row, then the struct `segment`."""
        chosen = ", ".join(f'"{name}"' for name in columns)
        seen = 0
        for batch in self._stream(f"SELECT {chosen}, unnest({self._kept()}) AS segment FROM {self._rows}", columns, batch_rows):  # noqa: S608
            seen += batch.num_rows
            self._progress(f"{plural(seen, 'segment')}")
            yield batch

    def _stream(self, query: str, columns: Sequence[str], batch_rows: int = _ROWS_AT_ONCE) -> pa.RecordBatchReader:
        read = dict.fromkeys([*columns, "image_uri", "width", "height", "segments"])
        self._database.register("rows", self._table.newest_arrow(self.task, list(read), self._where))
        return self._database.sql(query).to_arrow_reader(batch_rows)

    def _kept(self) -> str:
        """The segments that the filters leave, as SQL."""
        conditions = []
        if not (self._settings.chosen_format.background or UNPAINTED in self._settings.label):
            conditions.append(f"s.label <> {sql_text(UNPAINTED)}")
        if self._settings.label:
            conditions.append(f"s.label IN ({', '.join(map(sql_text, self._settings.label))})")
        if self._settings.min_score is not None:
            conditions.append(f"s.score >= CAST({self._settings.min_score!r} AS FLOAT)")  # as scores are stored: 0.9 is in
        return f"list_filter(rows.segments, lambda s: {' AND '.join(conditions)})" if conditions else "rows.segments"


def partition_columns(table: MaskTable) -> list[str]:
    """The columns by which the table is partitioned, and those beyond masklake's own."""
    return list(
        dict.fromkeys([*table.delta.metadata().partition_columns, *(name for name in table.schema.names if name not in TABLE.names)])
    )


def _only_task(table: MaskTable, form: Format, where: str) -> Task | None:
    """Where none is asked for: the format's first; where the table has no such rows, the only ones that the format can hold."""
    if not form.tasks:
        return None
    there = table.tasks(where)
    held = [task for task in form.tasks if task in there]
    if form.tasks[0] in held or not held:
        return form.tasks[0]
    if len(held) > 1:
        raise Refused(f"--task: the table has no rows of {form.tasks[0]}, but of {' and '.join(held)}: choose one")
    return held[0]
