"""Trials: a fault, recovery by the same command, and the check of everything that is promised; then a report."""

from __future__ import annotations

import random
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from infra.cluster import LocalCluster
from masklake.demo.seaweedfs import SeaweedFS
from tests.faults.kinds import KINDS, Trial, small_disk
from tests.faults.lake import TASKS, Lake
from tests.faults.verify import Answers, held, verify

IMAGES = 128  # four groups of work, about ten seconds of it on two cores
_ATTEMPTS = 3  # of the recovery
_STORE_MEGABYTES = 400
COUNTS = ("lost", "doubled", "missing_files", "orphans", "leftovers", "after_fence", "repeated")


class Harness:
    """What trials share: a server, answers to compare with, and, for those that need one, a cluster. A context manager."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._answers: Answers = {}
        self._store: SeaweedFS | None = None
        self._cluster: LocalCluster | None = None

    def __enter__(self) -> Harness:
        return self

    def __exit__(self, *reason: object) -> None:
        self._stack.close()

    def run(self, kind: str, seed: int) -> dict[str, Any]:
        """One trial; the same kind and seed choose the same fault and moment."""
        started = time.monotonic()
        with self._lake(kind) as lake:
            trial = Trial(lake, random.Random(f"{kind} {seed}"), cluster=self._joined() if kind == "lose-node" else None)
            KINDS[kind](trial)
            before = held(lake)
            repeated = self._recover(trial, before)
            findings = verify(lake, self._answers, vacuumed=kind == "compact-beside")
            after = held(lake)
        changed = [key for key, run in before.items() if kind != "compact-beside" and after.get(key) != run]
        if changed:
            trial.problems.append(f"{len(changed)} rows that were committed before the fault are gone or made anew: {changed[:3]}")
        found = {**asdict(findings), "repeated": repeated, "problems": [*trial.problems, *findings.problems]}
        facts = {"kind": kind, "seed": seed, **trial.facts, "committed_before": len(before), "codes": trial.codes}
        return {**facts, **found, "seconds": round(time.monotonic() - started, 1)}

    def _recover(self, trial: Trial, before: dict[tuple[str, str], str]) -> int:
        """Run the same command until it ends with 0; returns how many images it did although they were done."""
        if trial.codes and set(trial.codes) <= {0, 4}:
            return 0  # a run has ended with 0, so all must be there
        finished = {uri for uri, _ in before if all((uri, task) in before for task in TASKS)}
        for attempt in range(_ATTEMPTS):
            job = trial.lake.segment()
            if trial.ends(job, 0) == 0:
                done = int(job.summary.get("images", 0))
                return 0 if attempt else done - (trial.lake.images - len(finished))
        return 0

    @contextmanager
    def _lake(self, kind: str) -> Iterator[Lake]:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-")))
            if kind == "fill-store":
                stack.enter_context(small_disk(folder / "store", _STORE_MEGABYTES))
                store = stack.enter_context(SeaweedFS(folder / "store"))
            else:
                store = self._shared_store()
            lake = Lake(store, f"lake-{uuid.uuid4().hex[:8]}", IMAGES, store.env(), folder)
            stack.callback(lake.end_all)
            lake.fill()
            yield lake

    def _shared_store(self) -> SeaweedFS:
        if self._store is None:
            self._store = self._stack.enter_context(SeaweedFS())
        return self._store

    def _joined(self) -> LocalCluster:
        if self._cluster is None:
            self._cluster = self._stack.enter_context(LocalCluster(workers=2, store=self._shared_store()))
        return self._cluster


def choose(trials: int, seed: int, kinds: Sequence[str]) -> list[tuple[str, int]]:
    """Kinds in a random order, each as often as the others, and a seed for each trial."""
    rng = random.Random(seed)
    found: list[str] = []
    while len(found) < trials:
        found += rng.sample(kinds, len(kinds))
    return [(kind, rng.randrange(1 << 32)) for kind in found[:trials]]


def summarise(trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The report: totals, totals by kind, and every trial."""

    def total(some: Sequence[dict[str, Any]]) -> dict[str, Any]:
        codes = sorted({code for trial in some for code in trial["codes"]})
        numbers = {name: sum(trial[name] for trial in some) for name in COUNTS}
        failed = sum(bool(trial["problems"]) for trial in some)
        return {"trials": len(some), "failed": failed, **numbers, "codes": codes, "seconds": round(sum(trial["seconds"] for trial in some))}

    kinds = sorted({trial["kind"] for trial in trials})
    return {
        **total(trials),
        "by_kind": {kind: total([trial for trial in trials if trial["kind"] == kind]) for kind in kinds},
        "each": list(trials),
    }
