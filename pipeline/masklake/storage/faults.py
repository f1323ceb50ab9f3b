"""What goes wrong in a store: which errors pass by themselves, and how each is told as a code and a sentence."""

from __future__ import annotations

import errno
import random
import re
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import botocore.exceptions as boto
from urllib3.exceptions import HTTPError as WebError

from masklake.errors import ErrorCode, ImageFailure, MasklakeError, Refused

ATTEMPTS = 6
BACKOFF_SECONDS = 0.2
"""Wait after the first failed attempt; doubles with each further one up to `LONGEST_BACKOFF_SECONDS`; half of it is random."""
LONGEST_BACKOFF_SECONDS = 10.0

_TRANSIENT_CODES = {
    "SlowDown",
    "RequestTimeout",
    "InternalError",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
}
_TRANSIENT_ERRORS = (
    *(boto.ConnectionError, boto.HTTPClientError, boto.IncompleteReadError, WebError),
    *(ConnectionError, TimeoutError),
)
_TRANSIENT_ELSEWHERE = (("aiohttp", "ClientError"), ("botocore.parsers", "ResponseParserError"))
_OF_WHAT_CAME = (("aiohttp.http_exceptions", "HttpProcessingError"),)
_TRANSIENT_ERRNOS = {errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH}
_ABSENT_ERRORS = (FileNotFoundError, IsADirectoryError, NotADirectoryError, boto.ParamValidationError, Refused, ValueError)
_ABSENT_ERRNOS = {errno.ENAMETOOLONG, errno.ELOOP}
# Answers about the keys, not about the object that was asked for.
_CREDENTIAL_CODES = {
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidClientTokenId",
}
_CREDENTIAL_ERRORS = (
    *(boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError, boto.TokenRetrievalError),
    *(boto.SSOTokenLoadError, boto.UnauthorizedSSOTokenError),
)
# Of Google's and Azure's libraries, which are here only with their extras.
_CREDENTIAL_NAMES = {"DefaultCredentialsError", "RefreshError", "ClientAuthenticationError", "CredentialUnavailableError"}
_LONGEST_DETAIL = 200
_DELTA_TROUBLE = re.compile(r"Generic (S3|GCS|MicrosoftAzure) error")  # of delta-rs: no answer, half a one, or a 5xx after its own retries
_DELTA_ARROW = re.compile("(?:\x1b\\[[0-9;]*m)?\N{DOWNWARDS ARROW WITH TIP RIGHTWARDS}(?:\x1b\\[[0-9;]*m)?")
_T = TypeVar("_T")


class StorageError(MasklakeError):
    """One object could not be read, written or listed, for the reason in `code`: `not_found` where it does not exist."""

    def __init__(self, uri: str, failure: ImageFailure) -> None:
        super().__init__(f"{uri}: {failure.message}")
        self.code = failure.code
        self._made_of = (uri, failure)

    def __reduce__(self) -> tuple[type[StorageError], tuple[str, ImageFailure]]:
        return type(self), self._made_of  # it travels from workers to the driver


class CredentialsError(MasklakeError):
    """The store does not take the keys (any more): what is wrong is no image's fault."""


class MissingKeysError(Refused, CredentialsError):
    """There are no keys for a store, as far as this machine tells."""


class StatusError(OSError):
    """The HTTP status that a server answered with, where it is no library's exception; 0 where something else is wrong."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type[StatusError], tuple[int, str]]:
        return type(self), (self.status, str(self))


class ChangedError(Exception):
    """An object is not the one that was listed any more."""

    def __init__(self) -> None:
        super().__init__("it has changed since it was listed")


class TooLargeError(Exception):
    """An object has more bytes than it may have; `size` is None where all that is known is that there are more."""

    def __init__(self, size: int | None, bound: int) -> None:
        super().__init__(f"more than the limit of {bound} bytes" if size is None else f"{size} bytes, more than the limit of {bound}")


def with_retries(call: Callable[[], _T], attempts: int = ATTEMPTS) -> _T:
    """Call until it succeeds; raises the error of the last attempt, or the first that would not pass by itself."""
    for attempt in range(attempts - 1):
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
        longest = min(LONGEST_BACKOFF_SECONDS, BACKOFF_SECONDS * 2**attempt)
        time.sleep(longest * random.uniform(0.5, 1.0))
    return call()


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    answer = service_error(error)
    status = _status(error)
    if answer is not None and error_code(answer) in _TRANSIENT_CODES:
        return True
    if status:
        return status in (408, 429) or (status >= 500 and status != 501)
    if isinstance(error, OSError) and _DELTA_TROUBLE.search(str(error)):
        return True
    return isinstance(error, (*_TRANSIENT_ERRORS, *_loaded(_TRANSIENT_ELSEWHERE))) or (
        isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNOS
    )


def _loaded(names: tuple[tuple[str, str], ...]) -> tuple[type[BaseException], ...]:
    """The classes of errors, given by module and name, whose module is loaded: nobody else can have raised them.

    To import aiohttp and botocore's parsers for these names alone would take a quarter of a second of every run without S3.
    """
    found = (getattr(sys.modules.get(module), name, None) for module, name in names)
    return tuple(each for each in found if each is not None)


def service_error(error: BaseException) -> boto.ClientError | None:
    """S3's own answer inside an error, which s3fs wraps into Python's exceptions."""
    for candidate in (error, error.__cause__):
        if isinstance(candidate, boto.ClientError):
            return candidate
    return None


def error_code(answer: boto.ClientError) -> str:
    """S3's code, such as `NoSuchKey`; the HTTP status where the answer had no body."""
    return str(answer.response.get("Error", {}).get("Code", ""))


def http_status(answer: boto.ClientError) -> int:
    """The HTTP status of S3's answer, 0 where it has none."""
    return int(answer.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _status(error: BaseException) -> int:
    """The HTTP status behind an error of whichever library: of botocore, aiohttp, azure, gcsfs, or our own; 0 where it tells none."""
    answer = service_error(error)
    if answer is not None:
        return http_status(answer)
    for candidate in (error, error.__cause__):
        if isinstance(candidate, _loaded(_OF_WHAT_CAME)):  # of what came, such as half a body: its 400 is aiohttp's own
            continue
        for name in ("status", "status_code", "code"):
            value = getattr(candidate, name, None)
            if isinstance(value, int) and 400 <= value < 600:
                return value
    return 0


def _is_about_credentials(error: BaseException) -> bool:
    """Whether it is one of those that Google's and Azure's libraries raise where the keys are missing, wrong or expired."""
    return any(type(each).__name__ in _CREDENTIAL_NAMES for each in (error, error.__cause__))


def failure(error: Exception) -> ImageFailure:
    """An error on one object as the value that takes its place.

    Raises:
        CredentialsError: the keys have expired or are wrong, so that every object would fail.
    """
    if isinstance(error, CredentialsError):
        raise error
    answer = service_error(error)
    if isinstance(error, _CREDENTIAL_ERRORS) or (answer and error_code(answer) in _CREDENTIAL_CODES) or _is_about_credentials(error):
        raise CredentialsError(
            f"the store no longer takes the credentials ({detail(error)}): renew them and run the same command to go on; "
            "what was committed stays"
        )
    if isinstance(error, TooLargeError):
        return ImageFailure(ErrorCode.TOO_LARGE, str(error))
    status = _status(error)  # also for codes that s3fs does not know
    if isinstance(error, (ChangedError, FileNotFoundError)) or status in (404, 410, 412, 416):  # 416: no such bytes, any more
        changed = isinstance(error, ChangedError) or status in (412, 416)
        return (
            ImageFailure(ErrorCode.CHANGED, str(ChangedError()))
            if changed
            else ImageFailure(ErrorCode.NOT_FOUND, "there is no such object")
        )
    if isinstance(error, _ABSENT_ERRORS) or (isinstance(error, OSError) and error.errno in _ABSENT_ERRNOS):
        return ImageFailure(ErrorCode.NOT_FOUND, f"not an object: {detail(error)}")
    if isinstance(error, PermissionError) or status in (401, 403):
        return ImageFailure(ErrorCode.ACCESS_DENIED, f"the store does not deliver it: {detail(error)}")
    if is_transient(error):
        return ImageFailure(ErrorCode.UNREACHABLE, f"no answer after {ATTEMPTS} attempts: {detail(error)}")
    return ImageFailure(ErrorCode.UNREACHABLE, f"the store failed: {detail(error)}")


def detail(error: BaseException) -> str:
    """An error in a line: S3's code and words, or Python's."""
    answer = service_error(error)
    if answer is not None:
        text = f"{error_code(answer)} {answer.response.get('Error', {}).get('Message', '')}"
    else:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    *_, cause = _DELTA_ARROW.split(text)  # delta-rs tells the way to a cause as well
    return " ".join(cause.split())[:_LONGEST_DETAIL]
