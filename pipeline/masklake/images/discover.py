"""What images there are, as pages of identities: of whatever an input is, without reading an image.

Wherever an object is listed whose name says that it holds images (a tar file), it stands for them. Of a listing, folder markers are left
out, and so is everything with a name that begins with `_` or `.`, or lies in a folder of such a name: tables, checkpoints, and files still
being written. What is named outright (a single file, a manifest's entry) is taken as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial, reduce

import pyarrow as pa
import pyarrow.compute as pc

from masklake.images.keys import NOT_CARRIED, Asked, Carried, choose_carried, with_each_key
from masklake.images.opening import Opening, opened
from masklake.images.pages import path_of
from masklake.images.patterns import Patterns
from masklake.images.source import Input, Source
from masklake.images.sources import SOURCES, source_of
from masklake.images.tally import Tally
from masklake.storage import StoredFile


def discover(
    asked: Input, keys: Sequence[str] = (), carried: Carried = NOT_CARRIED, source: Source | None = None, tally: Tally | None = None
) -> Iterator[pa.Table]:
    """Every image of an input, in pages of `pages.PAGE_SCHEMA` with at most `storage.PAGE` rows.

    Args:
        asked: the input; what its patterns leave out, and what is known to have been modified before its `since`, is left out.
        keys: columns of a manifest or a table to tell as `image_keys`, where it has them.
        carried: what `carried_columns` said of the same input, to be told as well.
        source: its kind, where that is known.
        tally: counts what is listed, and what of it is left out.

    Raises:
        Refused: the input cannot be read as what it is said to be, or no image has a key that is to be carried.
        StorageError: the listing failed, after retries.
    """
    tally = Tally() if tally is None else tally
    columns = Asked((*keys, *carried.from_paths), carried.told)
    pages = (source or source_of(asked)).pages(asked, columns)
    new = _newer(_chosen_objects(pages, asked.patterns, tally), asked.since, tally)
    images = _chosen_images(_with_members(new, asked), asked.patterns, tally)
    yield from with_each_key((tally.count(page) for page in images if page.num_rows), carried.from_paths, "--carry", asked.uri)


def carried_columns(asked: Input, names: Sequence[str], source: Source | None = None) -> Carried:
    """The columns to carry, as the input tells them; the others can only be keys of its paths.

    Raises:
        Refused: the input cannot be read as what it is said to be, or such a column not be carried.
    """
    schema = (source or source_of(asked)).columns(asked, names) if names else pa.schema([])
    return choose_carried(names, schema, asked.uri)


def _chosen_objects(pages: Iterable[pa.Table], patterns: Patterns, tally: Tally) -> Iterator[pa.Table]:
    """The pages without the objects that patterns leave out; what an object holds is for `_chosen_images` to judge."""
    for page in pages:
        tally.listed += page.num_rows
        if not patterns:
            yield page
            continue
        holds = _held_by_any(page["image_uri"])
        plain = [source is None for source in page["image_source"].to_pylist()]
        yield _left(
            page,
            [
                not is_object or (not patterns.excludes(uri) if inside else patterns.keeps(uri))
                for uri, is_object, inside in zip(page["image_uri"].to_pylist(), plain, holds.to_pylist(), strict=True)
            ],
            tally,
        )


def _chosen_images(pages: Iterable[pa.Table], patterns: Patterns, tally: Tally) -> Iterator[pa.Table]:
    """The pages without the images inside of objects that patterns leave out. Of an object that cannot be read, its row stays."""
    for page in pages:
        if patterns:
            rows = zip(*(page[name].to_pylist() for name in ("image_uri", "image_container")), strict=True)
            yield _left(page, [end is None or patterns.keeps(path_of(uri, end)) for uri, end in rows], tally)
        else:
            yield page


def _left(page: pa.Table, stays: Sequence[bool], tally: Tally) -> pa.Table:
    kept = pa.array(stays, pa.bool_())
    tally.leave_out(page.filter(pc.invert(kept))["image_uri"])
    return page.filter(kept)


def _newer(pages: Iterable[pa.Table], since: datetime | None, tally: Tally) -> Iterator[pa.Table]:
    for page in pages:
        if since is None:
            yield page
        else:
            old = pc.fill_null(pc.less(page["image_modified"], pa.scalar(since, page["image_modified"].type)), False)
            tally.older += pc.sum(old).as_py() or 0
            yield page.filter(pc.invert(old))


def _held_by_any(uris: pa.ChunkedArray) -> pa.ChunkedArray:
    """Which objects hold images, by their names."""
    return reduce(pc.or_, (pc.ends_with(uris, suffix) for _, suffix in _holders()), pa.chunked_array([pa.repeat(False, len(uris))]))


def _holders() -> list[tuple[Source, str]]:
    return [(source, suffix) for source in SOURCES for suffix in source.opens]


def _with_members(pages: Iterable[pa.Table], asked: Input) -> Iterator[pa.Table]:
    """The pages, with the images of objects that hold some in place of these objects."""

    def parts() -> Iterator[pa.Table | Opening]:
        for page in pages:
            rest = page
            for source, suffix in _holders():
                holds = pc.and_(
                    pc.and_(pc.ends_with(rest["image_uri"], suffix), pc.is_null(rest["image_source"])), pc.is_null(rest["error_code"])
                )
                if not pc.any(holds).as_py():
                    continue
                for row in rest.filter(holds).to_pylist():
                    file = StoredFile(row["image_uri"], row["image_etag"], row["image_bytes"], row["image_modified"])
                    yield Opening(partial(source.open, file, asked), row["image_keys"])
                rest = rest.filter(pc.invert(holds))
            yield rest

    yield from opened(parts())
