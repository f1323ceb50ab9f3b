"""Listing, table and plan together, in one process: the plan is the one that its definition gives, whoever read the table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from masklake.errors import MasklakeError
from masklake.segment.digests import digest
from masklake.segment.stages import digest_files
from masklake.table.append import Table
from masklake.table.keys import KEYS, Wanted
from tests.planning import LAKE, planned, random_case, reference, write_table


def digest_batches(table: Table, wanted: Wanted) -> Iterator[pa.RecordBatch]:
    """What tasks on a cluster would give."""
    files = table.key_files(wanted)
    assert files is not None
    for part in digest_files(table.uri, wanted, files):
        yield from part.to_batches()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_a_plan_is_what_its_definition_says_whichever_way_the_table_is_read(seed: int, tmp_path: Path) -> None:
    case = random_case(seed)
    table, wanted = write_table(case, tmp_path / "masks"), Wanted(case.fingerprints, LAKE)
    expected = reference(case)
    assert planned(case, digest(table.done_keys(wanted), KEYS, case.fingerprints), tmp_path / "here") == expected
    assert planned(case, digest_batches(table, wanted), tmp_path / "there") == expected


def test_a_file_that_cannot_be_read_ends_planning_with_its_own_error(tmp_path: Path) -> None:
    case = random_case(1)
    table, wanted = write_table(case, tmp_path / "masks"), Wanted(case.fingerprints, LAKE)
    for path in tmp_path.rglob("part-*.parquet"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="part-run-1"):
        planned(case, digest_batches(table, wanted), tmp_path / "work")
    with pytest.raises(MasklakeError, match=r"part-run-1.*: this file of the table is gone"):
        planned(case, digest(table.done_keys(wanted), KEYS, case.fingerprints), tmp_path / "work")


def test_random_cases_are_not_all_alike() -> None:
    plans = [reference(random_case(seed)).plan for seed in range(12)]
    for name in ("done_images", "todo_images", "retried_errors", "kept_errors", "left_out"):
        assert len({getattr(plan, name) for plan in plans}) > 3, name
