"""Images inside tar files, as WebDataset and others keep them: found by reading headers, read by offset later.

An image's URI is the shard's, a slash, and the member's name: `s3://lake/shard-0001.tar/000123.jpg`. Its etag is the shard's, and so is the
time of its change: members' own times are often left out. Members that are not images by their names (labels, captions) are passed over.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from masklake import storage
from masklake.errors import ErrorCode, ImageFailure, Refused
from masklake.images.ahead import read_ahead
from masklake.images.formats import SUFFIXES
from masklake.images.indexes import Indexes
from masklake.images.listing import There
from masklake.images.pages import Place, is_hidden, page
from masklake.images.source import Input, Source
from masklake.storage import Span, StorageError, StoredFile

_NAME = "tar"
_SUFFIX = ".tar"
_COMPRESSED = tuple(f".{name}" for name in ("tar.gz", "tgz", "tar.bz2", "tbz2", "tar.xz", "txz", "tar.zst", "tzst", "tar.lz4"))
"""Names of what cannot be read by offset."""

_GAP = 512 * 1024  # bytes between two images that are read along, rather than asking twice
_LONGEST_READ = 8 * 1024 * 1024  # of several images together
_LONGEST_HEADER = 1024 * 1024  # of a name and what else is told of a member; it is untrusted, and read into memory
_BLOCK = 512
_COMPRESSIONS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")  # gzip, bzip2, xz, zstd, lz4
_MEMBERS = pa.schema(
    [
        ("name", pa.string()),
        ("start", pa.int64()),
        ("length", pa.int64()),
        ("error_code", pa.string()),
        ("error_message", pa.string()),
    ]
)


class Shards(Source):
    """Tar files, wherever they are listed."""

    name = _NAME
    opens = (_SUFFIX,)

    def claims(self, asked: Input, there: There) -> bool:
        """Never: a tar that is named outright is listed as any other object.

        Raises:
            Refused: the tar is compressed.
        """
        del there
        if asked.uri.endswith(_COMPRESSED):
            raise Refused(f"--input {asked.uri}: compressed tar files cannot be read by offset: store them as they are before compression")
        return False

    def open(self, file: StoredFile, asked: Input) -> Shard:
        """The images of a tar file."""
        return read_index(file, asked.indexes)

    def read(self, places: Sequence[Place], max_bytes: int | None) -> Iterator[bytes | ImageFailure]:
        """The bytes of some members."""
        return read_ahead(places, max_bytes, lambda some: read_members(some, max_bytes))

    def find(self, uri: str, indexes: Indexes | None) -> Place | None:
        """The place of a member."""
        return find(uri, indexes)


@dataclass(frozen=True)
class Shard:
    """The images of a tar file, as it was when its headers were read."""

    file: StoredFile
    members: pa.Table
    """`name, start, length` of each image; `error_code` and `error_message` of those that cannot be read."""
    failure: ImageFailure | None
    """Why the headers could not be read to the end."""

    def pages(self) -> Iterator[pa.Table]:
        """Its images in pages; what is wrong with the shard itself is one more row, under its own URI."""
        same = {
            "image_etag": pa.scalar(self.file.etag, pa.string()),
            "image_modified": pa.scalar(self.file.modified, pa.timestamp("us", tz="UTC")),
        }
        for first in range(0, self.members.num_rows, storage.PAGE):
            part = self.members.slice(first, storage.PAGE).combine_chunks()
            yield page(
                pc.binary_join_element_wise(self.file.uri, part["name"], "/"),
                image_bytes=part["length"],
                error_code=part["error_code"],
                error_message=part["error_message"],
                image_container=pa.scalar(len(self.file.uri)),
                image_start=part["start"],
                image_source=pa.scalar(_NAME),
                **same,
            )
        if self.failure is not None:
            code, message = str(self.failure.code), self.failure.message
            bad = {"image_bytes": [self.file.size], "error_code": [code], "error_message": [message]}
            yield page([self.file.uri], image_source=pa.scalar(_NAME), **bad, **same)


def read_index(file: StoredFile, indexes: Indexes | None = None) -> Shard:
    """Find the images of a tar file: reads as much of it as it takes to come from one header to the next, unless they are known."""
    (found,) = storage.stat_many([file.uri])
    if isinstance(found, ImageFailure):
        return Shard(file, _MEMBERS.empty_table(), found)
    known = indexes.load(found, _MEMBERS) if indexes else None
    if known is not None:
        return Shard(found, known, None)
    members: list[Mapping[str, Any]] = []
    try:
        with storage.open_file(file.uri) as source:
            failure = _read_headers(source, found.size or 0, members)
    except StorageError as error:
        failure = ImageFailure(error.code, str(error))
    shard = Shard(found, pa.Table.from_pylist(members, schema=_MEMBERS), failure)
    if indexes and not failure:
        indexes.save(found, shard.members)
    return shard


def read_members(places: Sequence[Place], max_bytes: int | None) -> list[bytes | ImageFailure]:
    """The bytes of some members, in order; neighbours are read together, each failure is a value."""
    contents: list[bytes | ImageFailure] = [b""] * len(places)
    wanted = []
    for index, place in enumerate(places):
        if max_bytes is not None and _end(place) - place.start > max_bytes:
            message = f"{_end(place) - place.start} bytes, more than the limit of {max_bytes}"
            contents[index] = ImageFailure(ErrorCode.TOO_LARGE, message)
        elif place.length:
            wanted.append(index)
    runs = list(_runs(places, wanted))
    for run, answer in zip(runs, storage.read_spans([_span(places, run) for run in runs]), strict=True):
        first = places[run[0]].start
        for index in run:
            place = places[index]
            contents[index] = answer if isinstance(answer, ImageFailure) else answer[place.start - first : _end(place) - first]
    return contents


def find(uri: str, indexes: Indexes | None = None) -> Place | None:
    """The place of an image by its URI; None where there is no such member of a tar file. Reads the shard's headers, unless known."""
    end = uri.find(f"{_SUFFIX}/")
    while end >= 0:
        container, name = uri[: end + len(_SUFFIX)], uri[end + len(_SUFFIX) + 1 :]
        if not storage.is_canonical(container):  # a name in a tar may hold `..`
            return None
        (file,) = storage.stat_many([container])
        if isinstance(file, StoredFile):
            shard = read_index(file, indexes)
            row = pc.index(shard.members["name"], name).as_py()
            found = shard.members.slice(row, 1).to_pylist() if row >= 0 else []
            return Place(uri, container, shard.file.etag, found[0]["start"], found[0]["length"]) if found else None
        end = uri.find(f"{_SUFFIX}/", end + 1)
    return None


def _runs(places: Sequence[Place], wanted: Sequence[int]) -> Iterator[list[int]]:
    """The wanted places, in runs that are worth one read each."""
    run: list[int] = []
    for index in sorted(wanted, key=lambda index: (places[index].container, places[index].start)):
        place = places[index]
        if run:
            span = _span(places, run)
            near = (place.container, place.etag) == (span.uri, span.etag) and place.start <= span.start + span.length + _GAP
            if not near or _end(place) - span.start > _LONGEST_READ:
                yield run
                run = []
        run.append(index)
    if run:
        yield run


def _span(places: Sequence[Place], run: Sequence[int]) -> Span:
    first = places[run[0]]
    return Span(first.container, first.start, max(_end(places[index]) for index in run) - first.start, first.etag)


def _end(place: Place) -> int:
    return place.start + (place.length or 0)


def _read_headers(source: BinaryIO, size: int, members: list[Mapping[str, Any]]) -> ImageFailure | None:
    """Add the images of a tar to `members`; returns why there may be more than could be found."""
    start = 0
    try:
        headers: Any = _Headers(source)
        with tarfile.TarFile(fileobj=headers, mode="r", encoding="utf-8", errors="backslashreplace") as tar:
            for member in tar:
                vars(tar)["members"] = []  # it would keep them all
                start = tar.offset
                if start <= member.offset:
                    return ImageFailure(ErrorCode.BROKEN, f"the tar header at byte {member.offset} leads backwards")
                name = member.name.removeprefix("./")
                if not member.isdir() and name.lower().endswith(SUFFIXES) and not is_hidden(name):
                    members.append(_described(name, member, size))
            start = tar.offset
    except StorageError:
        raise
    except Exception as error:  # what a header says is untrusted, and tarfile raises whatever comes
        return _damage(source, start, size, f"{error}")
    source.seek(start)
    block = source.read(_BLOCK)
    # An end without a mark is common; anything else there is no header, where tarfile just stops.
    return None if block == bytes(_BLOCK) or (not block and start <= size) else _damage(source, start, size, "no tar header")


def _described(name: str, member: tarfile.TarInfo, size: int) -> Mapping[str, Any]:
    start, length = member.offset_data, member.size
    code, message = None, None
    if member.islnk() or member.issym():
        code, message = ErrorCode.UNSUPPORTED, f"a link to {member.linkname} in the tar, not a file of its own"
    elif not member.isreg() or member.issparse():
        code, message = ErrorCode.UNSUPPORTED, "not a plain file in the tar"
    elif start + length > size:
        code, message, length = ErrorCode.TRUNCATED, "the tar ends before this image does", size - start
    return {"name": name, "start": start, "length": length, "error_code": code, "error_message": message}


def _damage(source: BinaryIO, start: int, size: int, reason: str) -> ImageFailure:
    """Why a tar cannot be read from byte `start` on."""
    if not size:
        return ImageFailure(ErrorCode.EMPTY, "the tar has no bytes")
    source.seek(0)
    if source.read(8).startswith(_COMPRESSIONS):
        return ImageFailure(ErrorCode.UNSUPPORTED, "a compressed tar cannot be read by offset: store it as it is before compression")
    if start + _BLOCK > size:
        return ImageFailure(ErrorCode.TRUNCATED, f"the tar ends at byte {size}, within a member: images behind it are not known")
    return ImageFailure(ErrorCode.BROKEN, f"the tar cannot be read at byte {start} ({reason}): images behind it are not known")


class _Headers:
    """A tar as `tarfile` may see it, which would believe any size that a header claims."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.tell, self.seek = source.tell, source.seek

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header claims {size} bytes")
        return self._source.read(size)
