"""A marked secret key appears nowhere: not on a terminal, not beside or in a table, an export or a catalog, not in a log of Ray's."""

from __future__ import annotations

import base64
import io
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest

from masklake import storage
from masklake.demo.lake import broken_files
from masklake.demo.seaweedfs import SeaweedFS
from tests.icebergs import mirror
from tests.lakes import MODEL, ROOT, scene

SERIES = (
    "import json, sys; from masklake.commands import cli\nfor arguments in json.load(sys.stdin): print(cli.main(arguments), flush=True)"
)
TABLE = "s3://lake/masks"
WRONG = "Wrong/But+Still=Secret" + secrets.token_hex(8)

pytestmark = pytest.mark.timeout(600)


@dataclass
class Place:
    """A lake, and all that was said of it so far. `ray` is where Ray keeps its sessions."""

    s3: SeaweedFS
    folder: Path
    ray: Path
    said: dict[str, bytes] = field(default_factory=dict)

    def run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> int:
        """One job, as a user starts it; returns its exit code."""
        done = self._process([sys.executable, "-m", "masklake", *arguments], b"", environment or {})
        self.said[" ".join(arguments)] = done.stdout + done.stderr
        return done.returncode

    def run_all(self, commands: list[list[str]], environment: Mapping[str, str] | None = None) -> list[int]:
        """Several jobs, one after the other in one process; returns their exit codes."""
        done = self._process([sys.executable, "-c", SERIES], json.dumps(commands).encode(), environment or {})
        assert done.returncode == 0, done.stderr
        self.said[str(commands)] = done.stdout + done.stderr
        return [int(line) for line in done.stdout.splitlines() if line.isdigit()]

    def _process(self, command: list[str], given: bytes, environment: Mapping[str, str]) -> subprocess.CompletedProcess[bytes]:
        place = {"RAY_TMPDIR": str(self.ray), "HOME": str(self.folder), **environment}
        return subprocess.run(command, cwd=ROOT, env={**os.environ, **place}, input=given, capture_output=True, timeout=550, check=False)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """A run has made a table, with answers and errors, and has failed for its error rate; the server's secret key looks like AWS's."""
    server = SeaweedFS()
    server.secret_key = "Marked/Secret+Key=" + secrets.token_hex(12)
    folder, ray = Path(tempfile.mkdtemp(prefix="secrets-")), Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # sockets' names are short
    try:
        with server, pytest.MonkeyPatch.context() as patch:
            for name, value in server.env().items():
                patch.setenv(name, value)
            server.create_bucket("lake")
            for index in range(3):
                storage.write_bytes(f"s3://lake/images/scene-{index}.jpg", scene(index))
            for name, data in broken_files().items():
                storage.write_bytes(f"s3://lake/images/{name}", data)
            lake = Place(server, folder, ray)
            assert lake.run(*segment("s3://lake/images/", "--max-error-rate", "0.1", "--no-local", "--actors", "1")) == 3, lake.said
            first = {f"at first: {name}": content for name, content in _stored().items()}
            assert {name.rpartition(".")[2] for name in first} >= {"parquet", "json", "html"}
            lake.said.update(first)  # an erasure takes galleries away, and a compaction files
            yield lake
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(ray, ignore_errors=True)


def segment(source: str, *more: str) -> list[str]:
    return ["segment", "--input", source, "--output", TABLE, "--model", str(MODEL), *more]


def test_jobs_that_succeed_and_fail_do_not_tell_it(place: Place) -> None:
    commands = [
        segment("s3://lake/images/"),  # nothing to do
        ["publish", "--table", TABLE],
        ["compact", "--table", TABLE, "--vacuum-hours", "0"],
        ["erase", "--table", TABLE, "s3://lake/images/scene-0.jpg"],
        ["export", "--table", TABLE, "--output", "s3://lake/export", "--format", "coco-panoptic"],
        ["export", "--table", TABLE, "--output", "s3://lake/flat", "--format", "segments"],
        ["publish", "--table", TABLE],
    ]
    assert place.run_all(commands) == [0] * len(commands)
    assert_untold(place)


def _jobs_in(bucket: str) -> list[list[str]]:
    """Jobs of every kind, with this for the beginning of one of their URIs."""
    return [
        segment(f"{bucket}/images/"),
        segment("s3://lake/images/", "--output", f"{bucket}/masks"),
        segment("s3://lake/images/", "--model", f"{bucket}/model"),
        ["compact", "--table", f"{bucket}/masks"],
        ["erase", "--table", f"{bucket}/masks", "s3://lake/images/a.jpg"],
        ["erase", "--table", TABLE, f"{bucket}/images/a.jpg"],
        ["erase", "--table", TABLE, "--input", f"{bucket}/images/"],
        ["erase", "--table", TABLE, "--uris", f"{bucket}/list.txt"],
        ["export", "--table", TABLE, "--output", f"{bucket}/other", "--format", "segments"],
        ["publish", "--table", f"{bucket}/masks"],
        ["publish", "--table", TABLE, "--name", "masklake.others", "--location", f"{bucket}/metadata"],
    ]


def test_refusals_do_not_tell_it(place: Place) -> None:
    wrong = {"AWS_SECRET_ACCESS_KEY": WRONG}
    jobs = [
        segment("s3://lake/images/"),
        *(["publish", "--table", TABLE], ["compact", "--table", TABLE], ["erase", "--table", TABLE, "s3://lake/images/a.jpg"]),
        ["export", "--table", TABLE, "--output", "s3://lake/other", "--format", "segments"],
    ]
    assert place.run_all(jobs, wrong) == [2] * len(jobs)
    key, quoted = place.s3.secret_key, quote(place.s3.secret_key, safe="")
    with_password = [
        *(command for secret in (key, key.replace("/", "%2F")) for command in _jobs_in(f"s3://{place.s3.access_key}:{secret}@lake")),
        ["publish", "--table", TABLE, "--catalog", "sql", "--property", f"uri=postgresql://user:{quoted}@127.0.0.1:9/x"],
        ["publish", "--table", TABLE, "--catalog", "rest", "--property", "uri=http://127.0.0.1:9", "--property", f"token={key}"],
    ]
    assert place.run_all(with_password) == [2] * len(with_password)
    assert_untold(place)


def test_an_endpoint_with_a_password_does_not_tell_it(place: Place) -> None:
    endpoint = place.s3.endpoint.replace("://", f"://user:{quote(place.s3.secret_key, safe='')}@")
    closed = "http://user:" + quote(place.s3.secret_key, safe="") + "@127.0.0.1:9"
    for url in (endpoint, closed):
        environment = {"AWS_ENDPOINT_URL": url, "AWS_ENDPOINT_URL_S3": url}
        place.run_all(
            [segment("s3://lake/images/", "--dry-run"), ["compact", "--table", TABLE], ["publish", "--table", TABLE]], environment
        )
    assert_untold(place)


def assert_untold(place: Place) -> None:
    """Look for the keys everywhere, as they are, percent-encoded and in base64."""
    said, stored, logged = place.said, _stored(), _logged(place.ray)
    assert said
    assert {name.rpartition(".")[2] for name in stored} >= {"parquet", "json"}
    assert any("/logs/" in name for name in logged)
    found = {**said, **stored, **logged}
    catalog = place.folder / ".masklake" / "iceberg.db"
    if catalog.exists():
        found["catalog"] = catalog.read_bytes()
        found["manifests"] = repr(mirror(catalog).inspect.files().to_pylist()).encode()
    for key in (place.s3.secret_key, WRONG):
        forms = (
            key,
            quote(key),
            quote(key, safe=""),
            key.replace("/", "%2F"),
            json.dumps(key)[1:-1],
            base64.b64encode(key.encode()).decode(),
        )
        told = [name for name, content in found.items() if any(form.encode() in content for form in forms)]
        assert not told, [name.replace(place.s3.secret_key, "...") for name in told]


def _stored() -> dict[str, bytes]:
    """Every object of the bucket; of Parquet also its rows, which lie there compressed."""
    stored = {file.uri: storage.read_bytes(file.uri) for page in storage.list_files("s3://lake/") for file in page}
    rows = {f"rows of {uri}": content for uri, content in stored.items() if uri.endswith(".parquet")}
    return {**stored, **{name: repr(pq.read_table(io.BytesIO(content)).to_pylist()).encode() for name, content in rows.items()}}


def _logged(folder: Path) -> dict[str, bytes]:
    """Every file of Ray's sessions."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}
