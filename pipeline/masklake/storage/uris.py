"""URIs as identities: one canonical form for each object or file."""

from __future__ import annotations

import os
import re
from pathlib import Path

from masklake.errors import Refused

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_GLOB = re.compile(r"[*?\[]")
_S3_SCHEMES = ("s3", "s3a", "s3n")


def normalise(uri: str) -> str:
    """The canonical form of a URI or local path: `s3://bucket/key` or `file:///absolute/path`; a trailing slash stays as given.

    Nothing is percent-decoded: `%`, `#`, `?` and spaces are part of a name, as they are for S3.

    Raises:
        Refused: the URI carries a password; the message does not repeat it.
    """
    match = _SCHEME.match(uri)
    scheme = match.group(1).lower() if match else "file"
    rest = uri[match.end() :] if match else uri
    if scheme != "file" and _has_password(scheme, rest):
        raise Refused(
            f"{scheme}://...: a URI must not carry a password, it would be stored with every image: put credentials into the environment"
        )
    if scheme in _S3_SCHEMES:
        return f"s3://{rest}"
    if scheme != "file":
        return f"{scheme}://{rest}"
    path = os.path.abspath(rest if match else os.path.expanduser(rest))  # noqa: PTH100, PTH111 - Path would follow no symlink either, but drops slashes
    return f"file://{path.rstrip('/')}/" if uri.endswith("/") else f"file://{path}"


def is_uri(name: str) -> bool:
    """Whether a name says its scheme; any other is a local path."""
    return _SCHEME.match(name) is not None


def _has_password(scheme: str, rest: str) -> bool:
    """Whether what follows `://` begins with `user:password@`; a password may hold a slash, as AWS's secret keys do."""
    host = rest.partition("/")[0]
    if scheme in _S3_SCHEMES:
        return ":" in host and not host.startswith("arn:")  # no bucket has a colon; access points do
    user, at, address = host.rpartition("@")
    port = address.rpartition("]")[2].partition(":")[2]
    return ":" in user if at else not (port.isdigit() or port == "")


def is_glob(uri: str) -> bool:
    """Whether a URI is a pattern (has `*`, `?` or `[`) rather than a name."""
    return _GLOB.search(uri) is not None


def glob_root(pattern: str) -> str:
    """What comes before a pattern's first wildcard: a prefix of every URI that matches.

    Raises:
        Refused: the pattern is in the bucket's name.
    """
    uri = normalise(pattern)
    wildcard = _GLOB.search(uri)
    root = uri[: wildcard.start()] if wildcard else uri
    if root.count("/") < 3:
        raise Refused(f"{pattern}: the bucket cannot be a pattern; name one bucket")
    return root


def as_folder(uri: str) -> str:
    """The canonical form of a folder's URI: it ends in one slash."""
    return normalise(uri).rstrip("/") + "/"


def split_s3(uri: str) -> tuple[str, str]:
    """Bucket and key of an S3 URI; the key is empty for a bucket."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def local_path(uri: str) -> Path:
    """The path of a `file://` URI."""
    return Path(uri.removeprefix("file://"))
