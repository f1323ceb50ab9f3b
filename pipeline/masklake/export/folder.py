"""The folder of an export: nothing of somebody else's is replaced, and what is incomplete does not look complete.

An export is complete where `_export.json` is, which is written last. Every file appears whole or not at all; the JSON files come after
the pictures that they name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from masklake import storage
from masklake.errors import Refused
from masklake.export.formats import FORMATS

DONE = "_export.json"

_COMPLETE = (DONE, *(name for each in FORMATS for name in each.complete))  # without these, nothing looks complete
_CUT_OFF = r"(?:.+/)?\.[^/]+\.partial"  # of a write to local files
_OURS = re.compile("|".join([*map(re.escape, _COMPLETE), *(each.files for each in FORMATS if each.files), _CUT_OFF]), re.DOTALL)


def check(folder: str, overwrite: bool) -> None:
    """See that an export may be written to `folder`, which ends in a slash.

    Raises:
        Refused: there are files, and they may not be replaced, or are none of an export.
    """
    for uri in _files(folder):
        if not overwrite:
            raise Refused(f"--output {folder}: is not empty: give an empty folder, or --overwrite to replace an earlier export")
        if not _OURS.fullmatch(uri.removeprefix(folder)):
            raise Refused(f"--output {folder}: holds {uri}, which no export wrote: give another folder")


def clear(folder: str) -> None:
    """Delete an earlier export, first of all what makes it look complete."""
    storage.delete_files([folder + name for name in _COMPLETE])
    ours = (uri for uri in _files(folder) if _OURS.fullmatch(uri.removeprefix(folder)))
    while some := list(islice(ours, storage.PAGE)):
        storage.delete_files(some)


def finish(folder: str, summary: Mapping[str, Any]) -> None:
    """Say that the export is complete."""
    storage.write_bytes(folder + DONE, json.dumps(summary, indent=2).encode())


def _files(folder: str) -> Iterator[str]:
    if storage.exists(folder):
        for page in storage.list_files(folder):
            yield from (file.uri for file in page if not file.uri.endswith("/"))  # a marker of a folder is nothing
