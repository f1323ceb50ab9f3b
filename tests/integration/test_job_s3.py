"""The whole job on a real S3 server: complete, resumable after kill -9, incremental, and refused in one sentence."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from masklake import reading, storage
from masklake.commands import cli
from masklake.demo.lake import broken_files
from masklake.demo.seaweedfs import SeaweedFS
from tests.faults import processes
from tests.hostile import crashing_decoder, waiting
from tests.lakes import MODEL, ROOT, rows_by_image, scene, segment, summary

SCENES = 12


@pytest.fixture(scope="module")
def s3_lake() -> Iterator[SeaweedFS]:
    """A bucket `lake` with scenes and broken files in day folders; this process's environment points to it."""
    with SeaweedFS() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.env().items():
            patch.setenv(name, value)
        server.create_bucket("lake")
        for index in range(SCENES):
            storage.write_bytes(f"s3://lake/images/dt=2026-11-2{index % 2}/scene {index}%.jpg", scene(index))
        for name, data in broken_files().items():
            storage.write_bytes(f"s3://lake/images/dt=2026-11-20/{name}", data)
        yield server


def here(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any], str]:
    """The job in this process, which has imported what it needs: its exit code, its last line, and what the user was told."""
    capsys.readouterr()
    code = cli.main(["segment", "--model", str(MODEL), *arguments])
    said = capsys.readouterr()
    return code, json.loads(said.out.splitlines()[-1]), said.err


def test_complete_then_nothing_then_only_what_is_new(s3_lake: SeaweedFS, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--input", "s3://lake/images/", "--output", "s3://lake/masks", "--partition-by", "dt,task"]
    first = segment(*arguments)
    assert first.returncode == 0, first.stderr
    total = SCENES + len(broken_files())
    assert summary(first)["images"] == total
    counted = rows_by_image("s3://lake/masks")
    assert len(counted) == total
    assert set(counted.values()) == {1}

    code, again, told = here(capsys, *arguments)
    assert (code, again["outcome"]) == (0, "nothing to do"), told

    storage.write_bytes("s3://lake/images/dt=2026-11-22/late.jpg", scene(SCENES))
    code, third, told = here(capsys, *arguments)
    assert (code, third["images"]) == (0, 1), told
    assert set(rows_by_image("s3://lake/masks").values()) == {1}


@pytest.mark.timeout(600)  # Ray starts slowly where other tests start theirs
def test_after_kill_9_the_same_command_does_the_rest_and_nothing_twice(
    s3_lake: SeaweedFS, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copies = [f"s3://lake/many/scene-{index:03d}.jpg" for index in range(128)]
    bodies = [scene(index) for index in range(4)]
    for index, uri in enumerate(copies):
        storage.write_bytes(uri, bodies[index % 4])
    copies.append("s3://lake/many/the-last.ppm")  # which no decoder of the first run comes to the end of: it is killed before
    storage.write_bytes(copies[-1], waiting(tmp_path / "killed"))
    pace = ["--rows-per-file", "16", "--commit-seconds", "0.1"]
    arguments = ["--input", "s3://lake/many/", "--output", "s3://lake/many-masks", *pace]
    command = [sys.executable, "-m", "masklake", "segment", "--model", str(MODEL), *arguments, "--no-local", "--actors", "1"]
    waits = {**os.environ, "PYTHONPATH": os.pathsep.join([str(crashing_decoder(tmp_path)), os.environ.get("PYTHONPATH", "")])}
    driver = subprocess.Popen(command, cwd=ROOT, env=waits, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        committed = _wait_for_rows("s3://lake/many-masks", driver)
    finally:
        processes.kill(processes.below([driver.pid])[:1])  # what works; the program only waits for it
        driver.kill()
        driver.wait()
        (tmp_path / "killed").touch()  # a decoder that still waits for it can end
    before = rows_by_image("s3://lake/many-masks")
    assert committed <= len(before) < len(copies)

    code, resumed, told = here(capsys, *arguments, "--local")
    assert code == 0, told
    after = rows_by_image("s3://lake/many-masks")
    assert set(after) == set(copies)
    assert set(after.values()) == {1}
    # No second forward: the second run answered exactly the images whose rows were not committed.
    assert resumed["images"] == len(copies) - len(before)
    runs = set(reading.open_table("s3://lake/many-masks").rows(columns=["run_id"])["run_id"].to_pylist())
    assert len(runs) == 2
    names = [file.uri for page in storage.list_files("s3://lake/many-masks/task=panoptic/") for file in page]
    assert all(re.search(r"part-.*\.parquet$", name) for name in names)


def _wait_for_rows(table: str, driver: subprocess.Popen[bytes]) -> int:
    """Wait until the driver's first commits are there; returns the number of rows then."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert driver.poll() is None, "the driver ended before it could be killed"
        try:
            rows = len(rows_by_image(table))
        except Exception:
            rows = 0
        if rows:
            return rows
        time.sleep(0.1)
    raise AssertionError("no commit within four minutes")


def test_a_manifest_in_s3_names_the_images_and_a_missing_one_is_a_row(s3_lake: SeaweedFS, capsys: pytest.CaptureFixture[str]) -> None:
    uris = ["s3://lake/images/dt=2026-11-20/scene 0%.jpg", "s3://lake/images/dt=2026-11-20/never-was.jpg"]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"uri": uris}), sink)
    storage.write_bytes("s3://lake/manifest.parquet", sink.getvalue().to_pybytes())
    code, done, told = here(capsys, "--input", "s3://lake/manifest.parquet", "--output", "s3://lake/manifest-masks")
    assert code == 0, told
    assert done["errors_by_code"] == {"not_found": 1}
    assert set(rows_by_image("s3://lake/manifest-masks")) == set(uris)


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ([], {"AWS_SECRET_ACCESS_KEY": "wrong"}, "correct AWS_SECRET_ACCESS_KEY"),
        ([], {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, "127.0.0.1:9"),
        (["--input", "s3://no-such-bucket/images/"], {}, "no-such-bucket"),
        (["--output", "s3://no-such-bucket/masks"], {}, "no-such-bucket"),
        (["--model", "s3://lake/no-model"], {}, "s3://lake/no-model"),
        (["--input", "ftps://lake/images/"], {}, "ftps"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(
    s3_lake: SeaweedFS,
    arguments: list[str],
    environment: dict[str, str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code = cli.main(["segment", "--model", str(MODEL), "--input", "s3://lake/images/", "--output", "s3://lake/refused", *arguments])
    said = capsys.readouterr()
    assert code == 2, said.err
    assert message in said.err
    assert "Traceback" not in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert json.loads(said.out.splitlines()[-1])["exit_code"] == 2
    assert s3_lake.secret_key not in said.err + said.out
