"""Lists of images that somebody has made, whatever their format: which files there are, and what becomes of those that cannot be read.

Of a list's columns, see `list_columns`. The hive-style keys of the lists' own paths, below a folder or a pattern's beginning, are columns
as well. A list that is named outright must be readable; of several, one that is not is a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice

import pyarrow as pa

from masklake import storage
from masklake.errors import ErrorCode, ImageFailure, Refused
from masklake.images.keys import Asked, hive_keys
from masklake.images.list_columns import choose, page_of_rows
from masklake.images.listing import There, completed, listed
from masklake.images.locations import check_locations
from masklake.images.pages import page
from masklake.images.source import Input, Source, Unreadable
from masklake.storage import StorageError, StoredFile

_PAGES_LOOKED_AT = 20  # of a folder, to see whether it holds nothing but lists


class Lists(Source):
    """A kind of list: one file by its name, a pattern of such names, or a folder that holds nothing else."""

    suffixes: tuple[str, ...]
    """How names of such files end, in lower case."""
    in_folders = True
    """Whether a folder of such files is one, too."""

    def schema(self, uri: str, names: Sequence[str]) -> pa.Schema:
        """The columns of a file. Those of these names have their type; a type that only the values tell may be null in the others.

        Raises:
            Unreadable: it is not such a file.
        """
        raise NotImplementedError

    def rows(self, uri: str, columns: pa.Schema) -> Iterator[pa.Table]:
        """These columns of a file, in tables of at most `storage.PAGE` rows; in these types, where the file has none of its own.

        Raises:
            Unreadable: it is not such a file.
        """
        raise NotImplementedError

    def claims(self, asked: Input, there: There) -> bool:
        """A file of such a name, a pattern of such names, or a folder (or a pattern of folders) with nothing else in it."""
        if asked.bytes_column is not None:
            return False
        if there.file is not None or (storage.is_glob(asked.uri) and self._is_list(asked.uri)):
            return self._is_list(asked.uri)
        if not self.in_folders or not there.first or not all(self._is_list(file.uri) for file in there.first):
            return False
        return all(self._is_list(file.uri) for page in islice(listed(asked.uri), _PAGES_LOOKED_AT) for file in page.files())

    def _is_list(self, uri: str) -> bool:
        return uri.lower().endswith(self.suffixes)

    def files(self, uri: str) -> Iterator[list[StoredFile]]:
        """The lists that an input is, in pages.

        Raises:
            Refused: one of them is none.
        """
        for some in listed(uri):
            files = some.files()
            other = next((file.uri for file in files if not self._is_list(file.uri)), None)
            if other is not None:
                raise Refused(f"--input {uri}: it holds lists of images, and {other}, which is none: name the lists by a pattern")
            yield files

    def may_hold(self, asked: Input) -> str | None:
        """Its images may be anywhere."""
        del asked
        return None

    def columns(self, asked: Input, names: Sequence[str]) -> pa.Schema:
        """Those of the lists and the keys of their paths; as many lists are looked at as it takes to find each name, with its type."""
        found: dict[str, pa.Field] = {}
        for file in chain.from_iterable(self.files(asked.uri)):
            of_path = pa.schema([(name, pa.string()) for name in _path_keys(file.uri, asked.uri)])
            for field in chain(of_path, self._schema(file, asked, names)):
                if field.name in names and pa.types.is_null(found.get(field.name, pa.field("", pa.null())).type):
                    found[field.name] = field
            if all(name in found and not pa.types.is_null(found[name].type) for name in names):
                break
        return pa.schema(list(found.values()))

    def _schema(self, file: StoredFile, asked: Input, names: Sequence[str]) -> pa.Schema:
        """The columns of one of the lists; none where it cannot be read, and is not all that there is."""
        try:
            return self.schema(file.uri, names)
        except Unreadable as error:
            if file.uri == asked.uri:
                raise _refused(file.uri, error) from None
        except StorageError:
            if file.uri == asked.uri:
                raise
        return pa.schema([])

    def pages(self, asked: Input, columns: Asked) -> Iterator[pa.Table]:
        """What the lists name; what neither they nor the store know is null, or an error. One of several that cannot be read is a row."""
        for file in chain.from_iterable(self.files(asked.uri)):
            try:
                yield from map(completed, self._pages(file, asked, columns))
            except Unreadable as error:
                if file.uri == asked.uri:
                    raise _refused(file.uri, error) from None
                yield _failed(self.name, file, ImageFailure(ErrorCode.BROKEN, f"not a list of images that can be read: {error}"))
            except StorageError as error:
                if file.uri == asked.uri:
                    raise
                yield _failed(self.name, file, ImageFailure(error.code, str(error)))

    def names(self, uri: str, setting: str) -> Iterator[str]:
        """The names in a list, as it has them; rows without one are passed over.

        Raises:
            Refused: none of its columns names images; the message names the `setting` that the list was given by.
            Unreadable: it is not such a list.
        """
        column = choose(self.schema(uri, ()), None, uri, setting).uri
        for rows in self.rows(uri, pa.schema([(column, pa.string())])):
            yield from (name for name in rows[column].cast(pa.string()).to_pylist() if name)

    def _pages(self, file: StoredFile, asked: Input, columns: Asked) -> Iterator[pa.Table]:
        schema = self.schema(file.uri, ())
        chosen = choose(schema, asked.uri_column, file.uri)
        types = {field.name: field.type for field in columns.carried}  # of columns that have none of their own
        wanted = [schema.field(name) for name in dict.fromkeys([*chosen.names, *columns.columns(schema, file.uri)])]
        typed = [field.with_type(types.get(field.name, pa.string())) if pa.types.is_null(field.type) else field for field in wanted]
        for rows in self.rows(file.uri, pa.schema(typed)):
            named = page_of_rows(file.uri, rows, chosen, columns, _path_keys(file.uri, asked.uri))
            check_locations(named["image_uri"].to_pylist(), asked.uri, asked.allowed)
            yield named


def _path_keys(uri: str, root: str) -> dict[str, str]:
    """The hive-style keys of a list's own path, below the folder or what comes before a pattern; none of one that is named outright."""
    if uri == root:
        return {}
    fixed = storage.glob_root(root) if storage.is_glob(root) else root.rstrip("/") + "/"
    return hive_keys(uri[fixed.rindex("/") + 1 :])


def _refused(uri: str, error: Unreadable) -> Refused:
    return Refused(f"--input {uri}: not a list of images that can be read: {error}")


def _failed(name: str, file: StoredFile, failure: ImageFailure) -> pa.Table:
    """A list of several that cannot be read, as an image."""
    known = {"image_etag": [file.etag], "image_bytes": [file.size], "image_modified": [file.modified]}
    return page([file.uri], error_code=[str(failure.code)], error_message=[failure.message], image_source=pa.scalar(name), **known)
