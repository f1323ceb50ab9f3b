"""Trials: a fault, recovery by the same command, and the check of everything that is promised; then a report."""

from __future__ import annotations

import random
import tempfile
import threading
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from infra.cluster import LocalCluster
from masklake.demo.seaweedfs import SeaweedFS
from tests import trainings
from tests.faults.kinds import KINDS, Kind, On
from tests.faults.kinds.stores import small_disk
from tests.faults.kinds.training import WEIGHTS
from tests.faults.lake import TRAINED, Lake
from tests.faults.stored import Expected
from tests.faults.trial import NotTriedError, Trial, chosen_way
from tests.faults.verify import COUNTS, Answers, Findings, held, verify

IMAGES = 40  # two groups of work, a few seconds of it on two cores
_ATTEMPTS = 3  # of the recovery
_TRIES = 3  # of a fault that does not strike
_STORE_MEGABYTES = 400
NOTHING_FOUND = {"way": "none", "struck": False, "codes": [], "seconds": 0.0, **asdict(Findings())}


class Harness:
    """What trials share: a server, a table to begin with, answers to compare with, and, for those that need one, a cluster.

    A context manager. Several threads may run trials at once. `ray`: whether kinds of fault that need no Ray are at times tried on it.
    """

    def __init__(self, ray: bool = True) -> None:
        self._ray = ray
        self._stack = ExitStack()
        self._answers = Answers()
        self._lock, self._cluster_lock = threading.RLock(), threading.Lock()
        self._store: SeaweedFS | None = None
        self._cluster: LocalCluster | None = None
        self._workers: list[str] = []
        self._whole: Lake | None = None

    def __enter__(self) -> Harness:
        return self

    def __exit__(self, *reason: object) -> None:
        self._stack.close()

    def run(self, kind: str, seed: int) -> dict[str, Any]:
        """One trial; the same kind and seed choose the same fault and moment. One that does not strike is repeated, a few times."""
        for attempt in range(_TRIES):
            try:
                found = self._once(kind, f"{kind} {seed} {attempt}" if attempt else f"{kind} {seed}")
            except NotTriedError as error:
                found = {**NOTHING_FOUND, "said": str(error)}
            except Exception:  # of the harness: the other trials go on
                found = {**NOTHING_FOUND, "problems": [f"the harness failed: {traceback.format_exc()[-1500:]}"]}
            if found["struck"] or found["problems"]:
                break
        return {"kind": kind, "seed": seed, "missed": attempt + (not found["struck"]), **found}

    def _once(self, name: str, seed: str) -> dict[str, Any]:
        started, kind, rng = time.monotonic(), KINDS[name], random.Random(seed)
        way = "ray" if kind.needs_ray else chosen_way(rng, self._ray)
        with self._cluster_lock if kind.needs_cluster else nullcontext(), self._lake(kind) as lake:
            lake.way = way
            trial = Trial(lake, rng, cluster=self._joined() if kind.needs_cluster else None, ray=self._ray)
            kind.strike(trial)
            before = held(lake.stored())
            self._recover(trial)
            stored = lake.stored()
            findings = verify(stored, lake.expected, self._answers, kind.vacuumed)
        after = held(stored)
        changed = [key for key, run in before.items() if key not in lake.expected.gone and after.get(key) != run]
        findings.note("lost", changed, "rows that were committed before the fault are gone or made anew")
        findings.note("lost", trial.lost, "things that should be there are not")
        facts = {"way": way, "struck": trial.struck, **trial.facts, "committed_before": len(before), "codes": trial.codes}
        found = {**asdict(findings), "problems": [*trial.problems, *findings.problems]}
        return {**facts, **found, "seconds": round(time.monotonic() - started, 1)}

    def _recover(self, trial: Trial) -> None:
        """Run what must end with 0 after the fault until it does, a few times."""
        for _ in range(_ATTEMPTS if trial.recovery else 0):
            assert trial.recovery
            if trial.ends(trial.recovery(), 0) == 0:
                return

    @contextmanager
    def _lake(self, kind: Kind) -> Iterator[Lake]:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-")))
            if kind.on == On.SMALL_DISK:
                stack.enter_context(small_disk(folder / "store", _STORE_MEGABYTES))
                store = stack.enter_context(SeaweedFS(folder / "store"))
            else:
                store = self._shared_store()
            lake = Lake(store, f"lake-{uuid.uuid4().hex[:8]}", IMAGES, store.env(), folder)
            stack.callback(lake.end_all)
            if kind.on == On.TRAINING:
                self._fill_scenes(lake)
            elif kind.on == On.TABLE:
                lake = self._copied(lake)
                stack.callback(lake.end_all)
            else:
                lake.fill()
            yield lake

    def _copied(self, lake: Lake) -> Lake:
        """The table that holds all images, copied to a place of its own; the images are shared, and only read."""
        with self._lock:
            whole = self._whole = self._whole or self._made(replace(lake, folder=Path(self._stack.enter_context(_folder()))))
        copy = replace(
            whole,
            table=f"{lake.bucket}/masks",
            folder=lake.folder,
            expected=Expected(dict(whole.expected.history), set(), dict(whole.expected.others)),
            jobs=[],
        )
        for key in whole.objects(f"{whole.table}/"):
            there = copy.table + key.removeprefix(whole.table)
            whole.store.client.copy_object(Bucket=whole.bucket, Key=there, CopySource={"Bucket": whole.bucket, "Key": key})
        return copy

    def _made(self, lake: Lake) -> Lake:
        """The lake with a table of several commits."""
        lake.jobs = []
        lake.fill()
        self._stack.callback(lake.end_all)
        if code := lake.segment().wait():
            raise RuntimeError(f"the table to begin with could not be made ({code}): {lake.jobs[-1].errors}")
        return lake

    def _fill_scenes(self, lake: Lake) -> None:
        """Scenes to learn from, a model to begin with, and what a training without a break makes of it."""
        lake.store.create_bucket(lake.bucket)
        scenes = trainings.scenes(lake.folder / "scenes")
        files = [file for file in scenes.rglob("*") if file.is_file()]
        lake.put_others({f"scenes/{file.relative_to(scenes)}": file.read_bytes() for file in files})
        trainings.model(TRAINED, lake.folder)
        # Anew in each bucket: which scenes are held out depends on where they lie.
        if code := lake.train("reference").wait():
            raise RuntimeError(f"a training without a break ended with {code}: {lake.jobs[-1].errors}")
        lake.protect([f"reference/{WEIGHTS}"])

    def _shared_store(self) -> SeaweedFS:
        with self._lock:
            if self._store is None:
                self._store = self._stack.enter_context(SeaweedFS())
            return self._store

    def _joined(self) -> LocalCluster:
        with self._lock:
            if self._cluster is None:
                self._cluster = self._stack.enter_context(LocalCluster(workers=2, store=self._shared_store()))
                self._workers = self._cluster.workers()
            for name in self._workers:
                if name not in self._cluster.workers():  # the trial before has lost it
                    self._cluster.add(name)
            return self._cluster


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="faults-")


def is_trial(found: Mapping[str, Any]) -> bool:
    """Whether the fault struck, or something went otherwise than promised before it could."""
    return bool(found["struck"] or found["problems"])


def choose(trials: int, seed: int, kinds: Sequence[str], done: Collection[Mapping[str, Any]] = ()) -> list[tuple[str, int]]:
    """What is to be tried until there are so many trials, those `done` among them: kinds in a random order, the rarest first, and seeds."""
    rng = random.Random(seed)
    known = {(each["kind"], each["seed"]) for each in done}
    counted = Counter(each["kind"] for each in done if is_trial(each))
    found: list[tuple[str, int]] = []
    while sum(counted.values()) < trials:
        fewest = min(counted[kind] for kind in kinds)
        chosen = rng.choice([kind for kind in kinds if counted[kind] == fewest]), rng.randrange(1 << 32)
        if chosen not in known:
            found.append(chosen)
            counted[chosen[0]] += 1
    return found


def summarise(trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The report: totals, totals by kind and by way, and every trial; one that never struck counts among those that `missed` alone."""

    def total(some: Sequence[dict[str, Any]]) -> dict[str, Any]:
        real = [trial for trial in some if is_trial(trial)]
        return {
            "trials": len(real),
            "failed": sum(bool(trial["problems"]) for trial in real),
            **{name: sum(trial[name] for trial in real) for name in COUNTS},
            "missed": sum(trial["missed"] for trial in some),
            "codes": sorted({code for trial in real for code in trial["codes"]}),
            "seconds": round(sum(trial["seconds"] for trial in some)),
        }

    def by(name: str) -> dict[str, Any]:
        return {value: total([trial for trial in trials if trial[name] == value]) for value in sorted({trial[name] for trial in trials})}

    return {**total(trials), "by_kind": by("kind"), "by_way": by("way"), "each": list(trials)}
