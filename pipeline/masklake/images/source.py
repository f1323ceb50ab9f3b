"""What a kind of input owes: the questions that everything else asks about it, so that nothing else needs to know which kinds there are.

A new kind is one module in `masklake.images.sources` with a class over `Source`, and one line in its `SOURCES`; the promises in
tests/unit/images/sources/test_promises.py hold for every one of them. Kinds are of two sorts, and a class may be both: what `--input` can
name (it claims), and what holds images inside an object wherever that is listed (it opens).

An image is an object of its own, or lies inside one. There its URI is the object's, then `/` and a path, of which the folders count for
hive-style keys, or `#` and whatever tells the images of that object apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import pyarrow as pa

from masklake import storage
from masklake.errors import ImageFailure
from masklake.images.indexes import Indexes
from masklake.images.keys import Asked
from masklake.images.listing import Tables, There
from masklake.images.pages import Place
from masklake.images.patterns import ALL, Patterns
from masklake.storage import StoredFile


class Unreadable(Exception):
    """A file is not what it is taken for, and why, without its name."""


@dataclass(frozen=True)
class Input:
    """An input as it is asked for: `uri` in canonical form, and the settings that say how to take it.

    Raises:
        Refused: the URI carries a password.
    """

    uri: str
    bytes_column: str | None = None
    """It is a table with the images' bytes in this column."""
    key_column: str | None = None
    """The column that names such a table's rows; None where they are numbered."""
    uri_column: str | None = None
    """It is a list of images, which this column names; None where the column has a usual name."""
    allowed: tuple[str, ...] = ()
    """Prefixes below which a list, an inventory or a Delta table may name what it holds, beside its own bucket or folder."""
    since: datetime | None = None
    """Objects that were modified before need not be opened; `discover` leaves them out in any case."""
    patterns: Patterns = ALL
    """Which images to take, by their names; `discover` leaves out the others."""
    indexes: Indexes | None = None
    """Where it is kept what is inside of objects."""
    tables: Tables = field(default_factory=Tables, compare=False, repr=False)
    """The tables that were found among what was listed: complete once the pages are, of which their files are still part."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "uri", storage.normalise(self.uri))


class Container(Protocol):
    """An object that holds images; its pages are made as they are asked for."""

    def pages(self) -> Iterator[pa.Table]:
        """Its images in pages of `pages.PAGE_SCHEMA`; where it cannot be read to its end, one more row under its own URI says why."""


class Source:
    """A kind of input. Each method says which question it answers; what a kind has no answer of its own to, it inherits."""

    name: str = ""
    """In the column `image_source` of what it holds: workers find it again by this name."""
    opens: tuple[str, ...] = ()
    """How names of objects end that hold images of this kind, wherever they are listed."""

    def claims(self, asked: Input, there: There) -> bool:
        """Whether the input is of this kind. Asked in the order of `SOURCES`, the first that says so has it.

        Raises:
            Refused: it is, and in a form that is not read.
        """
        del asked, there
        return False

    def fences(self, asked: Input) -> str:
        """What the input stands for when the inputs of two runs are compared: a folder, a pattern, or a name of its own.

        Raises:
            Refused: the input cannot be read.
        """
        return asked.uri

    def may_hold(self, asked: Input) -> str | None:
        """What the URIs of all its images begin with; None where they may be anywhere. Only such rows of the table are compared with it."""
        return (storage.glob_root(asked.uri) if storage.is_glob(asked.uri) else asked.uri).rstrip("/")

    def columns(self, asked: Input, names: Sequence[str]) -> pa.Schema:
        """Which of these columns it tells of its images, with their types as they are stored; keys of paths are none of them.

        Raises:
            Refused: it cannot be read.
        """
        del asked, names
        return pa.schema([])

    def pages(self, asked: Input, columns: Asked) -> Iterator[pa.Table]:
        """What it lists, in pages of `pages.PAGE_SCHEMA` with at most `storage.PAGE` rows; objects that another kind opens stay closed.

        Raises:
            Refused: it cannot be read as what it is said to be.
            StorageError: the listing failed, after retries.
        """
        raise NotImplementedError

    def open(self, file: StoredFile, asked: Input) -> Container:
        """The images of an object whose name ends as `opens` says."""
        raise NotImplementedError

    def read(self, places: Sequence[Place], max_bytes: int | None) -> Iterator[bytes | ImageFailure]:
        """The bytes of images of this kind, in order, each failure a value; many at once, but no more bytes of them than a bound."""
        raise NotImplementedError

    def find(self, uri: str, indexes: Indexes | None) -> Place | None:
        """The place of an image by its URI alone; None where it is none of this kind, or there is no such image."""
        del uri, indexes
        return None
