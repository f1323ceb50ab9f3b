"""Stops of a real run: what is written is committed, nothing is left behind, and the next run goes on at once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest
from deltalake import DeltaTable

from jobs.benchmarks.process_tree import _tree, watched
from tests.lakes import MODEL, rows_by_image, scene

IMAGES = 600  # more than three runs come to before they are stopped
REST = 40  # of those that no run came to, for the last one
ON_RAY = ("--no-local", "--actors", "1")
STOPS = ((ON_RAY, signal.SIGTERM, 143), (ON_RAY, signal.SIGINT, 130), (("--local",), signal.SIGINT, 130))
"""Ray has a way of its own with each signal."""
NEEDLESS = ("dashboard.py", "monitor.py", "_StatsActor", "_AutoscalingCoordinator")
"""Processes that Ray starts for many users, and a Ray of our own goes without."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    scenes = [scene(index) for index in range(8)]
    for index in range(IMAGES):
        (tmp_path / "images" / f"scene-{index:03d}.jpg").write_bytes(scenes[index % 8])
    return tmp_path


def start(lake: Path, *engine: str) -> subprocess.Popen[str]:
    places = ["--input", str(lake / "images"), "--output", str(lake / "masks"), "--model", str(MODEL), "--on-overlap", "skip", *engine]
    pace = ["--rows-per-file", "8", "--commit-seconds", "0.3"]
    return subprocess.Popen([sys.executable, "-m", "masklake", "segment", *places, *pace], stdout=subprocess.PIPE, text=True)


def rows(lake: Path) -> int:
    if not (lake / "masks" / "_delta_log" / f"{0:020d}.json").exists():  # its folder is there a moment before
        return 0
    table = DeltaTable(str(lake / "masks"))
    return sum(table.get_add_actions(flatten=True)["num_records"].to_pylist())


def left_over(lake: Path) -> list[str]:
    """Files that the table does not name, and markers."""
    named = {Path(file).name for file in DeltaTable(str(lake / "masks")).file_uris()}
    lying = {path.name for path in (lake / "masks").rglob("*.parquet")} - named
    return sorted(lying | {path.name for path in (lake / "masks" / "_masklake" / "live").glob("*")})


def titles(pids: Iterable[int]) -> dict[int, str]:
    """What those of some processes that live are."""
    found = {}
    for pid in pids:
        with suppress(OSError):
            if "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text():
                found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return found


def all_end(pids: Iterable[int]) -> bool:
    """Whether all of these processes end, and do not wait for the minute after which Ray's agents would."""
    until = time.monotonic() + 40
    while (left := titles(pids)) and time.monotonic() < until:
        time.sleep(0.1)
    print("left:", left)
    return not left


def stop_after_a_commit(lake: Path, engine: tuple[str, ...], number: signal.Signals) -> tuple[int, dict[str, object], float]:
    """Start the run, send the signal at its first commit; its exit code, its last line, and the seconds that the end took."""
    before = rows(lake)
    process = start(lake, *engine)
    while process.poll() is None and rows(lake) == before:
        time.sleep(0.05)
    processes = titles(_tree(process.pid))
    assert not [title for title in processes.values() if any(name in title for name in NEEDLESS)]
    process.send_signal(number)
    sent = time.monotonic()
    output, _ = process.communicate(timeout=120)
    seconds = time.monotonic() - sent
    assert all_end(processes)
    return process.returncode, json.loads(output.splitlines()[-1]), seconds


def test_a_stopped_run_commits_what_is_written_and_the_next_goes_on_at_once(lake: Path) -> None:
    held = 0
    for engine, number, code in STOPS:
        returned, last, seconds = stop_after_a_commit(lake, engine, number)
        print(engine[0], number.name, f"{seconds:.1f} s", last)
        assert (returned, last["outcome"], last["exit_code"]) == (code, "stopped", code)
        assert last["images"] == rows(lake) - held
        assert left_over(lake) == []
        assert held < rows(lake) < IMAGES
        held = rows(lake)
        assert seconds < 60  # 3 on a machine of one's own
    done = set(rows_by_image(str(lake / "masks")))
    rest = sorted(path for path in (lake / "images").iterdir() if f"file://{path}" not in done)
    for path in rest[REST:]:
        path.unlink()
    process = start(lake, *ON_RAY)
    with watched(process.pid) as watch:
        output, _ = process.communicate(timeout=300)
    assert (process.returncode, json.loads(output.splitlines()[-1])["images"]) == (0, len(rest[:REST]))
    counted = rows_by_image(str(lake / "masks"))
    assert set(counted.values()) == {1}
    assert set(counted) == done | {f"file://{path}" for path in rest[:REST]}
    assert left_over(lake) == []
    assert {"actor", "raylet", "gcs_server"} <= {sample.role for sample in watch.samples}
    assert all_end({sample.pid for sample in watch.samples}), "a run that is done waits for no good end of Ray's, and leaves none of it"
