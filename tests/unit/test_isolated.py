"""What a function does to its process of its own stays there, and ends in time: crashes, endless loops, too much memory."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe
from pathlib import Path

import pytest

from masklake.errors import MasklakeError
from masklake.isolated import Ended, Isolated, Limits
from tests.lakes import ROOT

LIMITS = Limits(seconds=60, memory=0)


def work(data: bytes, *more: object) -> object:
    """What the process is asked to do, in its own words."""
    match data:
        case b"segmentation fault":
            return ctypes.string_at(0)
        case b"loop":
            while True:
                pass
        case b"sleep":
            time.sleep(600)
        case b"memory":
            return len(bytearray(1 << 30))
        case b"raise":
            raise KeyError("nothing")
        case b"pid":
            return os.getpid()
        case b"environment":
            return dict(os.environ)
    if data.startswith(b"/"):  # leave a trace, and be killed
        with Path(data.decode()).open("a") as trace:
            trace.write("x")
        os.kill(os.getpid(), signal.SIGKILL)
    return (data, *more)


@pytest.fixture
def apart() -> Iterator[Isolated[object]]:
    with Isolated(work) as function:
        yield function


def test_answers_come_from_one_process_that_is_not_this_one(apart: Isolated[object]) -> None:
    assert apart(b"some", LIMITS, 1, "two") == (b"some", 1, "two")
    process = apart(b"pid", LIMITS)
    assert process == apart(b"pid", LIMITS) != os.getpid()
    large = os.urandom(5_000_000)
    assert apart(large, LIMITS) == (large,)


@pytest.mark.slow
def test_the_process_is_not_given_the_keys_of_stores(apart: Isolated[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "key")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "token")
    found = apart(b"environment", LIMITS)
    assert isinstance(found, dict)
    assert "PATH" in found
    assert {"AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN"}.isdisjoint(found)


@pytest.mark.slow
def test_a_crash_is_an_answer_and_the_next_call_is_served(apart: Isolated[object]) -> None:
    assert apart(b"segmentation fault", LIMITS) is Ended.DIED
    assert apart(b"some", LIMITS) == (b"some",)


@pytest.mark.slow
def test_attempts_are_bounded(apart: Isolated[object], tmp_path: Path) -> None:
    assert apart(str(tmp_path / "trace").encode(), LIMITS) is Ended.DIED
    assert (tmp_path / "trace").read_text() == "xx"


@pytest.mark.slow
def test_time_of_the_processor_is_bounded_and_so_is_waiting(apart: Isolated[object], monkeypatch: pytest.MonkeyPatch) -> None:
    assert apart(b"loop", Limits(seconds=0.3, memory=0)) is Ended.SLOW
    monkeypatch.setattr("masklake.isolated._WAITS", 2)
    assert apart(b"sleep", Limits(seconds=0.3, memory=0)) is Ended.SLOW
    assert apart(b"some", LIMITS) == (b"some",)


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="other systems do not bound memory")
@pytest.mark.slow
def test_memory_is_bounded(apart: Isolated[object]) -> None:
    assert apart(b"memory", LIMITS) is Ended.LARGE
    assert apart(b"memory", Limits(seconds=60, memory=1 << 30)) == 1 << 30


@pytest.mark.slow
def test_an_exception_of_the_function_is_one_here(apart: Isolated[object]) -> None:
    with pytest.raises(MasklakeError, match="KeyError: 'nothing'"):
        apart(b"raise", LIMITS)
    assert apart(b"some", LIMITS) == (b"some",)


@pytest.mark.slow
def test_threads_wait_for_each_other(apart: Isolated[object]) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda number: apart(str(number).encode(), LIMITS), range(100)))
    assert answers == [(str(number).encode(),) for number in range(100)]


@pytest.mark.slow
def test_the_process_goes_when_its_caller_is_done() -> None:
    with Isolated(work) as function:
        process = function(b"pid", LIMITS)
    assert isinstance(process, int)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


@pytest.mark.slow
@pytest.mark.parametrize("asked", [True, False])
def test_a_process_whose_caller_goes_while_it_starts_ends_without_a_word(asked: bool) -> None:
    (requests, to_it), (from_it, answers) = Pipe(duplex=False), Pipe(duplex=False)
    command = f"from masklake.isolated import serve; serve({requests.fileno()}, {answers.fileno()})"
    if asked:
        to_it.send_bytes(pickle.dumps(work))
    to_it.close()
    from_it.close()
    ends = requests.fileno(), answers.fileno()
    done = subprocess.run([sys.executable, "-c", command], pass_fds=ends, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
