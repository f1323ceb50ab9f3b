"""Many small files into few large ones, within partitions; rows that newer ones superseded are left out where that is asked for.

Each group of files is replaced in a commit of its own: readers see the old files or the new one, never both, and what is done stays done.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import groupby

from masklake.spelling import plural
from masklake.storage import StorageError
from masklake.upkeep.rewrite import replace_files
from masklake.upkeep.superseded import Superseded, superseded
from masklake.upkeep.upkeep import TableFile, UpkeepTable

_NEAR = 0.75  # of the target: such a file is left alone


@dataclass(frozen=True)
class Compaction:
    """What a compaction did, or, of a dry run, would do at most."""

    files_before: int = 0
    files_after: int = 0
    merged_files: int = 0
    """Of those before: replaced by the `new_files`."""
    new_files: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    overtaken_files: int = 0
    """Left alone, because another job replaced them first."""
    superseded_rows: dict[str, int] = field(default_factory=dict)
    """Left out, by reason."""


def groups_to_merge(files: Iterable[TableFile], target_bytes: int, to_rewrite: Collection[str] = ()) -> list[list[TableFile]]:
    """Files to merge into one each, of about the target size at most; a file for which that changes nothing is in none.

    Files are packed in the order of fingerprint and URI, each group full before the next, so that the new files hold narrow ranges of both,
    by which readers skip files. A file of three quarters of the target or more is left alone, unless its name is among those `to_rewrite`.
    """

    def partition(file: TableFile) -> list[tuple[bool, str]]:
        return [(value is None, value or "") for value in file.partition_values.values()]

    groups = []
    candidates = [file for file in files if file.size < _NEAR * target_bytes or file.name in to_rewrite]
    candidates.sort(key=lambda file: (partition(file), file.fingerprint or "", file.first_uri or "", file.name))
    for _, together in groupby(candidates, partition):
        group, size = list[TableFile](), 0
        for file in together:
            if group and size + file.size > target_bytes:
                groups.append(group)
                group, size = [], 0
            group.append(file)
            size += file.size
        groups.append(group)
    return [group for group in groups if len(group) > 1 or group[0].name in to_rewrite]


def compact(
    table: UpkeepTable,
    target_bytes: int,
    drop_superseded: bool = False,
    dry_run: bool = False,
    say: Callable[[str], None] = print,
    show: Callable[[str], None] = lambda text: None,
) -> Compaction:
    """Merge small files of a table, and leave out rows that newer ones superseded where that is asked for.

    Args:
        target_bytes: of a new file, compressed, about; so much memory is needed.
        drop_superseded: see `masklake.upkeep.superseded`.
        dry_run: only say what would be done.
        say: told what there is to do.
        show: told of progress.

    Raises:
        Fenced: a vacuum took this job for dead.
        MasklakeError: the table cannot be read or written.
    """
    files = table.files()
    done = Compaction(files_before=len(files), bytes_before=sum(file.size for file in files))
    with ExitStack() as stack:
        dropped: Superseded | None = None
        if drop_superseded:
            say(f"looking for superseded rows in {plural(len(files), 'file')}")
            dropped = stack.enter_context(superseded(table, files))
            done = replace(done, superseded_rows=dropped.reasons)
            say(f"superseded: {', '.join(plural(rows, 'row') + f' ({reason})' for reason, rows in dropped.reasons.items())}")
        groups = groups_to_merge(files, target_bytes, dropped.files if dropped else ())
        merged = sum(map(len, groups))
        say(f"{plural(len(files), 'file')}, {plural(done.bytes_before, 'byte')}; {merged:,} of them to merge into {len(groups):,}")
        if dry_run:
            return replace(done, files_after=len(files) - merged + len(groups), merged_files=merged, new_files=len(groups))
        for number, group in enumerate(groups, 1):
            done = _merge(table, group, dropped, done)
            show(f"{number:,} of {plural(len(groups), 'new file')}")
    files = table.files()
    return replace(done, files_after=len(files), bytes_after=sum(file.size for file in files))


def _merge(table: UpkeepTable, group: Sequence[TableFile], dropped: Superseded | None, done: Compaction) -> Compaction:
    """Replace one group of files."""
    overtaken = replace(done, overtaken_files=done.overtaken_files + len(group))
    try:
        with table.telling_damage():
            new = replace_files(table, group, dropped.keep if dropped else None)
    except StorageError:
        if table.holds(group):
            raise
        return overtaken  # another job replaced a file, and a vacuum deleted it
    if new is None:
        return overtaken
    return replace(done, merged_files=done.merged_files + len(group), new_files=done.new_files + len(new))
