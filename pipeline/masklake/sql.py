"""SQL conditions that people write: one expression, parsed as such, and evaluated where nothing else can be reached."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from masklake.database import connect
from masklake.errors import Refused

_DEEPEST = 200  # parentheses and operators within each other: beyond it, Python's and delta-rs' recursion is at its end
_LONGEST_SHOWN = 300  # characters of a condition that a message repeats

LOCK = (
    "SET autoinstall_known_extensions = false; SET autoload_known_extensions = false; SET python_enable_replacements = false; "
    "SET enable_external_access = false; SET lock_configuration = true"
)
"""DuckDB's settings, the last to be made: from then on a database reads no other file, fetches no extension, and keeps these settings."""


def expression(text: str, setting: str = "--where") -> list[dict[str, Any]]:
    """The nodes of a condition's syntax tree, as DuckDB parses it; the condition is not evaluated.

    What passes is a single expression also between parentheses: `(text` and `)`, with a line break before the latter, for a comment.

    Raises:
        Refused: it is not SQL, more than one expression without subqueries, or nested too deep.
    """
    parsed = _parsed(text)
    if parsed["error"]:
        reason = str(parsed["error_message"]).split("\n", 1)[0]
        if reason.startswith("Max expression depth"):
            reason = f"this one is nested more than {_DEEPEST} deep"
        raise Refused(f"{setting} {shown(text)}: it must be one SQL condition: {reason}")
    # Anything behind the expression, such as ORDER BY or UNION, or another statement, shows beside it in the tree.
    condition = _condition(parsed)
    if parsed != _frame():
        raise Refused(f"{setting} {shown(text)}: it must be one SQL condition, with nothing behind it")
    nodes = list(_nodes(condition))
    if any(node.get("class") == "SUBQUERY" for node in nodes):
        raise Refused(f"{setting} {shown(text)}: it must be a condition on each row by itself, without subqueries")
    return nodes


def shown(text: str) -> str:
    """A condition as a message repeats it: the beginning of a long one."""
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}... ({len(text):,} characters)"


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _parsed(text: str) -> dict[str, Any]:
    with connect() as database:
        database.execute(f"SET max_expression_depth TO {_DEEPEST}")
        database.execute(LOCK)
        (tree,) = database.execute("SELECT json_serialize_sql('SELECT 1 WHERE ' || ?)", [text]).fetchone() or ("{}",)
    parsed: dict[str, Any] = json.loads(tree)
    return parsed


def _condition(parsed: dict[str, Any]) -> Any:
    """Take the condition out of the tree of a SELECT; leave what is not the first statement's as it is."""
    return parsed["statements"][0]["node"].pop("where_clause", None) if parsed["statements"] else None


@cache
def _frame() -> dict[str, Any]:
    """The tree of the SELECT around a condition, without it."""
    parsed = _parsed("true")
    _condition(parsed)
    return parsed


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every node of a syntax tree."""
    if isinstance(tree, dict):
        yield tree
    for child in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _nodes(child)
