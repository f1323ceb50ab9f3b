"""Google's and Azure's stores: their names in one form, what is given to delta-rs, and what their errors are."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from pathlib import Path

import pytest

from masklake import storage
from masklake.errors import ErrorCode, Refused
from masklake.images.locations import check_locations
from masklake.storage import calls, clouds, faults, places
from masklake.storage.faults import CredentialsError


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("gcs://lake/a b.jpg", "gs://lake/a b.jpg"),
        ("GS://lake/a.jpg", "gs://lake/a.jpg"),
        ("az://lake/a.jpg", "abfs://lake/a.jpg"),
        ("abfss://lake@account.dfs.core.windows.net/a.jpg", "abfs://lake@account.dfs.core.windows.net/a.jpg"),
    ],
)
def test_a_store_of_several_schemes_has_one(given: str, canonical: str) -> None:
    assert storage.normalise(given) == canonical
    assert storage.is_canonical(canonical)


def test_a_uri_may_name_its_account() -> None:
    assert clouds.azure_account("abfs://lake@account.dfs.core.windows.net/a.jpg") == "account"
    assert clouds.azure_account("abfs://lake/a@b.jpg") == ""


@pytest.mark.slow
def test_a_listing_names_the_account_as_it_was_given() -> None:
    pytest.importorskip("adlfs")
    store = clouds.AzureStore("account")
    root = "abfs://lake@account.dfs.core.windows.net"
    assert store._own(f"{root}/images/") == f"{root}/images/"
    assert store._uri("lake/images/a.jpg") == f"{root}/images/a.jpg"
    assert store.fs.account_name == "account"


def test_a_connection_string_is_told_to_delta_rs(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=b==;BlobEndpoint=http://127.0.0.1:1/a;"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)
    assert clouds.delta_options("abfs") == {
        "azure_storage_account_name": "a",
        "azure_storage_account_key": "b==",
        "azure_storage_endpoint": "http://127.0.0.1:1/a",
        "azure_allow_http": "true",
    }
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "DefaultEndpointsProtocol=https;AccountName=a;SharedAccessSignature=sv=1&sig=2")
    assert clouds.delta_options("abfs") == {"azure_storage_account_name": "a", "azure_storage_sas_token": "sv=1&sig=2"}
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    assert clouds.delta_options("abfs") == clouds.delta_options("gs") == clouds.delta_options("file") == {}


def test_an_emulator_is_told_to_delta_rs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    assert json.loads(clouds.delta_options("gs")["google_service_account_key"])["gcs_base_url"] == "http://127.0.0.1:1"


class HttpError(Exception):
    """As gcsfs has it."""

    def __init__(self, code: int) -> None:
        super().__init__(f"no, {code}")
        self.code = code


class HttpResponseError(Exception):
    """As azure has it."""

    def __init__(self, status_code: int) -> None:
        super().__init__(f"no, {status_code}")
        self.status_code = status_code


class RefreshError(Exception):
    """As google.auth has it."""


@pytest.mark.parametrize("kind", [HttpError, HttpResponseError])
def test_their_errors_are_those_of_any_store(kind: type[Exception]) -> None:
    codes = {status: faults.failure(kind(status)).code for status in (401, 403, 404, 412, 429, 503)}
    assert codes == {
        401: ErrorCode.ACCESS_DENIED,
        403: ErrorCode.ACCESS_DENIED,
        404: ErrorCode.NOT_FOUND,
        412: ErrorCode.CHANGED,
        429: ErrorCode.UNREACHABLE,
        503: ErrorCode.UNREACHABLE,
    }
    assert [status for status in codes if faults.is_transient(kind(status))] == [429, 503]


def test_keys_that_ran_out_are_no_images_fault() -> None:
    with pytest.raises(CredentialsError, match="renew them"):
        faults.failure(RefreshError("the token has expired"))


def test_a_list_that_names_a_store_which_is_not_known_is_refused_once() -> None:
    names = [f"nonsense://bucket/{number}.jpg" for number in range(3)]
    with pytest.raises(Refused, match=r"no storage is known by nonsense://"):
        check_locations(names, "s3://lake/list.csv", ["nonsense://bucket/"])


def test_a_driver_that_is_not_installed_is_named_by_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    calls._other_store.cache_clear()
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    for name in ("gs", "gcs"):  # which another test may have loaded
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, name, raising=False)
    with pytest.raises(Refused, match=r"gs:// needs a package that is not installed: pip install 'masklake\[gcs\]'"):
        storage.check_scheme("gs://lake/a.jpg")


GOOGLE = ("GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST", "CLOUDSDK_CONFIG")


@pytest.fixture
def nothing_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No keys and no machine of a cloud; the user's folder, which is empty."""
    for name in [name for name in os.environ if name.startswith(("AZURE_", "GCE_")) or name in (*GOOGLE, "KUBERNETES_SERVICE_HOST")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    calls._other_store.cache_clear()
    return tmp_path


@pytest.mark.parametrize(
    ("uri", "cure"),
    [
        ("gs://lake/images/", "there are no credentials: set GOOGLE_APPLICATION_CREDENTIALS to the file of a key"),
        ("gcs://lake/images/*.jpg", "there are no credentials: set GOOGLE_APPLICATION_CREDENTIALS"),
        ("az://lake/images/", "there are no credentials: set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"),
        ("abfss://lake@account.dfs.core.windows.net/images/", "there are no credentials: set AZURE_STORAGE_ACCOUNT_NAME"),
    ],
)
def test_without_keys_no_address_is_asked_and_the_setting_is_named(
    nothing_known: Path, uri: str, cure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda own, address: asked.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more, **named: asked.append(host))
    with pytest.raises(Refused, match=f"^--input {re.escape(uri)}: {cure}"):
        storage.check_input(uri)
    with pytest.raises(Refused, match=f"^--output {re.escape(uri)}: {cure}"):
        storage.check_output(uri)
    with pytest.raises(Refused, match=cure):
        storage.delta_options(uri)
    with pytest.raises(CredentialsError, match=cure):  # on a worker without them: no row of an image
        storage.read_many([uri, uri])
    assert asked == []


def test_a_file_of_keys_that_is_not_there_is_named(nothing_known: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(nothing_known / "key.json"))
    with pytest.raises(Refused, match=r"GOOGLE_APPLICATION_CREDENTIALS=.*key.json: there is no such file: correct it"):
        storage.check_input("gs://lake/images/")


def test_whatever_may_give_keys_is_left_to_the_driver(nothing_known: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme, maker, sign in (("gs", "Google Compute Engine", "K_SERVICE"), ("abfs", "Microsoft Corporation", "IDENTITY_ENDPOINT")):
        with pytest.raises(Refused):
            clouds.check_keys(scheme, nothing_known)
        with monkeypatch.context() as environment:
            environment.setenv(sign, "x")
            clouds.check_keys(scheme, nothing_known)
        (nothing_known / clouds._MACHINES[scheme][0]).write_text(maker)
        clouds.check_keys(scheme, nothing_known)
    known = nothing_known / ".config" / "gcloud" / "application_default_credentials.json"
    known.parent.mkdir(parents=True)
    known.touch()
    clouds.check_keys("gs", nothing_known / "elsewhere")


def test_public_buckets_need_no_keys(nothing_known: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(places.VARIABLE, "[]")
    roots = {uri: storage.bucket_of(uri) for uri in ("gs://lake/a/*.jpg", "abfss://lake@account.dfs.core.windows.net/a/")}
    assert list(roots.values()) == ["gs://lake/", "abfs://lake@account.dfs.core.windows.net/"]
    storage.use_places([places.Place(root, anonymous=True) for root in roots.values()])
    for uri in roots:
        storage.check_scheme(storage.normalise(uri))
    assert storage.delta_options("gs://lake/masks") == {"google_skip_signature": "true"}
    assert storage.delta_options("abfs://lake@account.dfs.core.windows.net/masks") == {"azure_skip_signature": "true"}
    with pytest.raises(Refused, match="there are no credentials"):
        storage.check_scheme("gs://other/a.jpg")


@pytest.mark.parametrize("scheme", ["ftp", "sftp", "memory", "github", "hf", "hdfs", "oss", "data"])
def test_schemes_that_are_not_served_are_refused_in_one_sentence(scheme: str, capfd: pytest.CaptureFixture[str]) -> None:
    for call in (storage.check_input, storage.check_output, storage.delta_options, storage.read_bytes, storage.list_names):
        with pytest.raises(Refused, match=f"no storage is known by {scheme}://: use s3://"):
            call(f"{scheme}://host/x")
    assert capfd.readouterr() == ("", "")


def test_absent_keys_of_azure_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    for uri in ("az://lake/images/", "abfs://lake/images/*.jpg"):
        with pytest.raises(Refused, match="there are no credentials: set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"):
            storage.check_input(uri)
