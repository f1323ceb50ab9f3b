"""Lists of images as JSON lines: an object a line. Values keep their kinds: text, numbers, booleans."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa

from masklake import storage
from masklake.errors import Refused
from masklake.images.lines import lines, with_gzip
from masklake.images.lists import Lists
from masklake.images.source import Unreadable

_KINDS = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64(), dict: pa.struct([]), list: pa.list_(pa.null())}


class JsonlLists(Lists):
    """JSON lines; lines without anything in them are passed over."""

    name = "jsonl"
    suffixes = with_gzip(".jsonl", ".ndjson")

    def schema(self, uri: str, names: Sequence[str]) -> pa.Schema:
        """The names in the first thousand objects; of these names, the kind that all values of the file have, so that it is read whole.

        Raises:
            Refused: the values of such a name are of several kinds.
        """
        kinds: dict[str, set[type]] = {}
        for number, found in enumerate(_objects(uri)):
            if number >= storage.PAGE and not names:
                break
            for name, value in found.items():
                known = kinds.setdefault(name, set())
                if name in names and value is not None:
                    known.add(type(value))
        return pa.schema([(name, _kind(uri, name, known)) for name, known in kinds.items()])

    def rows(self, uri: str, columns: pa.Schema) -> Iterator[pa.Table]:
        """Values that are absent are null; where text is wanted, numbers and booleans are as JSON writes them."""
        objects = _objects(uri)
        while part := list(islice(objects, storage.PAGE)):
            arrays = [_array([found.get(field.name) for found in part], field) for field in columns]
            yield pa.Table.from_arrays(arrays, schema=columns)


def _objects(uri: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines(uri), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            raise Unreadable(f"line {number} is not JSON") from None
        if not isinstance(found, dict):
            raise Unreadable(f"line {number} is not a JSON object")
        if "\\ud" in line.lower() and not _is_unicode(found):
            raise Unreadable(f"line {number} has half of a surrogate pair (\\ud800 to \\udfff), which is no text")
        yield found


def _is_unicode(found: dict[str, Any]) -> bool:
    """Whether all its texts can be written as UTF-8: JSON's escapes may name halves of pairs."""
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(uri: str, name: str, kinds: set[type]) -> pa.DataType:
    if kinds == {int, float}:
        return pa.float64()
    if len(kinds) > 1:
        raise Refused(f"--carry {name}: {uri} has values of several kinds in it ({', '.join(sorted(kind.__name__ for kind in kinds))})")
    return _KINDS[kinds.pop()] if kinds else pa.null()


def _array(values: list[Any], field: pa.Field) -> pa.Array:
    if pa.types.is_string(field.type):
        values = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    try:
        return pa.array(values, field.type)
    except (pa.ArrowException, OverflowError, TypeError) as error:
        raise Unreadable(f"its `{field.name}` has what is no {field.type}: {error}") from None
