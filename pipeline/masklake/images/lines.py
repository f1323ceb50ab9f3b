"""Text files in a store, line by line: UTF-8, with or without gzip, none of the lines longer than a bound."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from typing import BinaryIO, cast

from masklake import storage
from masklake.images.source import Unreadable

_GZIP = ".gz"
_LONGEST = 1 << 20  # bytes of a line: what is longer is not a list of images, and would be read into memory


def with_gzip(*suffixes: str) -> tuple[str, ...]:
    """These endings of names, and the same with gzip's."""
    return (*suffixes, *(suffix + _GZIP for suffix in suffixes))


def lines(uri: str) -> Iterator[str]:
    """The lines of a file, with what ends them.

    Raises:
        Unreadable: it is not such a file.
        StorageError: it could not be read, after retries.
    """
    number = 0
    with ExitStack() as opened:
        source = opened.enter_context(storage.open_file(uri))
        if uri.lower().endswith(_GZIP):
            source = cast("BinaryIO", opened.enter_context(gzip.open(source)))
        try:
            while line := source.readline(_LONGEST):
                number += 1
                if len(line) == _LONGEST:
                    raise Unreadable(f"line {number} is longer than {_LONGEST:,} bytes")
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise Unreadable(f"line {number} is not UTF-8: save it as that (a spreadsheet calls it 'CSV UTF-8')") from None
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise Unreadable(f"after line {number} the gzip data cannot be read: {error}") from None
