"""S3's answers to list requests, read into columns: as botocore reads them, that takes longer than all the rest of a plan.

Entries are taken out of an answer's XML by their tags, and botocore reads what is left: how the listing goes on, folders, errors. Where an
answer is written in another way than stores write it (CDATA, attributes, missing fields), botocore reads all of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any
from urllib.parse import unquote_plus

import pyarrow as pa
from aiobotocore.hooks import AioHierarchicalEmitter
from aiobotocore.session import AioSession
from botocore.model import OperationModel

_ANSWERS = "before-parse.s3.*"
_COLUMNS = "Columns"
_ENTRIES = re.compile(rb"<Contents>.*</Contents>", re.DOTALL)
_FIELDS = {
    "key": r"<Key>([^<]*)</Key>",
    "modified": r"<LastModified>([^<]*)</LastModified>",
    "etag": r"<ETag>(?:&quot;|&#34;|\")?([^<&\"]*)(?:&quot;|&#34;|\")?</ETag>",
    "size": r"<Size>(\d+)</Size>",
}
_EACH_FIELD = {name: re.compile(pattern) for name, pattern in _FIELDS.items()}
# As AWS and most others order them; found together, they take half as long.
_IN_ORDER = re.compile("{key}{modified}{etag}(?:<Checksum[A-Za-z]*>[^<]*</Checksum[A-Za-z]*>)*{size}".format(**_FIELDS))
_LISTED = pa.schema([("key", pa.string()), ("etag", pa.string()), ("size", pa.int64()), ("modified", pa.timestamp("us", "UTC"))])
_FOLDERS = b"<CommonPrefixes>"
_BETWEEN = "\0"  # no XML holds it; a key that does in its encoded form is left to botocore


def session_for_listing(profile: str | None = None) -> AioSession:
    """A session whose clients read listings many times as fast as usual, for `listed` to take; and all else as usual."""
    emitter = AioHierarchicalEmitter()
    # Before the session adds botocore's own, of which one reads all of an answer in search of an error.
    emitter.register_first(_ANSWERS, _take_entries)
    return AioSession(profile=profile, event_hooks=emitter)


def listed(answer: dict[str, Any]) -> pa.Table:
    """The objects of an answer to a list request: `key`, `etag` (null where there is none), `size` and `modified`."""
    if _COLUMNS in answer:
        return answer[_COLUMNS]
    entries = answer.get("Contents", ())
    etags = [entry.get("ETag", "").strip('"') or None for entry in entries]
    rest = ([entry[name] for entry in entries] for name in ("Size", "LastModified"))
    columns = ([entry["Key"] for entry in entries], etags, *rest)
    return pa.table([pa.array(values, field.type) for field, values in zip(_LISTED, columns, strict=True)], schema=_LISTED)


def _take_entries(
    operation_model: OperationModel, response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any
) -> None:
    """Move the entries of an answer to a list request from its body into columns."""
    if operation_model.name != "ListObjectsV2" or response_dict["status_code"] != 200:
        return
    body = response_dict["body"]
    found = _ENTRIES.search(body)
    if found is None:
        return
    columns = _columns(found[0], url_encoded=b"<EncodingType>url</EncodingType>" in body)
    if columns is not None:
        response_dict["body"] = body[: found.start()] + body[found.end() :]
        customized_response_dict[_COLUMNS] = columns


def _columns(entries: bytes, *, url_encoded: bool) -> pa.Table | None:
    """The columns of some entries; None where they are not written as usual."""
    if _FOLDERS in entries:
        return None
    try:
        text = entries.decode()
        found = _fields_alike(text) or _fields(text, text.count("<Contents>"))
        if found is None:
            return None
        keys = _BETWEEN.join(found["key"])
        if "&" in keys or "\r" in keys:  # which an XML parser reads as something else
            return None
        if url_encoded and ("%" in keys or "+" in keys):
            # Decoded together: one by one, that takes longer than all the rest. What most keys of lakes hold is quicker replaced.
            keys = keys.replace("%3D", "=").replace("%2F", "/")
            found["key"] = (unquote_plus(keys) if "%" in keys or "+" in keys else keys).split(_BETWEEN)
        if len(found["key"]) != len(found["etag"]):
            return None
        columns = {name: pa.array(values, pa.string()) for name, values in found.items()}
        if "" in found["etag"]:
            columns["etag"] = pa.array([etag or None for etag in found["etag"]], pa.string())
        return pa.table([columns[field.name].cast(field.type) for field in _LISTED], schema=_LISTED)
    except (UnicodeDecodeError, pa.ArrowInvalid):
        return None


def _fields_alike(text: str) -> dict[str, Sequence[str]] | None:
    """The fields of entries that are written alike but for these fields, in whatever order; None where one differs.

    What stands between two fields of the first entry is looked for in all, which is several times as fast as matching each.
    """
    end = text.find("</Contents>")
    places = {name: pattern.search(text, 0, end) for name, pattern in _EACH_FIELD.items()}
    found = sorted((place.span(1), name) for name, place in places.items() if place)
    if len(found) < len(_FIELDS) or _BETWEEN in text:
        return None
    spans = [span for span, _ in found]
    head, tail = text[: spans[0][0]], text[spans[-1][1] : end] + "</Contents>"
    if not text.endswith(tail) or text.count("<Contents>", 0, end) != 1:
        return None
    rest = text[len(head) : len(text) - len(tail)]
    for between in (tail + head, *(text[before[1] : after[0]] for before, after in pairwise(spans))):
        rest = rest.replace(between, _BETWEEN)
    values = rest.split(_BETWEEN)
    # Where a tag is left, an entry differs; and where none is, fields follow each other as in the first one.
    if "<" in rest or len(values) % len(found):
        return None
    columns: dict[str, Sequence[str]] = {name: values[number :: len(found)] for number, (_, name) in enumerate(found)}
    etags = _BETWEEN.join(columns["etag"])
    return None if "&" in etags or '"' in etags else columns


def _fields(text: str, number: int) -> dict[str, Sequence[str]] | None:
    """The fields of so many entries; None where one lacks a field."""
    together = _IN_ORDER.findall(text)
    if len(together) == number:
        return dict(zip(_FIELDS, zip(*together, strict=True), strict=True))
    found: dict[str, Sequence[str]] = {name: pattern.findall(text) for name, pattern in _EACH_FIELD.items()}
    return found if all(len(values) == number for values in found.values()) else None
