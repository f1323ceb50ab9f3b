"""What is found, to hand on: an SQL condition where one says it, else a list of images, and the commands that take them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

from masklake.browse.asked import Asked

LIST = "images.jsonl"


def where_of(asked: Asked) -> str | None:
    """A condition that `--where` takes and that, with the task, says which rows are looked at; None where it would say nothing."""
    return " AND ".join(asked.row_conditions()[1:]) or None  # the task has a setting of its own


def as_lines(uris: Sequence[str]) -> str:
    """The images as JSON lines, which hold any name: what `--uris` of all commands reads."""
    return "".join(json.dumps({"image_uri": uri}, ensure_ascii=False) + "\n" for uri in uris)


def told(asked: Asked, table_uri: str, count: int, picked: bool) -> dict[str, Any]:
    """All of it, for the page: `where` and `commands`, and the list that these need.

    Args:
        asked: the question.
        table_uri: the table's folder.
        count: of images.
        picked: whether they were picked one by one, and are not all that was found.
    """
    where, by_list = where_of(asked), bool(picked or asked.segment_conditions() or asked.truth)
    chosen = [*(["--uris", LIST] if by_list else []), *(["--where", where] if where else [])]
    return {
        "count": count,
        "where": None if by_list else where,
        "list": LIST,
        "commands": _commands(shlex.quote(table_uri), asked.task, shlex.join(chosen)),
    }


def _commands(table: str, task: str, chosen: str) -> list[dict[str, str]]:
    """What can be done with the images, as commands for a shell."""
    of = f"--table {table} --task {task}"
    commands = {
        "Export, to correct in CVAT": f"masklake export {of} --format cvat --output to-correct {chosen}",
        "Export as COCO": f"masklake export {of} --format {_COCO[task]} --output export {chosen}",
        "Fine-tune on these answers": f"masklake finetune --truth {table} --format table --task {task} --output tuned --model MODEL "
        f"{chosen}",
        "Erase (a dry run first)": f"masklake erase --table {table} --uris {LIST} --dry-run",
    }
    return [{"title": title, "command": command.rstrip()} for title, command in commands.items()]


_COCO = {"panoptic": "coco-panoptic", "instance": "coco-instances", "semantic": "label-maps"}
