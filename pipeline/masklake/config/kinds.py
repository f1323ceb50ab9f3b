"""The kinds of values that settings have, and how a value is called in `--help`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.fields import FieldInfo

from masklake.tasks import Task


@dataclass(frozen=True)
class Shown:
    """A mark on a setting's type: what its value is called in `--help`; one that is `secret` is repeated in no message."""

    placeholder: str
    secret: bool = False


@dataclass(frozen=True)
class Also:
    """A mark on a setting's type: another name of it, as flag, variable and YAML key alike."""

    name: str


@dataclass(frozen=True)
class Verbatim:
    """A mark on a list: each flag gives one value as it stands, commas included."""


@dataclass(frozen=True)
class Positional:
    """A mark on a setting: what stands on the command line without a flag belongs to it."""


_Mark = TypeVar("_Mark", Shown, Also, Verbatim, Positional)
_MANY = (tuple, Mapping)


def mark(field: FieldInfo, kind: type[_Mark]) -> _Mark | None:
    """The mark of this kind on a setting, wherever in its type it stands; the outermost one."""
    return next((each for each in reversed([*_marks(field.annotation), *field.metadata]) if isinstance(each, kind)), None)


def _marks(annotation: Any) -> Iterator[Any]:
    for part in get_args(annotation):
        yield from _marks(part)
    if get_origin(annotation) is Annotated:
        yield from annotation.__metadata__


def choices(field: FieldInfo) -> list[str]:
    """The values that a setting may have; empty where they are not a few words."""
    return list(dict.fromkeys(_choices(field.annotation)))


def _choices(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Literal:
        yield from (str(each) for each in get_args(annotation))
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        yield from (str(each.value) for each in annotation)
    else:
        for part in get_args(annotation):
            yield from _choices(part)


def is_list(field: FieldInfo) -> bool:
    """Whether a setting has several values."""
    return any(get_origin(each) in _MANY for each in _parts(field.annotation))


def is_flag(field: FieldInfo) -> bool:
    """Whether a setting is on or off."""
    return bool in _parts(field.annotation)


def placeholder(field: FieldInfo) -> str:
    """What a setting's value is called in `--help`."""
    if shown := mark(field, Shown):
        word = shown.placeholder
    elif words := choices(field):
        word = "|".join(words)
    else:
        parts = _parts(field.annotation)
        word = "N" if int in parts else "NUMBER" if float in parts else "TEXT"
    return f"{word},..." if is_list(field) and not (mark(field, Verbatim) or mark(field, Positional)) else word


def _parts(annotation: Any) -> list[Any]:
    """The alternatives of a type, without the marks on it and without None."""
    if get_origin(annotation) is Annotated:
        return _parts(get_args(annotation)[0])
    if get_origin(annotation) in (None, Literal, *_MANY):
        return [] if annotation is NoneType else [annotation]
    return [each for part in get_args(annotation) for each in _parts(part)]


def split(value: object) -> object:
    """Accept `a,b` wherever a list is meant, and a single value."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, int | float):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse a name that stands there twice."""
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{str(name)!r} is listed twice")
    return names


def at_least_one(names: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse an empty list."""
    if not names:
        raise ValueError("give at least one value")
    return names


def _pairs(value: object) -> object:
    """Accept `KEY=VALUE`, several of them in a list or separated by commas, wherever a mapping is meant."""
    texts = split(value)
    if not isinstance(texts, tuple):
        return value
    pairs = [str(text).partition("=") for text in texts]
    if not all(name and equals for name, equals, _ in pairs):
        raise ValueError("must be KEY=VALUE, such as uri=https://catalog.example.org")
    return {name: given for name, _, given in pairs}


_AGO = re.compile(r"(\d+)([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def time_of(text: str, now: datetime) -> datetime:
    """The time that `--since` names, in UTC where it names no zone.

    Raises:
        ValueError: it names none.
    """
    ago = _AGO.fullmatch(text)
    if ago:
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _known_time(text: str) -> str:
    try:
        time_of(text, datetime.now(UTC))
    except (ValueError, OverflowError):
        raise ValueError("must be a time such as 2026-11-22 or 2026-11-22T10:00:00Z, or a span such as 30m, 24h or 7d") from None
    return text


@dataclass(frozen=True)
class Range:
    """Two whole numbers, the second not smaller; written `N` where they are one."""

    least: int
    most: int

    def __str__(self) -> str:
        """As it is written."""
        return f"{self.least}" if self.least == self.most else f"{self.least}:{self.most}"


def _range(value: object) -> object:
    """Accept a number, `N` and `MIN:MAX` wherever a range is meant."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d+)\s*(?::\s*(\d+)\s*)?", value)
    if found is None or int(found[1]) < 1 or int(found[2] or found[1]) < int(found[1]):
        raise ValueError("must be a whole number of 1 or more, or two such as 1:8, of which the second is not smaller")
    return Range(int(found[1]), int(found[2] or found[1]))


Uri = Annotated[str, Field(min_length=1), Shown("URI")]
File = Annotated[str, Field(min_length=1), Shown("FILE")]
Folder = Annotated[str, Field(min_length=1), Shown("FOLDER")]
Model = Annotated[str, Field(min_length=1), Shown("MODEL")]
Condition = Annotated[str, Field(min_length=1), Shown("SQL")]
Time = Annotated[str, AfterValidator(_known_time), Shown("TIME")]
Counts = Annotated[Range, BeforeValidator(_range)]
Share = Annotated[float, Field(ge=0, le=1), Shown("SHARE")]
Names = Annotated[tuple[str, ...], BeforeValidator(split), AfterValidator(distinct), Shown("NAME")]
Texts = Annotated[tuple[str, ...], BeforeValidator(split), Verbatim(), Shown("TEXT")]
Numbers = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(split), Shown("N")]
Pairs = Annotated[Mapping[str, str], BeforeValidator(_pairs), Verbatim(), Shown("KEY=VALUE", secret=True)]
OneTask = Annotated[Task, Also("tasks")]
Tasks = Annotated[tuple[Task, ...], BeforeValidator(split), AfterValidator(at_least_one), AfterValidator(distinct), Also("task")]
