"""A stop that a library loses is raised again; one that is attended to is not, however long that takes. In programs of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from masklake import stopping
from masklake.commands.ending import end_with
from masklake.errors import MasklakeError
from tests.lakes import ROOT

_PROGRAM = """
import gc, os, signal, time, weakref
from masklake import stopping

def strike():
    signal.raise_signal(signal.SIGTERM)

def longer():  # than a lost stop is waited for
    ends = time.monotonic() + 2
    while time.monotonic() < ends:
        time.sleep(0.01)

class Dropped:
    def __del__(self):
        strike()

stopping.listen()
try:
{work}
    print("went on")
except stopping.Stopped:
    print("stopped")
"""
_BARE_EXCEPT = """
    try:
        strike()
    except:
        pass
    time.sleep(60)
"""
_ANOTHER_ERROR = """
    try:
        try:
            strike()
        except BaseException as error:
            raise ImportError("its own") from error
    except ImportError:
        pass
    time.sleep(60)
"""
_DESTRUCTOR = """
    it = Dropped()
    del it
    time.sleep(60)
"""
_CALLBACK = """
    it = Exception()
    it.reference = weakref.ref(type("Referent", (), {})(), lambda _: strike())
    time.sleep(60)
"""
_HELD = """
    try:
        strike()
    except:
        pass
    with stopping.held():
        ends = time.monotonic() + 60
        while not stopping.requested() and time.monotonic() < ends:
            time.sleep(0.01)
        print("at the next step", end=" ")
"""
_FINALLY = """
    try:
        strike()
    finally:
        longer()
        print("tidied", end=" ")
"""
_WITHIN = """
    try:
        strike()
    except BaseException:
        try:
            open("/nowhere/at/all")
        except OSError:
            longer()
            print("tidied", end=" ")
        raise
"""
_GENERATOR = """
    def items():
        try:
            while True:
                yield 1
        finally:
            longer()
            print("tidied", end=" ")

    for item in items():
        strike()
"""
_FORGOTTEN = """
    try:
        strike()
    except stopping.Stopped:
        stopping.forget()
    longer()
"""


def said(work: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(work=work)], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    return done.stdout.strip() or done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("work", [_BARE_EXCEPT, _ANOTHER_ERROR, _DESTRUCTOR, _CALLBACK])
def test_a_stop_that_is_lost_is_raised_again(work: str) -> None:
    assert said(work) == "stopped"


@pytest.mark.slow
def test_where_steps_must_not_break_it_waits_for_the_end_of_one() -> None:
    assert said(_HELD) == "at the next step stopped"


@pytest.mark.slow
@pytest.mark.parametrize("work", [_FINALLY, _WITHIN, _GENERATOR])
def test_what_tidies_up_is_left_in_peace(work: str) -> None:
    assert said(work) == "tidied stopped"


@pytest.mark.slow
def test_a_stop_that_is_attended_to_is_over() -> None:
    assert said(_FORGOTTEN) == "went on"


@pytest.mark.parametrize("error", [MasklakeError("the export failed: Traceback ..."), RuntimeError("its own")])
def test_a_command_of_whose_stop_an_error_was_made_has_stopped(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stopping, "listen", lambda: None)

    def work() -> dict[str, object]:
        monkeypatch.setattr(stopping._Memory, "raised", stopping.Stopped(15))
        raise error

    assert end_with(work, "interrupted") == 143
    assert '"outcome": "stopped"' in capsys.readouterr().out
    assert stopping.swallowed() is None
