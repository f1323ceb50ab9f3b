"""Publications of tables on a real S3 server."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import botocore.session
import polars as pl
import pytest
from pyiceberg.catalog import load_catalog

from masklake import storage
from masklake.commands import cli
from masklake.demo.seaweedfs import SeaweedFS, free_ports
from masklake.errors import Refused
from masklake.export.iceberg.publish import publish
from masklake.export.iceberg.settings import PublishConfig
from masklake.upkeep.compact import compact
from masklake.upkeep.upkeep import UpkeepTable
from masklake.upkeep.vacuum import vacuum
from tests.exports import answers, build, commit
from tests.icebergs import by_delta, by_pyiceberg, delta_files, file_entries, mirror, published
from tests.lakes import ROOT


def assert_same(table: str, catalog: Path) -> None:
    """Readers of both tables agree on every row; that pyiceberg reads a null list as an empty one is its own doing."""
    assert by_pyiceberg(catalog) == [{**row, "segments": row["segments"] or []} for row in by_delta(table)]
    assert file_entries(catalog) == delta_files(table)


def test_a_table_on_s3_is_published_kept_and_published_again(bucket: str, tmp_path: Path) -> None:
    catalog = tmp_path / "iceberg.db"
    table = build(f"s3://{bucket}/the masks")
    commit(table, "run-9", {"dt=100 % of ü/e.jpg": answers("e"), "f.jpg": answers("f")}, minute=9)
    assert published(table, catalog)["added_files"] == 18
    assert_same(table, catalog)
    with UpkeepTable.job(table, "compact-1", beat=False) as upkeep:
        compact(upkeep, 1_000_000, say=lambda text: None)
        vacuum(upkeep, 0, 0.1, say=lambda text: None)
    metadata = {file.uri for page in storage.list_files(f"{table}/_masklake/iceberg/") for file in page}
    assert any(uri.endswith(".avro") for uri in metadata), "a vacuum leaves the metadata alone"
    summary = published(table, catalog)
    assert (summary["added_files"], summary["removed_files"]) == (6, 12)
    assert_same(table, catalog)
    assert published(table, catalog)["outcome"] == "nothing to do"
    assert by_pyiceberg(catalog, row_filter="dt = '100 % of ü' AND task = 'panoptic'")[0]["run_id"] == "run-9"


def test_polars_reads_it_with_credentials_from_its_environment(bucket: str, tmp_path: Path) -> None:
    table = build(f"s3://{bucket}/masks")
    summary = published(table, tmp_path / "iceberg.db")
    options = {name: value for name, value in storage.delta_options(table).items() if name != "aws_conditional_put"}
    found = pl.scan_iceberg(mirror(tmp_path / "iceberg.db"), storage_options=options, reader_override="native").collect()
    assert found.height == len(by_delta(table))
    assert found.filter(status="error")["segments"].null_count() == 3
    assert summary["metadata"].startswith(f"{table}/_masklake/iceberg/metadata/")


def test_no_secret_is_stored_or_said(s3: SeaweedFS, bucket: str, tmp_path: Path) -> None:
    table, catalog = build(f"s3://{bucket}/masks"), tmp_path / "iceberg.db"
    command = [sys.executable, "-m", "masklake", "publish", "--table", table, "--catalog-file", str(catalog)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=200)
    stored = [storage.read_bytes(file.uri) for page in storage.list_files(f"{table}/_masklake/") for file in page]
    assert len(stored) >= 3
    inside = repr(mirror(catalog).inspect.files().to_pylist())  # of what lies there compressed
    assert ".parquet" in inside
    for content in (done.stdout.encode(), done.stderr.encode(), catalog.read_bytes(), inside.encode(), *stored):
        assert s3.secret_key.encode() not in content
        assert s3.access_key.encode() not in content
    with sqlite3.connect(catalog) as database:
        assert database.execute("SELECT count(*) FROM iceberg_tables").fetchone() == (1,)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong-secret-key-1234", "says that the secret key is wrong"),
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9", "does not answer"),
    ],
)
def test_wrong_credentials_and_endpoints_are_refused(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, message: str
) -> None:
    table = build(f"s3://{bucket}/masks")
    monkeypatch.setenv(name, value)
    assert cli.main(["publish", "--table", table, "--catalog-file", str(tmp_path / "iceberg.db")]) == 2
    told = capsys.readouterr()
    assert message in json.loads(told.out.splitlines()[-1])["error"]
    assert "wrong-secret-key" not in told.out + told.err


def test_storage_settings_of_a_catalogs_own_configuration_win(
    s3: SeaweedFS, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = build(f"s3://{bucket}/masks")
    monkeypatch.setenv("PYICEBERG_CATALOG__LAB__URI", f"sqlite:///{tmp_path}/lab.db")
    monkeypatch.setenv("PYICEBERG_CATALOG__LAB__S3__ENDPOINT", s3.endpoint)
    monkeypatch.setenv("PYICEBERG_CATALOG__LAB__S3__REGION", "us-east-1")
    monkeypatch.setenv("PYICEBERG_CATALOG__LAB__S3__ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("PYICEBERG_CATALOG__LAB__S3__SECRET_ACCESS_KEY", "wrong-secret-key-1234")
    command = ["publish", "--table", table, "--catalog", "lab"]
    assert cli.main(command) == 1, "the data are read with masklake's credentials, the metadata written with the catalog's"
    told = capsys.readouterr()
    assert "--catalog lab: " in json.loads(told.out.splitlines()[-1])["error"]
    assert "wrong-secret-key" not in told.out + told.err
    monkeypatch.setenv("PYICEBERG_CATALOG__LAB__S3__SECRET_ACCESS_KEY", s3.secret_key)
    assert cli.main(command) == 0


@pytest.fixture
def rest(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A real REST catalog, named `rest` in pyiceberg's configuration, whose tables lie in the bucket `warehouse`; returns its URI."""
    server = SeaweedFS()
    [server.iceberg_port] = free_ports(1)
    with server:
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        keys = {"aws_access_key_id": server.access_key, "aws_secret_access_key": server.secret_key, "region_name": "us-east-1"}
        botocore.session.Session().create_client("s3tables", endpoint_url=server.endpoint, **keys).create_table_bucket(name="warehouse")
        server.create_bucket("lake")
        uri = f"http://127.0.0.1:{server.iceberg_port}"
        monkeypatch.setenv("PYICEBERG_CATALOG__REST__URI", uri)
        monkeypatch.setenv("PYICEBERG_CATALOG__REST__WAREHOUSE", "s3://warehouse")
        monkeypatch.setenv("PYICEBERG_CATALOG__REST__OAUTH2_SERVER_URI", f"{uri}/v1/oauth/tokens")
        monkeypatch.setenv("PYICEBERG_CATALOG__REST__CREDENTIAL", f"{server.access_key}:{server.secret_key}")
        yield uri


def test_a_rest_catalog(rest: str) -> None:
    table = build("s3://lake/masks")
    with pytest.raises(Refused, match=r"--catalog rest: .*must be within bucket warehouse; .*--location puts them elsewhere"):
        publish(PublishConfig(table=table, catalog="rest"), lambda text: None)
    settings = PublishConfig(table=table, catalog="rest", location="s3://warehouse/masklake/masks")
    assert publish(settings, lambda text: None)["added_files"] == 12
    assert publish(settings, lambda text: None)["outcome"] == "nothing to do"

    def rows() -> int:
        found = load_catalog("rest", **settings.chosen.all_properties()).load_table("masklake.masks")
        return int(found.scan().to_arrow().num_rows)

    assert rows() == len(by_delta(table))
    commit(table, "run-9", {"e.jpg": answers("e")}, minute=9)
    between: list[str] = []

    def another(_: str) -> None:
        if not between:  # while ours has looked at both tables, and has not committed
            between.append(publish(settings, lambda text: None)["outcome"])

    assert publish(settings, lambda text: None, another)["outcome"] == "nothing to do"
    assert between == ["published"]
    assert rows() == len(by_delta(table)), "each file once"
