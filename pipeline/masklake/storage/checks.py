"""Before any work: can this place be read or written, and if not, whose mistake is it and what cures it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import botocore.exceptions as boto

from masklake.errors import Refused
from masklake.storage.clouds import KEYS
from masklake.storage.connections import connection
from masklake.storage.faults import detail, error_code, is_transient, service_error, with_retries
from masklake.storage.places import place_of
from masklake.storage.uris import normalise, split_s3

CHECK_SECONDS = 9.0
_ATTEMPTS = 2
_NO_BUCKET = "there is no bucket {bucket} at {endpoint}: create it, or correct the name"
_WRONG_SECRET = "{endpoint} says that the secret key is wrong: correct AWS_SECRET_ACCESS_KEY"  # noqa: S105 - a message
_DENIED = "{endpoint} denies access to bucket {bucket} with these credentials ({detail}): give them the right to {verb}, or use others"
_OTHER_REGION = "bucket {bucket} is in another region ({detail}): set AWS_REGION to it"
_OLD_TOKEN = "{endpoint} says that the session token is expired or invalid: renew AWS_SESSION_TOKEN, or unset it"  # noqa: S105 - a message
_CURES = {
    "NoSuchBucket": _NO_BUCKET,
    "404": _NO_BUCKET,
    "InvalidBucketName": "{bucket} is not a bucket's name ({detail}): correct it",
    "InvalidAccessKeyId": "{endpoint} does not know the access key: correct AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": _WRONG_SECRET,
    "ExpiredToken": _OLD_TOKEN,
    "InvalidToken": _OLD_TOKEN,
    "AccessDenied": _DENIED,
    "403": _DENIED,
    "PermanentRedirect": _OTHER_REGION,
    "301": _OTHER_REGION,
    "AuthorizationHeaderMalformed": _OTHER_REGION,
    "IllegalLocationConstraintException": _OTHER_REGION,
}
_NO_CREDENTIALS = "there are no credentials for {endpoint}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_UNTRUSTED = (
    "{endpoint} shows a certificate that is not trusted here ({detail}): "
    "name the file of its authority in AWS_CA_BUNDLE, or as ca_bundle in the AWS profile"
)
_UNREACHABLE = "{endpoint} does not answer ({detail}): correct AWS_ENDPOINT_URL, or check the network"


def refuse_unless(setting: str, uri: str, verb: str, probe: Callable[[], Any]) -> None:
    """Run a probe of the store, for `CHECK_SECONDS` at most.

    Raises:
        Refused: it failed; the message names the setting, what is wrong, and the cure.
    """
    try:
        uri.encode()
    except UnicodeEncodeError:
        raise Refused(f"{setting}: the name is not UTF-8: rename it") from None
    try:
        normalise(uri)
    except Refused as refused:
        raise Refused(f"{setting} {refused}") from None
    outcome: list[Exception | None] = []

    def run() -> None:
        try:
            with_retries(probe, _ATTEMPTS)
        except Exception as error:
            outcome.append(error)
        else:
            outcome.append(None)

    # A thread of its own: name resolution, and the search for credentials, cannot be interrupted. It does not keep the program from ending.
    thread = threading.Thread(target=run, daemon=True, name="check")
    thread.start()
    thread.join(CHECK_SECONDS)
    error = outcome[0] if outcome else TimeoutError(f"nothing came within {CHECK_SECONDS:g} s")
    if isinstance(error, Refused):
        raise Refused(f"{setting} {error}" if str(error).startswith(uri) else f"{setting} {uri}: {error}")
    if error is not None:
        raise Refused(f"{setting} {uri}: {_in_words(uri, verb, error)}") from None


def _in_words(uri: str, verb: str, error: Exception) -> str:
    """What is wrong, and the cure."""
    answer = service_error(error)
    if not uri.startswith(("s3://", "s3a://", "s3n://")) or (answer is None and isinstance(error, FileNotFoundError)):
        return _file_in_words(uri, verb, error)
    bucket = split_s3(uri)[0]
    facts = {"bucket": bucket, "endpoint": connection(place_of(uri)).shown, "detail": detail(error), "verb": verb}
    if answer is not None and error_code(answer) in _CURES:
        return _CURES[error_code(answer)].format(**facts)
    causes = (
        (isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError)), _NO_CREDENTIALS),
        (isinstance(error, boto.ParamValidationError), _CURES["InvalidBucketName"]),
        (isinstance(error, boto.SSLError) or "certificate" in str(error), _UNTRUSTED),  # delta-rs has no exception of its own for it
        (is_transient(error) or isinstance(error, ValueError), _UNREACHABLE),  # ValueError: the endpoint is not a URL
    )
    cure = next((sentence for applies, sentence in causes if applies), "{endpoint} answered: {detail}")
    return cure.format(**facts)


def _file_in_words(uri: str, verb: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file or folder: correct the path"
    if isinstance(error, NotADirectoryError):
        return "a file is in the way where a folder is needed: choose another path"
    if isinstance(error, PermissionError):
        return f"this user may not {verb} there ({detail(error)}): change the permissions, or choose another path"
    if "connection_string or account_name" in str(error):  # adlfs
        return f"there are no credentials: set {KEYS['abfs']}"
    scheme = normalise(uri).partition("://")[0]
    if scheme in KEYS:
        return f"cannot {verb} there: {detail(error)}: check the name and the network, and set {KEYS[scheme]}"
    return f"cannot {verb} there: {detail(error)}"
