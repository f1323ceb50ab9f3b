"""Images to bytes, wherever they lie: each kind reads its own. Many at once; each failure is a value."""

from __future__ import annotations

from collections import defaultdict

import pyarrow as pa

from masklake import storage
from masklake.errors import ImageFailure
from masklake.images.indexes import Indexes
from masklake.images.pages import Place, place_of
from masklake.images.sources import SOURCES, source_named


def fetch(images: pa.Table, max_bytes: int) -> list[bytes | ImageFailure]:
    """The bytes of each image, or why there are none; what failed before (when it was listed) is not asked for again.

    Args:
        images: `pages.PAGE_SCHEMA` without the keys, as planned.
        max_bytes: of a larger image nothing is read where its size is known before.
    """
    found: dict[int, bytes | ImageFailure] = {}
    places: dict[str | None, dict[int, Place]] = defaultdict(dict)
    for index, image in enumerate(images.to_pylist()):
        if image["error_code"]:
            found[index] = ImageFailure(image["error_code"], image["error_message"])
        else:
            places[image["image_source"]][index] = place_of(image)
    for name, of_kind in places.items():
        found |= zip(of_kind, source_named(name).read(list(of_kind.values()), max_bytes), strict=True)
    return [found[index] for index in range(images.num_rows)]


def fetch_by_uri(uri: str, max_bytes: int | None = None, indexes: Indexes | None = None) -> bytes | ImageFailure:
    """The bytes of one image by what the table calls it; of a member of a tar file whose index is not kept, the headers are read first."""
    (content,) = storage.read_many([uri], max_bytes)
    if not isinstance(content, ImageFailure):
        return content
    for source in SOURCES:
        place = source.find(uri, indexes)
        if place is not None:
            return source.read([place], max_bytes)[0]
    return content
