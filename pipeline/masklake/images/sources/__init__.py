"""The kinds of input, one module each: see `masklake.images.source` for what a kind owes. This list is all that names them."""

from __future__ import annotations

from masklake.errors import Refused
from masklake.images.listing import There
from masklake.images.lists import Lists
from masklake.images.source import Input, Source
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


def source_of(asked: Input) -> Source:
    """The kind of an input.

    Raises:
        Refused: it is in a form that is not read, or said to be a list and none.
        StorageError: the store did not say what is there.
    """
    there = There(asked.uri)
    found = next(source for source in SOURCES if source.claims(asked, there))
    if asked.uri_column is not None and not isinstance(found, Lists):
        endings = ", ".join(suffix for source in SOURCES if isinstance(source, Lists) for suffix in source.suffixes)
        raise Refused(f"--uri-column {asked.uri_column}: {asked.uri} is no list of images: a list is a file that ends in {endings}")
    return found


def source_named(name: str | None) -> Source:
    """The kind that reads an image, by the `image_source` of its row."""
    return next(source for source in SOURCES if source.name == name) if name is not None else _OBJECTS
