"""Taking images out of a table: their rows, and the pictures and lines about them that reports and galleries hold.

Files are rewritten without the rows, each in a commit of its own. Old versions keep them until a vacuum deletes the replaced files.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from masklake import storage
from masklake.errors import ErrorCode, ImageFailure, MasklakeError
from masklake.spelling import plural
from masklake.storage import StorageError
from masklake.upkeep.rewrite import opened, replace_files
from masklake.upkeep.upkeep import TableFile, UpkeepTable


@dataclass(frozen=True)
class Erasure:
    """What was erased, or, of a dry run, would be."""

    found: frozenset[str] = field(default=frozenset(), repr=False)
    """The images with at least one row."""
    rows: int = 0
    files: int = 0
    """That held these rows."""
    replaced: tuple[str, ...] = field(default=(), repr=False)
    """The URIs of these files, which old versions of the table still name."""


def erase(table: UpkeepTable, uris: Collection[str], dry_run: bool = False, show: Callable[[str], None] = lambda text: None) -> Erasure:
    """Delete every row of these images, whatever its task, fingerprint and run.

    Args:
        uris: as in the table's `image_uri`.
        dry_run: only count.
        show: told of progress.

    Raises:
        Fenced: a vacuum took this job for dead.
        MasklakeError: the table cannot be read or written.
    """
    wanted = sorted(set(uris))
    erased, images, overtaken = Erasure(), set[str](), True
    while overtaken:
        files, overtaken = table.files(), False
        try:
            for file, rows, found in _files_with(table.uri, files, wanted):
                if not (dry_run or _take_out(table, file, wanted)):
                    overtaken = True  # a compaction replaced the file: look where the rows are now
                    continue
                images |= found
                replaced = (*erased.replaced, f"{table.uri}/{file.path}")
                erased = Erasure(frozenset(images), erased.rows + rows, erased.files + 1, replaced)
                show(f"{plural(erased.rows, 'row')} of {plural(len(images), 'image')} in {plural(erased.files, 'file')}")
        except StorageError:
            if table.holds(files):
                raise
            overtaken = True  # and a vacuum deleted it
    return erased


def check_gone(uris: Sequence[str]) -> None:
    """See that files are deleted.

    Raises:
        MasklakeError: one is still there, or the store does not say.
    """
    for uri, found in zip(uris, storage.stat_many(uris), strict=True):
        if not isinstance(found, ImageFailure) or found.code != ErrorCode.NOT_FOUND:
            why = found.message if isinstance(found, ImageFailure) else "it is still there"
            raise MasklakeError(f"{uri} held erased rows, and is not known to be gone: {why}")


def erase_pictures(table_uri: str, uris: Collection[str]) -> int:
    """Delete the galleries that show or name one of these images, and their lines in reports; returns how many files that changed.

    A gallery's report says which images it shows. A gallery without such a report is deleted: nothing says what it shows.
    """
    folder = f"{table_uri}/_masklake/runs/"
    pages = storage.list_files(folder) if storage.list_names(folder) else ()
    files = {file.uri for page in pages for file in page if file.uri.endswith(("/gallery.html", "/report.json"))}
    changed = 0
    for run in sorted({uri.rpartition("/")[0] for uri in files}):
        gallery, report = f"{run}/gallery.html", f"{run}/report.json"
        told = json.loads(storage.read_bytes(report)) if report in files else {}
        if gallery in files and _shows(told, uris):
            storage.delete_files([gallery])  # before the report forgets what it shows
            changed += 1
        if _forget(told, uris):
            storage.write_bytes(report, json.dumps(told, indent=2).encode())
            changed += 1
    return changed


def _files_with(table_uri: str, files: Sequence[TableFile], uris: Sequence[str]) -> Iterator[tuple[TableFile, int, set[str]]]:
    """The files that hold rows of these images (sorted), how many rows, and of which of them."""
    candidates = [file for file in files if _may_hold(file, uris)]
    values = pa.array(uris, pa.string())
    for file, source in opened(table_uri, candidates):
        rows, images = 0, set[str]()
        for batch in source.iter_batches(columns=["image_uri"]):
            column = batch.column(0).cast(pa.string())
            found = column.filter(pc.is_in(column, values))
            rows += len(found)
            images.update(found.to_pylist())
        if rows:
            yield file, rows, images


def _may_hold(file: TableFile, uris: Sequence[str]) -> bool:
    """Whether one of these URIs (sorted) lies within the file's bounds."""
    if file.first_uri is None or file.last_uri is None:
        return True
    index = bisect_left(uris, file.first_uri)
    return index < len(uris) and uris[index] <= file.last_uri


def _take_out(table: UpkeepTable, file: TableFile, uris: Sequence[str]) -> bool:
    """Replace a file by one without these images; False where another job was faster."""
    values = pa.array(uris, pa.string())
    with table.telling_damage():
        return replace_files(table, [file], lambda _, first, rows: pc.invert(pc.is_in(rows["image_uri"], values))) is not None


def _shows(report: Mapping[str, Any], images: Collection[str]) -> bool:
    """Whether the gallery of this report has a picture of one of these images, names one, or may do so."""
    named = (example["uri"] for error in report.get("errors", {}).values() for example in error["examples"])
    return "pictures" not in report or not set(images).isdisjoint([*report["pictures"], *named])


def _forget(report: dict[str, Any], images: Collection[str]) -> bool:
    """Take these images out of a report; returns whether they were there."""
    before = json.dumps(report)
    for error in report.get("errors", {}).values():
        error["examples"] = [example for example in error["examples"] if example["uri"] not in images]
    if "pictures" in report:
        report["pictures"] = [uri for uri in report["pictures"] if uri not in images]
    return json.dumps(report) != before
