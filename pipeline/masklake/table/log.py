"""The table's log as it lies in the store: one JSON file of actions per version.

Read from there, because delta-rs' `history` numbers entries from the version that the handle knows, not from the log's.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote

import pyarrow.compute as pc
import pyarrow.parquet as pq

from masklake import storage
from masklake.errors import ErrorCode, ImageFailure, MasklakeError
from masklake.storage import StorageError, StoredFile
from masklake.table.own_files import writer_of

EVENT = "masklake"
"""The key of our own record in a commit's metadata."""
PAGE = 500
"""Entries read at a time."""

_ENTRY = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint(?:\.\d{10}\.\d{10}|\.[0-9a-f-]{36})?\.parquet")

Actions = Sequence[Mapping[str, Any]]


def entries(table_uri: str, versions: Sequence[int]) -> Iterator[tuple[int, Actions]]:
    """The actions of each version.

    Raises:
        MasklakeError: a version's entry is not there any more, or cannot be read after retries.
    """
    for first in range(0, len(versions), PAGE):
        page = versions[first : first + PAGE]
        uris = [f"{table_uri}/_delta_log/{version:020d}.json" for version in page]
        for version, uri, content in zip(page, uris, storage.read_many(uris), strict=True):
            if isinstance(content, ImageFailure):
                raise MasklakeError(f"the log of the table {table_uri} cannot be read at version {version}: {content.message}")
            yield version, _actions(uri, content)


def digest(table_uri: str, version: int) -> str | None:
    """What tells the entry of a version from that of any other table or time; None where there is no such entry.

    Raises:
        StorageError: the store did not say, after retries.
    """
    uri = f"{table_uri}/_delta_log/{version:020d}.json"
    (content,) = storage.read_many([uri])
    if not isinstance(content, ImageFailure):
        return digest_of(_actions(uri, content))
    if content.code == ErrorCode.NOT_FOUND:
        return None
    raise StorageError(uri, content)


def digest_of(actions: Actions) -> str:
    """The same of an entry that has been read."""
    return hashlib.sha256(json.dumps(actions).encode()).hexdigest()


def event(actions: Actions) -> dict[str, Any] | None:
    """Our own record of a commit, if it is one of ours."""
    return next((action["commitInfo"].get(EVENT) for action in actions if "commitInfo" in action), None)


def file_names(actions: Actions, kind: str) -> Iterator[str]:
    """The names, without their folders, of the files that a commit says `add` or `remove` of. Each name is one file's only."""
    for action in actions:
        if kind in action:
            yield unquote(action[kind]["path"]).rpartition("/")[2]


def file_paths(table_uri: str, actions: Actions, kind: str) -> Iterator[str]:
    """The same with their folders, relative to the table."""
    return (_relative(table_uri, action[kind]["path"]) for action in actions if kind in action)


@dataclass(frozen=True)
class Listed:
    """What there is of a log: when each version that has an entry was committed, by the store's clock; the oldest checkpoint's files."""

    entries: Mapping[int, datetime | None]
    checkpoint: Sequence[str]


def listed(table_uri: str) -> Listed:
    """Look what there is of the log."""
    files = [file for page in storage.list_files(f"{table_uri}/_delta_log/") for file in page]
    checkpoints = _versions(files, _CHECKPOINT)
    oldest = min((version for version, _ in checkpoints), default=-1)
    return Listed(
        {version: file.modified for version, file in _versions(files, _ENTRY)},
        [file.uri for version, file in checkpoints if version == oldest],
    )


def removed_and_runs(table_uri: str, found: Listed) -> tuple[set[str], set[str]]:
    """The paths, relative to the table, of every file that the log still says was removed from it, and the runs that it still knows.

    Where Delta has dropped the first entries, the oldest checkpoint says which files were part of the table by then, and, for a while,
    which had been. Later checkpoints say nothing that the entries do not.

    Raises:
        MasklakeError: a part of the log cannot be read.
    """
    removed, runs = set[str](), set[str | None]()
    if min(found.entries, default=0) > 0:
        for kind, path in (told for uri in found.checkpoint for told in _checkpointed(uri)):
            runs.add(writer_of(path))
            removed |= {_relative(table_uri, path)} if kind == "remove" else set()
    for _, actions in entries(table_uri, sorted(found.entries)):
        removed.update(file_paths(table_uri, actions, "remove"))
        runs.update(writer_of(name) for kind in ("add", "remove") for name in file_names(actions, kind))
        runs.add((event(actions) or {}).get("run_id"))
    return removed, {run for run in runs if run}


def _actions(uri: str, content: bytes) -> Actions:
    try:
        return [json.loads(line) for line in content.splitlines() if line.strip()]
    except ValueError:
        raise MasklakeError(f"{uri}: this entry of the table's log is damaged: restore it from a copy") from None


def _versions(files: Sequence[StoredFile], names: re.Pattern[str]) -> list[tuple[int, StoredFile]]:
    found = [(names.fullmatch(file.uri.rpartition("/")[2]), file) for file in files]
    return [(int(match[1]), file) for match, file in found if match]


def _checkpointed(uri: str) -> Iterator[tuple[str, str]]:
    """The paths of the files that a checkpoint says were added (`add`), or removed not long ago (`remove`)."""
    with storage.open_file(uri) as source:
        parquet = pq.ParquetFile(source)
        for batch in parquet.iter_batches(columns=["add.path", "remove.path"]):
            for kind in batch.schema.names:
                yield from ((kind, path) for path in pc.struct_field(batch[kind], "path").drop_null().to_pylist())


def _relative(table_uri: str, path: str) -> str:
    """A path of the log as the store names it; the log may have it whole, as a URI."""
    return unquote(path).removeprefix(table_uri + "/")
