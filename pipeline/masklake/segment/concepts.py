"""Answers to some of the concepts that a run looks for, which its table holds already: of each image only the others are asked.

A model that is told what to look for answers each concept by itself, so rows that differ in their concepts alone can be put together: they
are what a run for all concepts from the start would have written, to the bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import duckdb
import pyarrow as pa

from masklake.errors import MasklakeError
from masklake.inference.segments import Segment
from masklake.schema import TABLE
from masklake.segment.digests import OF_IMAGE, streamed
from masklake.table.places import PLACES, PlacedRows

HELD = pa.field(
    "held",
    pa.list_(pa.struct([("path", pa.string()), ("place", pa.int64()), ("concepts", pa.list_(pa.string()))])),
)
"""Of an image, the rows of the table that answer some concepts, and which of these are to be taken from each."""

KNOWN = (
    pa.field("known", TABLE.field("segments").type),  # segments of concepts that are not asked again
    pa.field("missing", pa.list_(pa.string())),  # concepts to ask; null: all
)
"""The columns that an image's loading adds."""

_READ = ("width", "height", "format", "segments")
_FILES, _GROUPS = 2, 2  # kept by a process that loads: an image's neighbours lie in the same


@dataclass(frozen=True)
class Held:
    """What a table holds: `answered[n]` of the concepts `asked` are in each row of the fingerprint `fingerprints[n]`.

    `rows` are `places.PLACES`, read once; their `file` is a number of `paths`, which are relative to the table.
    """

    asked: tuple[str, ...]
    fingerprints: Sequence[str]
    answered: Sequence[frozenset[str]]
    paths: Sequence[str]
    rows: Iterable[pa.RecordBatch]

    def shares(self, kinds: Sequence[int]) -> dict[int, list[str]]:
        """Of an image with rows of these fingerprints, by their numbers: what to take from which. As few rows as are found by taking the
        one that answers most of what is left, the first of several."""
        shares: dict[int, list[str]] = {}
        left = set(self.asked)
        while taken := max((self.answered[kind] & left for kind in kinds), key=len):
            shares[next(kind for kind in kinds if self.answered[kind] & left == taken)] = sorted(taken)
            left -= taken
        return shares


def join_held(database: duckdb.DuckDBPyConnection, held: Held) -> None:
    """The table `held`: of each image of `chosen` (`listing_order`, ...) of which there are rows, `kinds`, and `lie`, where each is."""
    kinds = pa.table({"fingerprint": held.fingerprints, "kind": pa.array(range(len(held.fingerprints)), pa.int32())})
    database.register("kinds", kinds)
    with streamed(database, "placed", PLACES, held.rows):
        database.execute(
            f"""
            CREATE TABLE held AS
            WITH wanted AS (SELECT listing_order, {OF_IMAGE} AS image FROM chosen),
                there AS (SELECT {OF_IMAGE} AS image, kind, file, place FROM placed JOIN kinds USING (fingerprint)),
                one AS (
                    SELECT listing_order, kind, max({{'file': file, 'place': place}}) AS lies
                    FROM there JOIN wanted ON there.image = wanted.image GROUP BY ALL
                )
            SELECT listing_order, list(kind ORDER BY kind) AS kinds, list(lies ORDER BY kind) AS lie FROM one GROUP BY listing_order
            """  # noqa: S608 - constants
        )
    database.unregister("kinds")


def count_held(database: duckdb.DuckDBPyConnection, held: Held) -> tuple[tuple[int, int], ...]:
    """So many images of which so many concepts are held, most concepts first."""
    counted: dict[int, int] = {}
    for kinds, images in database.execute("SELECT kinds, count(*) FROM held GROUP BY kinds").fetchall():
        concepts = sum(map(len, held.shares(kinds).values()))
        counted[concepts] = counted.get(concepts, 0) + images
    return tuple((counted[concepts], concepts) for concepts in sorted(counted, reverse=True))


def held_column(rows: pa.Table, held: Held) -> pa.Array:
    """`HELD` of rows with the columns of the table `held`, null where an image has none."""
    shares = lru_cache(1024)(held.shares)
    values: list[list[dict[str, Any]] | None] = []
    for kinds, lie in zip(rows["kinds"].to_pylist(), rows["lie"].to_pylist(), strict=True):
        if kinds is None:
            values.append(None)
            continue
        places = dict(zip(kinds, lie, strict=True))
        values.append(
            [
                {"path": held.paths[places[kind]["file"]], "place": places[kind]["place"], "concepts": concepts}
                for kind, concepts in shares(tuple(kinds)).items()
            ]
        )
    return pa.array(values, HELD.type)


@lru_cache(1)
def _rows_for(run_id: str) -> PlacedRows:
    """Of one run: what was read for an image serves its neighbours."""
    return PlacedRows(_READ, _FILES, _GROUPS)


def read_held(held: Sequence[Mapping[str, Any]] | None, asked: Sequence[str], table_uri: str, run_id: str) -> dict[str, Any]:
    """What the table holds of one image: the columns of `KNOWN`, and width, height and format; nothing where it has no row, or one that
    cannot be read any more, as after a compaction: then the image is asked everything."""
    if not held:
        return {}
    try:
        rows = [_rows_for(run_id).row(f"{table_uri}/{each['path']}", each["place"]) for each in held]
    except (MasklakeError, pa.ArrowException, OSError):
        return {}
    taken = [{*each["concepts"]} for each in held]
    known = [segment for row, concepts in zip(rows, taken, strict=True) for segment in row["segments"] if segment["label"] in concepts]
    missing = sorted({*asked}.difference(*taken))
    return {"known": known, "missing": missing, **{name: rows[0].get(name) for name in ("width", "height", "format")}}


def joined(segments: Sequence[Segment], known: Sequence[Mapping[str, Any]], labels: Mapping[int, str]) -> list[Segment]:
    """Answers to some concepts, and those of the table to the others, numbered and ordered as one answer to all: by score, at equal ones by
    concept, then as the concept's own answer has them.

    Args:
        segments: as the model answered.
        known: as the table has them.
        labels: id -> concept, of all that are asked for.
    """
    ids = {label: label_id for label_id, label in labels.items()}
    others = [Segment(**{**each, "bbox": tuple(each["bbox"]), "label_id": ids[each["label"]]}) for each in known]
    together = sorted([*segments, *others], key=lambda each: (-each.score, each.label_id, each.segment_id))
    return [replace(each, segment_id=number) for number, each in enumerate(together, 1)]
