"""A command's settings from its command line, the environment and a YAML file, in one validated schema.

Precedence: flag, then environment variable (`MASKLAKE_...`), then YAML key, then default. What is wrong is refused in sentences that name
the setting, its value, where that came from, and what would be right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from masklake.config import flags, sources
from masklake.config.closest import closest
from masklake.config.flags import flag_of
from masklake.config.kinds import Positional, Shown, choices, mark, placeholder
from masklake.config.program import Program, S
from masklake.config.sources import ENV_PREFIX
from masklake.errors import Refused

Sources = Mapping[str, Mapping[str, Any]]
"""What is given, by where it stands (`in run.yaml`, `on the command line`); a later one goes before an earlier one."""

COMMAND_LINE = "on the command line"
_FEW = 0.5  # how much a wrong value resembles one of the few right ones that begin as it does
_PASSWORD = re.compile(r"(?<=://)[^/@\s]+@")


def resolve(
    argv: Sequence[str],
    program: Program[S],
    elsewhere: Callable[[], Iterable[str]] = tuple,
    say: Callable[[str], None] = lambda text: None,
) -> S:
    """The settings of one run: flags, then environment, then YAML, then defaults.

    Args:
        argv: what stands on the command line, after the command's name.
        program: whose settings.
        elsewhere: the settings of other commands; variables of theirs are not mistakes.
        say: told of variables that are ignored, a sentence at a time.

    Raises:
        Refused: a setting is missing, wrong or unknown; the message names it, its value, where it came from and what would be right.
        SystemExit: `--help` was asked for (code 0).
    """
    given, unknown = flags.parse(argv, program)
    file = sources.chosen_file(given.pop("config", None))
    variables = sources.environment()
    if set(variables) - set(program.names) - sources.OTHERS:
        unknown += _misspelt(variables, {*program.names, *elsewhere(), *sources.OTHERS}, say)
    in_file = sources.yaml_file(file)
    unknown += [f"{name!r} in {file} is not a setting{_hint(name, program.names)}" for name in in_file if name not in program.names]
    places = {f"in {file}": in_file, "in the environment": variables, COMMAND_LINE: given}
    return checked(program, {place: _by_schema(values, program.names) for place, values in places.items()}, unknown)


def checked(program: Program[S], given: Sources, unknown: Sequence[str] = ()) -> S:
    """The settings from what each place says.

    Args:
        program: whose settings.
        given: by the names of the schema.
        unknown: sentences on names that are none; they are said together with all else that is wrong, but for what is missing.

    Raises:
        Refused: as `resolve`.
    """
    merged = {name: value for values in given.values() for name, value in values.items()}
    wrong: list[ErrorDetails] = []
    try:
        settings = program.settings(**merged)
    except ValidationError as error:
        wrong = error.errors()
    if unknown:
        wrong = [item for item in wrong if item["type"] != "missing"]  # a misspelt name is missing under its right one
    if unknown or wrong:
        raise Refused(*unknown, *(_explain(item, given, program.fields) for item in wrong))
    return settings


def _by_schema(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """What has a name in the schema, by that one; another name of a setting counts less than its own."""
    return {names[name]: value for name, value in sorted(values.items(), key=lambda item: item[0] in names.values()) if name in names}


def _misspelt(variables: Iterable[str], known: set[str], say: Callable[[str], None]) -> Iterator[str]:
    """A sentence for each variable that is not a setting and resembles one; of another, which may be anybody's, it is only said."""
    for name in variables:
        if name not in known:
            sentence = f"{ENV_PREFIX}{name.upper()} in the environment is not a setting"
            if close := closest(name, known):
                yield f"{sentence}: did you mean {ENV_PREFIX}{close.upper()}?"
            else:
                say(f"{sentence} of any command: it is ignored")


def _hint(name: str, names: Iterable[str]) -> str:
    close = closest(name, names)
    return f": did you mean {close!r}?" if close else "; `--help` lists them"


def _explain(item: ErrorDetails, given: Sources, fields: Mapping[str, FieldInfo]) -> str:
    """One sentence: the setting, its value, where that came from, and what would be right."""
    message = item["msg"].removeprefix("Value error, ")
    if not item["loc"]:
        return message + _elsewhere(message, given)
    name = str(item["loc"][0])
    field = fields[name]
    flag = _loose(name, field) if mark(field, Positional) else flag_of(name)
    if item["type"] == "missing":
        return f"{flag} is missing: {field.description}"
    where = _place(name, given)
    if close := _meant(str(item["input"]), choices(field)):
        message += f": did you mean {close!r}?"
    shown = mark(field, Shown)
    value = "" if shown and shown.secret else " " + _in_words(given[where][name] if where else item["input"])
    return f"{flag}{value}{f' ({where})' if where else ''}: {message[0].lower()}{message[1:]}"


def _loose(name: str, field: FieldInfo) -> str:
    return name.upper() if choices(field) else placeholder(field)


def _place(name: str, given: Sources) -> str:
    """Where a setting stands; empty where it is the default."""
    return next((place for place in reversed(list(given)) if name in given[place]), "")


def _elsewhere(message: str, given: Sources) -> str:
    """Of the settings that a sentence names, those that whoever reads it may look for in vain on the command line."""
    named = {flag: _place(flag.removeprefix("--").replace("-", "_"), given) for flag in re.findall(r"--[a-z][a-z-]*", message)}
    return "".join(f" ({flag} stands {place})" for flag, place in named.items() if place not in ("", COMMAND_LINE))


def _meant(value: str, words: Sequence[str]) -> str | None:
    return closest(value, words) or closest(value, [word for word in words if word[:1] == value[:1]], _FEW)


def _in_words(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return _PASSWORD.sub("", text)
