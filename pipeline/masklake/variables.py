"""Environment variables that Ray, torch and we would write in the middle of the work, written before it begins.

With glibc before 2.41, a thread that looks up a variable crashes where another adds one, for that moves the list of all: delta-rs, Arrow
and the resolver of names look, in threads of their own (glibc's NEWS of 2.41; `__add_to_environ` in its stdlib/setenv.c). To write one that
is there already, as Ray does at its import and at each start, moves nothing.
"""

from __future__ import annotations

import getpass
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from masklake import leaving
from masklake.addresses import LOCAL, target_of

START_SECONDS = 180  # for each part of a Ray of our own, on however busy a machine

_RAY = {
    # After an interruption, threads that still wait for results must not start another Ray behind our back; read when ray is imported.
    "RAY_ENABLE_AUTO_CONNECT": "0",
    # Ray's C++ side writes what it thinks of actors to the user's stderr; what ends a run reaches us as an exception.
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    # What Ray itself writes, whatever is there, and nothing may be there for: the same, or what it means that nothing is.
    "RAY_CLIENT_MODE": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONBREAKPOINT": "pdb.set_trace",
}
_OWN_RAY = {
    # Its other limits for a start, of 20 to 30 s, are not enough on a busy machine either.
    "RAY_gcs_server_port_wait_time_s": str(START_SECONDS),
    "RAY_agent_register_timeout_ms": str(1000 * START_SECONDS),
    # It would end a worker that idles for a second, between two writes say; the next costs seconds of Python's imports.
    "RAY_idle_worker_killing_time_threshold_ms": "60000",
    # It takes a Linux machine for a possible node of a larger cluster, and listens on every interface.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "OPENBLAS_MAIN_FREE": "1",  # numpy writes it while it is imported, in workers in the middle of everything
}
_LEAN = {  # workers begin when there is work for them: of those that Ray starts before, actors take none
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_worker_prestart": "0",
}
_MODE, _TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"
_taken: list[str] = []  # of this process: written here, and for a Ray of our own alone


def prepare(address: str | None, lean_data: bool = False) -> None:
    """Write what is not there. To be called before anything has started a thread; once more, it does nothing.

    Args:
        address: of the cluster to join; a Ray of our own has settings of its own, and obeys nobody without a token of this process, unless
            the user set how it knows its clients (`RAY_AUTH_MODE`).
        lean_data: a Ray of our own runs datasets one after the other.
    """
    for name, value in {**_RAY, "TORCHINDUCTOR_CACHE_DIR": _inductor_folder()}.items():
        if name not in os.environ:
            os.environ[name] = value
    if target_of(address) == LOCAL:
        known = {} if _MODE in os.environ else {_TOKEN: secrets.token_hex(32), _MODE: "token"}
        for name, value in {**_OWN_RAY, **(_LEAN if lean_data else {}), **known}.items():
            if name not in os.environ:
                os.environ[name] = value
                _taken.append(name)


def take_back() -> None:
    """Take away what is for a Ray of our own, where this process lives on after its job, as a notebook does."""
    while _taken and not leaving.is_with_job():
        os.environ.pop(_taken.pop(), None)


@contextmanager
def prepared(address: str | None, lean_data: bool = False) -> Iterator[None]:
    """`prepare` now, and `take_back` at the end."""
    prepare(address, lean_data)
    try:
        yield
    finally:
        take_back()


def _inductor_folder() -> str:
    """Where torch's compiler keeps what it made: as torch has it, which writes it down when its model code is imported."""
    try:
        user = getpass.getuser()
    except (KeyError, ImportError, OSError):
        user = f"uid_{os.getuid()}"
    return os.path.join(tempfile.gettempdir(), "torchinductor_" + re.sub(r'[\\/:*?"<>|]', "_", user))  # noqa: PTH118 - torch's own text
