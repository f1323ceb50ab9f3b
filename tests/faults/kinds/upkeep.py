"""What is done to a table that is there: compaction, erasure, publication, and what others have below its folder."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import write_deltalake
from pyiceberg.catalog.sql import SqlCatalog

from tests.faults.job import Job
from tests.faults.lake import DAYS
from tests.faults.log import present
from tests.faults.proxy import Request
from tests.faults.trial import Trial
from tests.faults.verify import TASKS

_NAME = "masklake.masks"
_SHORT_LEASE = 10.0  # the least that is allowed; the only job that could be taken for dead was killed


def kill_compaction(trial: Trial) -> None:
    """kill -9 of a compaction, or of its vacuum, at any of its writes; the same command does the rest, and no run has anything to do."""
    trial.lake.lease = _SHORT_LEASE
    trial.killed_at_request(lambda environment: trial.lake.compact(environment=environment), _writes, 12, lambda: _compacted(trial))


def _compacted(trial: Trial) -> Job:
    trial.ends(trial.lake.compact(), 0)
    return trial.lake.segment()


def erase(trial: Trial) -> None:
    """kill -9 of an erasure at any of its writes; after the same command again, nothing is left of these images."""
    uris = trial.random.sample([trial.lake.source + name for name in trial.lake.names()], trial.random.randint(1, 5))
    trial.lake.expected.gone = {key for key in trial.lake.expected.keys(TASKS) if key[0] in uris}
    trial.lake.lease = _SHORT_LEASE
    trial.killed_at_request(lambda environment: trial.lake.erase(uris, environment), _writes, 12, lambda: trial.lake.erase(uris))


def publish(trial: Trial) -> None:
    """kill -9 of a publication at any of its writes; after the same command again, Iceberg's readers see the table's rows, once each."""
    catalog = trial.lake.folder / "iceberg.db"

    def start(environment: Mapping[str, str] | None = None) -> Job:
        return trial.lake.start(
            "publish", "--table", trial.lake.output, "--catalog-file", str(catalog), "--name", _NAME, environment=environment
        )

    trial.killed_at_request(start, _writes, 4, start)
    trial.ends(start(), 0)
    trial.recovery = None
    store = trial.lake.store
    properties = {"s3.endpoint": store.endpoint, "s3.access-key-id": store.access_key, "s3.secret-access-key": store.secret_key}
    mirror = SqlCatalog("masklake", uri=f"sqlite:///{catalog}", **properties, **{"s3.region": "us-east-1"}).load_table(_NAME)
    seen = mirror.scan(selected_fields=("image_uri", "image_etag", "task")).to_arrow().to_pylist()
    keys = sorted((row["image_uri"], row["image_etag"], row["task"]) for row in seen)
    if keys != sorted(trial.lake.expected.keys(TASKS)):
        trial.lost.append(f"the Iceberg table has {len(keys)} rows of {len(set(keys))} answers")


def nested_tables(trial: Trial) -> None:
    """Other tables, pictures and notes below the table's folder: no compaction, vacuum, erasure or run touches them, killed or not."""
    lake = trial.lake
    lake.lease = _SHORT_LEASE
    _put_others_below(trial)
    what = trial.random.choice(("compact", "compact", "erase", "segment"))
    trial.facts["command"] = what
    uris = [lake.source + trial.random.choice(lake.names())]
    commands: dict[str, Callable[[Mapping[str, str] | None], Job]] = {
        "compact": lambda environment: lake.compact(environment=environment),
        "erase": lambda environment: lake.erase(uris, environment),
    }
    if what == "erase":
        lake.expected.gone = {key for key in lake.expected.keys(TASKS) if key[0] in uris}
    if what == "segment":
        trial.ends(lake.segment(), 0)  # nothing to do, or what it clears away behind dead runs
        trial.ends(lake.compact(), 0)
        trial.struck = True
        return
    trial.killed_at_request(commands[what], _writes, 12, lambda: commands[what](None))
    trial.struck = True  # that others' data are there is the trial; the kill is more of it


def _put_others_below(trial: Trial) -> None:
    lake = trial.lake
    root = f"{lake.table}/"
    rows = pa.table({"image": [b"\xff\xd8"] * 3, "name": ["a", "b", "c"]})
    file = io.BytesIO()
    pq.write_table(rows, file)
    ours = next(iter(present(lake.log())))
    copies = {key: lake.read(key) for key in lake.objects(root)}
    others = {
        f"{root}another/{key.removeprefix(root)}": content for key, content in copies.items()
    }  # a table of masklake's, one level down
    others |= {f"{root}another/{ours.rpartition('/')[0]}/uncommitted.parquet": file.getvalue()}
    others |= {
        f"{root}{DAYS[0]}/pictures.parquet": file.getvalue(),
        f"{root}notes.txt": b"mine",
        f"{root}task=panoptic/p.parquet": file.getvalue(),
    }
    lake.put_others(others)
    options = {**{name.lower(): value for name, value in lake.store.env().items()}, "aws_conditional_put": "etag"}
    for mode in ("append", "overwrite"):  # the first version's files are no part of that table any more: whose vacuum may have them?
        write_deltalake(f"{lake.output}/sales", rows, mode=mode, storage_options=options)
    lake.protect(lake.objects(f"{root}sales/"))


def _writes(request: Request) -> bool:
    return request.writes
