"""Files that say what the values of label maps mean: id -> name, as JSON, YAML, CSV or text."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from masklake import storage
from masklake.errors import Refused
from masklake.truth.place import Place, names_in

NAMES = ("labels.json", "labels.csv", "labels.txt", "labels.yaml")
"""Looked for in the folder of label maps, and in the one above it."""


@dataclass(frozen=True)
class Named:
    """A value's name."""

    id: int
    name: str


@dataclass(frozen=True)
class Names:
    """What a file says: `named` by id, and `void`, the value of pixels without a label, where the file says one."""

    uri: str
    named: tuple[Named, ...]
    void: int | None = None


def find(place: Place, labels: str | None) -> Names:
    """The names by `--labels`, else by one of `NAMES` in the truth's folder or above it.

    Raises:
        Refused: there is none, or it says no names.
    """
    if labels is not None:
        storage.check_input(labels, "--labels")
        return read(storage.normalise(labels))
    for folder in place.above(1):
        there = names_in(folder)
        for name in NAMES:
            if name in there:
                return read(folder + name)
    raise place.refused(f"give a file that says which value has which name by --labels: there is no {' or '.join(NAMES)}")


def read(uri: str) -> Names:
    """The names of a file.

    JSON or YAML: `{"0": "sky"}`, the same below `labels`, or a list of names, or of objects with `id` and `name`. CSV: a header with both.
    Text: a line `0 sky`, `0: sky` or `0,sky` each; or names alone, from 0 on. Several values may have one name.

    Raises:
        Refused: the file is none of these, or has an id twice.
    """
    try:
        text = storage.read_bytes(uri).decode("utf-8-sig")
        void: int | None = None
        named: list[Named]
        if uri.endswith((".json", ".yaml", ".yml")):
            void, named = _from_json(json.loads(text) if uri.endswith(".json") else yaml.safe_load(text))
        elif uri.endswith(".csv"):
            named = list(_from_csv(csv.DictReader(io.StringIO(text))))
        else:
            named = list(_from_text(text))
    except storage.StorageError as error:
        raise Refused(f"--labels {uri}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise Refused(f"--labels {uri}: does not say which value has which name: {reason}; see --help") from None
    ids = [each.id for each in named]
    if not named or len(set(ids)) != len(ids) or not all(each.name for each in named):
        raise Refused(f"--labels {uri}: must give each value one name, and name at least one")
    if void is not None and void in ids:
        raise Refused(f"--labels {uri}: says that {void} is void, and names it: take one of them out")
    return Names(uri, tuple(sorted(named, key=lambda each: each.id)), void)


def _from_json(found: Any) -> tuple[int | None, list[Named]]:
    void = None
    if isinstance(found, dict) and isinstance(found.get("labels"), dict | list):
        void, found = found.get("void"), found["labels"]
    if isinstance(found, dict):
        return void, [Named(int(value), str(name)) for value, name in found.items()]
    if all(isinstance(each, str) for each in found):
        return void, [Named(value, name) for value, name in enumerate(found)]
    return void, [_of_entry(each) for each in found]


def _of_entry(entry: Mapping[str, Any]) -> Named:
    return Named(int(entry["id"]), str(entry["name"]).strip())


def _from_csv(rows: Iterable[Mapping[str, Any]]) -> Iterator[Named]:
    for row in rows:
        yield _of_entry(row)


def _from_text(text: str) -> Iterator[Named]:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    numbered = [re.fullmatch(r"(\d+)\s*[\s:,=]\s*(\S.*)", line) for line in lines]
    if any(numbered) and not all(numbered):
        raise ValueError(f"some lines have a number and others not, such as {lines[numbered.index(None)]!r}")
    for place, (line, match) in enumerate(zip(lines, numbered, strict=True)):
        yield Named(int(match[1]), match[2]) if match else Named(place, line)
