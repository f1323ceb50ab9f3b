"""A table of which something cannot be read: which file it is, and what to do, in a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from masklake import storage
from masklake.errors import ErrorCode, MasklakeError, first_line
from masklake.storage import StorageError
from masklake.storage.faults import with_retries

_CURE = "restore it from a copy or the bucket's older version, or give another table"


def open_delta(uri: str) -> DeltaTable:
    """The Delta table at a URI in canonical form.

    Raises:
        TableNotFoundError: there is none.
        MasklakeError: its log cannot be read.
    """
    try:
        return with_retries(lambda: DeltaTable(storage.delta_uri(uri), storage_options=storage.delta_options(uri)))
    except TableNotFoundError:
        raise
    except (DeltaError, OSError, ValueError) as error:
        raise MasklakeError(f"the log of the table {uri}/_delta_log cannot be read: {first_line(error)}: {_CURE}") from None


@contextmanager
def named(uri: str, delta: DeltaTable) -> Iterator[None]:
    """Say of an error in reading a table's files which of them is damaged, or gone; any other error stays as it is.

    Raises:
        MasklakeError: a file is.
    """
    try:
        yield
    except (DeltaError, duckdb.Error, pa.ArrowException, OSError) as error:
        found = _damaged(uri, delta)
        if found is None:
            raise
        raise unreadable(*found) from error


def unreadable(uri: str, error: Exception) -> MasklakeError:
    """A sentence on a file of a table that cannot be read."""
    if isinstance(error, StorageError) and error.code is ErrorCode.NOT_FOUND:
        return MasklakeError(f"{uri}: this file of the table is gone: run the command again if a vacuum took it meanwhile, else {_CURE}")
    return MasklakeError(f"{uri}: this file of the table cannot be read: {first_line(error).removeprefix(f'{uri}: ')}: {_CURE}")


def _damaged(uri: str, delta: DeltaTable) -> tuple[str, Exception] | None:
    """The first of a table's files that cannot be read, and why; footers first, since they tell most damage soon."""
    paths = [unquote(path) for path in delta.get_add_actions(flatten=True).column("path").to_pylist()]
    uris = [path if "://" in path else f"{uri}/{path}" for path in paths]
    for whole in (False, True):
        for file in uris:
            try:
                with storage.open_file(file) as source:
                    parquet = pq.ParquetFile(source)
                    for _ in parquet.iter_batches(64) if whole else ():
                        pass
            except (pa.ArrowException, OSError, StorageError) as error:
                return file, error
    return None
