"""Images that somebody names, on a command line or in a list, and a table of these alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from masklake import storage
from masklake.errors import Refused
from masklake.images.sources import names_listed
from masklake.storage import StorageError
from masklake.table.read import MaskTable

_SHOWN = 20  # images that a sentence names

_Table = TypeVar("_Table", bound=MaskTable)


def named(uris: Sequence[str], file: str | None) -> list[str]:
    """Images by their URIs and those of a list, as a table names them, each once.

    Raises:
        Refused: the list cannot be read or is empty, or a name depends on the folder in which this program was started.
    """
    names = [*uris, *(_read(file) if file else ())]
    for name in names:
        if not (storage.is_uri(name) or name.startswith(("/", "~/"))):
            meant = storage.normalise(name)
            raise Refused(
                f"{name}: name images as the table's image_uri does, such as s3://lake/images/a.jpg; say {meant} if you mean that"
            )
    return list(dict.fromkeys(map(storage.image_name, names)))


def chosen(table: _Table, file: str | None, say: Callable[[str], None]) -> tuple[_Table, list[str]]:
    """The table of the images in a list, all of it without one, and those of which it has no row, which is said.

    Raises:
        Refused: as `named`; or it has rows of none of them.
    """
    if file is None:
        return table, []
    uris = named((), file)
    there = table.known(uris)
    unknown = [uri for uri in uris if uri not in there]
    if unknown:
        if not there:
            raise Refused(f"--uris {file}: {without_rows(unknown)}")
        say(f"--uris {file}: {without_rows(unknown)}")
    return table.of_images(uris), unknown


def without_rows(unknown: Sequence[str]) -> str:
    """A sentence that names images of which a table has no row."""
    more = f", and {len(unknown) - _SHOWN:,} more" if len(unknown) > _SHOWN else ""
    return f"the table has no row of {len(unknown):,} of the images: {', '.join(unknown[:_SHOWN])}{more}"


def _read(file: str) -> list[str]:
    """The images that a list names, in whatever format.

    Raises:
        Refused: it cannot be read as such, or names none.
    """
    try:
        names = list(names_listed(file, "--uris"))
    except StorageError as error:
        raise Refused(f"--uris {file}: cannot be read: {error}") from None
    if not names:
        raise Refused(f"--uris {file}: it names no image")
    return names
