"""From a URI to the store that holds it, and a call of the store as the verbs make it: retried, concurrent, its failures in one form."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

from fsspec import get_filesystem_class

from masklake.errors import ImageFailure, Refused
from masklake.storage.clouds import AzureStore, azure_account, check_keys, google_store
from masklake.storage.faults import StorageError, failure, with_retries
from masklake.storage.file_page import FilePage
from masklake.storage.places import place_of
from masklake.storage.stores import LocalStore, Store
from masklake.storage.uris import normalise
from masklake.storage.web import WebStore

CONCURRENCY = 32
"""Requests under way at once, of one process."""

_T = TypeVar("_T")
_Thing = TypeVar("_Thing")


def store_of(uri: str) -> Store:
    """The store that holds a URI in canonical form.

    Raises:
        Refused: there is no store by this scheme, its driver is not installed, or there are no keys for it.
    """
    scheme = uri.partition("://")[0]
    if scheme == "s3":
        from masklake.storage.s3 import s3_store  # botocore and aiohttp, which other stores do without

        return s3_store(place_of(uri))
    return _other_store(os.getpid(), scheme, azure_account(uri) if scheme == "abfs" else "", place_of(uri).anonymous)


@lru_cache
def _other_store(_process: int, scheme: str, account: str, anonymous: bool) -> Store:
    if scheme == "file":
        return LocalStore()
    if scheme in ("http", "https"):
        return WebStore()
    if scheme not in ("gs", "abfs"):
        raise Refused(f"no storage is known by {scheme}://: use s3://, gs://, abfs://, file:// or a local path, or http(s):// for a list")
    try:
        get_filesystem_class(scheme)
    except ImportError:
        extra = {"gs": "gcs", "abfs": "azure"}[scheme]
        raise Refused(f"{scheme}:// needs a package that is not installed: pip install 'masklake[{extra}]'") from None
    if not anonymous:
        check_keys(scheme)
    return google_store(anonymous) if scheme == "gs" else AzureStore(account, anonymous)


def pages(prefix: str) -> Iterator[FilePage]:
    """Every file whose URI, in canonical form, begins with a prefix, in pages; raises `StorageError`."""
    try:
        yield from store_of(prefix).pages(prefix)
    except Refused:
        raise
    except Exception as error:  # not only OSError: botocore has its own for a bucket's name that is none
        raise StorageError(prefix, failure(error)) from error


def one(uri: str, verb: Callable[[Store, str], _T]) -> _T:
    """What a verb on one object gives; raises `StorageError`."""
    name = normalise(uri)
    try:
        return with_retries(lambda: verb(store_of(name), name))
    except Refused:
        raise
    except Exception as error:
        raise StorageError(name, failure(error)) from error


def for_each(uris: Sequence[str], verb: Callable[[Store, str], _T]) -> list[_T | ImageFailure]:
    """What a verb gives on each object, in order; concurrent, each failure a value."""

    def call(uri: str) -> _T:
        name = normalise(uri)
        return verb(store_of(name), name)

    return each(uris, call)


def each(things: Sequence[_Thing], verb: Callable[[_Thing], _T]) -> list[_T | ImageFailure]:
    """The same of anything that a verb takes."""

    def attempt(thing: _Thing) -> _T | ImageFailure:
        try:
            return with_retries(lambda: verb(thing))
        except Exception as error:
            return failure(error)

    if len(things) <= 1:
        return [attempt(thing) for thing in things]
    return list(_threads(os.getpid()).map(attempt, things))


@lru_cache(maxsize=1)
def _threads(_process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="storage")
