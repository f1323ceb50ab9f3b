"""Lists of images as plain text: a name a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import pyarrow as pa

from masklake import storage
from masklake.images.lines import lines, with_gzip
from masklake.images.lists import Lists

_COLUMN = "uri"


class TextLists(Lists):
    """Text that is named outright, or by a pattern: of a folder of texts, nobody knows that they are lists."""

    name = "text"
    suffixes = with_gzip(".txt", ".lst")
    in_folders = False

    def schema(self, uri: str, names: Sequence[str]) -> pa.Schema:
        """One column."""
        del uri, names
        return pa.schema([(_COLUMN, pa.string())])

    def rows(self, uri: str, columns: pa.Schema) -> Iterator[pa.Table]:
        """Lines without the spaces around them; those with nothing else are passed over."""
        names = (name for line in lines(uri) if (name := line.strip()))
        while part := list(islice(names, storage.PAGE)):
            yield pa.table([part], schema=columns)
