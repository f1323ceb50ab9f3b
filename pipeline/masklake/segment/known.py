"""What the fingerprints in a table stand for, so that a run can say in what it differs from earlier ones.

Each run leaves what its fingerprints cover as JSON beside the table. That is told to people, settles what `--precision auto` means, and
says which rows hold answers to some of the concepts that are asked for; what is done already goes by the fingerprint alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from masklake import storage
from masklake.spelling import plural
from masklake.table.asked import FACTS, facts

_SETTINGS = {  # where the facts have another name than the flag
    "answer.checkpoint": "--model (its weights)",
    "answer.resize": "--resolution",
    "answer.frame": "--resolution",
    "answer.things": "--thing-labels",
    "decode.how": "--decode",
    "decode.max_bytes": "--max-image-bytes",
    "half_precision_version": "--precision",
}
_CONCEPTS = "--concepts"
_VERSIONS = ("answer.postprocess_version", "decode.version", "decode.formats")

RowsOf = Callable[[str, str], int]
"""Of a task and a fingerprint, how many rows a table holds, about."""


@dataclass(frozen=True)
class Known:
    """A fingerprint, and what it covers."""

    task: str
    fingerprint: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Near:
    """Rows of a table that would do, but for one setting."""

    task: str
    setting: str
    """As its flag."""
    theirs: str
    ours: str
    rows: int

    def __str__(self) -> str:
        """A sentence for the user."""
        return (
            f"ATTENTION: the table holds {plural(self.rows, 'row')} of the task {self.task} under one other setting: "
            f"{self.setting} is {self.theirs} there and {self.ours} here. Such rows do not count as done, so every image is new work; "
            "to go on with them, say it as it is there"
        )


def digest_of(found: Mapping[str, Any]) -> str:
    """The fingerprint of such facts."""
    return hashlib.sha256(json.dumps(found, sort_keys=True, default=str).encode()).hexdigest()[:32]


def remember(table_uri: str, known: Sequence[Known]) -> None:
    """Leave what these fingerprints cover beside the table."""
    there = set(storage.list_names(_folder(table_uri)))
    for each in known:
        if f"{each.fingerprint}.json" not in there:
            content = json.dumps({"task": each.task, "facts": each.facts}, default=str)
            storage.write_bytes(f"{_folder(table_uri)}{each.fingerprint}.json", content.encode())


def remembered(table_uri: str) -> list[Known]:
    """What earlier runs left; what cannot be read is passed over, since nothing is lost by it but advice, and work already done."""
    return [known for fingerprint, content in facts(table_uri) if (known := _parsed(fingerprint, content))]


def precision_held(ours: Sequence[Known], others: Sequence[Known], rows_of: RowsOf) -> tuple[str, int] | None:
    """The precision of most of the rows that a table holds of this model, and their number; None where it holds none.

    Rows that differ in precision alone count before those that differ in more.
    """
    for alike in (_but_for_precision, _same_model):
        rows: dict[str, int] = {}
        for other in others:
            if any(alike(mine, other) for mine in ours):
                precision = str(other.facts["precision"])
                rows[precision] = rows.get(precision, 0) + rows_of(other.task, other.fingerprint)
        most = max(rows.items(), key=lambda each: each[1], default=("", 0))
        if most[1]:
            return most
    return None


def concepts_held(mine: Known, others: Sequence[Known]) -> dict[str, frozenset[str]]:
    """Fingerprint -> those of my concepts that its rows answer just as mine will: they differ in the concepts alone.

    A model answers each concept by itself. Facts that are not those of their fingerprint are passed over.
    """
    asked = frozenset(mine.facts["answer"].get("concepts", ()))
    found = {
        other.fingerprint: asked & frozenset(other.facts["answer"].get("concepts", ()))
        for other in others
        if other.task == mine.task
        and differences(mine.facts, other.facts).keys() == {_CONCEPTS}
        and digest_of(other.facts) == other.fingerprint
    }
    return {fingerprint: concepts for fingerprint, concepts in found.items() if concepts}


def nearest(ours: Sequence[Known], others: Sequence[Known], rows_of: RowsOf) -> list[Near]:
    """Of each task of which a table holds nothing that was asked so: the rows that differ in one setting, most first."""
    found = []
    for mine in ours:
        if rows_of(mine.task, mine.fingerprint):
            continue
        near = [
            Near(mine.task, setting, theirs, own, rows)
            for other in others
            if other.task == mine.task
            and len(differing := differences(mine.facts, other.facts)) == 1
            and _CONCEPTS not in differing  # these rows are made use of
            and (rows := rows_of(other.task, other.fingerprint))
            for setting, (own, theirs) in differing.items()
        ]
        found += sorted(near, key=lambda each: -each.rows)[:1]
    return found


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The settings in which two fingerprints differ, as flags, with both values."""
    mine, others = dict(_leaves(ours)), dict(_leaves(theirs))
    found: dict[str, tuple[str, str]] = {}
    for name in sorted({*mine, *others}, key=lambda name: name.startswith("half_precision")):
        if mine.get(name) != others.get(name):
            found.setdefault(_setting(name), (_shown(mine.get(name)), _shown(others.get(name))))
    return found


def _but_for_precision(mine: Known, other: Known) -> bool:
    return mine.task == other.task and not differences(mine.facts, other.facts).keys() - {"--precision"}


def _same_model(mine: Known, other: Known) -> bool:
    return bool(mine.facts["answer"]["checkpoint"] == other.facts["answer"]["checkpoint"])


def _leaves(facts: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{before}{name}.")
        else:
            yield before + name, json.loads(json.dumps(value, default=str))


def _setting(name: str) -> str:
    if name in _VERSIONS:
        return "what is installed (masklake and its readers of image formats)"
    for prefix, flag in _SETTINGS.items():
        if name == prefix or name.startswith(prefix + "."):
            return flag
    return "--" + name.rpartition(".")[2].replace("_", "-")


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _parsed(fingerprint: str, content: bytes) -> Known | None:
    try:
        told = json.loads(content)
        known = Known(str(told["task"]), fingerprint, dict(told["facts"]))
        return known if known.facts["precision"] and known.facts["answer"]["checkpoint"] else None
    except (ValueError, KeyError, TypeError):
        return None


def _folder(table_uri: str) -> str:
    return f"{table_uri}/{FACTS}"
