"""S3's answers to list requests, read into columns: as botocore reads them, that takes longer than all the rest of a plan.

Entries are taken out of an answer's XML by their tags, and botocore reads what is left: how the listing goes on, folders, errors. Where an
answer is written in another way than stores write it (CDATA, attributes, missing fields), botocore reads all of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote_plus

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from aiobotocore.hooks import AioHierarchicalEmitter
from aiobotocore.session import AioSession
from botocore.model import OperationModel
from numpy.typing import NDArray

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
_END = b"</Contents>"
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
        found = _fields_alike(entries)
        if found is None:
            text = entries.decode()
            each = _fields(text, text.count("<Contents>"))
            if each is None:
                return None
            found = {name: pa.array(values, pa.string()) for name, values in each.items()}
        keys = _decoded(found["key"].to_pylist(), url_encoded=url_encoded)
        if keys is None:
            return None
        found["key"] = pa.array(keys, pa.string())
        if pc.any(pc.equal(found["etag"], "")).as_py():
            found["etag"] = pc.if_else(pc.equal(found["etag"], ""), None, found["etag"])
        return pa.table([found[field.name].cast(field.type) for field in _LISTED], schema=_LISTED)
    except (UnicodeDecodeError, pa.ArrowInvalid):
        return None


def _decoded(encoded: list[str], *, url_encoded: bool) -> list[str] | None:
    """Keys as they are; None where an XML parser reads them as something else. One by one, that takes longer than all the rest."""
    keys = _BETWEEN.join(encoded)
    if "&" in keys or "\r" in keys:
        return None
    if url_encoded and ("%" in keys or "+" in keys):
        keys = keys.replace("%3D", "=")  # as in day folders: no digit of another escape comes of it
        keys = unquote_plus(keys) if "%" in keys or "+" in keys else keys
    found = keys.split(_BETWEEN)
    return found if len(found) == len(encoded) else None


def _fields_alike(entries: bytes) -> dict[str, pa.Array] | None:
    """The fields of entries that are written alike but for these fields, in whatever order; None where one differs.

    What stands between two fields of the first entry must stand there in all: several times as fast as to match each. It is looked for
    from tag to tag, so that nothing but text can be in a field.
    """
    end = entries.find(_END) + len(_END)
    places = {name: re.search(pattern.encode(), entries[:end]) for name, pattern in _FIELDS.items()}
    found = sorted((place.span(1), name) for name, place in places.items() if place)
    starts, ends = [start for (start, _), _ in found], [end for (_, end), _ in found]
    tags = np.flatnonzero(np.frombuffer(entries, np.uint8) == ord("<"))
    tags_each = entries.count(b"<", 0, end)
    if len(found) < len(_FIELDS) or entries.count(b"<Contents>", 0, end) != 1 or len(tags) % tags_each:
        return None
    head, tail = entries[: starts[0]], entries[ends[-1] : end]
    following = [*(entries[end:start] for end, start in zip(ends[:-1], starts[1:], strict=True)), tail + head]
    # Of each entry and field, where it ends and the next one begins.
    until_tag = np.array([text.index(b"<") for text in following], np.int64)
    edges = tags.reshape(-1, tags_each)[:, [entries.count(b"<", 0, end) for end in ends]] - until_tag
    begins = edges + np.array([len(text) for text in following], np.int64)
    firsts = np.column_stack([np.append(len(head), begins[:-1, -1]), begins[:, :-1]])
    alike = all(_all_are(entries, edges[:, number], text) for number, text in enumerate(following[:-1]))
    if not (alike and _all_are(entries, edges[:-1, -1], following[-1]) and entries[edges[-1, -1] :] == tail and (firsts <= edges).all()):
        return None
    columns = {name: _texts(entries, firsts[:, number], edges[:, number]) for number, (_, name) in enumerate(found)}
    etags = columns["etag"].buffers()[2].to_pybytes()
    return None if b"&" in etags or b'"' in etags else columns


def _all_are(data: bytes, starts: NDArray[np.int64], text: bytes) -> bool:
    """Whether a text is at all of these places."""
    if len(starts) and not 0 <= starts.min() <= starts.max() <= len(data) - len(text):
        return False
    return _windows(data, len(text))[starts].tobytes() == text * len(starts)


def _windows(data: bytes, width: int) -> NDArray[np.void]:
    """All parts of so many bytes, by where they start."""
    return np.ndarray(len(data) - width + 1, f"V{width}", data, strides=1)


def _texts(data: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> pa.Array:
    """Parts as text; raises `ArrowInvalid` where one is not."""
    width = int(ends[0] - starts[0])
    if width and (ends - starts == width).all():
        joined = _windows(data, width)[starts].tobytes()
        return pa.Array.from_buffers(pa.binary(width), len(starts), [None, pa.py_buffer(joined)]).cast(pa.binary()).cast(pa.string())
    parts = [data[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    return pa.array(parts, pa.binary()).cast(pa.string())


def _fields(text: str, number: int) -> dict[str, Sequence[str]] | None:
    """The fields of so many entries; None where one lacks a field."""
    together = _IN_ORDER.findall(text)
    if len(together) == number:
        return dict(zip(_FIELDS, zip(*together, strict=True), strict=True))
    found: dict[str, Sequence[str]] = {name: pattern.findall(text) for name, pattern in _EACH_FIELD.items()}
    return found if all(len(values) == number for values in found.values()) else None
