"""The storage verbs on a real S3 server."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError

from masklake import storage
from masklake.demo.seaweedfs import SeaweedFS
from masklake.errors import ErrorCode, ImageFailure, MasklakeError, Refused
from masklake.images.discover import discover
from masklake.images.nothing import refuse_absent, refuse_empty
from masklake.images.source import Input
from masklake.images.tally import Tally
from masklake.storage import checks, faults
from masklake.storage import s3 as s3_module
from masklake.storage.calls import for_each
from masklake.storage.faults import is_transient

ODD_KEYS = [
    "plain.jpg",
    "with space.jpg",
    "ümläut/日本.jpg",
    "50%25.jpg",
    "a#b.jpg",
    "a?b=c&d.jpg",
    "a+b.jpg",
    "q'uo\"te.jpg",
    "[x]*{y}.jpg",
    "~t.jpg",
]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine at work on other things may answer late."""
    monkeypatch.setattr(checks, "CHECK_SECONDS", 60.0)


def uris(pages: Iterator[list[storage.StoredFile]]) -> list[str]:
    return sorted(file.uri for page in pages for file in page)


def put(s3: SeaweedFS, bucket: str, *keys: str, body: bytes = b"x") -> None:
    for key in keys:
        s3.client.put_object(Bucket=bucket, Key=key, Body=body)


@pytest.mark.parametrize("key", ODD_KEYS)
def test_a_key_survives_listing_reading_and_writing_as_it_is(s3: SeaweedFS, bucket: str, key: str) -> None:
    uri = f"s3://{bucket}/in/{key}"
    put(s3, bucket, f"in/{key}", body=key.encode())
    assert uris(storage.list_files(f"s3://{bucket}/in")) == [uri]
    assert storage.read_many([uri]) == [key.encode()]
    assert storage.read_bytes(uri) == key.encode()
    storage.write_bytes(uri, b"new")
    assert s3.client.get_object(Bucket=bucket, Key=f"in/{key}")["Body"].read() == b"new"
    (found,) = storage.stat_many([uri])
    assert isinstance(found, storage.StoredFile)
    assert (found.uri, found.size) == (uri, 3)
    with storage.open_file(uri) as file:
        assert file.read() == b"new"
    storage.delete_files([uri, uri])
    assert not storage.exists(uri)


def test_a_listed_file_tells_size_etag_and_time_as_a_stat_does(s3: SeaweedFS, bucket: str) -> None:
    put(s3, bucket, "a.jpg", body=b"12345")
    ((listed,),) = storage.list_files(f"s3://{bucket}/")
    (found,) = storage.stat_many([listed.uri])
    assert found == listed
    assert listed.size == 5
    assert listed.etag == "827ccb0eea8a706c4c34a16891f84e7b"  # md5 of 12345
    assert listed.modified is not None
    assert abs(listed.modified.timestamp() - time.time()) < 60


def test_a_listing_is_what_botocore_lists_however_keys_are_written(s3: SeaweedFS, bucket: str) -> None:
    put(s3, bucket, *(f"in/{name}" for name in ("a&b.jpg", "a+b c=d.jpg", "<x>.jpg", "100%25.jpg", "ü.jpg", "a..b/..c/d.jpg", "x.jpg~")))
    with suppress(ClientError):  # names that some servers refuse
        put(s3, bucket, "in//double.jpg")
    with suppress(ClientError):
        put(s3, bucket, "in/marker/")
    found = sorted((file.uri, file.etag, file.size, file.modified) for page in storage.list_files(f"s3://{bucket}/in") for file in page)
    theirs = s3.client.list_objects_v2(Bucket=bucket, Prefix="in/")["Contents"]
    assert found == sorted((f"s3://{bucket}/{o['Key']}", o["ETag"].strip('"') or None, o["Size"], o["LastModified"]) for o in theirs)
    assert len(found) >= 7


def test_a_listing_goes_through_every_page_and_every_level(s3: SeaweedFS, bucket: str) -> None:
    keys = [f"lake/dt={day}/{n:04}.jpg" for day in range(3) for n in range(450)] + ["lake/top.jpg", "lake/a/b/c/d/e/f.jpg", "lakeside.jpg"]
    assert all(answer is None for answer in for_each([f"s3://{bucket}/{key}" for key in keys], lambda store, uri: store.write(uri, b"x")))
    pages = list(storage.list_files(f"s3://{bucket}/lake"))
    assert uris(iter(pages)) == sorted(f"s3://{bucket}/{key}" for key in keys if key != "lakeside.jpg")
    assert max(len(page) for page in pages) <= storage.PAGE
    assert uris(storage.list_files(f"s3://{bucket}")) == sorted(f"s3://{bucket}/{key}" for key in keys)


@pytest.mark.parametrize("folder_is_sparse_below", [0, 60])
def test_more_folders_than_a_page_holds_are_listed_completely(
    s3: SeaweedFS, bucket: str, monkeypatch: pytest.MonkeyPatch, folder_is_sparse_below: int
) -> None:
    monkeypatch.setattr(s3_module, "PAGE", 10)
    monkeypatch.setattr(s3_module, "_SPARSE_FOLDER", folder_is_sparse_below)
    keys = [f"in/user{n:02}/{m}.jpg" for n in range(25) for m in range(2)] + [f"in/{n:02}.jpg" for n in range(15)]
    put(s3, bucket, *keys)
    assert uris(storage.list_files(f"s3://{bucket}/in")) == sorted(f"s3://{bucket}/{key}" for key in keys)


def test_a_listing_that_is_not_read_to_its_end_leaves_nothing_running(s3: SeaweedFS, bucket: str) -> None:
    put(s3, bucket, "a/1.jpg", "b/1.jpg")
    listing = storage.list_files(f"s3://{bucket}/")
    next(listing)
    listing.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 60
    while any(thread.name.startswith("list") for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("list")]


def test_a_pattern_lists_what_matches(s3: SeaweedFS, bucket: str) -> None:
    put(s3, bucket, "in/dt=1/a.jpg", "in/dt=1/a.txt", "in/dt=2/b.jpg", "in/dt=2/deep/c.jpg", "in/x/d.jpg")
    root = f"s3://{bucket}/in"
    assert uris(storage.glob_files(f"{root}/dt=*/*.jpg")) == [f"{root}/dt=1/a.jpg", f"{root}/dt=2/b.jpg"]
    assert uris(storage.glob_files(f"{root}/dt=2/**/*.jpg")) == [f"{root}/dt=2/b.jpg", f"{root}/dt=2/deep/c.jpg"]
    assert uris(storage.glob_files(f"{root}/dt=[2]*/")) == [f"{root}/dt=2/b.jpg", f"{root}/dt=2/deep/c.jpg"]
    assert uris(storage.glob_files(f"{root}/nothing*/")) == []


def test_each_failure_is_a_value_beside_what_could_be_read(s3: SeaweedFS, bucket: str) -> None:
    put(s3, bucket, "small", body=b"1234")
    put(s3, bucket, "large", body=bytes(5000))
    put(s3, bucket, "empty", body=b"")
    names = ["small", "absent", "large", "empty", ""]
    small, absent, large, empty, bare = storage.read_many([f"s3://{bucket}/{name}" for name in names], max_bytes=4)
    assert (small, empty) == (b"1234", b"")
    assert isinstance(absent, ImageFailure)
    assert absent.code == ErrorCode.NOT_FOUND
    assert large == ImageFailure(ErrorCode.TOO_LARGE, "5000 bytes, more than the limit of 4")
    assert isinstance(bare, ImageFailure)
    assert bare.code == ErrorCode.NOT_FOUND
    (lost,) = storage.read_many(["s3://no-such-bucket-here/x"])
    assert isinstance(lost, ImageFailure)
    assert lost.code == ErrorCode.NOT_FOUND


def test_four_hundred_objects_are_read_at_once_and_in_order(s3: SeaweedFS, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"s3://{bucket}/{n}" for n in range(400)]
    for_each(names, lambda store, uri: store.write(uri, uri.encode()))
    failed: list[BaseException] = []

    def watched(error: BaseException) -> bool:
        failed.append(error)
        return is_transient(error)

    monkeypatch.setattr(faults, "is_transient", watched)
    assert storage.read_many(names, max_bytes=10**6) == [name.encode() for name in names]
    assert len(failed) < 40, "a storm of requests, of which many are made again"


def test_names_below_a_folder(s3: SeaweedFS, bucket: str) -> None:
    put(s3, bucket, "t/_log/1", "t/a", "t/b")
    assert storage.list_names(f"s3://{bucket}/t") == ["_log/", "a", "b"]
    assert storage.list_names(f"s3://{bucket}/nothing") == []
    assert storage.exists(f"s3://{bucket}/t/")
    assert storage.exists(f"s3://{bucket}/t/_log")
    assert not storage.exists(f"s3://{bucket}/t/_lo")


def test_a_row_group_is_read_from_an_open_file(s3: SeaweedFS, bucket: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": range(1000)}), tmp_path / "t.parquet", row_group_size=100)
    storage.write_bytes(f"s3://{bucket}/t.parquet", (tmp_path / "t.parquet").read_bytes())
    with storage.open_file(f"s3://{bucket}/t.parquet") as file:
        assert pq.ParquetFile(file).read_row_group(3)["n"].to_pylist() == list(range(300, 400))


def test_a_folder_comes_down_with_its_names_and_is_cached_by_content(
    s3: SeaweedFS, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKLAKE_CACHE", str(tmp_path / "cache"))
    put(s3, bucket, "m/config.json", "m/sub/weights", body=b"one")
    first = storage.cached_folder(f"s3://{bucket}/m")
    assert sorted(path.relative_to(first).as_posix() for path in first.rglob("*") if path.is_file()) == ["config.json", "sub/weights"]
    assert storage.cached_folder(f"s3://{bucket}/m/") == first
    put(s3, bucket, "m/sub/weights", body=b"two")
    second = storage.cached_folder(f"s3://{bucket}/m")
    assert (second / "sub/weights").read_bytes() == b"two"
    assert (first / "sub/weights").read_bytes() == b"one"
    with pytest.raises(storage.StorageError, match="nothing in this folder"):
        storage.cached_folder(f"s3://{bucket}/absent")


def test_a_delta_table_is_written_and_read_and_two_writers_lose_nothing(s3: SeaweedFS, bucket: str) -> None:
    place = f"s3://{bucket}/a table #1?"
    uri = storage.delta_uri(place)
    options = storage.delta_options(uri)
    rows = pa.table({"n": [1, 2]})
    deltalake.write_deltalake(uri, rows, storage_options=options)
    errors: list[Exception] = []

    def append() -> None:
        try:
            deltalake.write_deltalake(uri, rows, mode="append", storage_options=options)
        except Exception as error:
            errors.append(error)

    writers = [threading.Thread(target=append) for _ in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert errors == []
    table = deltalake.DeltaTable(uri, storage_options=options)
    assert table.version() == 6
    assert sum(table.to_pyarrow_table()["n"].to_pylist()) == 3 * 7
    assert len(storage.list_names(f"{place}/_delta_log")) == 7  # the same place for both


# --- checks before any work ---------------------------------------------------------------------------------------------------------------


def test_a_readable_and_writable_place_passes_and_nothing_stays_behind(s3: SeaweedFS, bucket: str) -> None:
    put(s3, bucket, "m.parquet")
    for uri in (f"s3://{bucket}/", f"s3://{bucket}", f"s3://{bucket}/empty/prefix/", f"s3://{bucket}/*.jpg", f"s3://{bucket}/m.parquet"):
        storage.check_input(uri)
    storage.check_output(f"s3://{bucket}/out")
    left = [uri for uri in uris(storage.list_files(f"s3://{bucket}")) if not uri.endswith("/")]  # the server keeps empty folders as markers
    assert left == [f"s3://{bucket}/m.parquet"]
    assert not storage.exists(f"s3://{bucket}/out")


def refusals(uri: str) -> list[str]:
    """The messages of both checks, which come by themselves, or soon after the time that a check may take is over."""
    messages = []
    for check in (storage.check_input, storage.check_output):
        started = time.monotonic()
        with pytest.raises(Refused) as refused:
            check(uri)
        assert time.monotonic() - started < checks.CHECK_SECONDS + 50
        messages.append(str(refused.value))
    assert messages[0].startswith(f"--input {uri}: ")
    assert messages[1].startswith(f"--output {uri}: ")
    return messages


def test_a_missing_bucket_is_named(s3: SeaweedFS) -> None:
    for message in refusals("s3://no-such-bucket-here/x/"):
        assert f"no bucket no-such-bucket-here at {s3.endpoint}: create it" in message


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_keys_that_are_no_longer_taken_are_no_images_fault(
    s3: SeaweedFS, bucket: str, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    put(s3, bucket, "a.jpg", "b.jpg")
    assert storage.read_many([f"s3://{bucket}/a.jpg", f"s3://{bucket}/no.jpg"])[0] == b"x"
    monkeypatch.setenv(variable, "rotated")  # in the middle of a run
    with pytest.raises(MasklakeError, match=r"^the store no longer takes the credentials .*: renew them and run the same command to go on"):
        storage.read_many([f"s3://{bucket}/a.jpg", f"s3://{bucket}/b.jpg"])


def test_a_wrong_access_key_and_a_wrong_secret_are_told_apart(s3: SeaweedFS, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", "AKNOBODY")
        assert all("correct AWS_ACCESS_KEY_ID" in message for message in refusals(f"s3://{bucket}/"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-and-still-secret")
    for message in refusals(f"s3://{bucket}/"):
        assert "correct AWS_SECRET_ACCESS_KEY" in message
        assert "still-secret" not in message


def test_absent_credentials_are_told(s3: SeaweedFS, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    assert all("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in message for message in refusals(f"s3://{bucket}/"))


def test_an_endpoint_where_nobody_listens_is_told(s3: SeaweedFS, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{address}")
        for message in refusals(f"s3://{bucket}/"):
            assert "does not answer" in message
            assert "correct AWS_ENDPOINT_URL" in message
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://user:hush@{address}")
        for message in refusals(f"s3://{bucket}/"):
            assert "it carries a password" in message
            assert "hush" not in message


def test_an_endpoint_that_never_answers_is_given_up_in_time(s3: SeaweedFS, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "CHECK_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert all("nothing came within 1 s" in message for message in refusals(f"s3://{bucket}/"))


def test_an_endpoint_that_is_no_url_and_a_bucket_that_is_no_name_are_told(
    s3: SeaweedFS, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all("is not a bucket's name" in message for message in refusals("s3://No_Bucket!/x"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "not a url")
    assert all("correct AWS_ENDPOINT_URL" in message for message in refusals(f"s3://{bucket}/"))


def test_what_is_not_there_is_told_with_what_it_may_mean(s3: SeaweedFS, bucket: str) -> None:
    for name in ("lists/image.parquet", "images/dt=2026-10-01/a.jpg", "images/dt=2026-10-02/a.jpg"):
        put(s3, bucket, name)
    refuse_absent(f"s3://{bucket}/images/")
    refuse_absent(f"s3://{bucket}/lists/image.parquet")
    refuse_absent(f"s3://{bucket}")
    for wrong, clause in (
        ("lists/images.parquet", "did you mean s3://{bucket}/lists/image.parquet?"),
        ("imagse/dt=2026-10-01/", "did you mean s3://{bucket}/images/?"),
        (
            "images/dt=2026",
            "2 names in s3://{bucket}/images/ begin so (dt=2026-10-01/, dt=2026-10-02/): write s3://{bucket}/images/dt=2026*/",
        ),
    ):
        with pytest.raises(Refused) as refused:
            refuse_absent(f"s3://{bucket}/{wrong}")
        assert f"--input s3://{bucket}/{wrong}: there is nothing there: {clause.format(bucket=bucket)}" in str(refused.value)
    tally = Tally()
    with pytest.raises(Refused, match=r"no object matches: there is nothing there: did you mean s3://.*/images/\?"):
        refuse_empty(f"s3://{bucket}/iamges/*.jpg", tally)
    assert list(discover(Input(f"s3://{bucket}/images/dt=*"), tally=tally)) == []
    with pytest.raises(
        Refused, match=r"the pattern matches 2 folders \(dt=2026-10-01/, dt=2026-10-02/\) and no object: write s3://.*/dt=\*/"
    ):
        refuse_empty(f"s3://{bucket}/images/dt=*", tally)


# --- a store in trouble -------------------------------------------------------------------------------------------------------------------


class _Faulty(BaseHTTPRequestHandler):
    """Answers each request with the next of `answers`: a status with S3's error body, or None for a connection that breaks in the body."""

    answers: list[int | None]
    requests = 0
    path_counted = "/lake/a.jpg"  # a port is used again: a client of an earlier server on it may still be asking

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != self.path_counted:
            self.send_error(404)
            return
        type(self).requests += 1
        answer = self.answers.pop(0) if self.answers else 200
        body = b"content" if answer in (200, None) else b"<Error><Code>Broken</Code><Message>for the test</Message></Error>"
        self.send_response(answer or 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if answer else body[:3])
        if answer is None:
            self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Faulty]]:
    """A server whose answers the test chooses, as the S3 endpoint; waits between attempts are short."""
    handler = type("Handler", (_Faulty,), {"answers": [], "requests": 0})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
        monkeypatch.setattr("masklake.storage.faults.BACKOFF_SECONDS", 0.01)
        yield handler
        server.shutdown()


@pytest.mark.parametrize("troubles", [[500, 503], [429], [None, None], [502, None, 504]])
def test_what_passes_by_itself_is_tried_again(faulty: type[_Faulty], troubles: list[int | None]) -> None:
    faulty.answers = list(troubles)
    assert storage.read_many(["s3://lake/a.jpg"]) == [b"content"]
    assert faulty.requests == len(troubles) + 1


@pytest.mark.parametrize(("status", "code"), [(403, ErrorCode.ACCESS_DENIED), (404, ErrorCode.NOT_FOUND), (400, ErrorCode.UNREACHABLE)])
def test_what_would_not_pass_is_not_tried_again(faulty: type[_Faulty], status: int, code: ErrorCode) -> None:
    faulty.answers = [status]
    (answer,) = storage.read_many(["s3://lake/a.jpg"])
    assert isinstance(answer, ImageFailure)
    assert (answer.code, faulty.requests) == (code, 1)


def test_attempts_end(faulty: type[_Faulty]) -> None:
    faulty.answers = [503] * 20
    (answer,) = storage.read_many(["s3://lake/a.jpg"])
    assert isinstance(answer, ImageFailure)
    assert answer.code == ErrorCode.UNREACHABLE
    assert "after 6 attempts" in answer.message
    assert faulty.requests == 6


def test_only_the_version_that_was_listed_is_read(bucket: str) -> None:
    uri = f"s3://{bucket}/a.jpg"
    storage.write_bytes(uri, b"first")
    ((listed,),) = storage.list_files(f"s3://{bucket}/")
    assert storage.read_versions([(uri, listed.etag)]) == [b"first"]
    storage.write_bytes(uri, b"other")
    assert storage.read_versions([(uri, listed.etag)]) == [ImageFailure(ErrorCode.CHANGED, "it has changed since it was listed")]
    assert storage.read_versions([(uri, None)]) == [b"other"]
