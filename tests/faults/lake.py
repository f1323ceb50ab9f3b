"""One lake on a real S3 server, the jobs that are run on it as real processes, and what it holds, read without the product's code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from masklake.demo.seaweedfs import SeaweedFS
from tests.faults.job import Job
from tests.faults.log import Commit, commit
from tests.faults.pictures import SCENES, Picture
from tests.faults.stored import Expected, Stored
from tests.faults.verify import TASKS
from tests.lakes import MODEL, ROOT

TRAINED = "segformer"
"""The family of the model that trainings begin with, a tiny one."""
DAYS = ("dt=2026-11-21", "dt=2026-11-22")
WAYS = {"ray": ("--no-local",), "one process": ("--local",)}
"""How a run may do its work, and the settings that say so."""
_OTHERS = ("masks-of-others/part-20261101T000000-abcdef-00000000-0000-0000-0000-000000000000.parquet", "notes/masks.txt")


@dataclass
class Lake:
    """A bucket with images below `images/` and a table at `table`; `environment` leads jobs to the server, or to a proxy before it."""

    store: SeaweedFS
    bucket: str
    images: int
    environment: dict[str, str]
    folder: Path
    table: str = "masks"
    way: str = "one process"
    """How runs do their work, one of `WAYS`."""
    expected: Expected = field(default_factory=Expected)
    jobs: list[Job] = field(default_factory=list)
    lease: float = 10
    """After so many seconds without a beat, of which there is one every three seconds, a compaction or an erasure takes a job for dead."""

    @property
    def output(self) -> str:
        return f"s3://{self.bucket}/{self.table}"

    @property
    def source(self) -> str:
        return f"s3://{self.bucket}/images/"

    def fill(self) -> None:
        """Upload the images, half of them for each day, and what others have in the bucket."""
        self.store.create_bucket(self.bucket)
        for index in range(self.images):
            self.put(f"{DAYS[index * len(DAYS) // self.images]}/{index:04d}.jpg", index % SCENES)
        self.put_others(dict.fromkeys(_OTHERS, b"not of this table"))

    def put(self, name: str, scene: int) -> None:
        """Upload an image, or replace it by another."""
        uri = self.source + name
        picture = Picture(f"{name} version {len(self.expected.history.get(uri, ()))}", scene)
        self.store.client.put_object(Bucket=self.bucket, Key=f"images/{name}", Body=picture.content)
        self.expected.history.setdefault(uri, []).append(picture)

    def delete(self, name: str) -> None:
        """Delete an image."""
        self.store.client.delete_object(Bucket=self.bucket, Key=f"images/{name}")
        self.expected.history[self.source + name].append(None)

    def scene(self, name: str) -> int:
        """Which scene an image shows now."""
        picture = self.expected.history[self.source + name][-1]
        assert picture
        return picture.scene

    def names(self) -> list[str]:
        """The images that are there, by name."""
        return [uri.removeprefix(self.source) for uri, versions in sorted(self.expected.history.items()) if versions[-1]]

    def put_others(self, objects: Mapping[str, bytes]) -> None:
        """Upload what nobody may touch."""
        for key, content in objects.items():
            self.store.client.put_object(Bucket=self.bucket, Key=key, Body=content)
        self.protect(objects)

    def protect(self, keys: Iterable[str]) -> None:
        """From here on, nobody may touch these objects."""
        found = self.objects("")
        self.expected.others |= {key: found[key]["ETag"].strip('"') for key in keys}

    def objects(self, prefix: str) -> dict[str, dict[str, Any]]:
        """The server's own listing: key -> Size, ETag."""
        pages = self.store.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return {found["Key"]: found for page in pages for found in page.get("Contents", ())}

    def read(self, key: str) -> bytes:
        content: bytes = self.store.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return content

    def log(self) -> list[Commit]:
        """The table's log, oldest first; empty where there is no table yet."""
        keys = sorted(key for key in self.objects(f"{self.table}/_delta_log/") if key.endswith(".json"))
        return [commit(int(Path(key).stem), self.read(key).decode()) for key in keys]

    def stored(self) -> Stored:
        """Everything that is to be verified, as it is now."""
        root = f"{self.table}/"
        everything = self.objects("")
        others = self.expected.others
        below = [key for key in everything if key.startswith(root) and key not in others]
        data = [key for key in below if key.endswith(".parquet") and not key.removeprefix(root).startswith("_")]
        pages = [key for key in below if "/_masklake/runs/" in key and key.endswith((".html", ".json"))]
        return Stored(
            self.log(),
            {key.removeprefix(root): everything[key]["Size"] for key in below},
            {key.removeprefix(root): self.read(key) for key in data},
            {key.removeprefix(root): self.read(key) for key in pages},
            frozenset(self._by_delta()),
            {key: found["ETag"].strip('"') for key, found in everything.items()},
        )

    def _by_delta(self) -> set[str]:
        options = {**{name.lower(): value for name, value in self.store.env().items()}, "aws_conditional_put": "etag"}
        try:
            table = DeltaTable(self.output, storage_options=options)
        except TableNotFoundError:
            return set()
        actions = table.get_add_actions(flatten=True)
        return {path.replace("%25", "%") for path in actions["path"].to_pylist()}

    @cached_property
    def _fixed(self) -> list[str]:
        pace = ["--commit-seconds", "0.1", "--rows-per-file", "16", "--gallery-images", "2", "--lease-seconds", "10"]
        return ["segment", "--output", self.output, "--model", str(MODEL), "--tasks", ",".join(TASKS), *pace]

    def segment(self, *arguments: str, days: str = "", environment: Mapping[str, str] | None = None) -> Job:
        """Start the real job."""
        return self.start(*self._fixed, "--input", self.source + days, *WAYS[self.way], *arguments, environment=environment)

    @property
    def _keeping(self) -> tuple[str, ...]:
        return "--vacuum-hours", "0", "--lease-seconds", str(self.lease)

    def compact(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Job:
        """Start the real compaction, a vacuum that keeps no past included."""
        return self.start("compact", "--table", self.output, *self._keeping, *arguments, environment=environment)

    def erase(self, uris: Sequence[str], environment: Mapping[str, str] | None = None) -> Job:
        """Start the real erasure, a vacuum that keeps no past included."""
        return self.start("erase", "--table", self.output, *self._keeping, *uris, environment=environment)

    def train(self, folder: str, environment: Mapping[str, str] | None = None) -> Job:
        """Start a real training on the scenes that lie in the bucket, into a folder of it."""
        root = f"s3://{self.bucket}"
        data = ["--format", "coco-panoptic", "--truth", f"{root}/scenes/panoptic.json", "--images", f"{root}/scenes/images"]
        model = ["--model", str(self.folder / f"tiny-{TRAINED}"), "--resolution", "64x64", "--output", f"{root}/{folder}"]
        return self.start("finetune", *data, *model, *_TRAINING, *WAYS[self.way], environment=environment)

    def python(self, code: str, *arguments: str) -> tuple[int, str]:
        """Run a script as a user of the table does; its exit code, and what it printed."""
        command = [sys.executable, "-c", code, *arguments]
        environment = {**_without_own(), **self.environment}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stdout + (done.stderr if done.returncode else "")

    def start(self, *arguments: str, environment: Mapping[str, str] | None = None) -> Job:
        """Start a command of masklake's."""
        job = Job(arguments, {**_without_own(), **self.environment, **(environment or {})}, self.folder / f"job-{len(self.jobs)}")
        self.jobs.append(job)
        return job

    def end_all(self) -> None:
        """Leave no process of any job behind."""
        for job in self.jobs:
            job.kill_all()


_TRAINING = (
    *("--validation-share", "0.3", "--steps", "6", "--batch-size", "4", "--micro-batch-size", "2", "--rate", "1e-3"),
    *("--backbone-rate", "1.0", "--validate-every", "3", "--save-every", "2", "--log-every", "2"),
)


def _without_own() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_", "MASKLAKE_"))}
