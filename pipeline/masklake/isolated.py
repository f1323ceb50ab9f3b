"""A function of bytes in a process of its own, which may crash, or take too much time or memory, and leaves the caller unharmed.

Decoders are large programs in C that read what anybody may have made. What a signal, the kernel's memory killer or an endless loop does to
them must be an answer about one input, not the end of a worker, of which an engine would start the next, for the same input, for ever.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Generic, TypeVar

from masklake.errors import MasklakeError

Answer = TypeVar("Answer")

_PIPE_BYTES = 1024 * 1024  # what Linux gives anybody
_ATTEMPTS = 2  # the kernel may have killed for what others took
_START_SECONDS = 120.0  # of an interpreter and its imports, on a busy machine
_WAITS = 20  # seconds of waiting for each of CPU: a process that does not compute, or gets no CPU, must end, too
_SLACK_BYTES = 256 * 1024 * 1024  # beyond what is asked for: the stacks of threads, and what an allocator keeps


class Ended(StrEnum):
    """How the process ended that should have answered."""

    DIED = "died"
    SLOW = "slow"
    LARGE = "large"


@dataclass(frozen=True)
class Limits:
    """What one call may take: seconds of CPU, and bytes beside the input itself."""

    seconds: float
    memory: int


@dataclass(frozen=True)
class _Line:
    """The caller's ends of the two pipes to the process."""

    ask: Connection
    answers: Connection


class Isolated(Generic[Answer]):
    """Calls `function`, which must be picklable, with bytes and further arguments; a context manager.

    The process is started by the first call and serves until one of them ends it. It begins with this process's `sys.path`. Calls from
    several threads wait for each other.

    Args:
        function: is called there.
        trusted: the input is of our own making, not of anybody's: the process has the keys of stores as well.
    """

    def __init__(self, function: Callable[..., Answer], trusted: bool = False) -> None:
        self._function, self._trusted = function, trusted
        self._process: subprocess.Popen[bytes] | None = None
        self._line: _Line | None = None
        self._busy = threading.Lock()

    def __enter__(self) -> Isolated[Answer]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __call__(self, data: bytes, limits: Limits | None, *arguments: object) -> Answer | Ended:
        """The function's answer, or how its process ended; where it died, the second time: the cause may have been another's.

        Without limits, it may take what it needs.

        Raises:
            MasklakeError: no process can be started, or the function raised an exception.
        """
        with self._busy:
            for _ in range(_ATTEMPTS - 1):
                answer = self._ask(data, limits, arguments)
                if answer is not Ended.DIED:
                    return answer
            return self._ask(data, limits, arguments)

    def close(self) -> None:
        """End the process, if there is one."""
        if self._line is not None:
            self._line.ask.close()
            self._line.answers.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._line = self._process = None

    def _ask(self, data: bytes, limits: Limits | None, arguments: tuple[object, ...]) -> Answer | Ended:
        line = self._line or self._start()
        try:
            line.ask.send_bytes(pickle.dumps((limits, arguments)))
            line.ask.send_bytes(data)
            if not line.answers.poll(_WAITS * limits.seconds if limits else None):
                self.close()
                return Ended.SLOW
            kind, answer = pickle.loads(line.answers.recv_bytes())  # noqa: S301 - our own process made it
        except (EOFError, OSError):
            return self._how_it_ended()
        if kind == "raised":
            raise MasklakeError(*answer.splitlines())
        found: Answer | Ended = answer
        return found

    def _start(self) -> _Line:
        if os.name != "posix":
            raise MasklakeError("images are decoded on Linux and macOS; on Windows, use WSL")
        requests, ask = _pipe()
        answers, answer = _pipe()
        with requests, answer:
            command = f"from masklake.isolated import serve; serve({requests.fileno()}, {answer.fileno()})"
            paths = os.pathsep.join(path for path in sys.path if path)
            alone = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", command],
                env={**(os.environ if self._trusted else _without_secrets(os.environ)), "PYTHONPATH": paths, **alone},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(requests.fileno(), answer.fileno()),
            )
        self._line = line = _Line(ask, answers)
        try:
            line.ask.send_bytes(pickle.dumps(self._function))
            ready = line.answers.poll(_START_SECONDS) and line.answers.recv_bytes() == b"ready"
        except (EOFError, OSError):
            ready = False
        if not ready:
            self.close()
            raise MasklakeError("a process of its own, in which images are decoded, does not start on this machine")
        return line

    def _how_it_ended(self) -> Ended:
        assert self._process is not None
        code = self._process.wait()
        self.close()
        return Ended.SLOW if code == -signal.SIGPROF else Ended.DIED


def _without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """What reads untrusted input has no use for the keys of stores and clusters."""
    return {name: value for name, value in environment.items() if not name.startswith(("AWS_", "AZURE_", "GOOGLE_", "HF_", "RAY_"))}


def _pipe() -> tuple[Connection, Connection]:
    """The ends to read from and to write to, with room for a whole resized image: fewer turns between the processes."""
    reader, writer = Pipe(duplex=False)
    if sys.platform.startswith("linux"):
        import fcntl  # which Windows has not, where tables can be read all the same

        with suppress(OSError):  # more than this user may have
            fcntl.fcntl(writer.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return reader, writer


def serve(requests: int, answers: int) -> None:
    """Answer the caller at the other end of two pipes until it is gone: what runs in the process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, to all its processes: the caller says when to end
    asked, line = Connection(requests, writable=False), Connection(answers, readable=False)
    try:
        function = pickle.loads(asked.recv_bytes())  # noqa: S301 - our own caller
        line.send_bytes(b"ready")
    except (EOFError, BrokenPipeError):  # it was stopped meanwhile
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders write there what they think of their input
    with suppress(EOFError, OSError):  # the caller is gone
        while True:
            limits, arguments = pickle.loads(asked.recv_bytes())  # noqa: S301
            answer = _limited(limits, function, asked.recv_bytes(), *arguments)
            line.send_bytes(pickle.dumps(answer, pickle.HIGHEST_PROTOCOL))
            del answer


def _limited(limits: Limits | None, function: Callable[..., Any], *arguments: object) -> tuple[str, Any]:
    if limits is not None:
        _bound_memory(limits.memory)
        signal.setitimer(signal.ITIMER_PROF, limits.seconds)  # the kernel ends the process, whatever library it is in
    try:
        return "answer", function(*arguments)
    except MemoryError:
        return "answer", Ended.LARGE
    except Exception:
        return "raised", traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        _bound_memory(None)


def _bound_memory(more: int | None) -> None:
    """Let this process allocate so many bytes more than it has; None: as many as there are. Elsewhere than on Linux there is no bound."""
    if not sys.platform.startswith("linux"):
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = hard
    if more is not None:
        soft = _data_bytes() + more + _SLACK_BYTES
        soft = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as pages:  # noqa: PTH123 - it is read for every image
        return int(pages.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")
