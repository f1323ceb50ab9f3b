"""One export, from settings to summary."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from deltalake.exceptions import DeltaError

from masklake import reading, storage
from masklake.errors import MasklakeError
from masklake.export import coco, folder
from masklake.export.folder import Written
from masklake.export.label_maps import write_label_maps
from masklake.export.segments import write_segments
from masklake.export.selection import Selection
from masklake.export.settings import ExportConfig, Format
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
        MasklakeError: the export broke off; without `_export.json` its folder does not look complete.
    """
    storage.check_input(settings.table_uri, "--table")
    storage.check_output(settings.output_uri)
    output = settings.output_uri + "/"
    folder.check(output, settings.overwrite)
    try:
        return _export(settings, reading.open_table(settings.table_uri), output, say, show)
    except (DeltaError, duckdb.Error, pa.ArrowException, OSError) as error:  # a file of the table is gone, the disk is full, ...
        reason = " ".join(str(error).split())
        raise MasklakeError(f"the export broke off: {reason}; when that is cured, run it again with --overwrite") from error


def _export(settings: ExportConfig, table: MaskTable, output: str, say: Callable[[str], None], show: Callable[[str], None]) -> Summary:
    with (
        tempfile.TemporaryDirectory(prefix="masklake-export-") as scratch,
        closing(Selection(table, settings, Path(scratch), show)) as selection,
    ):
        say(f"{selection.rows} rows of version {table.delta.version()} of {settings.table_uri}")
        for line in mixtures(selection.answers):
            say(line)
        if settings.format is not Format.SEGMENTS:
            selection.number_images()
        if settings.format in (Format.PANOPTIC, Format.LABEL_MAPS):
            selection.check_names()
        folder.clear(output)
        written = _write(selection, table, settings, output, Path(scratch))
        summary = _summary(selection, table, settings, written)
    for label in sorted(set(settings.label) - written.labels):
        say(f"--label {label}: no segment that was exported has it; is it spelt as in the table?")
    folder.finish(output, summary)
    return summary


def _write(selection: Selection, table: MaskTable, settings: ExportConfig, output: str, scratch: Path) -> Written:
    info = {
        "description": f"masklake {settings.task_or_default}",
        "url": settings.table_uri,
        "version": str(table.delta.version()),
        "root": selection.root,
    }
    if settings.format is Format.INSTANCES:
        return coco.write_instances(selection, output, scratch, info)
    if settings.format is Format.PANOPTIC:
        return coco.write_panoptic(selection, output, scratch, info)
    if settings.format is Format.LABEL_MAPS:
        return write_label_maps(selection, output, settings)
    return write_segments(selection, table, output, scratch)


def _summary(selection: Selection, table: MaskTable, settings: ExportConfig, written: Written) -> Summary:
    return {
        "outcome": "done",
        "format": settings.format,
        "output": settings.output_uri,
        "table": settings.table_uri,
        "table_version": table.delta.version(),
        "task": settings.task_or_default,
        "labels": list(settings.label),
        "min_score": settings.min_score,
        "where": settings.where,
        "rows": selection.rows,
        "segments": written.segments,
        "root": selection.root,
        "answers": [asdict(answers) for answers in selection.answers],
    }
