"""Lakes that change under a run, and clocks that are wrong."""

from __future__ import annotations

import json
import time

from tests.faults.clock import skewed
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
    clocks = trial.random.choice(((_SECONDS, -_SECONDS), (0, -_SECONDS), (_SECONDS, 0)))
    trial.facts["clocks"] = list(clocks)
    first, second = (skewed(seconds, lake.folder) for seconds in clocks)
    trial.ends(lake.segment(environment=first), 0)
    before, chosen = lake.expected.keys(TASKS), trial.random.sample(lake.names(), 5)
    for name in chosen:
        lake.put(name, (lake.scene(name) + 1) % SCENES)
    trial.ends(lake.segment(environment=second), 0)
    times = {(row["image_uri"], row["image_etag"], row["task"]): row["processed_at"] for row in lake.stored().rows()}
    later = [times[key] for key in times if key not in before]
    trial.struck = bool(later) and max(later) < min(times[key] for key in times if key in before)
    _check_newest(trial, "before the compaction")
    lake.expected.gone = before - lake.expected.keys(TASKS)
    trial.ends(lake.compact("--drop-superseded", environment=trial.random.choice((first, second))), 0)
    _check_newest(trial, "after it")


def _check_newest(trial: Trial, when: str) -> None:
    code, out = trial.lake.python(_NEWEST, trial.lake.output, *TASKS)
    found: list[list[str]] = json.loads(out.strip().splitlines()[-1]) if code == 0 else []
    if sorted(map(tuple, found)) != sorted(trial.lake.expected.keys(TASKS)):
        trial.lost.append(f"{when}, the newest rows are others than they should be: {len(found)} of them; {out[-300:]}")
