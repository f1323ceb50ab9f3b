"""A Delta table as an input: the files of its newest version."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import unquote

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from masklake import storage
from masklake.errors import ImageFailure, Refused
from masklake.images.listing import one_file
from masklake.images.locations import check_locations, named_by
from masklake.storage import StoredFile

_UNKNOWN_TO_US = {"deletionVectors", "columnMapping"}  # features that change what a file's rows mean


def table_at(uri: str) -> DeltaTable | None:
    """The Delta table of this name; None where it is a pattern, a file or another folder.

    Raises:
        Refused: it cannot be opened.
    """
    if storage.is_glob(uri) or one_file(uri) is not None:
        return None
    try:
        return DeltaTable(storage.delta_uri(uri), storage_options=storage.delta_options(uri))
    except TableNotFoundError:
        return None
    except (DeltaError, OSError) as error:
        raise Refused(f"--input {uri}: the Delta table cannot be opened: {error}") from None


def paths_at(uri: str) -> list[str] | None:
    """The files of a Delta table, relative to it or as URIs; None where there is no such table.

    Raises:
        Refused: it has rows or columns that only a full reader of Delta would understand.
    """
    table = table_at(uri)
    if table is None:
        return None
    unknown = _UNKNOWN_TO_US.intersection(table.protocol().reader_features or ())
    if unknown:
        raise Refused(f"--input {uri}: the Delta table uses {', '.join(sorted(unknown))}, which is not read here: rewrite it without")
    return [unquote(path) for path in table.get_add_actions(flatten=True).column("path").to_pylist()]


def files_at(uri: str, allowed: Sequence[str] = ()) -> Iterator[list[StoredFile]] | None:
    """The same as the store knows them, in pages; one that is not there has no etag.

    Raises:
        Refused: also where one lies outside the table's bucket, or a local table's folder, and not below one of the `allowed` prefixes.
    """
    paths = paths_at(uri)
    if paths is None:
        return None
    uris = named_by(uri, (path if "://" in path else f"{uri.rstrip('/')}/{path}" for path in paths))
    check_locations(uris, f"{uri.rstrip('/')}/", allowed)
    return _stored(uris)


def _stored(uris: list[str]) -> Iterator[list[StoredFile]]:
    for first in range(0, len(uris), storage.PAGE):
        part = uris[first : first + storage.PAGE]
        found = storage.stat_many(part)
        yield [StoredFile(uri, None, None, None) if isinstance(file, ImageFailure) else file for uri, file in zip(part, found, strict=True)]
