"""URIs as identities: one canonical form for each object or file."""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path

from fsspec.utils import glob_translate

from masklake.errors import Refused

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_GLOB = re.compile(r"[*?\[]|\{[^{}]*,[^{}]*\}")
_SIGNED = re.compile(
    r"[?&](x-amz-(signature|security-token)|x-goog-signature|signature|awsaccesskeyid|sig|token|access_token)=", re.IGNORECASE
)
_MOST_ALTERNATIVES = 1000
_S3_SCHEMES = ("s3", "s3a", "s3n")
_ONE_SCHEME = {**dict.fromkeys(_S3_SCHEMES, "s3"), **dict.fromkeys(("az", "abfs", "abfss"), "abfs"), "gcs": "gs"}
"""What several schemes of one store are in canonical form."""


def normalise(uri: str) -> str:
    """The canonical form of a URI or local path: `s3://bucket/key` or `file:///absolute/path`; a trailing slash stays as given.

    Of a store's several schemes it is one: `gs` of Google's, `abfs` of Azure's.

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
    if scheme != "file" and _SIGNED.search(rest):
        raise Refused(
            f"{scheme}://...: a URI must not carry a signature or token, it would be stored with every image: name the object itself, and "
            "put credentials into the environment"
        )
    if scheme != "file":
        return f"{_ONE_SCHEME.get(scheme, scheme)}://{rest}"
    path = os.path.abspath(rest if match else os.path.expanduser(rest))  # noqa: PTH100, PTH111 - Path would follow no symlink either, but drops slashes
    return f"file://{path.rstrip('/')}/" if uri.endswith("/") else f"file://{path}"


def is_canonical(uri: str) -> bool:
    """Whether a URI is in canonical form, as those of images in a table are. What is none must not be made one where it comes from
    data: that would follow a `..` of some name to another file."""
    try:
        return normalise(uri) == uri
    except Refused:
        return False


def image_name(uri: str) -> str:
    """An image's URI as tables have it, from what names one: of a file's, nothing is made canonical, since a row's key, or a name in a tar,
    is part of it and may hold `..`."""
    return uri if uri.startswith("file:///") else normalise(uri)


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
    """Whether a URI is a pattern (has `*`, `?`, `[` or braces with a comma) rather than a name."""
    return _GLOB.search(uri) is not None


def alternatives(pattern: str) -> list[str]:
    """A pattern without its braces, which stand for several as they do in a shell: `{a,b{1,2}}` is `a`, `b1` and `b2`; each once.

    Raises:
        Refused: they are too many.
    """
    found, waiting = list[str](), [pattern]
    while waiting:
        text = waiting.pop()
        braces = _first_braces(text)
        if braces is None:
            found.append(text)
        else:
            before, parts, after = braces
            waiting += [before + part + after for part in reversed(parts)]
        if len(found) + len(waiting) > _MOST_ALTERNATIVES:
            raise Refused(f"{pattern}: its braces stand for more than {_MOST_ALTERNATIVES:,} patterns: use * or ?")
    return list(dict.fromkeys(found))


def _first_braces(text: str) -> tuple[str, list[str], str] | None:
    """What is before, between the commas of, and behind the first braces that have a comma of their own."""
    for opening, letter in enumerate(text):
        if letter != "{":
            continue
        depth, cuts = 0, [opening]
        for place in range(opening, len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if depth == 1 and text[place] == ",":
                cuts.append(place)
            if not depth:
                if len(cuts) > 1:
                    cuts.append(place)
                    return text[:opening], [text[first + 1 : end] for first, end in pairwise(cuts)], text[place + 1 :]
                break
    return None


def fixed_part(uri: str) -> str:
    """What comes before the first wildcard of a pattern without braces; the whole of a name."""
    wildcard = _GLOB.search(uri)
    return uri[: wildcard.start()] if wildcard else uri


def glob_root(pattern: str) -> str:
    """What every URI that matches a pattern begins with: what comes before the first wildcard.

    Raises:
        Refused: the pattern is in the bucket's name.
    """
    root = os.path.commonprefix([fixed_part(each) for each in alternatives(normalise(pattern))])  # noqa: RUF071 - of names, not of folders
    if root.count("/") < 3:
        raise Refused(f"{pattern}: the bucket cannot be a pattern; name one bucket")
    return root


def glob_roots(pattern: str) -> list[str]:
    """The prefixes below which all URIs lie that match a pattern, none inside of another: one, or several where there are braces.

    Raises:
        Refused: the pattern is in the bucket's name.
    """
    roots: list[str] = []
    for root in sorted(map(glob_root, alternatives(normalise(pattern)))):
        if not roots or not root.startswith(roots[-1]):
            roots.append(root)
    return roots


def glob_regex(pattern: str) -> str:
    """A pattern as a regular expression for whole names; one that ends in a slash means everything below.

    Raises:
        Refused: it is not a pattern.
    """
    try:
        parts = [glob_translate(f"{each}**" if each.endswith("/") else each).removesuffix(r"\Z") for each in alternatives(pattern)]
        return re.compile(f"(?:{'|'.join(parts)})").pattern
    except (ValueError, re.error) as error:
        raise Refused(f"{pattern}: not a pattern: {error}") from None


def as_folder(uri: str) -> str:
    """The canonical form of a folder's URI: it ends in one slash."""
    return normalise(uri).rstrip("/") + "/"


def bucket_of(uri: str) -> str:
    """The bucket that a URI or pattern lies in, as a folder; of a path or an address of the web, the canonical URI itself."""
    name = normalise(uri)
    scheme, _, rest = name.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}/" if scheme in _ONE_SCHEME.values() else name


def split_s3(uri: str) -> tuple[str, str]:
    """Bucket and key of an S3 URI; the key is empty for a bucket."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def local_path(uri: str) -> Path:
    """The path of a `file://` URI."""
    return Path(uri.removeprefix("file://"))
