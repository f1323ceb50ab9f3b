"""What a store tells of a file, and what is asked of one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

PAGE = 1000
"""Files in one page of a listing; also what S3 gives at most."""


@dataclass(frozen=True)
class StoredFile:
    """A file or object, without its bytes. `etag` changes whenever the content does; `modified` is in UTC, `size` in bytes."""

    uri: str
    etag: str | None
    size: int | None
    modified: datetime | None


@dataclass(frozen=True)
class Span:
    """`length` bytes of an object from byte `start` on: of the version with this etag, or of any where it is None."""

    uri: str
    start: int
    length: int
    etag: str | None = None


def cache_root() -> Path:
    """The folder of what is kept on this machine between runs: MASKLAKE_CACHE, else XDG_CACHE_HOME/masklake, else ~/.cache/masklake."""
    return Path(os.environ.get("MASKLAKE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "masklake")


def is_text(name: str) -> bool:
    """Whether a name is valid text: Python stands in for bytes of file names that are not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
