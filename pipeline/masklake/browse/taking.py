"""What is found, to hand on: an SQL condition where one says it, a list of images, and the commands that take them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

from masklake.browse.asked import Asked
from masklake.table.keys import sql_text

MOST_NAMED = 200
"""So many images at most are named in a condition; of more, there is the list."""

LIST = "images.jsonl"


def where_of(asked: Asked, uris: Sequence[str], picked: bool) -> str | None:
    """A condition that `--where` takes and that, with the task, means these images; None where it takes their list.

    Args:
        asked: the question.
        uris: the images.
        picked: whether they were picked one by one, and are not all that was found.
    """
    rows = asked.row_conditions()[1:]  # the task has a setting of its own
    if not (picked or asked.segment_conditions() or asked.truth):
        return " AND ".join(rows)
    return " AND ".join([*rows, f"image_uri IN ({', '.join(map(sql_text, uris))})"]) if len(uris) <= MOST_NAMED else None


def commands(table_uri: str, task: str, where: str | None) -> list[dict[str, str]]:
    """What can be done with the images, as commands for a shell."""
    quoted = shlex.quote(table_uri)
    of = f"--table {quoted} --task {task}"
    chosen = f"--uris {LIST}" if where is None else f"--where {shlex.quote(where)}" if where else ""
    told = {
        "Export, to correct in CVAT": f"masklake export {of} --format cvat --output to-correct {chosen}",
        "Export as COCO": f"masklake export {of} --format {_COCO[task]} --output export {chosen}",
        "Fine-tune on these answers": f"masklake finetune --truth {quoted} --format table --task {task} --model MODEL --output tuned "
        f"{chosen}",
        "Erase (first without doing it)": f"masklake erase --table {quoted} --uris {LIST} --dry-run",
    }
    return [{"title": title, "command": command.rstrip()} for title, command in told.items()]


def as_lines(uris: Sequence[str]) -> str:
    """The images as JSON lines, which hold any name: what `--uris` of other commands reads."""
    return "".join(json.dumps({"image_uri": uri}, ensure_ascii=False) + "\n" for uri in uris)


def told(asked: Asked, table_uri: str, uris: Sequence[str], picked: bool) -> dict[str, Any]:
    """All of it, for the page; `picked` says that the images were picked one by one, and not found."""
    where = where_of(asked, uris, picked)
    return {"count": len(uris), "where": where, "commands": commands(table_uri, asked.task, where), "list": LIST}


_COCO = {"panoptic": "coco-panoptic", "instance": "coco-instances", "semantic": "label-maps"}
