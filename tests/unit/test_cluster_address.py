"""An address at which no cluster answers is refused in seconds: Ray itself would ask for minutes."""

from __future__ import annotations

import socket
import time

import pytest

from masklake.cluster import cluster
from masklake.errors import Refused


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_closed_port_is_refused_in_seconds(scheme: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"{scheme}127.0.0.1:{taken.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(Refused, match=f"--ray-address {address}: no Ray cluster answers there: Connection refused"), cluster(address):
            pass
    assert time.monotonic() - started < 15


def test_the_dashboards_address_is_told_from_the_clusters() -> None:
    with pytest.raises(Refused, match=r"--ray-address http://10.0.0.1:8265: this is the dashboard's"), cluster("http://10.0.0.1:8265"):
        pass
