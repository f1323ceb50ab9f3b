"""What `--truth` names: a file or a folder, looked at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, TypeVar

from masklake import storage
from masklake.errors import Refused
from masklake.storage import StoredFile

PICTURE = re.compile(r"\.(png|bmp|gif|tiff?)$", re.IGNORECASE)  # formats without loss, as labels need
IMAGE = re.compile(r"\.(jpe?g|jpe|jfif|png|webp|tiff?|bmp|gif|avif|jp2|ppm|pgm|tga)$", re.IGNORECASE)

_T = TypeVar("_T")


class Place:
    """A file, or a folder, whose `uri` ends in a slash; `setting` is what the user named it by."""

    def __init__(self, uri: str, setting: str) -> None:
        """Look whether it is there.

        Raises:
            Refused: it is not, or may not be read.
        """
        storage.check_input(uri, setting)
        name = storage.normalise(uri)
        single = None if name.endswith("/") else storage.stat_many([name])[0]
        self.setting = setting
        self.is_folder = not isinstance(single, StoredFile)
        self.uri = name.rstrip("/") + "/" if self.is_folder else name
        self._made: dict[str, Any] = {}

    def once(self, name: str, make: Callable[[], _T]) -> _T:
        """What `make` gives, made once and kept under a name: a large JSON is looked at by several formats."""
        if name not in self._made:
            self._made[name] = make()
        found: _T = self._made[name]
        return found

    def refused(self, reason: str) -> Refused:
        """The refusal of this truth, to be raised."""
        return Refused(f"{self.setting} {self.uri}: {reason}")

    @property
    def folder(self) -> str:
        """The folder itself, or the one that the file is in; ends in a slash."""
        return self.uri if self.is_folder else self.uri.rpartition("/")[0] + "/"

    def names(self, below: str = "") -> list[str]:
        """The names directly in the folder, or in one below it; those of folders end in a slash."""
        return names_in(self.folder + below)

    def above(self, levels: int) -> Iterator[str]:
        """The folder and those that it is in, as far as so many levels up, but no bucket's or disk's root."""
        folder = self.folder
        for _ in range(levels + 1):
            if folder.rstrip("/").count("/") <= 2:
                return
            yield folder
            folder = folder.rstrip("/").rpartition("/")[0] + "/"

    @cached_property
    def files(self) -> tuple[str, ...]:
        """The names of all files below the folder, sorted; hidden ones (a name that begins with a dot) left out."""
        return tuple(files_below(self.folder))

    @property
    def pictures(self) -> tuple[str, ...]:
        """Of `files`, those that may be label maps."""
        return tuple(name for name in self.files if PICTURE.search(name))


def names_in(folder: str) -> list[str]:
    """The names directly in a folder; none where there is no such folder."""
    return storage.list_names(folder)


def files_below(folder: str) -> list[str]:
    """The names of all files below a folder, sorted; hidden ones (a name that begins with a dot) left out.

    Raises:
        Refused: it cannot be listed.
    """
    try:
        found = [file.uri[len(folder) :] for page in storage.list_files(folder) for file in page]
    except storage.StorageError as error:
        raise Refused(str(error)) from None
    return sorted(name for name in found if name and not name.endswith("/") and not re.search(r"(^|/)\.", name))


def images_below(uri: str, setting: str) -> list[str]:
    """The URIs of all images below a folder, by their names' endings, sorted.

    Raises:
        Refused: it is not there, cannot be listed, or holds none.
    """
    storage.check_input(uri, setting)
    folder = storage.normalise(uri).rstrip("/") + "/"
    found = [folder + name for name in files_below(folder) if IMAGE.search(name)]
    if not found:
        raise Refused(f"{setting} {uri}: there is no image below it")
    return found
