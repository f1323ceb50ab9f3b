"""The kinds of input, one module each: see `masklake.images.source` for what a kind owes. This list is all that names them."""

from __future__ import annotations

from masklake.images.source import Input, Source
from masklake.images.sources.image_tables import ImageTables
from masklake.images.sources.inventories import Inventories
from masklake.images.sources.manifests import Manifests
from masklake.images.sources.objects import Objects
from masklake.images.sources.shards import Shards

_OBJECTS = Objects()
SOURCES: tuple[Source, ...] = (Shards(), ImageTables(), Inventories(), Manifests(), _OBJECTS)
"""In the order in which they are asked for what they claim; the last one claims everything."""


def source_of(asked: Input) -> Source:
    """The kind of an input.

    Raises:
        Refused: it is in a form that is not read.
        StorageError: the store did not say what is there.
    """
    return next(source for source in SOURCES if source.claims(asked))


def source_named(name: str | None) -> Source:
    """The kind that reads an image, by the `image_source` of its row."""
    return next(source for source in SOURCES if source.name == name) if name is not None else _OBJECTS
