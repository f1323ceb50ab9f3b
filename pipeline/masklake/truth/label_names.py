"""Files that say what the values, or the colours, of label maps mean: id, name, colour, as JSON, YAML, CSV or text."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import yaml

from masklake import storage
from masklake.errors import Refused
from masklake.truth.place import Place, names_in

NAMES = ("labels.json", "labels.csv", "labels.txt", "labels.yaml", "class_dict.csv", "label_colors.txt", "labelmap.txt")
"""Looked for in the folder of label maps, and in the one above it; the last three are CamVid's and CVAT's tables of colours."""

Colour = tuple[int, int, int]

_ID = ("id", "value", "index", "label_id", "class_id", "category_id")
_NAME = ("name", "label", "class", "class_name", "category")
_COLOUR = ("color", "colour", "rgb")
_CHANNELS = (("r", "g", "b"), ("red", "green", "blue"))
_THING = ("isthing", "thing")


@dataclass(frozen=True)
class Named:
    """A value's name; `colour` and `isthing` where the file says them."""

    id: int
    name: str
    colour: Colour | None = None
    isthing: bool | None = None


@dataclass(frozen=True)
class Names:
    """What a file says: `named` by id, and `void`, the value of pixels without a label, where the file says one. Where it says no ids
    (`numbered`), they are the places in the file, from 0 on.
    """

    uri: str
    named: tuple[Named, ...]
    void: int | None = None
    numbered: bool = True

    @property
    def has_colours(self) -> bool:
        """Whether every name has a colour."""
        return all(each.colour is not None for each in self.named)


def find(place: Place, labels: str | None) -> Names:
    """The names by `--labels`, else by one of `NAMES` in the truth's folder or above it.

    Raises:
        Refused: there is none, or it says no names.
    """
    found = place.once("labels", lambda: look(place, labels))
    if found is None:
        some = ", ".join(NAMES[:-1])
        raise place.refused(f"give a file that says which value has which name by --labels: there is no {some} or {NAMES[-1]}")
    return found


def look(place: Place, labels: str | None) -> Names | None:
    """As `find`; None where there is none."""
    if labels is not None:
        storage.check_input(labels, "--labels")
        return read(storage.normalise(labels))
    for folder in place.above(1):
        there = names_in(folder)
        for name in NAMES:
            if name in there:
                return read(folder + name)
    return None


def read(uri: str) -> Names:
    """The names of a file.

    JSON or YAML: `{"0": "sky"}`, the same below `labels`, a list of names, or of objects with `name` and `id`, `color` or both. CSV: a
    header with such columns, colours also as `r,g,b`. Text: a line `0 sky`, `0: sky` or `0,sky` each; names alone, from 0 on; colours as
    `64 128 64 tree` (CamVid) or `tree:64,128,64::` (CVAT). Several values may have one name.

    Raises:
        Refused: the file is none of these, or has an id or a colour twice.
    """
    try:
        text = storage.read_bytes(uri).decode("utf-8-sig")
        void: int | None = None
        if uri.endswith((".json", ".yaml", ".yml")):
            void, entries = _from_json(json.loads(text) if uri.endswith(".json") else yaml.safe_load(text))
        elif uri.endswith(".csv"):
            entries = [_of_entry(row) for row in csv.DictReader(io.StringIO(text), skipinitialspace=True)]
        else:
            entries = list(_from_text(text))
    except storage.StorageError as error:
        raise Refused(f"--labels {uri}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise Refused(f"--labels {uri}: does not say which value has which name: {reason}; see --help") from None
    return _checked(uri, entries, void)


_Entry = tuple[int | None, str, Colour | None, bool | None]


def _checked(uri: str, entries: list[_Entry], void: int | None) -> Names:
    numbered = [value is not None for value, *_ in entries]
    if any(numbered) != all(numbered):
        raise Refused(f"--labels {uri}: gives some names an id and others none")
    named = [Named(place if value is None else value, *rest) for place, (value, *rest) in enumerate(entries)]  # type: ignore[arg-type]
    ids, colours = [each.id for each in named], [each.colour for each in named if each.colour is not None]
    if not named or len(set(ids)) != len(ids) or not all(each.name for each in named):
        raise Refused(f"--labels {uri}: must give each value one name, and name at least one")
    if len(set(colours)) != len(colours):
        raise Refused(f"--labels {uri}: gives a colour two names")
    if void is not None and void in ids:
        raise Refused(f"--labels {uri}: says that {void} is void, and names it: take one of them out")
    return Names(uri, tuple(sorted(named, key=lambda each: each.id)), void, all(numbered))


def _from_json(found: Any) -> tuple[int | None, list[_Entry]]:
    void = None
    if isinstance(found, dict) and isinstance(found.get("labels"), dict | list):
        void, found = found.get("void"), found["labels"]
    if isinstance(found, dict) and isinstance(found.get("categories"), list):
        found = found["categories"]
    if isinstance(found, dict):
        if all(isinstance(value, list) for value in found.values()):
            return void, [(None, str(name), _colour(value), None) for name, value in found.items()]
        return void, [(int(value), str(name), None, None) for value, name in found.items()]
    if all(isinstance(each, str) for each in found):
        return void, [(None, name, None, None) for name in found]
    return void, [_of_entry(each) for each in found]


def _of_entry(entry: Mapping[str, Any]) -> _Entry:
    """An object or a row, whose keys are called so in one file and so in another."""
    lower = {str(key).strip().lower(): value for key, value in entry.items() if value is not None}
    name = next((lower[key] for key in _NAME if key in lower), None)
    if name is None:
        raise ValueError(f"{dict(entry)} has no name")
    value = next((lower[key] for key in _ID if key in lower), None)
    colour = None
    with suppress(ValueError, TypeError):  # a word, for people
        colour = next((_colour(lower[key]) for key in _COLOUR if key in lower), None)
    for channels in _CHANNELS:
        if all(channel in lower for channel in channels):
            colour = _colour([lower[channel] for channel in channels])
    thing = next((lower[key] for key in _THING if key in lower), None)
    isthing = None if thing is None else str(thing).strip().lower() in ("1", "true", "yes")
    return None if value is None else int(value), str(name).strip(), colour, isthing


def _colour(value: Any) -> Colour:
    """`[64, 128, 64]`, `64,128,64` or `#408040`."""
    if isinstance(value, str) and (found := re.fullmatch(r"\s*#([0-9a-fA-F]{6})\s*", value)):
        value = bytes.fromhex(found[1])
    channels = [int(each) for each in (re.split(r"[\s,;]+", value.strip(" ()[]")) if isinstance(value, str) else value)]
    red, green, blue = channels[:3]
    if not all(0 <= each <= 255 for each in channels):
        raise ValueError(f"{value} is not a colour")
    return red, green, blue


_OF_CAMVID = re.compile(r"(\d+)\s+(\d+)\s+(\d+)\s+(\S.*)")
_OF_CVAT = re.compile(r"([^:]+):(\d+),(\d+),(\d+)(?::[^:]*){0,2}")
_NUMBERED = re.compile(r"(\d+)\s*[\s:,=]\s*(\S.*)")


def _from_text(text: str) -> Iterator[_Entry]:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if all(map(_OF_CAMVID.fullmatch, lines)):
        for found in map(_OF_CAMVID.fullmatch, lines):
            assert found
            yield None, found[4], _colour(found.groups()[:3]), None
        return
    if all(map(_OF_CVAT.fullmatch, lines)):
        for found in map(_OF_CVAT.fullmatch, lines):
            assert found
            yield None, found[1].strip(), _colour(found.groups()[1:4]), None
        return
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if any(numbered) and not all(numbered):
        raise ValueError(f"some lines have a number and others not, such as {lines[numbered.index(None)]!r}")
    for line, match in zip(lines, numbered, strict=True):
        yield (int(match[1]), match[2], None, None) if match else (None, line, None, None)


def words(values: Iterable[int]) -> str:
    """Some numbers, in words."""
    return ", ".join(map(str, sorted(values)[:5])) or "none"
