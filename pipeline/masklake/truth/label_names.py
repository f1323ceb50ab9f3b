"""Files that say what the values of label maps mean: id -> name, as JSON, CSV or text."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

from masklake import storage
from masklake.errors import Refused

NAMES = ("labels.json", "labels.csv", "labels.txt")
"""Looked for in the folder of label maps, and in the one above it."""


def read(uri: str) -> tuple[dict[int, str], int | None]:
    """The names by id, and the value of pixels without a label where the file says it.

    JSON: `{"0": "sky"}`, the same below `labels`, or a list of names, or of objects with `id` and `name`. CSV: a header with both.
    Text: a line `0 sky`, `0: sky` or `0,sky` each; or names alone, from 0 on.

    Raises:
        Refused: the file is none of these, or has an id or a name twice.
    """
    text = storage.read_bytes(uri)
    try:
        decoded = text.decode("utf-8-sig")
        void = None
        if uri.endswith(".json"):
            pairs, void = _from_json(json.loads(decoded))
        elif uri.endswith(".csv"):
            pairs = [(int(row["id"]), row["name"].strip()) for row in csv.DictReader(io.StringIO(decoded))]
        else:
            pairs = _from_text(decoded)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"--labels {uri}: does not say which id has which name: {type(error).__name__} {error}; see --help") from None
    names = dict(pairs)
    if not names or len(names) != len(pairs) or len(set(names.values())) != len(names) or not all(names.values()):
        raise Refused(f"--labels {uri}: must give each id one name of its own, and at least one")
    return names, void


def _from_json(found: Any) -> tuple[list[tuple[int, str]], int | None]:
    void = None
    if isinstance(found, dict) and isinstance(found.get("labels"), dict | list):
        void, found = found.get("void"), found["labels"]
    if isinstance(found, dict):
        return [(int(label_id), str(name)) for label_id, name in found.items()], void
    if all(isinstance(each, str) for each in found):
        return list(enumerate(found)), void
    return [(int(each["id"]), str(each["name"])) for each in found], void


def _from_text(text: str) -> list[tuple[int, str]]:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    numbered = [re.fullmatch(r"(\d+)\s*[\s:,=]\s*(\S.*)", line) for line in lines]
    if not any(numbered):
        return list(enumerate(lines))
    if not all(numbered):
        raise ValueError(f"some lines have a number and others not, such as {lines[numbered.index(None)]!r}")
    return [(int(match[1]), match[2]) for match in numbered if match]
