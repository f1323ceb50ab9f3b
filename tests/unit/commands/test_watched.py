"""A command whose process ends without a word: the one that waits for it says so, in a sentence and the last line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from tests.lakes import ROOT

LIBC = "import ctypes; libc = ctypes.CDLL(None)"
LISTEN = "import time; from masklake import stopping; stopping.listen()"


def start(work: str) -> subprocess.Popen[str]:
    """A program whose work is these lines, which say their process id first."""
    lines = "".join(f"    {line.strip()}\n" for line in work.split("; "))
    imports = "import os\nfrom masklake.commands.watched import run_watched"
    script = f"{imports}\ndef work():\n    print(os.getpid(), flush=True)\n{lines}run_watched(work)"
    return subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (f"{LIBC}; libc._Exit(1)", "ended without a message (exit code 1), as Ray ends it"),  # what Ray's client does
        (f"{LIBC}; libc._Exit(0)", "ended without a message (exit code 0)"),  # no success either
        (f"{LIBC}; libc.kill(os.getpid(), 9)", "was killed (SIGKILL), perhaps for lack of memory"),
        (f"{LIBC}; libc.abort()", "crashed (SIGABRT)"),
    ],
)
def test_a_process_that_ends_without_a_word_is_accounted_for(work: str, reason: str) -> None:
    program = start(work)
    out, err = program.communicate(timeout=100)
    last = json.loads(out.splitlines()[-1])
    assert program.returncode == 1
    assert (last["outcome"], last["exit_code"]) == ("failed", 1)
    assert reason in last["error"]
    assert err == f"masklake: {last['error']}\n"


def test_one_that_has_had_its_say_ends_with_its_own_code() -> None:
    program = start("print('{}'); return 3")
    out, err = program.communicate(timeout=100)
    assert (program.returncode, out.splitlines()[1:], err) == (3, ["{}"], "")


@pytest.mark.parametrize("listens", [True, False])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stop_reaches_the_work_once_and_is_told_where_the_work_cannot(number: signal.Signals, code: int, listens: bool) -> None:
    handled = (
        f"{LISTEN}; from masklake.commands.ending import end_with; print('ready', flush=True); return end_with(lambda: time.sleep(250))"
    )
    program = start(handled if listens else "import time; time.sleep(250)")
    assert program.stdout
    program.stdout.readline()
    if listens:
        program.stdout.readline()
    program.send_signal(number)
    out, err = program.communicate(timeout=100)
    last = json.loads(out.splitlines()[-1])
    assert (program.returncode, last["outcome"], last["exit_code"]) == (code, "stopped", code)
    assert err == f"masklake: {last['error']}\n"


def test_a_stop_before_the_work_can_tell_of_it_is_told_all_the_same() -> None:
    program = start(f"{LISTEN}; print('ready', flush=True); time.sleep(250)")
    assert program.stdout
    program.stdout.readline()
    program.stdout.readline()
    program.send_signal(signal.SIGTERM)
    out, err = program.communicate(timeout=100)
    last = json.loads(out.splitlines()[-1])
    assert (program.returncode, last["outcome"], last["exit_code"]) == (143, "stopped", 143)
    assert err == f"masklake: {last['error']}\n"


def test_one_that_leaves_by_itself_ends_with_its_own_code() -> None:
    program = start("raise SystemExit(4)")
    program.communicate(timeout=100)
    assert program.returncode == 4


@pytest.mark.slow
def test_the_work_does_not_outlive_its_program() -> None:
    program = start("import time; time.sleep(250)")
    assert program.stdout
    child = int(program.stdout.readline())
    program.kill()
    program.communicate(timeout=100)  # at the end of its output, which the child holds as well
    with suppress(ProcessLookupError):
        for _ in range(500):
            os.kill(child, 0)
            time.sleep(0.1)
        raise AssertionError("it lives")


def test_ctrl_c_in_a_terminal_stops_the_work_once_and_is_told_in_a_sentence() -> None:
    """In the terminal of a session of its own, which is what sends the signal: to every process of its foreground group."""
    script = """
import os
os.open(os.ttyname(0), os.O_RDWR)  # the first terminal that the leader of a session opens is the session's
from masklake.commands.ending import end_with
from masklake.commands.watched import run_watched
def sleep():
    import time
    print('ready', flush=True)
    time.sleep(250)
run_watched(lambda: end_with(sleep))
"""
    ours, theirs = os.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "MASKLAKE_LOG_FORMAT"}
    command = [sys.executable, "-c", script]
    program = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    said = b""
    while b"ready\r\n" not in said:
        said += os.read(ours, 65_536)
    os.write(ours, b"\x03")
    with suppress(OSError):  # Linux says so where the last of the other side has gone
        while more := os.read(ours, 65_536):
            said += more
    os.close(ours)
    assert program.wait(100) == 130
    *_, sentence, last = said.decode().splitlines()
    sentence = sentence.removeprefix("^C")  # the terminal's echo
    assert sentence == "masklake: interrupted; what was committed stays, run the same command to go on"
    assert json.loads(last) == {"outcome": "stopped", "error": sentence.removeprefix("masklake: "), "exit_code": 130}
    assert said.count(b"interrupted; what was committed stays") == 2  # the sentence, and the last line
