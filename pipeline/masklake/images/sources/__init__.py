"""The kinds of input, one module each: see `masklake.images.source` for what a kind owes. This list is all that names them."""

from __future__ import annotations

from collections.abc import Iterator

from masklake import storage
from masklake.errors import Refused
from masklake.images.listing import There
from masklake.images.lists import Lists
from masklake.images.source import Input, Source, Unreadable
from masklake.images.sources.csv_lists import CsvLists
from masklake.images.sources.image_tables import ImageTables
from masklake.images.sources.inventories import Inventories
from masklake.images.sources.jsonl_lists import JsonlLists
from masklake.images.sources.manifests import Manifests
from masklake.images.sources.objects import Objects
from masklake.images.sources.shards import Shards
from masklake.images.sources.text_lists import TextLists

_OBJECTS = Objects()
SOURCES: tuple[Source, ...] = (
    *(Shards(), ImageTables(), Inventories()),
    *(Manifests(), CsvLists(), JsonlLists(), TextLists()),
    _OBJECTS,
)
"""In the order in which they are asked for what they claim; the last one claims everything."""

_DATA = (".json", ".xlsx", ".xls", ".ods", ".arrow", ".feather", ".orc", ".avro")  # lists of others, where the input is one such file


def source_of(asked: Input) -> Source:
    """The kind of an input.

    Raises:
        Refused: it is in a form that is not read, or said to be a list and none; a list in such a form is not taken for a broken image.
        StorageError: the store did not say what is there.
    """
    there = There(asked.uri)
    found = next(source for source in SOURCES if source.claims(asked, there))
    endings = ", ".join(suffix for source in SOURCES if isinstance(source, Lists) for suffix in source.suffixes)
    if asked.uri_column is not None and not isinstance(found, Lists):
        raise Refused(f"--uri-column {asked.uri_column}: {asked.uri} is not a list of images: a list is a file that ends in {endings}")
    if found is _OBJECTS and asked.uri.lower().endswith(_DATA) and there.file is not None:
        raise Refused(f"--input {asked.uri}: is no image by its name, and a list of images is a file that ends in {endings}")
    return found


def source_named(name: str | None) -> Source:
    """The kind that reads an image, by the `image_source` of its row."""
    return next(source for source in SOURCES if source.name == name) if name is not None else _OBJECTS


def names_listed(uri: str, setting: str) -> Iterator[str]:
    """The names in a list of images, as it has them; a file whose name ends as no list's does is text.

    Raises:
        Refused: none of its columns names images, or it is not what its name says; the message names the `setting`.
        StorageError: it could not be read, after retries.
    """
    uri = storage.normalise(uri)
    kinds = (source for source in SOURCES if isinstance(source, Lists) and uri.lower().endswith(source.suffixes))
    try:
        yield from next(kinds, TextLists()).names(uri, setting)
    except Unreadable as error:
        raise Refused(f"{setting} {uri}: not a list of images that can be read: {error}") from None
