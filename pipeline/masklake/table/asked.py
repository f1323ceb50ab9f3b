"""What models were told to look for, as runs leave it beside the table: what one was not asked, it does not disagree on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import permutations

import pyarrow as pa

from masklake import storage
from masklake.errors import ImageFailure

FACTS = "_masklake/fingerprints/"
"""The folder beside a table in which each fingerprint's facts lie, as JSON."""

_MOST_FACTS = 1000  # files that are read

UNASKED = pa.schema([("mine", pa.string()), ("theirs", pa.string()), ("label", pa.string())])
"""Pairs of fingerprints, and labels of which one of the two was asked and the other not."""


def unasked(table_uri: str) -> pa.Table:
    """`UNASKED`, of all pairs of a table's fingerprints that say concepts; facts that cannot be read say none."""
    return _pairs({fingerprint: found for fingerprint, content in facts(table_uri) if (found := _concepts(content))})


def facts(table_uri: str) -> Iterator[tuple[str, bytes]]:
    """The fingerprints of a table and the JSON of their facts, as far as it can be read."""
    folder = f"{table_uri}/{FACTS}"
    names = [name for name in storage.list_names(folder, _MOST_FACTS) if name.endswith(".json")]
    for name, content in zip(names, storage.read_many([folder + name for name in names]), strict=True):
        if not isinstance(content, ImageFailure):
            yield name.removesuffix(".json"), content


def _concepts(content: bytes) -> frozenset[str]:
    try:
        return frozenset(map(str, json.loads(content)["facts"]["answer"].get("concepts", ())))
    except (ValueError, KeyError, TypeError, AttributeError):
        return frozenset()


def _pairs(concepts: Mapping[str, frozenset[str]]) -> pa.Table:
    rows = [
        {"mine": one, "theirs": two, "label": label}
        for one, two in permutations(sorted(concepts), 2)
        for label in sorted(concepts[one] ^ concepts[two])
    ]
    return pa.Table.from_pylist(rows, schema=UNASKED)
