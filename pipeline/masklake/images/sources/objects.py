"""Images that are objects of their own: below a prefix, matching a pattern, or one by its name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from masklake import storage
from masklake.errors import ImageFailure
from masklake.images.ahead import read_ahead, with_lengths
from masklake.images.keys import Asked
from masklake.images.listing import There, listed
from masklake.images.pages import Place, page_of_files
from masklake.images.source import Input, Source


class Objects(Source):
    """Whatever no other kind claims."""

    name = "objects"

    def claims(self, asked: Input, there: There) -> bool:
        """Always: it is asked last."""
        del asked, there
        return True

    def pages(self, asked: Input, columns: Asked) -> Iterator[pa.Table]:
        """Every visible object."""
        del columns
        return (page_of_files(files) for files in listed(asked.uri, asked.tables) if len(files))

    def read(self, places: Sequence[Place], max_bytes: int | None) -> Iterator[bytes | ImageFailure]:
        """The objects' bytes, of the versions that were listed."""
        return read_ahead(
            with_lengths(places), max_bytes, lambda some: storage.read_versions([(place.uri, place.etag) for place in some], max_bytes)
        )
