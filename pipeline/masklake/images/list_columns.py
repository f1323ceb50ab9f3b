"""The columns of lists of images: which one names the images, and what the others tell of them.

A column with a usual name, or the one that is said, names the images; a relative name begins at the list's folder. A row with an `etag` is
believed, with its `size` and `modified`; the store is asked about any other image. Further columns can take the place of hive-style keys,
and so partition the table, or be carried into it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from masklake.errors import Refused
from masklake.images.formats import SUFFIXES
from masklake.images.keys import Asked
from masklake.images.locations import named_by
from masklake.images.pages import page
from masklake.images.source import Unreadable
from masklake.images.times import instants
from masklake.spelling import plural

URI_COLUMNS = (
    *("uri", "url", "path", "image", "image_uri", "image_url", "image_path", "file_name", "filename", "file", "file_path", "filepath"),
    *("s3_uri", "s3_url", "img", "src", "location"),
)
"""How the column that names the images is usually called, in upper or lower case; of several, the first of these."""

_ETAG, _SIZE, _MODIFIED = ("etag", "e_tag"), ("size",), ("modified", "last_modified", "lastmodified")


@dataclass(frozen=True)
class Columns:
    """The columns of a list that masklake itself understands."""

    uri: str
    etag: str | None = None
    size: str | None = None
    modified: str | None = None

    @property
    def names(self) -> list[str]:
        """Those that there are."""
        return [name for name in (self.uri, self.etag, self.size, self.modified) if name is not None]


def choose(schema: pa.Schema, said: str | None, uri: str, setting: str = "--input") -> Columns:
    """The columns of a list with this schema; `said` names the one with the images. Size and time count beside an etag only. Refusals name
    the `setting` that the list was given by.

    Raises:
        Refused: none of them names images.
    """
    name = _named(schema, said, uri, setting)
    etag = _usual(schema.names, _ETAG)
    if etag is None:
        return Columns(name)
    return Columns(name, etag, _usual(schema.names, _SIZE), _usual(schema.names, _MODIFIED))


def _named(schema: pa.Schema, said: str | None, uri: str, setting: str) -> str:
    listed = ", ".join(schema.names)
    if said is not None:
        if said not in schema.names:
            raise Refused(f"--uri-column {said}: {uri} has no such column; it has {listed}")
        if not _is_text(schema.field(said).type):
            raise Refused(f"--uri-column {said}: it is {schema.field(said).type} in {uri}, and should be text{_hint(schema.field(said))}")
        return said
    usual = [field for field in schema if field.name.lower() in URI_COLUMNS]
    name = _usual([field.name for field in usual if _is_text(field.type)], URI_COLUMNS)
    if name is None:
        hint = next((hint for field in usual if (hint := _hint(field))), "")
        cure = "say which by --uri-column" if setting == "--input" else "give it such a name"
        if any(name.lower().endswith(SUFFIXES) for name in schema.names):
            cure = f"that is an image, so give the list a first line with its columns' names, such as {URI_COLUMNS[0]}"
        raise Refused(
            f"{setting} {uri}: a list of images has a column of text that names them, such as {', '.join(URI_COLUMNS[:4])}; this one has "
            f"{listed}: {cure}{hint}"
        )
    return name


def _usual(names: Sequence[str], usual: Sequence[str]) -> str | None:
    """The first of some usual names that is there, in upper or lower case."""
    there = {name.lower(): name for name in reversed(names)}
    return next((there[name] for name in usual if name in there), None)


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)  # null: the values will tell
    return any(test(kind) for test in tests)


def _hint(field: pa.Field) -> str:
    bytes_there = pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)
    bytes_there = bytes_there or (pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0)
    return f"; or are these the images themselves? say --bytes-column {field.name}" if bytes_there else ""


def page_of_rows(uri: str, rows: pa.Table, columns: Columns, asked: Asked, path_keys: Mapping[str, str]) -> pa.Table:
    """A page from rows of a list at `uri`, with its own columns and nulls for what it does not say.

    Raises:
        Unreadable: a row names no image, or a value is none of its kind.
        Refused: a name carries a secret.
    """
    names = rows[columns.uri].cast(pa.string()).to_pylist()
    if unnamed := sum(not name for name in names):
        raise Unreadable(f"{plural(unnamed, 'of its rows has', 'of its rows have')} no `{columns.uri}`")
    folder = uri[: uri.rindex("/") + 1]
    for name, value in path_keys.items():
        if name not in rows.column_names:
            rows = rows.append_column(name, pa.repeat(pa.scalar(value), rows.num_rows))
    known = {
        "image_etag": None if columns.etag is None else _etags(rows[columns.etag]),
        "image_bytes": None if columns.size is None else _sizes(rows[columns.size], columns.size),
        "image_modified": None if columns.modified is None else instants(rows[columns.modified], columns.modified),
    }
    absolute = (name if "://" in name or name.startswith("/") else folder + name for name in names)
    return page(named_by(uri, absolute), image_keys=asked.tell(rows), **known)


def _etags(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Etags as a listing has them: without the quotes in which S3 hands them out; null where there is none."""
    plain = pc.utf8_trim(values.cast(pa.string()), '"')
    return pc.if_else(pc.equal(plain, ""), None, plain)


def _sizes(values: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    try:
        if _is_text(values.type):
            values = pc.if_else(pc.equal(values.cast(pa.string()), ""), None, values.cast(pa.string()))
        return values.cast(pa.int64())
    except pa.ArrowException as error:
        raise Unreadable(f"its column `{name}` has a value that is not a number of bytes: {error}") from None
