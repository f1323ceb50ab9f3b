"""S3 and what speaks its protocol. One client per process and environment; s3fs brings the event loop that it lives in."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import pyarrow as pa
import pyarrow.compute as pc
import s3fs
from fsspec.asyn import sync

from masklake.storage.answers import listed, session_for_listing
from masklake.storage.connections import Connection, connection, environment
from masklake.storage.faults import ChangedError, TooLargeError, with_retries
from masklake.storage.file_page import FILES, FilePage
from masklake.storage.files import PAGE, Span, StoredFile
from masklake.storage.places import Place
from masklake.storage.ranged import RangedFile
from masklake.storage.stores import Store
from masklake.storage.uris import as_folder, split_s3

_CONNECT_SECONDS, _READ_SECONDS = 5, 30
_CONNECTIONS = 64
_OPEN_BLOCK_BYTES = 1024 * 1024
_PART_BYTES, _MOST_PARTS = 32 * 1024 * 1024, 10_000  # of a file that is uploaded in parts
_LISTERS = 16
_PAID = {"list_objects_v2", "head_object", "get_object"}  # what takes RequestPayer of the methods that are called here
_ENOUGH = 128  # prefixes to list: with as many, no more are split into their folders
_SPENT = 128  # requests that may bring less than a page, besides an eighth of all, for the sake of listing in parallel
_SAMPLED_FOLDERS, _SPARSE_FOLDER = 8, 60  # folders with fewer objects are listed faster by one long listing than by one request each


_NONE = FilePage.of([])


@dataclass(frozen=True)
class _Cursor:
    """How far the listing of a prefix has come. Of `folders`, those directly below are listed each on its own, and so in parallel; `all` is
    one long listing; and what is `open` begins as one, which for a small prefix is all that it takes."""

    prefix: str
    mode: Literal["open", "all", "folders"] = "open"
    token: str | None = None


class S3Store(Store):
    """The verbs on S3; URIs are `s3://bucket/key`. Errors are Python's, as s3fs translates them, caused by botocore's."""

    def __init__(self, way: Connection) -> None:
        self._payer = {"RequestPayer": "requester"} if way.place.requester_pays else {}
        # Optional checksums of newer botocores are unknown to many servers that speak S3; TCP and ETags guard what travels here.
        checksums = (
            {} if way.endpoint is None else dict.fromkeys(("request_checksum_calculation", "response_checksum_validation"), "when_required")
        )
        self.fs = s3fs.S3FileSystem(
            anon=way.place.anonymous,
            session=session_for_listing(way.place.profile),
            endpoint_url=way.endpoint,
            client_kwargs={"region_name": way.region, "verify": way.ca_bundle},
            config_kwargs={
                "connect_timeout": _CONNECT_SECONDS,
                "read_timeout": _READ_SECONDS,
                "max_pool_connections": _CONNECTIONS,
                "retries": {"total_max_attempts": 1},
                "user_agent": "masklake",  # botocore makes its own anew for each request, out of a dozen parts
                "s3": {"addressing_style": "virtual"} if way.virtual else {},
                **checksums,
            },
            use_listings_cache=False,
            skip_instance_cache=True,
        )
        self.fs.retries = 1  # `with_retries` is the only one that tries again: it knows more errors, and waits longer

    def pages(self, prefix: str) -> Iterator[FilePage]:
        bucket, key = split_s3(prefix)
        # Depth first: pending prefixes stay few, however many there are in all.
        pending, running = [_Cursor(key)], dict[Future[Any], _Cursor]()
        answers = listed_files = 0
        pool = ThreadPoolExecutor(_LISTERS, thread_name_prefix="list")
        try:
            while pending or running:
                while pending and len(running) < _LISTERS:
                    cursor = pending.pop()
                    running[pool.submit(self._page, bucket, cursor)] = cursor
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    busy, spent = len(pending) + len(running), answers - listed_files // PAGE
                    fewest = _LISTERS if spent < _SPENT + answers // 8 else 0
                    page, following = self._next(bucket, running.pop(done), done.result(), busy, fewest)
                    answers, listed_files = answers + 1, listed_files + len(page)
                    pending.extend(following)
                    if len(page):
                        yield page
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _page(self, bucket: str, cursor: _Cursor) -> dict[str, Any]:
        place = {"Delimiter": "/"} if cursor.mode == "folders" else {}
        if cursor.token:
            place["ContinuationToken"] = cursor.token
        return with_retries(lambda: self._call("list_objects_v2", Bucket=bucket, Prefix=cursor.prefix, MaxKeys=PAGE, **place))

    def _next(self, bucket: str, cursor: _Cursor, answer: dict[str, Any], busy: int, fewest: int) -> tuple[FilePage, list[_Cursor]]:
        """The files of a page, and where the listing goes on. `busy` prefixes are being listed, or wait for it; with fewer than `fewest`,
        small folders are split as well."""
        found = listed(answer)
        rest = [replace(cursor, token=answer["NextContinuationToken"])] if answer.get("IsTruncated") else []
        begun = bool(rest) and cursor.token is None
        if cursor.mode == "folders":
            folders = [folder["Prefix"] for folder in answer.get("CommonPrefixes", ())]
            if begun and folders and self._are_sparse(bucket, folders[:: -(-len(folders) // _SAMPLED_FOLDERS)]):
                return _NONE, [_Cursor(cursor.prefix, "all")]  # from the start again, so this page's files are not lost
            return _files(bucket, found), rest + [_Cursor(folder) for folder in reversed(folders)]
        if begun and cursor.mode == "open":
            names = (key.removeprefix(cursor.prefix).partition("/") for key in found["key"].to_pylist())
            seen = len({name for name, slash, _ in names if slash})
            # Folders that fill pages cost nothing to list on their own; smaller ones are split only to have work for all.
            if seen and len(found) >= _SPARSE_FOLDER * seen and busy < (_ENOUGH if seen == 1 else fewest):
                return _NONE, [_Cursor(cursor.prefix, "folders")]
        return _files(bucket, found), rest

    def _are_sparse(self, bucket: str, folders: list[str]) -> bool:
        counts = [len(listed(self._page(bucket, _Cursor(folder)))) for folder in folders]
        return sum(counts) < _SPARSE_FOLDER * len(counts)

    def names(self, folder: str) -> Iterator[str]:
        bucket, prefix = split_s3(folder)
        cursor: _Cursor | None = _Cursor(prefix, "folders")
        while cursor is not None:
            page = self._page(bucket, cursor)
            found = [folder["Prefix"] for folder in page.get("CommonPrefixes", ())] + listed(page)["key"].to_pylist()
            yield from (name.removeprefix(prefix) for name in found if name != prefix)
            cursor = replace(cursor, token=page["NextContinuationToken"]) if page.get("IsTruncated") else None

    def stat(self, uri: str) -> StoredFile:
        bucket, key = split_s3(uri)
        found = self._call("head_object", Bucket=bucket, Key=key)
        return StoredFile(uri, found.get("ETag", "").strip('"') or None, found["ContentLength"], found["LastModified"])

    def read(self, uri: str, max_bytes: int | None, etag: str | None = None) -> bytes:
        def judge(answer: dict[str, Any]) -> None:
            if etag is not None and answer.get("ETag", "").strip('"') != etag:
                raise ChangedError
            if max_bytes is not None and answer["ContentLength"] > max_bytes:
                raise TooLargeError(answer["ContentLength"], max_bytes)

        return cast("bytes", sync(self.fs.loop, self._get, uri, judge))

    def read_span(self, span: Span) -> bytes:
        def judge(answer: dict[str, Any]) -> None:
            if span.etag is not None and answer.get("ETag", "").strip('"') != span.etag:
                raise ChangedError
            if answer["ContentLength"] != span.length:  # its end came too early; some servers ignore ranges
                raise ConnectionError(f"{answer['ContentLength']} bytes offered instead of {span.length}")

        bounds = f"bytes={span.start}-{span.start + span.length - 1}"
        return cast("bytes", sync(self.fs.loop, self._get, span.uri, judge, Range=bounds))

    async def _get(self, uri: str, judge: Callable[[dict[str, Any]], None], **arguments: Any) -> bytes:
        # s3fs would ask for the size first: two requests for one small image.
        bucket, key = split_s3(uri)
        answer = await self.fs._call_s3("get_object", Bucket=bucket, Key=key, **arguments, **self._payer)
        body, size = answer["Body"], answer["ContentLength"]
        try:
            judge(answer)
            data: bytes = await body.read()
        finally:
            body.close()  # what was not read is not transferred
        if len(data) != size:
            raise ConnectionError(f"{len(data)} of {size} bytes arrived")
        return data

    def write(self, uri: str, data: bytes) -> None:
        self.fs.pipe_file(uri, data)

    def upload(self, path: Path, uri: str) -> None:
        size = path.stat().st_size
        if size <= _PART_BYTES:
            with_retries(lambda: self.write(uri, path.read_bytes()))
            return
        bucket, key = split_s3(uri)
        target = {"Bucket": bucket, "Key": key}
        target["UploadId"] = with_retries(lambda: self._call("create_multipart_upload", **target))["UploadId"]
        try:
            parts = self._upload_parts(path, max(_PART_BYTES, -(-size // _MOST_PARTS)), target)
            with_retries(lambda: self._call("complete_multipart_upload", **target, MultipartUpload={"Parts": parts}))
        except BaseException:
            with suppress(Exception):  # the store keeps parts, and charges for them, until they are given up
                self._call("abort_multipart_upload", **target)
            raise

    def _upload_parts(self, path: Path, part_bytes: int, target: dict[str, str]) -> list[dict[str, Any]]:
        parts = []
        with path.open("rb") as file:
            for number, data in enumerate(iter(lambda: file.read(part_bytes), b""), 1):
                answer = with_retries(functools.partial(self._call, "upload_part", **target, PartNumber=number, Body=data))
                parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        return parts

    def delete(self, uri: str) -> None:
        bucket, key = split_s3(uri)
        self._call("delete_object", Bucket=bucket, Key=key)

    def open(self, uri: str) -> BinaryIO:
        # s3fs's own file would not try again, and would mix the bytes of two versions.
        found = self.stat(uri)

        def read(start: int, length: int) -> bytes:
            return with_retries(lambda: self.read_span(Span(uri, start, length, found.etag)))

        return cast("BinaryIO", io.BufferedReader(RangedFile(uri, read, found.size or 0), _OPEN_BLOCK_BYTES))

    def check_readable(self, uri: str) -> None:
        bucket, key = split_s3(uri)
        self._call("list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1)

    def check_writable(self, uri: str) -> None:
        self.check_readable(uri)
        probe = f"{as_folder(uri)}_masklake/write-check-{os.getpid()}"
        self.write(probe, b"")
        self.delete(probe)

    def _call(self, method: str, **arguments: Any) -> dict[str, Any]:
        payer = self._payer if method in _PAID else {}
        return cast("dict[str, Any]", self.fs.call_s3(method, **arguments, **payer))


def _files(bucket: str, found: pa.Table) -> FilePage:
    uris = pc.binary_join_element_wise(f"s3://{bucket}/", found["key"], "")
    return FilePage(pa.table([uris, *found.columns[1:]], schema=FILES))


def s3_store(place: Place) -> S3Store:
    """The store of a place, for the environment as it is now."""
    return _store_of(os.getpid(), environment(), place)


@functools.lru_cache(maxsize=8)
def _store_of(_process: int, _environment: tuple[str | None, ...], place: Place) -> S3Store:
    # A forked child must not share its parent's event loop, nor changed credentials an older client.
    return S3Store(connection(place))
