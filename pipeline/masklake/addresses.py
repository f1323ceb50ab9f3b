"""Where a Ray cluster is: what an address names, whether anybody answers there, and what Ray says of it, as one sentence. Without Ray."""

from __future__ import annotations

import os
import socket
import time

from masklake.errors import Refused, one_line

LOCAL = "local"
"""No cluster's address: a Ray of our own is started."""

_KNOCKS = (0.5, 1.5)  # seconds between attempts to reach a cluster
_GREETING_SECONDS = 15.0  # a busy head may take some
_OTHER_VERSION = "Version mismatch"  # as Ray begins to say it
_TLS = "RAY_USE_TLS"  # then nobody greets in the open


def target_of(address: str | None) -> str:
    """The address of a setting, else the submitted job's, else `LOCAL`."""
    return address or os.environ.get("RAY_ADDRESS") or LOCAL


def why_not_joined(error: Exception) -> str:
    """What Ray says in many lines, as one sentence."""
    said = one_line(error)
    if _OTHER_VERSION in said:
        return f"the cluster has another version of Ray or Python than this driver: install the same here ({said})"
    return (
        f"no Ray cluster answers there: {said}; name the head's port, often 6379, and where the cluster wants a token, "
        "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"
    )


def refuse_closed(target: str) -> None:
    """Look whether anybody listens there: Ray itself would ask for minutes, and take no stop meanwhile.

    Raises:
        Refused: nobody does.
    """
    if target.startswith(("http://", "https://")):
        raise Refused(
            f"--ray-address {target}: this is the dashboard's, for `ray job submit --address`; a driver joins at the port of the head's "
            "control store, such as 10.0.0.1:6379"
        )
    host, _, port = target.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return  # a word of Ray's, such as `auto`
    for wait in (*_KNOCKS, None):
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=5) as asked:
                if _TLS not in os.environ and not _speaks_grpc(asked):
                    raise Refused(
                        f"--ray-address {target}: something listens there, but it is not a Ray cluster: name the head's port, often 6379"
                    )
                return
        except (OSError, OverflowError) as error:
            if wait is None:
                raise Refused(
                    f"--ray-address {target}: no Ray cluster answers there: {getattr(error, 'strerror', None) or error}"
                ) from None
            time.sleep(wait)


def _speaks_grpc(asked: socket.socket) -> bool:
    """Whether a server greets as HTTP/2 does, with a frame of its settings (RFC 9113, 3.4): others would let Ray wait for minutes."""
    asked.settimeout(_GREETING_SECONDS)
    try:
        asked.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + bytes([4]) + bytes(5))
        head = b""
        while len(head) < 9 and (more := asked.recv(9 - len(head))):
            head += more
    except OSError:
        return False
    return len(head) == 9 and head[3] == 4
