"""The way to S3 is the one that botocore itself would take: its own client says what is right."""

from __future__ import annotations

import os
from pathlib import Path

import botocore.session
import pytest

from masklake.errors import Refused
from masklake.storage.connections import connection, environment
from masklake.storage.uris import normalise

SERVICES = """
[profile services]
region = eu-central-1
services = mine
endpoint_url = http://general:1
[services mine]
s3 =
  endpoint_url = http://of-s3:2
"""
PLAIN = "[profile plain]\nregion = eu-west-3\nendpoint_url = http://general:1\ns3 =\n  addressing_style = virtual\n"
OTHER = "[profile other]\nservices = others\n[services others]\ndynamodb =\n  endpoint_url = http://elsewhere:3\n"


@pytest.fixture(autouse=True)
def _nothing_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    (tmp_path / "config").write_text(SERVICES + PLAIN + OTHER)


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [
        {"AWS_DEFAULT_REGION": "eu-north-1"},
        {"AWS_PROFILE": "plain"},
        {"AWS_PROFILE": "services"},
        {"AWS_PROFILE": "other", "AWS_DEFAULT_REGION": "us-west-2"},
        {"AWS_PROFILE": "services", "AWS_ENDPOINT_URL": "http://variable:4"},
        {"AWS_PROFILE": "services", "AWS_ENDPOINT_URL": "http://variable:4", "AWS_ENDPOINT_URL_S3": "http://variable-of-s3:5"},
        {"AWS_PROFILE": "services", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
    ],
)
def test_endpoint_region_and_style_are_botocores(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    client = botocore.session.Session().create_client("s3", aws_access_key_id="a", aws_secret_access_key="b")
    found = connection()
    assert found.region == client.meta.region_name
    assert found.endpoint in (client.meta.endpoint_url, None)
    assert (found.endpoint is None) == ("amazonaws.com" in client.meta.endpoint_url)
    assert found.virtual == ((client.meta.config.s3 or {}).get("addressing_style") == "virtual")


def test_a_profile_reaches_both_halves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("[plain]\naws_access_key_id = AKIA\naws_secret_access_key = wJalr\n")
    monkeypatch.setenv("AWS_PROFILE", "plain")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert connection().delta_options("lake") == {
        "aws_region": "eu-west-3",
        "aws_conditional_put": "etag",
        "aws_endpoint_url_s3": "http://lake.general:1",  # delta-rs adds no bucket to a host
        "aws_allow_http": "true",
        "aws_virtual_hosted_style_request": "true",
        "aws_access_key_id": "AKIA",
        "aws_secret_access_key": "wJalr",
    }
    assert connection().iceberg_options()["s3.endpoint"] == "http://general:1"


def test_what_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "plian")
    with pytest.raises(Refused, match=r"^AWS_PROFILE plian: there is no such profile"):
        connection()
    monkeypatch.delenv("AWS_PROFILE")
    (Path(os.environ["AWS_CONFIG_FILE"])).write_text("[profile plain\n")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with pytest.raises(Refused, match=r"^AWS's configuration: Unable to parse config file: .*/config$"):
        connection()
    monkeypatch.setenv("AWS_CONFIG_FILE", "/no/such")
    monkeypatch.setenv("AWS_CA_BUNDLE", "/no/such.pem")
    with pytest.raises(Refused, match=r"ca_bundle, /no/such\.pem: there is no such file"):
        connection()


def test_every_variable_that_changes_the_connection_is_watched() -> None:
    assert len(environment()) == 12


def test_an_endpoint_with_a_password_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:secret@host:9000")
    with pytest.raises(Refused, match=r"AWS_ENDPOINT_URL.* carries a password") as refusal:
        connection()
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    "uri",
    [
        "https://bucket.s3.amazonaws.com/a.jpg?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=secret",
        "https://storage.googleapis.com/bucket/a.jpg?X-Goog-Signature=secret",
        "https://account.blob.core.windows.net/c/a.jpg?sv=2024&sig=secret",
        "s3://bucket/a.jpg?X-Amz-Signature=secret",
    ],
)
def test_a_presigned_uri_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(Refused, match="must not carry a signature or token") as refusal:
        normalise(uri)
    assert "secret" not in str(refusal.value)
    assert normalise("s3://bucket/a?size=1&b.jpg") == "s3://bucket/a?size=1&b.jpg"
