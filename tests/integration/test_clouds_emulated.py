"""Google's and Azure's stores, tried on emulators: gcp-storage-emulator, which `dev` brings, and Azurite, where npm has installed it.

The first knows only the interface that gcsfs speaks, and not the one by which delta-rs writes: of `gs://`, images are read. On Azurite a
table is written as well.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast
from urllib.parse import parse_qs, urlsplit

import pytest
from deltalake import DeltaTable

from masklake import storage
from masklake.demo.seaweedfs import die_with_parent, free_ports
from masklake.errors import ErrorCode, ImageFailure, Refused
from masklake.images.discover import discover
from masklake.images.fetch import fetch
from masklake.images.source import Input
from masklake.storage import StoredFile
from masklake.table.append import Table
from tests.faults.proxy import Faults, Handler, broken
from tests.tables import compacted, files, vacuumed

NAMES = ("images/dt=1/a.jpg", "images/dt=1/b c %41.jpg", "images/dt=2/ü.jpg")
_BLOB = re.compile(rb"<Blob><Name>(.*?)</Name>.*?</Blob>", re.DOTALL)
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # every Azurite's


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """A server, from when it answers."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=die_with_parent(),  # noqa: PLW1509 - one system call
    )
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, f"{command[0]} ended"
            time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


class StartingFrom(Handler):
    """Azure's listings begin where they are asked to; Azurite (3.37) passes over `startFrom`, and delta-rs relies on it."""

    def changed(self, content: bytes) -> bytes:
        """The listing without the names before that."""
        (first,) = parse_qs(urlsplit(self.path).query).get("startFrom", [""])
        if not first:
            return content
        return _BLOB.sub(lambda blob: blob[0] if blob[1].decode() >= first else b"", content)


@pytest.fixture(scope="module")
def google() -> Iterator[str]:
    (port,) = free_ports(1)
    command = [str(Path(sys.executable).with_name("gcp-storage-emulator")), "start", "--host", "127.0.0.1", "--port", str(port)]
    with running([*command, "--in-memory", "--default-bucket", "lake"], port), pytest.MonkeyPatch.context() as environment:
        environment.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        environment.setenv("GOOGLE_CLOUD_PROJECT", "none")
        yield "gs://lake"


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("Azurite is not installed: npm install -g azurite")
    from azure.storage.blob import BlobServiceClient

    (port,) = free_ports(1)
    where = ["--blobPort", str(port), "--location", str(tmp_path_factory.mktemp("azurite"))]
    text = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint=http://127.0.0.1:{port}/{ACCOUNT};"
    with running([program, *where, "--silent", "--skipApiVersionCheck", "--disableTelemetry"], port), pytest.MonkeyPatch.context() as given:
        BlobServiceClient.from_connection_string(text).create_container("lake")
        with broken(f"http://127.0.0.1:{port}", Faults(0, share=0.0, of_commits=0.0), StartingFrom) as endpoint:
            given.setenv("AZURE_STORAGE_CONNECTION_STRING", text.replace(f"http://127.0.0.1:{port}", endpoint))
            yield "az://lake"


@pytest.fixture(params=["google", "azure"])
def lake(request: pytest.FixtureRequest) -> str:
    root: str = request.getfixturevalue(request.param)
    for name in NAMES:
        storage.write_bytes(f"{root}/{name}", name.encode())
    return root


def test_images_are_listed_and_read_as_the_versions_that_they_are(lake: str) -> None:
    root = storage.normalise(lake)
    (page,) = discover(Input(f"{root}/images/"))
    assert sorted(page["image_uri"].to_pylist()) == sorted(f"{root}/{name}" for name in NAMES)
    found = dict(zip(page["image_uri"].to_pylist(), fetch(page, 1000), strict=True))
    assert found == {f"{root}/{name}": name.encode() for name in NAMES}
    assert all(page[name].null_count == 0 for name in ("image_etag", "image_bytes", "image_modified"))
    first = page.slice(0, 1)
    storage.write_bytes(first["image_uri"][0].as_py(), b"another picture")
    (changed,) = fetch(first, 1000)
    assert isinstance(changed, ImageFailure)
    assert changed.code == ErrorCode.CHANGED


def test_what_is_not_there_is_said(lake: str) -> None:
    there, missing = storage.stat_many([f"{lake}/{NAMES[0]}", f"{lake}/none.jpg"])
    assert isinstance(there, StoredFile)
    assert isinstance(missing, ImageFailure)
    assert missing.code == ErrorCode.NOT_FOUND
    assert (storage.exists(f"{lake}/images"), storage.exists(f"{lake}/none")) == (True, False)
    assert storage.list_names(f"{lake}/images/") == ["dt=1/", "dt=2/"]
    storage.check_output(f"{lake}/masks")
    assert not storage.exists(f"{lake}/masks"), "nothing is left of the check"
    for check in (storage.check_input, storage.check_output):
        with pytest.raises(Refused):
            check(f"{lake.replace('lake', 'no-such')}/images/")


def test_a_table_on_azure_is_written_compacted_and_vacuumed(azure: str) -> None:
    uri = f"{azure}/masks"
    table = Table.open_or_create(uri, ("task", "dt"))
    table.begin_run(f"{azure}/images/", "run-1", beat=False)
    for name in ("a", "b"):
        table.commit(files(table, "run-1", [name]))
    table.finish_run()
    again = Table.open_or_create(uri, ("task", "dt"))
    assert again.rows_of_run("run-1") == 2
    assert compacted(cast("Path", uri)).files_before == 2
    assert vacuumed(cast("Path", uri)).files == 2
    delta = DeltaTable(storage.delta_uri(uri), storage_options=storage.delta_options(uri))
    uris = delta.to_pyarrow_table(columns=["image_uri"])["image_uri"].to_pylist()
    assert sorted(uri.rpartition("/")[2] for uri in uris) == ["a.jpg", "b.jpg"]
