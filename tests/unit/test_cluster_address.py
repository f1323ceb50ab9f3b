"""An address at which no cluster answers is refused in seconds: Ray itself would ask for minutes. An error of ours inside Ray's is ours."""

from __future__ import annotations

import socket
import threading

import pytest
import ray
from ray.exceptions import RayTaskError

from masklake.cluster import _cause, cluster
from masklake.errors import Refused, Stalled


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_closed_port_is_refused_in_seconds(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda **asked: pytest.fail("Ray itself was asked"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"{scheme}127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Refused, match=f"--ray-address {address}: no Ray cluster answers there: Connection refused"), cluster(address):
            pass


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
