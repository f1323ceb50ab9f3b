"""Which images a table has rows of, and the lake has no more."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from masklake import storage
from masklake.database import connect
from masklake.errors import ErrorCode, ImageFailure, Refused
from masklake.images.discover import discover
from masklake.images.pages import around
from masklake.images.source import Input
from masklake.images.sources.objects import Objects
from masklake.storage import StorageError, StoredFile
from masklake.table.append import Table

_MEMORY = "256MB"  # beyond it, DuckDB spills to disk
_ASKED_AT_ONCE = 1000


def missing_images(table: Table, folder: str) -> list[str]:
    """The images below a folder that have rows in the table and are not in the store any more, sorted.

    The table is read before the folder is listed, so that no image that arrives meanwhile is missed. What the listing lacks is asked for
    by name: only that of which the store says that it is not there is missing; what lies inside an object that is there, as a tar file's
    members do, is not judged.

    Raises:
        Refused: the input is not a folder, or holds no image at all, which a wrong URI would look like.
        StorageError: the listing failed, or the store did not say of an image whether it is there.
    """
    folder = _as_folder(folder)
    with tempfile.TemporaryDirectory(prefix="masklake-missing-") as scratch:
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": _MEMORY,
            "threads": 2,
            "temp_directory": str(Path(scratch, "spill")),
        }
        with connect(Path(scratch, "images.duckdb"), config=settings) as database:
            database.execute("SET enable_progress_bar = false")
            database.register("rows", table.images(folder))
            database.execute("CREATE TABLE known AS SELECT DISTINCT image_uri FROM rows")
            database.execute("CREATE TABLE listed (image_uri VARCHAR)")
            for page in discover(Input(folder), source=Objects()):
                database.register("page", page.select(["image_uri"]))
                database.execute("INSERT INTO listed FROM page")
            if database.execute("SELECT image_uri FROM listed LIMIT 1").fetchone() is None:
                raise Refused(f"--input {folder}: it holds no image: correct the URI, or name the images to erase one by one")
            query = "SELECT image_uri FROM known ANTI JOIN listed USING (image_uri) ORDER BY image_uri"
            unlisted = [uri for (uri,) in database.execute(query).fetchall()]
    absent = [uri for uri, found in _ask(unlisted) if isinstance(found, ImageFailure) and _is_absent(uri, found)]
    inside = {uri: [name for name in around(uri) if len(name) > len(folder)] for uri in absent}
    objects = {uri for uri, found in _ask(sorted({*chain.from_iterable(inside.values())})) if isinstance(found, StoredFile)}
    return [uri for uri in absent if objects.isdisjoint(inside[uri])]


def _ask(uris: Sequence[str]) -> Iterator[tuple[str, StoredFile | ImageFailure]]:
    """What the store says of each."""
    for first in range(0, len(uris), _ASKED_AT_ONCE):
        page = uris[first : first + _ASKED_AT_ONCE]
        yield from zip(page, storage.stat_many(page), strict=True)


def _is_absent(uri: str, failure: ImageFailure) -> bool:
    if failure.code != ErrorCode.NOT_FOUND:
        raise StorageError(uri, failure)
    return True


def _as_folder(uri: str) -> str:
    folder = storage.normalise(uri)
    single = None if folder.endswith("/") else storage.stat_many([folder])[0]
    if storage.is_glob(folder) or isinstance(single, StoredFile):
        raise Refused(f"--input {uri}: name a folder: what a pattern, a manifest or a file leaves out may still be in the lake")
    return folder.rstrip("/") + "/"
