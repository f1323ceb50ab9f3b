"""The table's log as it lies in the store: one JSON file of actions per version.

Read from there, because delta-rs' `history` numbers entries from the version that the handle knows, not from the log's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from pipeline import storage
from pipeline.errors import ImageFailure, MasklakeError

EVENT = "masklake"
"""The key of our own record in a commit's metadata."""
PAGE = 500
"""Entries read at a time."""

Actions = Sequence[Mapping[str, Any]]


def entries(table_uri: str, versions: Sequence[int]) -> Iterator[tuple[int, Actions]]:
    """The actions of each version.

    Raises:
        MasklakeError: a version's entry is not there any more, or cannot be read after retries.
    """
    for first in range(0, len(versions), PAGE):
        page = versions[first : first + PAGE]
        uris = [f"{table_uri}/_delta_log/{version:020d}.json" for version in page]
        for version, content in zip(page, storage.read_many(uris), strict=True):
            if isinstance(content, ImageFailure):
                raise MasklakeError(f"the log of the table {table_uri} cannot be read at version {version}: {content.message}")
            yield version, [json.loads(line) for line in content.splitlines() if line.strip()]


def event(actions: Actions) -> dict[str, Any] | None:
    """Our own record of a commit, if it is one of ours."""
    return next((action["commitInfo"].get(EVENT) for action in actions if "commitInfo" in action), None)


def file_names(actions: Actions, kind: str) -> Iterator[str]:
    """The names, without their folders, of the files that a commit says `add` or `remove` of. Each name is one file's only."""
    for action in actions:
        if kind in action:
            yield unquote(action[kind]["path"]).rpartition("/")[2]
