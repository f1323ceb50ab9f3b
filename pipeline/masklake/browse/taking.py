"""What is found, to hand on: an SQL condition where one says it, a list of images, and the commands that take them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

import yaml

from masklake.browse.asked import Asked
from masklake.table.keys import sql_text

MOST_NAMED = 10_000
"""So many images at most are named in a condition: of 50,000, delta-rs' parser crashes."""

LONGEST_TYPED = 1_500
"""Characters of a condition that is put on a command line; a longer one goes into a file."""

LIST, SETTINGS = "images.jsonl", "images.yaml"


def where_of(asked: Asked, uris: Sequence[str], picked: bool) -> str | None:
    """A condition that `--where` takes and that, with the task, means these images; None where it would name too many.

    Args:
        asked: the question.
        uris: the images.
        picked: whether they were picked one by one, and are not all that was found.
    """
    rows = asked.row_conditions()[1:]  # the task has a setting of its own
    if not (picked or asked.segment_conditions() or asked.truth):
        return " AND ".join(rows)
    return " AND ".join([*rows, f"image_uri IN ({', '.join(map(sql_text, uris))})"]) if len(uris) <= MOST_NAMED else None


def as_settings(where: str) -> str:
    """The condition as a file that `--config` takes."""
    return yaml.safe_dump({"where": where}, width=1 << 30)


def as_lines(uris: Sequence[str]) -> str:
    """The images as JSON lines, which hold any name: what `erase --uris` reads."""
    return "".join(json.dumps({"image_uri": uri}, ensure_ascii=False) + "\n" for uri in uris)


def told(asked: Asked, table_uri: str, uris: Sequence[str], picked: bool) -> dict[str, Any]:
    """All of it, for the page: `where` and `commands`, and which files these need; `picked` as for `where_of`."""
    where, count = where_of(asked, uris, picked), len(uris)
    in_file = where is not None and len(where) > LONGEST_TYPED
    chosen = "" if not where else f"--config {SETTINGS}" if in_file else f"--where {shlex.quote(where)}"
    return {
        "count": count,
        "where": None if in_file else where,
        "list": LIST,
        "settings": SETTINGS if in_file else None,
        "commands": _commands(shlex.quote(table_uri), asked.task, None if where is None else chosen),
        "note": f"More than {MOST_NAMED:,} images cannot be named in a condition: ask for fewer to export them or to learn from them."
        if where is None
        else "",
    }


def _commands(table: str, task: str, chosen: str | None) -> list[dict[str, str]]:
    """What can be done with the images, as commands for a shell; None: only what takes their list."""
    of = f"--table {table} --task {task}"
    several = {
        "Export, to correct in CVAT": f"masklake export {of} --format cvat --output to-correct {chosen}",
        "Export as COCO": f"masklake export {of} --format {_COCO[task]} --output export {chosen}",
        "Fine-tune on these answers": f"masklake finetune --truth {table} --format table --task {task} --output tuned --model MODEL "
        f"{chosen}",
    }
    told = {} if chosen is None else several
    told["Erase (first only said)"] = f"masklake erase --table {table} --uris {LIST} --dry-run"
    return [{"title": title, "command": command.rstrip()} for title, command in told.items()]


_COCO = {"panoptic": "coco-panoptic", "instance": "coco-instances", "semantic": "label-maps"}
