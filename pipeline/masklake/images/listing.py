"""What is listed below an input: its visible files, as the kinds of input take them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property, reduce

import pyarrow as pa
import pyarrow.compute as pc

from masklake import storage
from masklake.errors import ErrorCode, ImageFailure
from masklake.images.pages import PAGE_SCHEMA, are_hidden, is_hidden, mention
from masklake.storage import FilePage, StorageError, StoredFile

_LOG = "/_delta_log/"
_DATA = ".parquet"


class There:
    """What is at a URI, looked at when it is asked for, and once."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    @cached_property
    def file(self) -> StoredFile | None:
        """The one file of this name, if it is one."""
        return None if storage.is_glob(self.uri) and not storage.exists(self.uri) else one_file(self.uri)

    @cached_property
    def first(self) -> list[StoredFile]:
        """Some of the visible files below it, or that match it, some where there is any."""
        try:
            return next((page.files() for page in listed(self.uri) if len(page)), [])
        except StorageError as error:
            if error.code == ErrorCode.NOT_FOUND:
                return []
            raise


class Tables:
    """The folders of Delta tables that a listing came past, each with its slash: what lies in them is none of the images.

    A store lists in no particular order, so some of a table's files may come before it is known for one. Data files wait for the end of
    the listing; what else somebody put into a table's folder, its reader must leave out then.
    """

    def __init__(self) -> None:
        self.found: set[str] = set()
        self.left_out = 0
        """Visible files that were left out already."""

    def note(self, page: FilePage, root: str) -> None:
        """Look at some files below a root, hidden ones among them. The root itself was asked for, whatever it is."""
        logs = page.uris.filter(pc.match_substring(page.uris, _LOG)).to_pylist() if mention(page.uris, _LOG) else []
        if logs or page.odd:
            self.note_names([*logs, *(file.uri for file in page.odd)], root)

    def note_names(self, uris: Iterable[str], root: str) -> None:
        """The same of files of which there is only the name."""
        self.found.update(uri[: uri.index(_LOG) + 1] for uri in uris if _LOG in uri)
        self.found.discard(root)

    def noting(self, pages: Iterable[FilePage], root: str) -> Iterator[FilePage]:
        """The pages as they are, looked at on their way."""
        for page in pages:
            self.note(page, root)
            yield page

    def without_theirs(self, pages: Iterable[FilePage]) -> Iterator[FilePage]:
        """The visible files of a listing, but for those that are known to be a table's; data files come last."""
        waiting = [storage.FILES.empty_table()]
        for page in pages:
            data = pc.ends_with(page.uris, _DATA)
            if pc.any(data).as_py():
                waiting.append(page.table.filter(data))
            yield self._outside(page.keeping(pc.invert(data), page.odd))
        rest = pa.concat_tables(waiting)
        for first in range(0, len(rest), storage.PAGE):
            yield self._outside(FilePage(rest.slice(first, storage.PAGE)))

    def _outside(self, page: FilePage) -> FilePage:
        if not self.found or not len(page):
            return page
        inside = reduce(pc.or_, (pc.starts_with(page.uris, folder) for folder in self.found))
        kept = page.keeping(pc.invert(inside), [file for file in page.odd if not any(map(file.uri.startswith, self.found))])
        self.left_out += len(page) - len(kept)
        return kept


def listed(uri: str, tables: Tables | None = None) -> Iterator[FilePage]:
    """The visible files below a prefix or matching a pattern, or the one file of this name.

    Args:
        uri: in canonical form.
        tables: told of the tables among what is listed, to leave out what lies in them.
    """
    if storage.absent(uri):
        return  # as in a store, where it would be a prefix without objects
    if storage.is_glob(uri) and not storage.exists(uri):  # a name may contain brackets, too
        root = storage.glob_root(uri).rpartition("/")[0] + "/"
        found = _visible(storage.glob_pages(uri, lambda page: tables.note(page, root) if tables else None), root)
    elif (single := one_file(uri)) is not None:
        found = iter([FilePage.of([single])])
    else:
        root = uri.rstrip("/") + "/"
        found = _visible(tables.noting(storage.list_pages(root), root) if tables else storage.list_pages(root), root)
    yield from tables.without_theirs(found) if tables else found


def one_file(uri: str) -> StoredFile | None:
    """The one file of this name, if it is one.

    Raises:
        StorageError: the store did not say.
    """
    (found,) = storage.stat_many([uri]) if not uri.endswith("/") else [None]
    if isinstance(found, ImageFailure):
        if found.code not in (ErrorCode.NOT_FOUND, ErrorCode.ACCESS_DENIED):
            raise StorageError(uri, found)
        return None
    return found


def _visible(pages: Iterable[FilePage], folder: str) -> Iterator[FilePage]:
    for page in pages:
        odd = [file for file in page.odd if not is_hidden(file.uri.removeprefix(folder))]
        yield page.keeping(pc.invert(are_hidden(page.uris, folder)), odd)


def completed(listed: pa.Table) -> pa.Table:
    """A page in which the store was asked about the rows that have no etag: what it does not know of is an error."""
    uris, etags = listed["image_uri"].to_pylist(), listed["image_etag"].to_pylist()
    unknown = [row for row, etag in enumerate(etags) if etag is None]
    if not unknown:
        return listed
    rows = listed.to_pylist()
    for row, found in zip(unknown, storage.stat_many([uris[row] for row in unknown]), strict=True):
        if isinstance(found, ImageFailure):
            rows[row] |= {"error_code": str(found.code), "error_message": found.message}
        else:
            rows[row] |= {"image_etag": found.etag, "image_bytes": found.size, "image_modified": found.modified}
    return pa.Table.from_pylist(rows, schema=PAGE_SCHEMA)
