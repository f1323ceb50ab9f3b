from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.benchmarks import planning as benchmark_planning


@pytest.mark.slow
def test_it_writes_the_table_once_and_reads_what_a_plan_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def measured(*arguments: str) -> dict[str, Any]:
        assert benchmark_planning.main(["--table", str(tmp_path), "--rows", "20000", *arguments]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return found

    day, lake = measured("--older", "10000", "--day"), measured("--listed", "2000")
    names = ("listed", "to_do", "files_read", "rows_read")
    assert [day[name] for name in names] == [200, 2, 1, 200]
    assert [lake[name] for name in names] == [2000, 20, 100, 20_000]
