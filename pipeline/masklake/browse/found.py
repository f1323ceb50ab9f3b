"""Answers to questions: which images fit, in what order, page by page, and what they hold. Each is found once, and kept a while."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from masklake.browse.asked import Asked, found_sql
from masklake.browse.index import ID, Index
from masklake.errors import Refused
from masklake.sql import quoted
from masklake.table.read import MaskTable
from masklake.table.selection import check_condition

_KEPT = 12  # answers: a number and a place of each image that fits
_MOST_VALUES = 500  # of a column, offered
_MOST_BARS = 60  # values of a chart

Values = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """An answer: `table` has `place, id` of so many images; `differing` how many of them another model answered as well."""

    table: str
    count: int


class Answers:
    """Answers by their questions. May be used by several threads, which wait for each other."""

    def __init__(self, index: Index, table: MaskTable) -> None:
        self._index, self._table = index, table
        self._kept: OrderedDict[tuple[Asked, int], Found] = OrderedDict()
        self._made = 0

    def find(self, asked: Asked) -> Found:
        """The images that fit.

        Raises:
            Refused: the SQL condition is none on this table.
        """
        with self._index.lock:
            key = asked, self._index.read_files if asked.of_segments else -1
            if key not in self._kept:
                check_condition(self._table, asked.where or None)  # what the page takes, `export` takes as well
                self._kept[key] = self._make(asked)
                if len(self._kept) > _KEPT:
                    self._index.database.execute(f"DROP TABLE {self._kept.popitem(last=False)[1].table}")
            self._kept.move_to_end(key)
            return self._kept[key]

    def _make(self, asked: Asked) -> Found:
        self._made += 1
        name = f"found_{self._made}"
        try:
            self._index.database.execute(f"CREATE TABLE {name} AS {found_sql(asked)}")
        except duckdb.Error as error:
            raise Refused(str(error).split("\n", 1)[0]) from None
        count = self._index.rows(f"SELECT count(*) AS count FROM {name}")[0]["count"]  # noqa: S608
        return Found(name, count)

    def page(self, asked: Asked, first: int, most: int) -> tuple[Found, list[Values]]:
        """So many images from this place on, each with its labels: `label, label_id, count, score, share`, the largest first."""
        with self._index.lock:
            found = self.find(asked)
            rows = self._index.rows(
                f"SELECT place, {ID} AS id, image_uri, width, height, status, error_code, error_message, doubt "  # noqa: S608
                f"FROM {found.table} JOIN rows ON rows.{ID} = {found.table}.id LEFT JOIN sums ON sums.id = {found.table}.id "
                f"WHERE place >= {first:d} AND place < {first + most:d} ORDER BY place"
            )
            labels = self._labels([row["id"] for row in rows])
        return found, [{**row, "labels": labels.get(row["id"], [])} for row in rows]

    def _labels(self, ids: Sequence[int]) -> dict[int, list[Values]]:
        if not ids:
            return {}
        found: dict[int, list[Values]] = {}
        for row in self._index.rows(
            "SELECT id, label, min(label_id) AS label_id, count(*) AS count, max(score) AS score, sum(share) AS share "  # noqa: S608
            "FROM segments JOIN kinds USING (kind) "
            f"WHERE id IN ({', '.join(map(str, ids))}) GROUP BY id, label ORDER BY share DESC, label"
        ):
            found.setdefault(row.pop("id"), []).append(row)
        return found

    def classes(self, asked: Asked) -> list[Values]:
        """The classes of all images that fit, and in how many each is, the most frequent first."""
        with self._index.lock:
            found = self.find(asked)
            return self._index.rows(
                f"WITH each AS (SELECT id, kind, count(*) AS segments FROM segments SEMI JOIN {found.table} USING (id) GROUP BY id, kind) "  # noqa: S608
                "SELECT label, min(label_id) AS label_id, count(*) AS images, sum(segments)::BIGINT AS segments "
                "FROM each JOIN kinds USING (kind) GROUP BY label ORDER BY images DESC, label"
            )

    def chart(self, asked: Asked, column: str) -> list[Values]:
        """How many images, and how many segments of each class, there are for each value of a column, among those that fit."""
        by = quoted(column)
        with self._index.lock:
            found = self.find(asked)
            return self._index.rows(
                f"""
                WITH kept AS (SELECT {ID} AS id, {by}::VARCHAR AS value FROM rows SEMI JOIN {found.table} ON rows.{ID} = {found.table}.id),
                    totals AS (SELECT value, count(*) AS images FROM kept GROUP BY value ORDER BY value DESC NULLS LAST LIMIT {_MOST_BARS}),
                    counts AS (SELECT value, kind, count(*) AS segments FROM kept JOIN segments USING (id) GROUP BY ALL)
                SELECT totals.value, images, label, segments
                FROM totals LEFT JOIN counts ON totals.value IS NOT DISTINCT FROM counts.value LEFT JOIN kinds USING (kind)
                ORDER BY totals.value NULLS FIRST, segments DESC, label
                """  # noqa: S608
            )

    def uris(self, asked: Asked) -> list[str]:
        """All images that fit, in their order."""
        with self._index.lock:
            found = self.find(asked)
            query = f"SELECT image_uri FROM {found.table} JOIN rows ON rows.{ID} = {found.table}.id ORDER BY place"  # noqa: S608
            return [uri for (uri,) in self._index.database.execute(query).fetchall()]


def choices(index: Index) -> Values:
    """What there is to choose from: tasks, models, error codes, values of partitions, with the number of rows of each."""

    def values(column: str) -> list[Values]:
        return index.rows(
            f"SELECT {column}::VARCHAR AS value, count(*) AS rows FROM rows GROUP BY value ORDER BY value LIMIT {_MOST_VALUES}"  # noqa: S608
        )

    models = index.rows(
        "SELECT model, fingerprint, task, count(*) AS rows, max(processed_at)::VARCHAR AS latest FROM rows "
        "GROUP BY model, fingerprint, task ORDER BY latest DESC, rows DESC"
    )
    return {
        "tasks": values("task"),
        "errors": [each for each in values("error_code") if each["value"] is not None],
        "models": models,
        "partitions": {name: values(quoted(name)) for name in index.partitions},
    }
