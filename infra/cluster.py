"""A Ray cluster of two nodes on loopback, with an S3 server beside it: what a submitted job needs, on one machine.

    python -m infra.cluster up        # start it in the background, store some images, and print the command to try
    python -m infra.cluster status
    python -m infra.cluster down      # stop exactly what `up` started; other Rays on the machine are left alone

The head has one CPU; the worker has one CPU and one `accelerator`. For Linux, whose loopback has an address for each of them. Both take
tokens only (`RAY_AUTH_MODE=token`, one of the cluster's own), which protects the ports that Ray opens on every interface. All ports were
free. Tests use `LocalCluster` as a context manager.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import http.client
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn, TextIO

from masklake.demo.seaweedfs import SeaweedFS, die_with_parent, free_ports

ROOT = Path(__file__).parents[1]
STATE = ROOT / "build" / "cluster"
BUCKET, IMAGES, TABLE, MODEL = "lake", "s3://lake/images/", "s3://lake/masks", "s3://lake/models/demo"
LOOPBACK = "127.0.0.1"
_ADDRESSES = {"head": "127.0.0.2", "worker": "127.0.0.3", "worker-2": "127.0.0.4"}
"""Loopback, too, but Ray takes them as they are: for 127.0.0.1 it would put in the machine's own address, and listen there."""
_SHORT_PATH = 16  # characters of a folder for temporary files that is short enough: Ray puts Unix sockets below it, with 107 in all
_OBJECT_STORE_BYTES = 512 * 1024 * 1024  # a node; Ray's default is a third of the machine's memory, twice
_START_SECONDS, _STOP_SECONDS = 180.0, 20.0
_PATIENCE = {
    # By default a minute, or half of one, which is little on a busy machine.
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": f"{_START_SECONDS:.0f}",
    "RAY_gcs_server_port_wait_time_s": f"{_START_SECONDS:.0f}",
    "RAY_raylet_start_wait_time_s": f"{_START_SECONDS * 2 / 3:.0f}",  # so that `ray start` says what is wrong before we give up
    "RAY_agent_register_timeout_ms": f"{1000 * _START_SECONDS:.0f}",
    "RAY_JOB_STOP_WAIT_TIME_S": "30",  # by default 3, after which a stopped job is killed
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # by default half a minute for idle workers, which nothing here needs
}
_NODE_PORTS = ("node-manager", "object-manager", "dashboard-agent-grpc", "dashboard-agent-listen", "runtime-env-agent", "metrics-export")
_LOG, _LOG_LINES = "; the end of its log:\n", 20


class LocalCluster:
    """Raylets and an S3 server with the bucket `lake`; a context manager. Start it in a thread that lives as long as it is needed.

    `dashboard` is the address for `ray job submit`, `address` the one for a driver on this machine (`--ray-address`), `s3` the running
    server, `folder` holds the logs (temporary, gone with the cluster). There is a head, and one or two `workers`; a `store` that runs
    already is used as it is, and stays.

    Raises:
        FileNotFoundError: on start, if `ray` or `weed` is not installed.
        RuntimeError: on start, if a part does not come up in time; the message ends with the tail of its log.
    """

    def __init__(self, workers: int = 1, store: SeaweedFS | None = None) -> None:
        self.s3 = store or SeaweedFS()
        self.dashboard = self.address = ""
        self._own_store = store is None
        self._names = list(_ADDRESSES)[: workers + 1]
        self.folder = Path()
        self._token = secrets.token_hex(32)
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> LocalCluster:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything and wait until jobs are accepted and both nodes have joined."""
        usual = tempfile.gettempdir()
        self.folder = Path(tempfile.mkdtemp(prefix="lake-", dir=usual if len(usual) <= _SHORT_PATH else "/tmp"))  # noqa: S108 - a new folder
        try:
            self._token_file.touch(mode=0o600)
            self._token_file.write_text(self._token)
            if self._own_store:
                self.s3.start()
            self.s3.create_bucket(BUCKET)
            _or_again(self._start_nodes, self._end_nodes)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the nodes, the server and their files; does nothing where there are none."""
        self._end_nodes()
        if self._own_store:
            self.s3.stop()
        if self.folder != Path():
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder = Path()

    def env(self) -> dict[str, str]:
        """What a client of the cluster needs besides its own environment: the token's place, and the S3 server's address and keys."""
        no_proxy = ",".join((LOOPBACK, *_ADDRESSES.values()))
        return {
            **self.s3.env(),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._token_file),
            "NO_PROXY": no_proxy,
            "no_proxy": no_proxy,
        }

    def environment(self) -> dict[str, str]:
        """A whole environment for a client of the cluster: this process's, without its own Ray and AWS settings, and `env`."""
        mine = _without_own_settings()
        programs = str(Path(sys.executable).parent)
        return {**mine, "PATH": os.pathsep.join((programs, mine.get("PATH", os.defpath))), **self.env()}

    def pids(self) -> dict[str, int]:
        """The processes that were started here, by name."""
        nodes = {name: process.pid for name, process in self._nodes.items()}
        return {**nodes, "s3": self.s3.pid} if self.s3.pid else nodes

    def workers(self) -> list[str]:
        """The names of the nodes beside the head."""
        return [name for name in self._nodes if name != "head"]

    def lose(self, name: str) -> None:
        """kill -9 everything of a node: its raylet, agents and workers."""
        process = self._nodes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)  # the raylet's workers die with it: the kernel tells them
        process.wait()

    def add(self, name: str, *more: str) -> None:
        """Start a worker that was lost anew, with more options of `ray start`, and wait until it has joined.

        Raises:
            RuntimeError: it does not come up in time, twice.
        """
        _or_again(lambda: self._add(name, *more), lambda: self._end_nodes(name))

    def _add(self, name: str, *more: str) -> None:
        worker = (f"--address={self.address}", "--resources", '{"accelerator": 1}', *more)
        self._start_node(name, worker, free_ports(len(_NODE_PORTS)))
        self._wait(name, "has not joined", lambda: self._alive_nodes() == len(self._nodes))

    def dead(self) -> str:
        """The name of a node that ended by itself, or ''."""
        return next((name for name, process in self._nodes.items() if process.poll() is not None), "")

    def get(self, path: str) -> Any:
        """The JSON that the dashboard answers.

        Raises:
            OSError: it does not answer, or with an error.
        """
        request = urllib.request.Request(self.dashboard + path, headers={"Authorization": f"Bearer {self._token}"})  # noqa: S310 - http
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            return json.load(answer)

    @property
    def _token_file(self) -> Path:
        return self.folder / "token"

    def _start_nodes(self) -> None:
        gcs, dashboard, client, *ports = free_ports(3 + len(_NODE_PORTS))
        self.dashboard, self.address = f"http://{LOOPBACK}:{dashboard}", f"{_ADDRESSES['head']}:{gcs}"
        web = (f"--dashboard-host={LOOPBACK}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}")
        head = ("--head", f"--port={gcs}", *web, "--disable-usage-stats")
        self._start_node("head", head, ports)
        self._wait("head", "has not started", lambda: self._alive_nodes() == 1)
        for name in self._names[1:]:
            self.add(name)
        self._wait("head", "takes no jobs", lambda: self.get("/api/jobs/") == [])

    def _end_nodes(self, *names: str) -> None:
        """End these nodes, by default all, at once, gently if they listen."""
        ending = [self._nodes.pop(name) for name in names or tuple(self._nodes)]
        for process in ending:
            process.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        for process in ending:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the group outlives its leader: agents stay for a while without their raylet
            process.wait()

    def _start_node(self, name: str, arguments: tuple[str, ...], ports: list[int]) -> None:
        """Run one `ray start`, which stays: its end is the node's end."""
        program = Path(sys.executable).with_name("ray")
        own = [f"--{purpose}-port={port}" for purpose, port in zip(_NODE_PORTS, ports, strict=True)]
        own += ["--min-worker-port=0", "--max-worker-port=0"]  # any free one; by default both nodes would deal out the same range
        # A folder of its own: nodes that share one unpack a job's working directory there twice, the second time under a running job.
        own += [f"--temp-dir={self.folder / name}"]
        sizes = ["--num-cpus=1", "--num-gpus=0", f"--object-store-memory={_OBJECT_STORE_BYTES}"]
        with (self.folder / f"{name}.log").open("wb") as log:
            self._nodes[name] = subprocess.Popen(
                [str(program), "start", "--block", f"--node-ip-address={_ADDRESSES[name]}", *sizes, *own, *arguments],
                cwd=self.folder,  # not the project's: only what a job ships may be found by its workers
                env={**self.environment(), **_PATIENCE},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for this process, which ends the node in order
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - one system call, no Python state: safe beside threads
            )

    def _alive_nodes(self) -> int:
        nodes = self.get("/nodes?view=summary")["data"]["summary"]
        return sum(node["raylet"].get("state") == "ALIVE" for node in nodes)

    def _wait(self, name: str, problem: str, ready: Callable[[], bool]) -> None:
        deadline, last = time.monotonic() + _START_SECONDS, ""
        while time.monotonic() < deadline and not self.dead():
            try:
                if ready():
                    return
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                last = f" ({error})"
            time.sleep(0.2)
        culprit = self.dead() or name
        tail = _tail(self.folder / f"{culprit}.log")
        raise RuntimeError(f"Ray's {culprit} node {'ended while starting' if self.dead() else problem + last}{_LOG}{tail}")


def _or_again(start: Callable[[], None], end: Callable[[], None]) -> None:
    """Start what may fail once for no fault of its own: a port may be taken between our look and Ray's, or the machine is very busy.

    Raises:
        RuntimeError: it failed twice; the message tells the second failure.
    """
    try:
        start()
    except RuntimeError as error:
        print(f"cluster: once more: {str(error).partition(_LOG)[0]}", file=sys.stderr)
        end()
        start()


def submit_command(dashboard: str, *arguments: str) -> list[str]:
    """The line that submits the job as documented: run it at the repository's root, in the cluster's environment."""
    job = ["python", "-m", "masklake", "segment", *arguments]
    return ["ray", "job", "submit", "--address", dashboard, "--working-dir", "pipeline", "--", *job]


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; returns 0, or 1 with a message on stderr."""
    arguments = _parser().parse_args(argv)
    state = arguments.state.resolve()
    state.mkdir(parents=True, exist_ok=True)
    try:
        if arguments.command == "up":
            _up(state, arguments.images)
        elif arguments.command == "down":
            _down(state)
        elif arguments.command == "hold":
            _hold(state)
        else:
            return _status(state)
    except (RuntimeError, FileNotFoundError) as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    return 0


def _up(state: Path, images: int) -> None:
    """Start `hold` in the background, wait for it, and fill the lake."""
    if _is_held(state):
        print("it is up already")
    else:
        (state / "cluster.json").unlink(missing_ok=True)
        with (state / "cluster.log").open("wb") as log:
            command = [sys.executable, "-m", "infra.cluster", "hold", "--state", str(state)]
            process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        while not (state / "cluster.json").exists():
            if process.poll() is not None:
                raise RuntimeError(f"it did not start:\n{_tail(state / 'cluster.log')}")
            time.sleep(0.2)
        _upload(state, images)
    _status(state)


def _down(state: Path) -> None:
    """End the process that holds the cluster, and so all of it."""
    if not _is_held(state):
        print("nothing to stop")
        return
    pid = _read_state(state)["pid"]
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 60
    while _is_held(state):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)  # its children are bound to it: the kernel ends them
            break
        time.sleep(0.2)
    print("stopped")


def _status(state: Path) -> int:
    if not _is_held(state):
        print("down")
        return 1
    facts = _read_state(state)
    processes = ", ".join(f"{name} {pid}" for name, pid in facts["pids"].items())
    line = shlex.join(submit_command(facts["dashboard"], *("--input", IMAGES, "--output", TABLE, "--model", MODEL, "--tasks", "panoptic")))
    print(
        f"""up: two Ray nodes and an S3 server on loopback ({processes}; held by {facts["pid"]})
dashboard  {facts["dashboard"]}
S3         {facts["s3"]}, images in {IMAGES}
logs       {facts["folder"]}

In a shell at {ROOT}:

    source {state / "env"}    # the cluster's token, the server's keys, the environment's programs
    {line}
"""
    )
    return 0


def _hold(state: Path) -> None:
    """Run the cluster until SIGTERM or Ctrl-C; its description lies in the state folder once it is ready."""
    with _lock(state):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _leave)
        try:
            with LocalCluster() as cluster:
                _describe(state, cluster)
                while not cluster.dead():
                    time.sleep(0.5)
                raise RuntimeError(f"Ray's {cluster.dead()} node ended by itself:\n{_tail(cluster.folder / (cluster.dead() + '.log'))}")
        finally:
            for name in ("cluster.json", "env"):
                (state / name).unlink(missing_ok=True)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    for again in (signal.SIGTERM, signal.SIGINT):  # nobody interrupts the cleaning up
        signal.signal(again, signal.SIG_IGN)
    raise SystemExit(0)


def _describe(state: Path, cluster: LocalCluster) -> None:
    foreign = "unset ${!AWS_@} ${!RAY_@}"  # of bash: a profile or a session token of the user's would go before these keys
    exports = [f"export {name}={shlex.quote(value)}" for name, value in cluster.env().items()]
    programs = shlex.quote(str(Path(sys.executable).parent))
    (state / "env").touch(mode=0o600)
    (state / "env").write_text("\n".join([foreign, *exports, f"export PATH={programs}:$PATH", ""]))
    facts = {"pid": os.getpid(), "pids": cluster.pids(), "dashboard": cluster.dashboard, "s3": cluster.s3.endpoint}
    unfinished = state / "cluster.json.new"
    unfinished.touch(mode=0o600)
    unfinished.write_text(json.dumps({**facts, "folder": str(cluster.folder), "client": cluster.env()}))
    unfinished.rename(state / "cluster.json")


def _read_state(state: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((state / "cluster.json").read_text())
    except FileNotFoundError:
        raise RuntimeError(f"it is starting or stopping just now; see {state / 'cluster.log'}") from None
    return facts


def _upload(state: Path, images: int) -> None:
    """Fill the lake in a process of its own, which has the server's environment from its start."""
    fill = f"upload_scenes({IMAGES!r}, range({images})); upload_model({MODEL!r})"
    script = f"from masklake.demo.lake import upload_model, upload_scenes; {fill}"
    environment = {**_without_own_settings(), **_read_state(state)["client"]}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the cluster is up, but {IMAGES} could not be filled:\n{done.stderr}")


def _without_own_settings() -> dict[str, str]:
    """This process's environment without the user's own Ray and AWS settings, which are for other clusters and stores."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_"))}


@contextlib.contextmanager
def _lock(state: Path) -> Iterator[TextIO]:
    """Hold the state folder. The kernel lets go when the process ends, however it ends: no stale process id is ever trusted."""
    with (state / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"a cluster is held in {state} already") from None
        yield file


def _is_held(state: Path) -> bool:
    try:
        with _lock(state):
            return False
    except RuntimeError:
        return True


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:]) if log.exists() else "(no log)"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m infra.cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    texts = {
        "up": "start it in the background, store some images, print the command to try",
        "down": "stop what `up` started",
        "status": "what runs, and the command to try; exit code 1 if it is down",
        "hold": "run it in the foreground until Ctrl-C, without images (what `up` runs in the background)",
    }
    for name, text in texts.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--state", type=Path, default=STATE, help="folder that describes this cluster (default: build/cluster)")
        if name == "up":
            command.add_argument("--images", type=int, default=40, help=f"generated scenes stored in {IMAGES} (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
