"""Local copies of folders."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from masklake.errors import ErrorCode, ImageFailure
from masklake.storage.calls import for_each, one, pages
from masklake.storage.faults import StorageError
from masklake.storage.files import StoredFile, cache_root
from masklake.storage.uris import as_folder


def download_folder(uri: str, into: Path) -> None:
    """Copy every file below a folder into a local folder, under the same relative names.

    Raises:
        StorageError: there is nothing there, or a file could not be read after retries.
    """
    folder = as_folder(uri)
    _download(folder, [file for page in pages(folder) for file in page.files()], into)


def cached_folder(uri: str, names: Sequence[str] | None = None) -> Path:
    """A local copy of a folder, or of the files `names` in it, made once for each content (names, etags, sizes), below `cache_root()`.

    Safe beside other processes that ask for the same folder.

    Raises:
        StorageError: as `download_folder`.
    """
    folder = as_folder(uri)
    if names is None:
        files = sorted((file for page in pages(folder) for file in page.files()), key=lambda file: file.uri)
    else:
        files = [
            _there(answer, folder) for answer in for_each([folder + name for name in sorted(names)], lambda store, name: store.stat(name))
        ]
    content = repr([(file.uri, file.etag, file.size) for file in files])
    target = cache_root() / "folders" / hashlib.sha256(content.encode()).hexdigest()[:32]
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="partial-") as partial:
            copy = Path(partial) / "copy"
            _download(folder, files, copy)
            with suppress(OSError):  # another process was faster: its copy is as good
                copy.rename(target)
    return target


def _there(answer: StoredFile | ImageFailure, folder: str) -> StoredFile:
    if isinstance(answer, ImageFailure):
        raise StorageError(folder, answer)
    return answer


def _download(folder: str, files: Sequence[StoredFile], into: Path) -> None:
    if not files:
        raise StorageError(folder, ImageFailure(ErrorCode.NOT_FOUND, "there is nothing in this folder"))
    into.mkdir(parents=True, exist_ok=True)
    for file in files:
        if file.uri.endswith("/"):
            continue  # a folder marker
        target = into / file.uri.removeprefix(folder)
        if not target.resolve().is_relative_to(into.resolve()):
            raise StorageError(file.uri, ImageFailure(ErrorCode.BROKEN, "its name leads out of the folder"))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(one(file.uri, lambda store, name: store.read(name, None)))
