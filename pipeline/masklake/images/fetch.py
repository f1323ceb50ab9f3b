"""Images to bytes, wherever they lie: objects, members of tar files, rows of tables. Many at once; each failure is a value."""

from __future__ import annotations

import pyarrow as pa

from masklake import storage
from masklake.errors import ImageFailure
from masklake.images.pages import MARK, Place
from masklake.images.sources import image_tables, shards
from masklake.images.sources.shards import Indexes


def fetch(images: pa.Table, max_bytes: int) -> list[bytes | ImageFailure]:
    """The bytes of each image, or why there are none; what failed before (when it was listed) is not asked for again.

    Args:
        images: `pages.PAGE_SCHEMA` without the keys, as planned.
        max_bytes: of a larger image nothing is read where its size is known before.
    """
    found: dict[int, bytes | ImageFailure] = {}
    uris: dict[int, str] = {}
    members: dict[int, Place] = {}
    rows: dict[int, Place] = {}
    for index, image in enumerate(images.to_pylist()):
        uri, end = image["image_uri"], image["image_container"]
        if image["error_code"]:
            found[index] = ImageFailure(image["error_code"], image["error_message"])
        elif end is None:
            uris[index] = uri
        elif uri[end:].startswith(MARK):
            rows[index] = Place(uri, uri[:end], image["image_etag"], image["image_start"])
        else:
            members[index] = Place(uri, uri[:end], image["image_etag"], image["image_start"], image["image_bytes"])
    found |= zip(uris, storage.read_many(list(uris.values()), max_bytes), strict=True)
    found |= zip(members, shards.read_members(list(members.values()), max_bytes), strict=True)
    found |= zip(rows, image_tables.read_rows(list(rows.values()), max_bytes), strict=True)
    return [found[index] for index in range(images.num_rows)]


def fetch_by_uri(uri: str, max_bytes: int | None = None, indexes: Indexes | None = None) -> bytes | ImageFailure:
    """The bytes of one image by what the table calls it; of a member of a tar file whose index is not kept, the headers are read first."""
    (content,) = storage.read_many([uri], max_bytes)
    if isinstance(content, ImageFailure) and (row := image_tables.find(uri)) is not None:
        (content,) = image_tables.read_rows([row], max_bytes)
    elif isinstance(content, ImageFailure) and (member := shards.find(uri, indexes)) is not None:
        (content,) = shards.read_members([member], max_bytes)
    return content
