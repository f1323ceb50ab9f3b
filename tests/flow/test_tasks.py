"""What tasks of a real Ray read of a table: for a plan, compared with its definition, and for an evaluation, with that of one process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from masklake import cluster as ray_session
from masklake.errors import MasklakeError
from masklake.segment import flow
from masklake.table.keys import Wanted
from tests.evaluations import evaluate
from tests.exports import build, export
from tests.planning import FINGERPRINTS, LAKE, planned, random_case, reference, write_table


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One Ray for all that asks for one."""
    with ray_session.cluster(None) as resources, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_session, "cluster", lambda address: nullcontext(resources))
        yield


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("seed", [20, 21])
def test_a_plan_is_what_its_definition_says_when_the_cluster_reads_the_table(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "_SHARE_ROWS", 200)  # several tasks
    case = random_case(seed, images=400)
    table, wanted = write_table(case, tmp_path / "masks"), Wanted(case.fingerprints, LAKE)
    files = table.key_files(wanted)
    assert files
    found = planned(case, flow.done_digests(table.uri, wanted, files), tmp_path / "work")
    assert found == reference(case)
    assert found.plan.done_images + found.plan.retried_errors > 10


def test_a_file_that_cannot_be_read_ends_planning(tmp_path: Path) -> None:
    case = random_case(1)
    table, wanted = write_table(case, tmp_path), Wanted(FINGERPRINTS)
    files = table.key_files(wanted)
    assert files
    (tmp_path / files[-1].path).unlink()
    with pytest.raises(MasklakeError, match="the cluster ended the work"):
        planned(case, flow.done_digests(table.uri, wanted, files), tmp_path / "work")


def test_nothing_to_read_is_nothing(tmp_path: Path) -> None:
    assert list(flow.done_digests(str(tmp_path), Wanted(FINGERPRINTS), [])) == []


def test_figures_do_not_depend_on_ray_or_the_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = build(str(tmp_path / "masks"))
    export(table, tmp_path / "instances", "coco-instances", where="run_id = 'run-1'")
    export(table, tmp_path / "panoptic", "coco-panoptic", where="run_id = 'run-1'")
    kinds = ("instances", "panoptic")
    whole = {kind: evaluate(table, tmp_path / kind) for kind in kinds}
    monkeypatch.setattr("masklake.evaluation.pairs._ROWS_AT_ONCE", 1)
    assert {kind: evaluate(table, tmp_path / kind) for kind in kinds} == whole
    assert evaluate(table, tmp_path / "instances", ray_address="local") == whole["instances"]
    assert 0.2 < whole["panoptic"]["scores"]["pq"] < 1
