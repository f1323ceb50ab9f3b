"""Which files below a table's folder can be the table's. People put other tables, pictures and notes there as well."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from masklake.storage import StoredFile

FILE_NAME = re.compile(r"\.?part-(?P<run_id>[\w-]+?)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\.parquet(?:\.[0-9-]+\.partial)?", re.ASCII)
"""A data file of ours: which run wrote it. A local file system may keep, under a hidden name, a part of one whose writer was killed."""

_NOT_DATA = ("_delta_log/", "_masklake/")
_LOG = "/_delta_log/"


def writer_of(path: str) -> str | None:
    """The run or job that gave a file its name; None for another program's."""
    ours = FILE_NAME.fullmatch(path.rpartition("/")[2])
    return ours["run_id"] if ours else None


class OwnFiles:
    """The files of a listing without those of tables further down, which show by a log of their own, and without what is not data."""

    def __init__(self, table_uri: str, partition_by: Sequence[str]) -> None:
        self._root = table_uri + "/"
        self._starts = [f"{column}=" for column in partition_by]
        self._found: list[StoredFile] = []
        self._others = set[str]()

    def add(self, files: Iterable[StoredFile]) -> None:
        """Take in a part of the listing below the table's folder."""
        for file in files:
            path = self.path(file)
            if _LOG in path:
                self._others.add(path[: path.index(_LOG) + 1])
            elif not path.startswith(_NOT_DATA):
                self._found.append(file)

    def files(self) -> list[StoredFile]:
        """Those found, once the listing is complete."""
        return [file for file in self._found if not self._others or self._others.isdisjoint(_folders(self.path(file)))]

    def path(self, file: StoredFile) -> str:
        """Relative to the table, named as in the store."""
        return file.uri.removeprefix(self._root)

    def in_partition(self, file: StoredFile) -> bool:
        """Whether the file lies where this table's files are written: in a folder for each column of the partitioning, and no other."""
        *folders, _ = self.path(file).split("/")
        return len(folders) == len(self._starts) and all(map(str.startswith, folders, self._starts))

    def writer(self, file: StoredFile) -> str | None:
        """The run or job that gave the file its name; None for another program's."""
        return writer_of(file.uri)


def _folders(path: str) -> Iterable[str]:
    """Every folder that a file lies in, each with its slash."""
    return (path[: mark.end()] for mark in re.finditer("/", path))
