"""Lakes that change under a run, and clocks that are wrong."""

from __future__ import annotations

import json
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.faults.pictures import SCENES
from tests.faults.trial import Trial
from tests.faults.verify import TASKS

_SECONDS = 600  # of skew; S3 refuses requests that are a quarter of an hour off
_NEWEST = """
import json, sys
from masklake import reading
table = reading.open_table(sys.argv[1])
print(json.dumps([[row["image_uri"], row["image_etag"], row["task"]] for task in sys.argv[2:] for row in table.newest(task=task)]))
"""


def change_images(trial: Trial) -> None:
    """Images are replaced and deleted while a run that has listed them is at work: its rows are of what it read, or say what happened."""
    lake = trial.lake
    job = lake.segment("--max-error-rate", "1")
    listed = time.monotonic()
    while job.running() and "to do" not in job.errors and time.monotonic() < listed + 300:
        time.sleep(0.01)
    time.sleep(trial.random.uniform(0, 3) if trial.random.random() < 0.7 else 0)
    chosen = trial.random.sample(lake.names(), lake.images // 2)
    deleted = chosen[: len(chosen) // 4]
    for name in chosen:
        if name in deleted:
            lake.delete(name)
        else:
            lake.put(name, (lake.scene(name) + 1 + trial.random.randrange(SCENES - 1)) % SCENES)
    trial.facts |= {"replaced": len(chosen) - len(deleted), "deleted": len(deleted)}
    trial.ends(job, 0)
    now = lake.expected.keys(TASKS)
    stale = [row for row in lake.stored().rows() if (row["image_uri"], row["image_etag"], row["task"]) not in now]
    trial.facts["rows of what was there before"] = len(stale)
    trial.facts["rows that say so"] = sum(row["status"] == "error" for row in stale)
    trial.struck = bool(stale)
    trial.recovery = lake.segment


def skew_clock(trial: Trial) -> None:
    """Runs by clocks that are minutes apart, the later one behind: readers and `--drop-superseded` keep the newer answers."""
    lake = trial.lake
    first, second = trial.random.choice(((_SECONDS, -_SECONDS), (0, -_SECONDS), (_SECONDS, 0)))
    trial.facts["clocks"] = [first, second]
    trial.ends(lake.segment(environment=skewed(first)), 0)
    chosen = trial.random.sample(lake.names(), 5)
    superseded = {key for key in lake.expected.keys(TASKS) if key[0].removeprefix(lake.source) in chosen}
    for name in chosen:
        lake.put(name, (lake.scene(name) + 1) % SCENES)
    trial.ends(lake.segment(environment=skewed(second)), 0)
    times = {
        row["image_uri"]: row["processed_at"] for row in lake.stored().rows() if row["image_uri"].removeprefix(lake.source) not in chosen
    }
    later = [
        row["processed_at"]
        for row in lake.stored().rows()
        if (row["image_uri"], row["image_etag"], row["task"]) in lake.expected.keys(TASKS)
    ]
    trial.struck = min(later) < max(times.values())
    _check_newest(trial, "before the compaction")
    lake.expected.gone = superseded
    trial.ends(lake.compact("--drop-superseded", environment=skewed(trial.random.choice((first, second)))), 0)
    _check_newest(trial, "after it")


def _check_newest(trial: Trial, when: str) -> None:
    code, out = trial.lake.python(_NEWEST, trial.lake.output, *TASKS)
    found: list[Any] = json.loads(out.strip().splitlines()[-1]) if code == 0 else []
    missing = trial.lake.expected.keys(TASKS) - {(uri, etag, task) for uri, etag, task in found}
    if missing or len(found) != len(trial.lake.expected.keys(TASKS) | missing):
        trial.lost.append(f"{when}, the newest rows are others than they should be: {sorted(missing)[:3]} of {len(found)}: {out[-300:]}")


def skewed(seconds: int) -> dict[str, str]:
    """The environment of a process whose clock is off; clocks that only measure are left alone."""
    package = find_spec("libfaketime")
    assert package
    assert package.origin
    folder = Path(package.origin).parent / "vendor/libfaketime/src"
    alone = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}
    return {"LD_PRELOAD": str(folder / "libfaketime.so.1"), "FAKETIME": f"{seconds:+d}s", **alone} if seconds else {}
