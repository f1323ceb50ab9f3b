"""An address at which no cluster answers is refused in seconds: Ray itself would ask for minutes. An error of ours inside Ray's is ours."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading

import pytest
import ray
from ray._private.utils import check_version_info
from ray.exceptions import RayTaskError

from masklake.cluster import _cause, cluster
from masklake.errors import Refused, Stalled
from tests.lakes import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_closed_port_is_refused_in_seconds(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda **asked: pytest.fail("Ray itself was asked"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"{scheme}127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Refused, match=f"--ray-address {address}: no Ray cluster answers there: Connection refused"), cluster(address):
            pass


def test_another_version_of_ray_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def join(**settings: object) -> None:
        check_version_info({"ray_version": "2.9.3", "python_version": "3.8.10"}, "10.0.0.7")  # Ray's own, as it does once it has joined

    monkeypatch.setattr("ray.init", join)
    with pytest.raises(Refused) as refused, cluster("auto"):
        pass
    (sentence,) = refused.value.args
    assert sentence.startswith(
        "--ray-address auto: the cluster has another version of Ray or Python than this driver: install the same here"
    )
    assert "2.9.3" in sentence
    assert ray.__version__ in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("error", [ConnectionError("Could not read\n  from the\x1b[31m control store"), RuntimeError("")])
def test_whatever_else_ray_says_of_a_join_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def join(**settings: object) -> None:
        raise error

    monkeypatch.setattr("ray.init", join)
    with pytest.raises(Refused, match=r"^--ray-address auto: no Ray cluster answers there: [^\n\x1b]*$"), cluster("auto"):
        pass


_STOPPED_WHILE_IT_JOINS = """
import os, signal, threading, ray
from masklake import leaving, stopping
from masklake.segment.session import Session

joining = threading.Event()

def join(**settings):  # in C++, Ray's client would hear no signal
    joining.set()
    threading.Event().wait()

ray.init = join
leaving.with_job()
stopping.listen()
try:
    with Session("auto") as session:
        session.begin()
        joining.wait()
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        session.resources()
except stopping.Stopped as stopped:
    assert [thread for thread in threading.enumerate() if thread.name == "ray"], "it no longer asks"
    os._exit(stopped.exit_code)
"""


@pytest.mark.slow
def test_a_stop_is_taken_at_once_while_a_thread_joins() -> None:
    """As `segment` joins, in a program of its own, to which a signal can be sent."""
    done = subprocess.run(
        [sys.executable, "-c", _STOPPED_WHILE_IT_JOINS], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert (done.returncode, done.stderr) == (143, "")


def test_the_dashboards_address_is_told_from_the_clusters() -> None:
    with pytest.raises(Refused, match=r"--ray-address http://10.0.0.1:8265: this is the dashboard's"), cluster("http://10.0.0.1:8265"):
        pass


def test_a_port_at_which_something_else_listens_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=answer_as_http, args=(other,), daemon=True).start()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with (
            pytest.raises(Refused, match=f"--ray-address {address}: something listens there, but it is not a Ray cluster"),
            cluster(address),
        ):
            pass


def answer_as_http(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_an_error_of_ours_that_ray_wrapped_is_told_as_ours() -> None:
    wrapped = RayTaskError("load", "a stack", Stalled("nothing happens")).as_instanceof_cause()  # type: ignore[no-untyped-call]
    assert isinstance(wrapped, Stalled)  # and its only argument is the error itself
    assert (type(_cause(wrapped)), _cause(wrapped).args) == (Stalled, ("nothing happens",))
