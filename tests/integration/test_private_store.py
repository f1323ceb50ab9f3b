"""A store behind a private certificate authority, told by a profile alone: each half of the program reaches it, or is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from masklake import reading, storage
from masklake.demo.seaweedfs import SeaweedFS
from masklake.errors import Refused
from masklake.table.definition import check_log
from tests.icebergs import by_pyiceberg, published
from tests.tables import begun, files
from tests.tls import tls_front

URI = "s3://private/masks"


@pytest.fixture
def profile(s3: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A configuration file whose profile `mine` has the endpoint, keys and certificate; its environment has none of them."""
    s3.create_bucket("private")
    for name in [*s3.env(), "AWS_CA_BUNDLE", "SSL_CERT_FILE"]:
        monkeypatch.delenv(name, raising=False)
    with tls_front(s3.endpoint, tmp_path) as (endpoint, cert):
        config = tmp_path / "config"
        config.write_text(
            f"[profile mine]\nregion = us-east-1\nca_bundle = {cert}\nservices = own\naws_access_key_id = {s3.access_key}\n"
            f"aws_secret_access_key = {s3.secret_key}\n[services own]\ns3 =\n  endpoint_url = {endpoint}\n"
        )
        monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.setenv("AWS_PROFILE", "mine")
        monkeypatch.setenv("MASKLAKE_CACHE", str(tmp_path / "cache"))
        yield config
    os.environ.pop("SSL_CERT_FILE", None)


def test_a_table_is_written_read_and_published(profile: Path, tmp_path: Path) -> None:
    storage.check_output(URI)
    check_log(URI)
    table = begun(URI, "run-1")
    table.commit(files(table, "run-1", ["a", "b"]))
    table.finish_run()
    assert reading.open_table(URI).rows(columns=["image_uri"]).num_rows == 2
    assert published(URI, tmp_path / "iceberg.db")["outcome"] == "published"
    assert [row["image_uri"][-5:] for row in by_pyiceberg(tmp_path / "iceberg.db")] == ["a.jpg", "b.jpg"]


def test_an_untrusted_certificate_is_refused_in_a_sentence_by_either_half(profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile.write_text("".join(line for line in profile.read_text().splitlines(keepends=True) if not line.startswith("ca_bundle")))
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")  # another environment, so that nothing is remembered
    for check in (storage.check_output, check_log):
        with pytest.raises(Refused, match=r"^--output s3://private/masks: .*certificate"):
            check(URI)
