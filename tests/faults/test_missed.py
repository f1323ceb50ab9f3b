"""A fault that comes too late is no trial, whatever its kind: it strikes nothing, and breaks no promise."""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from infra.cluster import LocalCluster
from masklake.demo.seaweedfs import SeaweedFS
from tests.faults.kinds import KINDS, lakes, stores
from tests.faults.lake import DAYS, Lake
from tests.faults.log import Added, Commit
from tests.faults.pictures import Picture
from tests.faults.stored import Stored
from tests.faults.trial import Trial
from tests.faults.trials import NOTHING_FOUND, choose, summarise
from tests.faults.verify import TASKS

AT_A_REQUEST = {"kill-compaction", "erase", "publish", "nested-tables", "finetune"}
"""Kinds whose fault is a kill at a request, and nothing else."""
IMAGES = 8


@dataclass
class Over:
    """A job that had ended with 0 before anything could strike it."""

    run_id: str
    summary: dict[str, Any]
    command: str = "segment"
    errors: str = "masklake: 8 images; 0 already done, 8 to do"
    output: str = ""
    process: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(send_signal=lambda number: None, pid=0))

    def running(self) -> bool:
        return False

    def wait(self) -> int:
        return 0

    def kill(self) -> None:
        """It is over."""

    def below(self) -> list[Any]:
        return []

    driver = workers = below


class Quick(Lake):
    """A lake on which each job is over, with all that it had to do committed, before the next line of a trial."""

    def start(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Any:
        """Do at once what the job would do."""
        run, command = f"run-{len(self.commits)}", arguments[0]
        day = next((each for each in DAYS if any(word.endswith(f"{each}/") for word in arguments)), "")
        todo = 0 if any(not day or each.scope == day for each in self.commits) else IMAGES // (2 if day else 1) * len(TASKS)
        if command == "segment":
            self._commit(run, "begin", day, 0)
            self._commit(run, "data", day, todo)
        outcome = self.outcome if self.commits[2:] else "done"
        return Over(run, {"exit_code": 0, "outcome": outcome}, command)

    commits: list[Commit]
    outcome: str

    def _commit(self, run: str, event: str, scope: str, rows: int) -> None:
        adds = (Added(f"{run}.parquet", 1, rows),) if rows else ()
        self.commits.append(Commit(len(self.commits), event, run, scope, adds, ()))

    def log(self) -> list[Commit]:
        return list(self.commits)

    def put(self, name: str, scene: int) -> None:
        """Nobody reads it."""

    def delete(self, name: str) -> None:
        """Nobody misses it."""

    def scene(self, name: str) -> int:
        return 0

    def stored(self) -> Stored:
        return Stored(self.log(), {}, {}, {}, frozenset(), {})


@pytest.fixture(params=["nothing to do", "done"])
def trial(request: pytest.FixtureRequest, tmp_path: Path) -> Trial:
    """On a lake of jobs that are over; a second run on the same input had planned before, or after, the first had committed all."""
    store = cast(SeaweedFS, SimpleNamespace(endpoint="http://127.0.0.1:9", stop=lambda: None, start=lambda: None, env=dict))
    lake = Quick(store, "lake", IMAGES, {}, tmp_path)
    lake.commits, lake.outcome = [], request.param
    for index in range(IMAGES):
        lake.expected.history[f"{lake.source}{DAYS[index % 2]}/{index}.jpg"] = [cast(Picture, SimpleNamespace(etag=str(index)))]
    cluster = cast(
        LocalCluster, SimpleNamespace(address="", env=dict, workers=lambda: ["a"], lose=lambda name: None, add=lambda name: None)
    )
    return Trial(lake, random.Random(1), cluster=cluster)


@pytest.mark.parametrize("kind", [name for name in KINDS if name not in AT_A_REQUEST])
def test_a_fault_that_comes_too_late_is_no_trial(trial: Trial, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores.Disk, "fill", lambda disk: None)
    monkeypatch.setattr(stores, "small_disk", lambda folder, megabytes: nullcontext(stores.Disk(folder, full=False)))
    monkeypatch.setattr(lakes, "skewed", lambda seconds, folder: {})
    monkeypatch.setattr(lakes, "_check_newest", lambda trial, when: None)
    monkeypatch.setattr(trial.random, "uniform", lambda least, most: 0.0)
    KINDS[kind].strike(trial)
    assert (trial.struck, trial.problems) == (False, [])


def test_a_request_that_never_came_is_no_trial(trial: Trial) -> None:
    trial.killed_at_request(lambda environment: trial.lake.compact(), lambda request: True, 3, trial.lake.compact)
    assert (trial.struck, trial.problems) == (False, [])


def found(kind: str, seed: int, struck: bool, problems: list[str]) -> dict[str, Any]:
    return {"kind": kind, "seed": seed, "missed": not struck, **NOTHING_FOUND, "struck": struck, "problems": problems}


def test_only_what_struck_or_failed_counts() -> None:
    each = [found("erase", 1, True, []), found("erase", 2, False, []), found("publish", 3, False, ["the harness failed"])]
    assert {name: summarise(each)[name] for name in ("trials", "failed", "missed")} == {"trials": 2, "failed": 1, "missed": 2}


def test_a_series_goes_on_with_what_is_rare_until_there_are_enough() -> None:
    done = [*(found("erase", seed, True, []) for seed in range(3)), found("publish", 9, False, [])]
    chosen = choose(6, 7, ["erase", "publish", "terminate"], done)
    assert len(chosen) == 3
    assert {kind for kind, _ in chosen} == {"publish", "terminate"}
    assert choose(6, 7, ["erase", "publish", "terminate"], done) == chosen
    assert choose(3, 7, ["erase"], done) == []
