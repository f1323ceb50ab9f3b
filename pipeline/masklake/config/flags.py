"""A command's settings as flags, and its `--help`. Values stay text: whether they are right is the schema's to say."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from pydantic.fields import FieldInfo

from masklake.config.closest import closest
from masklake.config.kinds import Also, Positional, Shown, Verbatim, choices, is_flag, is_list, mark, placeholder
from masklake.config.program import Program
from masklake.config.sources import ENV_PREFIX
from masklake.errors import Refused

_AS_IT_STANDS = 6  # spaces before a line that is shown as it is
_NAMED = "named "  # before the name of a setting that is given by a flag and may stand without one
_MOST_WORDS = 40  # characters of the values that stand for themselves behind a flag
_TERM = re.compile(r"( *)(\S+(?: \S+)*)( {2,})(?=\S)")


def flag_of(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")


def parse(argv: Sequence[str], program: Program[Any]) -> tuple[dict[str, Any], list[str]]:
    """What the command line says, by the names of the schema, and sentences on what there is no setting for.

    Raises:
        Refused: a flag lacks its value, or has one too many.
        SystemExit: `--help` was asked for (code 0).
    """
    parser = parser_of(program)
    try:
        found, rest = parser.parse_known_intermixed_args(argv)
    except argparse.ArgumentError as error:
        raise Refused(_of_value(error, program)) from None
    given = vars(found)
    _by_flag(given, program)
    for name, field in program.fields.items():
        if name in given and is_list(field) and not (mark(field, Verbatim) or mark(field, Positional)):
            given[name] = ",".join(given[name])
    first = next(iter(argv), "")
    lacking = next((name for name, field in program.fields.items() if field.is_required() and name not in given), None)
    meant = {first: flag_of(lacking)} if lacking else {}  # what stands before all flags is what the command works on
    return {name: value for name, value in given.items() if value != []}, list(_strangers(rest, program, meant))


def _by_flag(given: dict[str, Any], program: Program[Any]) -> None:
    """Take what stands on the command line without its name, as in `masklake status masks`, under its name as well: `--table masks`.

    Raises:
        Refused: it is given both ways.
    """
    for name in program.fields:
        if (named := given.pop(_NAMED + name, None)) is not None:
            if name in given:
                raise Refused(f"{flag_of(name)} {named} and {given[name]}: give one of them")
            given[name] = named


def _of_value(error: argparse.ArgumentError, program: Program[Any]) -> str:
    flag = (error.argument_name or "").split("/")[0]
    field = program.fields.get(program.names.get(flag.removeprefix("--no-").removeprefix("--").replace("-", "_"), ""))
    if "explicit argument" in error.message:
        return f"{flag} takes no value: give it, or leave it out"
    return f"{flag} has no value: say {flag} {placeholder(field) if field else 'FILE'}"


def _strangers(rest: Sequence[str], program: Program[Any], meant: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each flag that is none, and for each value that belongs to no flag; `meant` tells which one a value lacks."""
    flags = [flag_of(name) for name, of in program.names.items() if _has_flag(program.fields[of])] + ["--config", "--help"]
    after_flag = False
    for word in rest:
        if word.startswith("-"):
            flag = word.partition("=")[0]
            close = closest(flag, flags)
            yield f"{flag} is not a setting" + (f": did you mean {close}?" if close else "; `--help` lists them")
        elif not after_flag:
            cure = f"say {meant[word]} {word}" if word in meant else f"put a setting's name before its value{_example(program)}"
            yield f"{word!r} belongs to no setting: {cure}"
        after_flag = word.startswith("-") and "=" not in word


def _has_flag(field: FieldInfo) -> bool:
    return not (mark(field, Positional) and is_list(field))


def _example(program: Program[Any]) -> str:
    named = {name: field for name, field in program.fields.items() if not mark(field, Positional)}
    several = next((name for name, field in named.items() if is_list(field)), None)
    name = several or next(iter(named), None)
    shown = f" ({flag_of(name)} {placeholder(named[name])})" if name else ""
    return f", and commas between several values{shown}" if several else shown


def help_text(program: Program[Any], width: int | None = None) -> str:
    """What `--help` shows, for a terminal of so many columns (None: this one)."""
    parser = parser_of(program)
    if width is not None:
        parser.formatter_class = lambda prog: _Layout(prog, width=width)
    return parser.format_help()


def parser_of(program: Program[Any]) -> argparse.ArgumentParser:
    """The parser of a command's flags."""
    parser = _Parser(
        prog=program.name,
        usage=_usage(program),
        description=program.about + "\n\nexamples:\n" + "".join(_example_lines(program.examples)),
        epilog=_epilog(program),
        formatter_class=_Layout,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        exit_on_error=False,
    )
    parser._optionals.title = "in general"
    parser.add_argument("--config", metavar="FILE", help="YAML file of settings, a line `name: value` for each")
    for title, model in program.groups.items():
        group = parser.add_argument_group(title)
        for name in model.model_fields:
            _add(group, name, program.fields[name])
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Refused(f"{message}; `--help` lists the settings")


class _Layout(argparse.HelpFormatter):
    """Fills paragraphs to the terminal's width, with their indentation, and leaves what is indented far as it stands."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for paragraph in _paragraphs(text) for line in _filled(paragraph, width))

    def _format_action_invocation(self, action: argparse.Action) -> str:
        names = [name for name in action.option_strings if not name.startswith("--no-")]
        return " ".join([", ".join(names), *([action.metavar] if isinstance(action.metavar, str) else [])]).strip()


def _paragraphs(text: str) -> Iterator[str]:
    """Lines that belong together as one: as many as have the same indentation, none of them a term and its explanation."""
    held: str | None = None
    for line in text.rstrip().splitlines():
        continues = held is not None and held.strip() and line.strip() and _indent(line) == _indent(held) < _AS_IT_STANDS
        if continues and not _TERM.match(line) and held is not None:
            held += " " + line.strip()
            continue
        if held is not None:
            yield held
        held = line
    if held is not None:
        yield held


def _filled(line: str, width: int) -> list[str]:
    if _indent(line) >= _AS_IT_STANDS and line.lstrip().startswith("masklake "):
        return _command_lines(line, width)
    if not line.strip() or _indent(line) >= _AS_IT_STANDS:
        return [line.rstrip()]
    term = _TERM.match(line)
    hang = " " * (term.end() if term and term.end() < width // 2 else _indent(line))
    return textwrap.wrap(line, width, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False, drop_whitespace=True)


def _command_lines(command: str, width: int) -> list[str]:
    """A command that may be copied to a shell, on as many lines as it takes."""
    first, *settings = re.split(r" (?=--)", command.rstrip())
    lines = [first]
    for setting in settings:
        if len(lines[-1]) + 1 + len(setting) + 2 <= width:
            lines[-1] += " " + setting
        else:
            lines.append(" " * (_indent(command) + 4) + setting)
    return [line + " \\" for line in lines[:-1]] + lines[-1:]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _example_lines(examples: Mapping[str, str]) -> Iterator[str]:
    for command, text in examples.items():
        yield f"  {text}:\n      {command}\n"


def _usage(program: Program[Any]) -> str:
    named = [
        _in_usage(name, program.fields[name])
        for group in program.groups.values()
        for name in group.model_fields
        if program.fields[name].is_required()
    ]
    loose = [f" [{placeholder(field)} ...]" for field in program.fields.values() if mark(field, Positional) and is_list(field)]
    return f"{program.name}{''.join(named)}{''.join(loose)} [settings]"


def _in_usage(name: str, field: FieldInfo) -> str:
    if mark(field, Positional):
        return f" {placeholder(field)}"
    return f" {flag_of(name)} {name.upper() if choices(field) else placeholder(field)}"


def _epilog(program: Program[Any]) -> str:
    name = next((name for name in program.fields if "_" in name), next(iter(program.fields)))
    places = (
        f"Every setting is also an environment variable ({ENV_PREFIX}{name.upper()}) and a key of the YAML file that --config, or "
        f"{ENV_PREFIX}CONFIG, names ({name}). A flag goes before a variable, a variable before the file; --no-NAME turns off what "
        "they turn on."
    )
    ends = f"exit codes: {program.exit_codes}."
    if program.prints_summary:
        ends += " The last line on stdout is one JSON object that says how it ended."
    paragraphs = [program.rules.strip("\n"), places, ends]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def _add(group: argparse._ArgumentGroup, name: str, field: FieldInfo) -> None:
    text = (field.description or "") + _default(field)
    words = choices(field)
    value = name.upper() if words and len("|".join(words)) > _MOST_WORDS and not mark(field, Shown) else placeholder(field)
    text = text.replace("%", "%%")
    if mark(field, Positional):
        group.add_argument(name, nargs="*" if is_list(field) else "?", metavar=value, help=text)
        if _has_flag(field):
            group.add_argument(flag_of(name), dest=_NAMED + name, help=argparse.SUPPRESS)
        return
    also = mark(field, Also)
    flags = [flag_of(name), *([flag_of(also.name)] if also else [])]
    if is_flag(field):
        group.add_argument(*flags, action=argparse.BooleanOptionalAction, dest=name, help=text)
    else:
        group.add_argument(*flags, action="append" if is_list(field) else "store", dest=name, metavar=value, help=text)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return " (required)"
    if any(field.default is nothing for nothing in (None, False, ())) or field.default == {} or "default:" in (field.description or ""):
        return ""
    default = field.default if isinstance(field.default, tuple) else (field.default,)
    return f" (default: {','.join(f'{each:g}' if isinstance(each, float) else str(each) for each in default)})"
