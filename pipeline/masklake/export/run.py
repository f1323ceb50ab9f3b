"""One export, from settings to summary."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from deltalake.exceptions import DeltaError

from masklake import reading, storage
from masklake.errors import MasklakeError
from masklake.export import folder
from masklake.export.format import Job, Written
from masklake.export.official import Official
from masklake.export.selection import Selection
from masklake.export.settings import ExportConfig
from masklake.named import chosen
from masklake.spelling import plural
from masklake.table.place import check_outside_tables
from masklake.table.read import MaskTable
from masklake.table.selection import mixtures

Summary = dict[str, Any]
"""The JSON object that an export ends with, also its `_export.json`."""


def export(settings: ExportConfig, say: Callable[[str], None], show: Callable[[str], None] = lambda text: None) -> Summary:
    """Write what `settings` asks for.

    Args:
        settings: what to export, and where to.
        say: told what the user should know, a sentence at a time.
        show: told of progress.

    Raises:
        Refused: a setting, credential or bucket is wrong, or nothing fits; an earlier export is still as it was, unless a label showed
            up on the way that the format cannot hold.
        MasklakeError: the export failed; without `_export.json` its folder does not look complete.
    """
    storage.check_input(settings.table_uri, "--table")
    storage.check_output(settings.output_uri)
    check_outside_tables(settings.output_uri)
    output = settings.output_uri + "/"
    folder.check(output, settings.overwrite)
    try:
        table, unknown = chosen(reading.open_table(settings.table_uri), settings.uris, say)
        return _export(settings, table, output, say, show) | ({"unknown": unknown} if settings.uris else {})
    except (DeltaError, duckdb.Error, pa.ArrowException, OSError) as error:  # a file of the table is gone, the disk is full, ...
        reason = " ".join(str(error).split())
        raise MasklakeError(f"the export failed: {reason}; mend that and run it again with --overwrite") from error


def _export(settings: ExportConfig, table: MaskTable, output: str, say: Callable[[str], None], show: Callable[[str], None]) -> Summary:
    with (
        tempfile.TemporaryDirectory(prefix="masklake-export-") as scratch,
        closing(Selection(table, settings, Path(scratch), show)) as selection,
    ):
        say(f"{plural(selection.rows, 'row')} of version {table.delta.version()} of {settings.table_uri}")
        for line in mixtures(selection.answers):
            say(line)
        form = settings.chosen_format
        if selection.task != settings.task and form.tasks and selection.task != form.tasks[0]:
            say(f"--task {selection.task}: the only answers in the table that {form.name} can hold")
        official = None if settings.categories_of is None else Official(settings.categories_of)
        if form.numbered:
            selection.number_images()
        if official is not None:
            selection.take_ids_of(official)
        if form.named_files:
            selection.check_names()
        folder.clear(output)
        written = form.write(Job(selection, table, settings, output, Path(scratch), _info(selection, table, settings), official))
        for line in (*written.remarks, *_likeness(written)):
            say(line)
        for line in () if official is None else official.in_words(selection.rows, selection.asked):
            say(line)
        summary = _summary(selection, table, settings, written)
    for label in sorted(set(settings.label) - written.labels):
        say(f"--label {label}: no segment that was exported has it; is it spelt as in the table?")
    folder.finish(output, summary)
    return summary


def _likeness(written: Written) -> Iterator[str]:
    """How well polygons stand for masks, where there are some."""
    if written.iou:
        segments = sum(each["segments"] for each in written.iou.values())
        mean = sum(each["mean"] * each["segments"] for each in written.iou.values()) / segments
        label, least = min(written.iou.items(), key=lambda item: item[1]["least"])
        yield f"IoU of polygons and masks: {mean:.4f} on average, at least {least['least']:.4f} ({label}); of each label in {folder.DONE}"


def _info(selection: Selection, table: MaskTable, settings: ExportConfig) -> dict[str, Any]:
    """What COCO's files say of where they come from."""
    return {
        "description": f"masklake {selection.task}",
        "url": settings.table_uri,
        "version": str(table.delta.version()),
        "root": selection.root,
    }


def _summary(selection: Selection, table: MaskTable, settings: ExportConfig, written: Written) -> Summary:
    return {
        "outcome": "done",
        "format": settings.format,
        "output": settings.output_uri,
        "table": settings.table_uri,
        "table_version": table.delta.version(),
        "task": selection.task,
        "labels": list(settings.label),
        "min_score": settings.min_score,
        "where": settings.where,
        "uris": settings.uris,
        "rows": selection.rows,
        "segments": written.segments,
        "root": selection.root,
        **({"simplify": settings.simplify, "polygon_iou": written.iou} if written.iou else {}),
        **({"least_certain": settings.least_certain} if settings.least_certain else {}),
        "answers": [asdict(answers) for answers in selection.answers],
    }
