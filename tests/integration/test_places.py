"""An input of one account, a table of another: each place is reached by its own profile, endpoint or right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from deltalake import DeltaTable

from masklake import storage
from masklake.demo.seaweedfs import SeaweedFS
from masklake.errors import Refused
from masklake.storage.places import USUAL, VARIABLE, Place, place_of
from tests.tables import begun, files


@pytest.fixture(autouse=True)
def _no_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "[]")


@pytest.fixture(scope="module")
def others() -> Iterator[SeaweedFS]:
    """A second server, with keys of its own."""
    with SeaweedFS() as server:
        server.create_bucket("theirs")
        server.client.put_object(Bucket="theirs", Key="images/a.jpg", Body=b"theirs")
        yield server


def test_the_longest_prefix_decides() -> None:
    bucket, folder = Place("s3://lake/", profile="b"), Place("s3://lake/masks/", endpoint="http://f")
    storage.use_places([bucket, folder])
    assert place_of("s3://lake/a.jpg") == bucket
    assert place_of("s3://lake/masks/part.parquet") == place_of("s3://lake/masks") == folder
    assert place_of("s3://lakeside/a.jpg") == USUAL
    storage.use_places([Place("s3://lake/"), Place("s3://lake/masks/")])
    assert place_of("s3://lake/a.jpg") == USUAL


def test_two_accounts_in_one_run(s3: SeaweedFS, bucket: str, others: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text(
        f"[profile theirs]\nregion = us-east-1\nendpoint_url = {others.endpoint}\n"
        f"aws_access_key_id = {others.access_key}\naws_secret_access_key = {others.secret_key}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(Refused, match="there is no bucket theirs"):
        storage.check_input("s3://theirs/images/")
    storage.use_places([Place("s3://theirs/", profile="theirs"), Place(f"s3://{bucket}/masks/")])
    storage.check_input("s3://theirs/images/")
    assert storage.read_many(["s3://theirs/images/a.jpg"]) == [b"theirs"]
    uri = f"s3://{bucket}/masks"
    table = begun(uri, "run-1")
    table.commit(files(table, "run-1", ["a"]))
    table.finish_run()
    storage.use_places([Place("s3://theirs/", profile="theirs")])
    theirs = begun("s3://theirs/masks", "run-2")  # delta-rs goes there by the profile as well
    theirs.commit(files(theirs, "run-2", ["b"]))
    monkeypatch.delenv(VARIABLE)
    assert DeltaTable(uri, storage_options=storage.delta_options(uri)).to_pyarrow_table().num_rows == 1
    assert "masks/_delta_log/00000000000000000000.json" in str(others.client.list_objects_v2(Bucket="theirs"))


def test_a_profile_that_is_not_there_is_named() -> None:
    storage.use_places([Place("s3://lake/", profile="thiers")])
    with pytest.raises(Refused, match=r"^--input profile thiers: there is no such profile|^--input s3://lake/: profile thiers"):
        storage.check_input("s3://lake/")


def test_requests_of_a_public_bucket_are_not_signed(s3: SeaweedFS, bucket: str) -> None:
    s3.client.put_object(Bucket=bucket, Key="a.jpg", Body=b"x")
    storage.use_places([Place(f"s3://{bucket}/", anonymous=True)])
    with pytest.raises(Refused, match="denies access"):  # this server knows keys, so that an unsigned request is told from a signed one
        storage.check_input(f"s3://{bucket}/")
    assert storage.delta_options(f"s3://{bucket}/masks")["aws_skip_signature"] == "true"
    assert "aws_access_key_id" not in storage.delta_options(f"s3://{bucket}/masks")


def test_who_reads_agrees_to_pay(s3: SeaweedFS, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    s3.client.put_object(Bucket=bucket, Key="a.jpg", Body=b"x")
    storage.use_places([Place(f"s3://{bucket}/", requester_pays=True)])
    assert storage.read_many([f"s3://{bucket}/a.jpg"]) == [b"x"]
    assert storage.delta_options(f"s3://{bucket}/masks")["aws_request_payer"] == "true"
    asked: list[tuple[str, dict[str, object]]] = []
    from masklake.storage import s3 as module

    def call(method: str, **arguments: object) -> dict[str, object]:
        asked.append((method, arguments))
        return {"ContentLength": 1, "LastModified": None}

    store = module.s3_store(place_of(f"s3://{bucket}/a.jpg"))
    monkeypatch.setattr(store.fs, "call_s3", call)
    store.stat(f"s3://{bucket}/a.jpg")
    store.delete(f"s3://{bucket}/b.jpg")
    assert [(method, "RequestPayer" in arguments) for method, arguments in asked] == [("head_object", True), ("delete_object", False)]
