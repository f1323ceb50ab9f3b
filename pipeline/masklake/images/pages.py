"""Pages of images: what every source gives, and what the plan is made from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from masklake.errors import ErrorCode
from masklake.storage import FilePage

PAGE_SCHEMA = pa.schema(
    [
        pa.field("image_uri", pa.string(), nullable=False),
        pa.field("image_etag", pa.string()),
        pa.field("image_bytes", pa.int64()),
        pa.field("image_modified", pa.timestamp("us", tz="UTC")),
        pa.field("error_code", pa.string()),  # for an image that is known to be there, and known not to be readable
        pa.field("error_message", pa.string()),
        # Of an image that is not an object of its own: how many characters of its URI name the object that holds it, and its first byte
        # there, or its row. Its etag is that object's, its size its length.
        pa.field("image_container", pa.int32()),
        pa.field("image_start", pa.int64()),
        pa.field("image_source", pa.string()),  # the kind that reads it, see `source`; null for an object of its own
        pa.field("image_keys", pa.string()),  # JSON: what a manifest or a table tells beside, see `keys`
    ]
)
"""A page of discovered images: names as in the table, all null but the URI where nothing is known. Flat, because there are many."""


@dataclass(frozen=True)
class Place:
    """Where an image lies: in an object, from `start` on, which is its first byte there, or its row; or it is the object itself."""

    uri: str
    """The image's own."""
    container: str
    """The object's."""
    etag: str | None
    """The object's."""
    start: int = 0
    length: int | None = None
    """Bytes, where they are known before it is read."""


def place_of(image: Mapping[str, Any]) -> Place:
    """The place of a row of `PAGE_SCHEMA`."""
    uri, start = image["image_uri"], image["image_start"] or 0
    return Place(uri, uri[: image["image_container"]], image["image_etag"], start, image["image_bytes"])


def path_of(uri: str, container: int | None) -> str:
    """The path of an image: its URI, or the object's where what follows is not a path and may hold anything."""
    return uri if container is None or uri[container] == "/" else uri[:container]


def around(uri: str) -> list[str]:
    """The names that an object would have in which an image of this URI lies, shortest first."""
    first = uri.find("/", uri.find("://") + 3)
    return [uri[: mark.start()] for mark in re.finditer("[/#]", uri) if first < mark.start()]


def page(image_uri: Sequence[str] | pa.ChunkedArray, **columns: Sequence[Any] | pa.ChunkedArray | pa.Scalar | None) -> pa.Table:
    """A page from some of its columns; a scalar stands for all rows, and what is not given is null. Times without a zone are in UTC."""
    given = {"image_uri": image_uri, **columns}
    return pa.table([_column(given.get(field.name), field.type, len(image_uri)) for field in PAGE_SCHEMA], schema=PAGE_SCHEMA)


def _column(values: Any, kind: pa.DataType, rows: int) -> pa.Array | pa.ChunkedArray:
    if values is None:
        return pa.nulls(rows, kind)
    if isinstance(values, pa.Scalar):
        return pa.repeat(values.cast(kind), rows)
    return cast_values(values, kind) if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values, kind)


def cast_values(values: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    """Values as another type; times without a zone are in UTC."""
    if pa.types.is_timestamp(values.type) and values.type.tz is None:
        values = pc.assume_timezone(values, "UTC")
    return values.cast(kind, safe=not pa.types.is_timestamp(kind))  # times may be in nanoseconds


def page_of_files(files: FilePage) -> pa.Table:
    """A page of images that are objects of their own; one whose name is not UTF-8, as file systems allow, is an error."""
    told = files.table
    images = page(told["uri"], image_etag=told["etag"], image_bytes=told["size"], image_modified=told["modified"])
    if not files.odd:
        return images
    odd = page(
        [spelt(file.uri) for file in files.odd],
        image_etag=[file.etag for file in files.odd],
        image_bytes=[file.size for file in files.odd],
        image_modified=[file.modified for file in files.odd],
        error_code=pa.scalar(str(ErrorCode.UNSUPPORTED)),
        error_message=pa.scalar("its name is not UTF-8, and so cannot be stored in a table: rename it"),
    )
    return pa.concat_tables([images, odd])


def spelt(name: str) -> str:
    """A name as valid text, other bytes as `\\xe9`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_hidden(path: str) -> bool:
    """Whether a path below an input's folder is none of the images: hidden by its name or a folder's, or a folder marker."""
    return path.endswith(("/", "_$folder$")) or not path or path.startswith(("_", ".")) or "/_" in path or "/." in path


def are_hidden(uris: pa.ChunkedArray, folder: str) -> pa.ChunkedArray:
    """The same of many URIs below a folder."""
    if folder.endswith("/") and pc.all(pc.starts_with(uris, folder)).as_py() and not _may_be_hidden(uris):
        return pa.chunked_array([pa.repeat(False, len(uris))])
    paths = pc.if_else(pc.starts_with(uris, folder), pc.utf8_slice_codeunits(uris, len(folder)), uris)
    return pc.match_substring_regex(paths, r"^[_.]|/[_.]|/\z|_\$folder\$\z|^\z")


def _may_be_hidden(uris: pa.ChunkedArray) -> bool:
    """Whether any could be, looked at all together: of most lakes, no object is."""
    if pc.any(pc.or_(pc.ends_with(uris, "/"), pc.ends_with(uris, "_$folder$"))).as_py():
        return True
    for text in _bytes(uris):
        second = text[1:]
        if ((text[:-1] == ord("/")) & ((second == ord("_")) | (second == ord(".")))).any():
            return True
    return False


def mention(texts: pa.ChunkedArray, mark: str) -> bool:
    """Whether a mark may be in one of many texts; where it is in none, that is said several times as fast as by a look at each."""
    return any(mark.encode() in text.tobytes() for text in _bytes(texts))


def _bytes(texts: pa.ChunkedArray) -> Iterator[NDArray[np.uint8]]:
    """What the texts are in, one after the other; of a part of a column, the whole."""
    return (np.frombuffer(data, np.uint8) for chunk in texts.chunks if (data := chunk.buffers()[2]) is not None)
