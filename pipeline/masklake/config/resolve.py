"""A command's settings from its command line, the environment and a YAML file, in one validated schema.

Precedence: flag, then environment variable (`MASKLAKE_...`), then YAML key, then default. What is wrong is refused in sentences that name
the setting, its value, where that came from, and what would be right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from masklake.config import flags, sources
from masklake.config.closest import closest
from masklake.config.kinds import Shown, choices, mark
from masklake.config.program import Program, S
from masklake.config.sources import ENV_PREFIX
from masklake.errors import Refused

Sources = Mapping[str, Mapping[str, Any]]
"""What is given, by where it stands (`in run.yaml`, `on the command line`); a later one goes before an earlier one."""

_FEW = 0.5  # how much a wrong value resembles one of the few right ones
_PASSWORD = re.compile(r"(?<=://)[^/@\s]+@")


def resolve(argv: Sequence[str], program: Program[S], elsewhere: Callable[[], Iterable[str]] = tuple) -> S:
    """The settings of one run: flags, then environment, then YAML, then defaults.

    Args:
        argv: what stands on the command line, after the command's name.
        program: whose settings.
        elsewhere: the settings of other commands; variables of theirs are no mistakes.

    Raises:
        Refused: a setting is missing, wrong or unknown; the message names it, its value, where it came from and what would be right.
        SystemExit: `--help` was asked for (code 0).
    """
    given, unknown = flags.parse(argv, program)
    file = sources.chosen_file(given.pop("config", None))
    variables = sources.environment()
    if set(variables) - set(program.names):
        unknown += _unknown_variables(variables, {*program.names, *elsewhere()})
    in_file = sources.yaml_file(file)
    unknown += [f"{name!r} in {file} is not a setting{_hint(name, program.names)}" for name in in_file if name not in program.names]
    places = {f"in {file}": in_file, "in the environment": variables, "on the command line": given}
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


def _unknown_variables(variables: Iterable[str], known: set[str]) -> list[str]:
    return [
        f"{ENV_PREFIX}{name.upper()} in the environment is not a setting" + (f": did you mean {ENV_PREFIX}{close.upper()}?")
        for name in variables
        if name not in known and (close := closest(name, known))
    ]


def _hint(name: str, names: Iterable[str]) -> str:
    close = closest(name, names)
    return f": did you mean {close!r}?" if close else "; `--help` lists them"


def _explain(item: ErrorDetails, given: Sources, fields: Mapping[str, FieldInfo]) -> str:
    """One sentence: the setting, its value, where that came from, and what would be right."""
    message = item["msg"].removeprefix("Value error, ")
    if not item["loc"]:
        return message
    name = str(item["loc"][0])
    flag = "--" + name.replace("_", "-")
    if item["type"] == "missing":
        return f"{flag} is missing: {fields[name].description}"
    where = next((place for place in reversed(list(given)) if name in given[place]), "")
    if close := closest(str(item["input"]), choices(fields[name]), _FEW):
        message += f": did you mean {close!r}?"
    shown = mark(fields[name], Shown)
    value = "" if shown and shown.secret else " " + _in_words(given[where][name] if where else item["input"])
    return f"{flag}{value}{f' ({where})' if where else ''}: {message[0].lower()}{message[1:]}"


def _in_words(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return _PASSWORD.sub("", text)
