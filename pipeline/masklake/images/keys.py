"""What a listing tells of images beside what they are: the hive-style keys of their paths, and columns of manifests and tables.

Keys are text, as in a path. Columns that are carried into the table keep their kind. On the way from the listing to the work list both are
JSON in one column, `image_keys`, so that pages are all alike: `{"keys": {"dt": "2026-11-22"}, "carried": {"licence": 3}}`, times in
microseconds and dates in days since 1970.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from masklake.errors import Refused
from masklake.images.pages import cast_values, path_of

CARRIED = "carried"
"""The column of the work list that holds what is carried: a struct, so that its names are free."""

_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_NOTHING = pa.schema([])


@dataclass(frozen=True)
class Carried:
    """The columns that go along into the table: those of the input's own schema, and keys of paths, which are text."""

    told: pa.Schema = _NOTHING
    from_paths: tuple[str, ...] = ()

    @property
    def schema(self) -> pa.Schema:
        """As the table has them."""
        return pa.schema([*self.told, *((name, pa.string()) for name in self.from_paths)])


NOT_CARRIED = Carried()


def choose_carried(names: Sequence[str], schema: pa.Schema, uri: str) -> Carried:
    """Which of these columns an input of this schema has; the others can only be keys of its paths.

    Raises:
        Refused: one of them holds what cannot be carried.
    """
    told = [schema.field(name) for name in names if name in schema.names]
    kinds = {field.name: kind_in_table(field.type) for field in told}
    for field in told:
        if kinds[field.name] is None:
            raise Refused(f"--carry {field.name}: it is {field.type} in {uri}: text, numbers, booleans, dates and times can be carried")
    return Carried(pa.schema([*kinds.items()]), tuple(name for name in names if name not in kinds))


def kind_in_table(kind: pa.DataType) -> pa.DataType | None:
    """The type under which values of this one are carried, which holds them all but for nanoseconds; None where there is none."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    kinds = {
        pa.string(): (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null),
        pa.bool_(): (pa.types.is_boolean,),
        pa.int64(): (pa.types.is_integer,),
        pa.float64(): (pa.types.is_floating,),
        pa.date32(): (pa.types.is_date,),
        pa.timestamp("us", tz="UTC"): (pa.types.is_timestamp,),
    }
    return next((wider for wider, tests in kinds.items() if any(test(kind) for test in tests)), None)


@dataclass(frozen=True)
class Asked:
    """The columns to look for in a manifest or a table: keys, and those to carry."""

    keys: tuple[str, ...] = ()
    carried: pa.Schema = _NOTHING

    def columns(self, schema: pa.Schema, uri: str) -> list[str]:
        """Those among them that a file has.

        Raises:
            Refused: one to carry is of another type than in the file that came first.
        """
        for field in self.carried:
            kind = schema.field(field.name).type if field.name in schema.names else pa.null()
            if not pa.types.is_null(kind) and kind_in_table(kind) != field.type:
                raise Refused(f"--carry {field.name}: it is {kind} in {uri}, and {field.type} in other files: make them alike")
        return [name for name in dict.fromkeys([*self.keys, *self.carried.names]) if name in schema.names]

    def tell(self, rows: pa.Table) -> list[str] | None:
        """The `image_keys` of rows with such columns; None where they have none of them.

        Raises:
            Refused: a value does not fit its type in the table.
        """
        keys = [name for name in self.keys if name in rows.column_names]
        fields = [field for field in self.carried if field.name in rows.column_names]
        if not keys and not fields:
            return None
        texts = _python({name: rows[name].cast(pa.string()) for name in keys}, rows.num_rows)
        values = _python({field.name: _plain(rows[field.name], field) for field in fields}, rows.num_rows)
        return [json.dumps({"keys": text, "carried": value}) for text, value in zip(texts, values, strict=True)]


NOT_ASKED = Asked()


def _python(columns: Mapping[str, pa.ChunkedArray], rows: int) -> list[dict[str, Any]]:
    return pa.table(dict(columns)).to_pylist() if columns else [{}] * rows


def _plain(values: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    """Values in the table's type, and as JSON can hold them."""
    try:
        cast = cast_values(values, field.type)
    except pa.ArrowInvalid as error:
        raise Refused(f"--carry {field.name}: a value is out of range: {error}") from None
    if pa.types.is_timestamp(field.type):
        return cast.cast(pa.int64())
    return cast.cast(pa.int32()) if pa.types.is_date(field.type) else cast


def with_keys(rows: pa.Table, names: Sequence[str]) -> pa.Table:
    """The rows with a column for each of these keys: as a manifest or table tells them, else the hive-style keys of the path."""
    if names:
        keys = _keys(rows)
        for name in names:
            rows = rows.append_column(name, pa.array([key.get(name) for key in keys], pa.string()))
    return rows


def with_each_key(pages: Iterable[pa.Table], names: Sequence[str], setting: str, uri: str) -> Iterator[pa.Table]:
    """The pages, in which at least one image must have each of these keys, if there is any image.

    Raises:
        Refused: none has one of them; the message says which there are.
    """
    unseen, known, images = set(names), set[str](), 0
    for page in pages:
        if unseen:
            keys = _keys(page)
            unseen -= {name for name in unseen if any(key.get(name) is not None for key in keys)}
            known.update(*keys)
        images += page.num_rows
        yield page
    if images and unseen:
        there = f"there are {', '.join(sorted(known))}" if known else "there are no such folders"
        absent = ", ".join(sorted(unseen))
        raise Refused(f"{setting} {absent}: {uri} has no such column, and no image has it in its path, as a key=value folder; {there}")


def _keys(rows: pa.Table) -> list[dict[str, str | None]]:
    """The keys of each image."""
    told = (found["keys"] for found in _told(rows))
    return [{**_folder_keys(folder), **more} for folder, more in zip(_folders(rows), told, strict=True)]


def with_carried(rows: pa.Table, carried: Carried) -> pa.Table:
    """The rows with the column `CARRIED`, if there is anything to carry."""
    if not len(carried.schema):
        return rows
    told = [found["carried"] for found in _told(rows)]
    arrays = [pa.array([values.get(field.name) for values in told], field.type) for field in carried.told]
    from_paths = with_keys(rows.select(["image_uri", "image_container", "image_keys"]), carried.from_paths)
    arrays += [from_paths[name].combine_chunks() for name in carried.from_paths]
    return rows.append_column(CARRIED, pa.StructArray.from_arrays(arrays, fields=list(carried.schema)))


def _told(rows: pa.Table) -> Iterator[dict[str, dict[str, Any]]]:
    nothing: dict[str, dict[str, Any]] = {"keys": {}, "carried": {}}
    return (nothing if text is None else json.loads(text) for text in rows["image_keys"].to_pylist())


def _folders(rows: pa.Table) -> Iterator[str]:
    """The folder of each image."""
    for uri, end in zip(rows["image_uri"].to_pylist(), rows["image_container"].to_pylist(), strict=True):
        yield path_of(uri, end).rpartition("/")[0] + "/"


@lru_cache(maxsize=1024)
def _folder_keys(folder: str) -> Mapping[str, str]:
    """An image's keys are those of its folder, which its neighbours share."""
    return hive_keys(folder)


def hive_keys(uri: str) -> dict[str, str]:
    """The `key=value` folders of a path, percent-decoded: `.../dt=2026-11-22/city=S%C3%A3o/a.jpg` has `dt` and `city`.

    Of a key that occurs twice the deepest counts; Hive's word for null leaves its key out.
    """
    folders = uri.split("/")[:-1]
    pairs = (folder.partition("=") for folder in folders)
    return {unquote(key): unquote(value) for key, equals, value in pairs if key and equals and value != _HIVE_NULL}
