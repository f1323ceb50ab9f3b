"""Which images are most worth correcting: those of which the model, or several models, are least certain, not all of one kind.

**Doubt** of a segment of score s is 1 - |2s - 1|: most where the model is undecided, little where it is sure that something is there,
or that nothing is. An image's doubt is the mean over its segments, weighted by their areas. Where the table has answers of other
fingerprints to the same task, an image on which they disagree is doubtful as well: one minus the area on which the two agree over all,
label by label, of those that both were asked for. The greater of the two counts. An image without any segment has the doubt of a segment
of score 0.75.

**Spread**: within each pair of partition and most doubtful label, the second image counts for half of its doubt, the third for a third,
and so on, as D'Hondt shares out seats; those that then count most are taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from masklake.table.asked import unasked
from masklake.table.keys import sql_text
from masklake.table.read import MaskTable

_OTHERS = 4  # fingerprints that an answer is compared with, the latest first

DOUBT = "1 - abs(2 * score - 1)"
"""The doubt of a segment, as SQL."""
DOUBT_OF_NOTHING = 0.5
"""That of an image without any."""

_DOUBT = f"""
    CREATE TABLE doubt AS
    WITH shares AS (
        SELECT image_uri, label, sum(area * ({DOUBT})) AS doubt, sum(area) AS area FROM segments GROUP BY ALL
    )
    SELECT picked.image_uri, coalesce(sum(doubt) / nullif(sum(area), 0), $empty) AS doubt, arg_max(label, doubt) AS label
    FROM picked LEFT JOIN shares USING (image_uri) GROUP BY ALL
"""  # noqa: S608
_COMPARED = """
    UPDATE doubt SET doubt = greatest(doubt, differs.share) FROM (
        WITH apart AS (SELECT mine AS fingerprint, label FROM unasked WHERE theirs = $other),
            mine AS (
                SELECT image_uri, label, sum(area) AS area FROM segments JOIN picked USING (image_uri)
                ANTI JOIN apart USING (fingerprint, label) GROUP BY ALL
            ),
            other AS (
                SELECT image_uri, label, sum(area) AS area FROM others JOIN picked USING (image_uri)
                ANTI JOIN apart USING (fingerprint, label) GROUP BY ALL
            ),
            known AS (FROM mine SEMI JOIN others USING (image_uri) UNION ALL SELECT image_uri, label, 0 FROM other),
            pairs AS (
                SELECT known.image_uri, max(known.area) AS one, max(coalesce(other.area, 0)) AS two
                FROM known LEFT JOIN other ON known.image_uri = other.image_uri AND known.label = other.label
                GROUP BY known.image_uri, known.label
            )
        SELECT image_uri, 1 - sum(least(one, two)) / sum(greatest(one, two)) AS share FROM pairs GROUP BY image_uri
    ) AS differs WHERE differs.image_uri = doubt.image_uri
"""
_KEPT = """
    CREATE TABLE least_certain AS
    WITH placed AS (SELECT *, row_number() OVER (PARTITION BY label, place ORDER BY doubt DESC, image_uri) AS turn FROM doubt)
    SELECT image_uri FROM placed ORDER BY doubt / turn DESC, image_uri LIMIT $wanted
"""


def keep_least_certain(
    database: duckdb.DuckDBPyConnection, table: MaskTable, task: str | None, where: str, partitions: Sequence[str], wanted: int
) -> None:
    """Leave `wanted` images in the database's table `picked`, by their newest answers that fit `where`."""
    places = [name for name in partitions if name != "task"]
    _segments(database, table, "segments", task, where)
    database.execute(_DOUBT, {"empty": DOUBT_OF_NOTHING})
    database.register("unasked", unasked(table.uri))
    for fingerprint in _others(database, table, task):
        _segments(database, table, "others", task, f"status = 'ok' AND fingerprint = {sql_text(fingerprint)}")
        database.execute(_COMPARED, {"other": fingerprint})
    database.unregister("unasked")
    database.register("places", table.newest_arrow(task, ["image_uri", *places], where))
    place = f"concat_ws('/', {', '.join(f'{chr(34)}{name}{chr(34)}' for name in places)})" if places else "''"
    database.execute(f"CREATE TABLE place AS SELECT image_uri, any_value({place}) AS place FROM places GROUP BY image_uri")  # noqa: S608
    database.unregister("places")
    database.execute("CREATE OR REPLACE TABLE doubt AS FROM doubt JOIN place USING (image_uri)")
    database.execute(_KEPT, {"wanted": wanted})
    database.execute("CREATE OR REPLACE TABLE picked AS FROM picked SEMI JOIN least_certain USING (image_uri)")


def _segments(database: duckdb.DuckDBPyConnection, table: MaskTable, name: str, task: str | None, where: str) -> None:
    """A table of label, area and score of each segment."""
    database.register("rows", table.newest_arrow(task, ["image_uri", "segments"], where))
    database.execute(
        f"CREATE OR REPLACE TABLE {name} AS SELECT image_uri, s.label AS label, s.area AS area, s.score AS score "  # noqa: S608
        "FROM (SELECT image_uri, unnest(segments) AS s FROM rows)"
    )
    database.unregister("rows")


def _others(database: duckdb.DuckDBPyConnection, table: MaskTable, task: str | None) -> list[str]:
    """The fingerprints of the table's other answers to this task, the latest first."""
    if task is None:
        return []
    history = table.rows(["fingerprint", "processed_at"], f"status = 'ok' AND task = {sql_text(task)}")
    database.register("history", history)
    found = database.execute(
        "SELECT fingerprint FROM history WHERE fingerprint NOT IN (SELECT fingerprint FROM picked) "
        "GROUP BY fingerprint ORDER BY max(processed_at) DESC LIMIT $others",
        {"others": _OTHERS},
    ).fetchall()
    database.unregister("history")
    return [fingerprint for (fingerprint,) in found]
