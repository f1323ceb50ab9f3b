"""The storage verbs on local files and on any other store of fsspec; S3 is in tests/integration/test_storage_s3.py."""

from __future__ import annotations

import asyncio
import os
import queue
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import botocore.parsers
import botocore.session
import deltalake
import fsspec
import pyarrow as pa
import pytest
from botocore import handlers

from jobs.benchmarks.listed_store import LAYOUTS, ListedStore
from masklake import storage
from masklake.errors import ErrorCode, ImageFailure, Refused
from masklake.storage import answers, calls, copies, faults
from masklake.storage.stores import Store

ODD_NAMES = ["plain.jpg", "with space.jpg", "ümläut.jpg", "50%25.jpg", "a#b.jpg", "a?b.jpg", "[x]*.jpg", "new\nline.jpg", "~t.jpg"]


def uris(pages: Iterator[list[storage.StoredFile]]) -> list[str]:
    return sorted(file.uri for page in pages for file in page)


def files(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("s3://lake/a b/50%25#?.jpg", "s3://lake/a b/50%25#?.jpg"),
        ("s3a://lake/x/", "s3://lake/x/"),
        ("S3://lake//x", "s3://lake//x"),  # two slashes are another key
        ("/data/../data/x/", "file:///data/x/"),
        ("/", "file:///"),
        ("file:///data//x y%20.jpg", "file:///data/x y%20.jpg"),
        ("gs://lake/x", "gs://lake/x"),
    ],
)
def test_a_uri_has_one_canonical_form(given: str, canonical: str) -> None:
    assert storage.normalise(given) == canonical
    assert storage.normalise(canonical) == canonical


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.normalise("images/") == f"file://{tmp_path}/images/"
    assert storage.normalise("a?.jpg") == f"file://{tmp_path}/a?.jpg"


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_survives_writing_listing_and_reading_as_it_is(tmp_path: Path, name: str) -> None:
    uri = f"file://{tmp_path}/in/{name}"
    storage.write_bytes(uri, name.encode())
    assert (tmp_path / "in" / name).read_bytes() == name.encode()
    assert uris(storage.list_files(str(tmp_path / "in"))) == [uri]
    assert storage.read_many([uri]) == [name.encode()]
    with storage.open_file(uri) as file:
        assert file.read() == name.encode()
    storage.delete_files([uri, uri])
    assert not storage.exists(uri)


def test_a_listing_has_everything_below_a_folder_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("masklake.storage.stores.PAGE", 3)
    files(tmp_path, "a.jpg", "d/b.jpg", "d/e/c.jpg", "d/e/.hidden", "_x/y", "z1", "z2")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "a.jpg")
    (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "gone")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")  # reading it would never end
    pages = list(storage.list_files(f"file://{tmp_path}"))
    expected = ["_x/y", "a.jpg", "d/b.jpg", "d/e/.hidden", "d/e/c.jpg", "link.jpg", "z1", "z2"]
    assert uris(iter(pages)) == [f"file://{tmp_path}/{name}" for name in expected]
    assert [len(page) for page in pages] == [3, 3, 2]
    assert storage.list_names(f"file://{tmp_path}/d") == ["b.jpg", "e/"]
    assert storage.list_names(f"file://{tmp_path}/absent") == []


def test_an_etag_changes_with_the_content_and_the_time(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    seen = set()
    for content, nanoseconds in [(b"12345", 10**18), (b"123456", 10**18), (b"12345", 10**18 + 1)]:
        path.write_bytes(content)
        os.utime(path, ns=(nanoseconds, nanoseconds))
        (found,) = storage.stat_many([str(path)])
        assert isinstance(found, storage.StoredFile)
        assert (found.size, found.modified) == (len(content), datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC))
        seen.add(found.etag)
    assert len(seen) == 3


def test_a_pattern_lists_what_matches(tmp_path: Path) -> None:
    files(tmp_path, "dt=1/a.jpg", "dt=1/a.txt", "dt=2/b.jpg", "dt=2/deep/c.jpg", "x/d.jpg")
    root = f"file://{tmp_path}"
    assert uris(storage.glob_files(f"{tmp_path}/dt=*/*.jpg")) == [f"{root}/dt=1/a.jpg", f"{root}/dt=2/b.jpg"]
    assert uris(storage.glob_files(f"{root}/**/?.jpg")) == [
        f"{root}/{name}" for name in ("dt=1/a.jpg", "dt=2/b.jpg", "dt=2/deep/c.jpg", "x/d.jpg")
    ]
    assert uris(storage.glob_files(f"{root}/dt=[2]/")) == [f"{root}/dt=2/b.jpg", f"{root}/dt=2/deep/c.jpg"]
    assert uris(storage.glob_files(f"{root}/{{dt=1,x}}/*.{{jpg,txt}}")) == [
        f"{root}/{name}" for name in ("dt=1/a.jpg", "dt=1/a.txt", "x/d.jpg")
    ]
    assert uris(storage.glob_files(f"{root}/{{absent,dt=2}}/")) == [f"{root}/dt=2/b.jpg", f"{root}/dt=2/deep/c.jpg"]
    assert uris(storage.glob_files(f"{root}/dt={{1,2}}/{{a,b}}.jpg")) == [f"{root}/dt=1/a.jpg", f"{root}/dt=2/b.jpg"]
    with pytest.raises(Refused, match="not a pattern"):
        list(storage.glob_files(f"{root}/**x"))
    with pytest.raises(Refused, match="name one bucket"):
        list(storage.glob_files("s3://lake*/x"))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a{b,c}d", ["abd", "acd"]),
        ("{a,b}{1,2}", ["a1", "a2", "b1", "b2"]),
        ("x{a,b{1,2},}", ["xa", "xb1", "xb2", "x"]),
        ("{a}{,}", ["{a}"]),
        ("{a,b", ["{a,b"]),
        ("a,b}", ["a,b}"]),
        ("{x{a,b}", ["{xa", "{xb"]),
        ("{{a,b},c}", ["a", "b", "c"]),
    ],
)
def test_braces_are_those_of_a_shell(pattern: str, expected: list[str]) -> None:
    assert storage.alternatives(pattern) == expected
    assert storage.is_glob(pattern) == (len(expected) > 1 or "{,}" in pattern)
    shell = subprocess.run(["bash", "-c", f"printf '%s\\n' {pattern}"], capture_output=True, text=True, check=True).stdout.split("\n")[:-1]
    assert list(dict.fromkeys(shell)) == expected


def test_braces_without_end_are_refused() -> None:
    with pytest.raises(Refused, match="its braces stand for more than 1,000 patterns"):
        storage.alternatives("{a,b,c,d,e,f,g,h,i,j}" * 4)


def test_each_failure_is_a_value_beside_what_could_be_read(tmp_path: Path) -> None:
    files(tmp_path, "a", "larger", "folder/x")
    names = ["a", "absent", "larger", "folder", "a/below", "x" * 300, "nul\0"]
    answers = storage.read_many([f"{tmp_path}/{name}" for name in names] + ["nosuch://x/y"], max_bytes=3)
    assert answers[0] == b"a"
    assert answers[2] == ImageFailure(ErrorCode.TOO_LARGE, "6 bytes, more than the limit of 3")
    others = [answer.code for answer in [*answers[1:2], *answers[3:]] if isinstance(answer, ImageFailure)]
    assert others == [ErrorCode.NOT_FOUND] * 6


def test_a_single_object_raises_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(storage.StorageError, match="there is no such object") as raised:
        storage.read_bytes(f"{tmp_path}/absent")
    assert raised.value.code == ErrorCode.NOT_FOUND
    with pytest.raises(storage.StorageError):
        storage.open_file(f"{tmp_path}/absent")
    with pytest.raises(storage.StorageError, match="there is no such object"):
        list(storage.list_files(f"{tmp_path}/absent"))


def test_a_write_is_complete_or_absent(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "x").touch()
    with pytest.raises(storage.StorageError):
        storage.write_bytes(f"{tmp_path}/target", b"cannot replace a folder that is not empty")
    (tmp_path / "target" / "x").write_bytes(b"content")
    with pytest.raises(storage.StorageError):
        storage.upload_file(tmp_path / "target" / "x", f"{tmp_path}/target")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]  # nothing half-written stays
    storage.upload_file(tmp_path / "target" / "x", f"{tmp_path}/deep/er/copy")
    assert storage.read_bytes(f"{tmp_path}/deep/er/copy") == b"content"


def test_a_download_stays_in_its_folder(tmp_path: Path) -> None:
    files(tmp_path, "m/config.json", "m/sub/weights")
    storage.download_folder(f"{tmp_path}/m", tmp_path / "copy")
    assert (tmp_path / "copy/sub/weights").read_bytes() == b"m/sub/weights"
    outside = storage.StoredFile(f"file://{tmp_path}/m/../../x", None, 1, None)
    with pytest.raises(storage.StorageError, match="leads out of the folder"):
        copies._download(f"file://{tmp_path}/m/", [outside], tmp_path / "copy")


@pytest.mark.parametrize("name", ["plain", "a b", "50%", "a#b", "a?b"])
def test_delta_finds_a_local_table_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    place = f"file://{tmp_path}/{name}"
    deltalake.write_deltalake(storage.delta_uri(place), pa.table({"n": [1]}), storage_options=storage.delta_options(place))
    assert storage.list_names(f"{place}/_delta_log") == ["00000000000000000000.json"]


def test_a_driver_of_fsspec_is_a_store_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_other_store", lambda *given: Store("memory"))
    memory = fsspec.filesystem("memory")
    memory.pipe({"/lake/in/a.jpg": b"aa", "/lake/in/d/b.jpg": b"bbb"})
    assert uris(storage.list_files("memory://lake/in")) == ["memory:///lake/in/a.jpg", "memory:///lake/in/d/b.jpg"]
    assert storage.read_many(["memory:///lake/in/a.jpg", "memory:///lake/absent"], max_bytes=2)[0] == b"aa"
    storage.write_bytes("memory://lake/out", b"x")
    assert storage.exists("memory://lake/out")
    (tmp_path / "file").write_bytes(b"y")
    storage.upload_file(tmp_path / "file", "memory://lake/file")
    assert storage.read_bytes("memory://lake/file") == b"y"
    storage.check_input("memory://lake/in")
    memory.rm("/lake", recursive=True)


# --- checks and retries -------------------------------------------------------------------------------------------------------------------


def test_checks_pass_where_files_can_be_read_and_written(tmp_path: Path) -> None:
    files(tmp_path, "in/a.jpg", "m.parquet")
    for good in (f"{tmp_path}/in", f"{tmp_path}/in/a.jpg", f"{tmp_path}/in/*.jpg", f"{tmp_path}/m.parquet", f"file://{tmp_path}/in/"):
        storage.check_input(good)
    storage.check_output(f"{tmp_path}/not/yet/there")
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize(
    ("check", "uri", "message"),
    [
        (storage.check_input, "{tmp}/absent", "--input {tmp}/absent: there is no such file or folder: correct the path"),
        (storage.check_input, "{tmp}/absent/*.jpg", "there is no such file or folder"),
        (storage.check_input, "{tmp}/absent.parquet", "there is no such file or folder"),
        (storage.check_output, "{tmp}/file", "--output {tmp}/file: a file is in the way"),
        (storage.check_output, "{tmp}/file/below", "a file is in the way"),
        (storage.check_input, "nosuch://x/y", "--input nosuch://x/y: no storage is known by nosuch://"),
        (storage.check_output, "s3://*/x", "--output s3://*/x: "),
    ],
)
def test_a_refusal_names_the_setting_and_the_cure(tmp_path: Path, check: object, uri: str, message: str) -> None:
    files(tmp_path, "file")
    with pytest.raises(Refused) as refused:
        check(uri.format(tmp=tmp_path))  # type: ignore[operator]
    assert message.format(tmp=tmp_path) in str(refused.value)


@pytest.mark.parametrize(
    "uri", ["ftp://user:hush@host/x", "s3://key:hush@lake/x", "s3a://key:hush/hush@lake/x", "sftp://user:hu/sh@host/x"]
)
def test_a_password_in_a_uri_is_refused_and_not_repeated(uri: str) -> None:
    for call in (storage.check_input, storage.check_output, storage.normalise, storage.read_bytes, storage.cached_folder):
        with pytest.raises(Refused, match="must not carry a password") as refused:
            call(uri)
        assert "hu" not in str(refused.value)


@pytest.mark.parametrize(
    "uri",
    ["s3://lake/a:b@c", "s3://arn:aws:s3:us-east-1:1:accesspoint/lake/x", "sftp://user@host:22/x", "http://[::1]:80/x", "file:///a:b@c"],
)
def test_a_uri_with_colons_and_no_password_is_one(uri: str) -> None:
    assert storage.normalise(uri) == uri


def test_a_folder_of_no_possible_bucket_cannot_be_listed() -> None:
    with pytest.raises(storage.StorageError, match="Invalid bucket name"):
        storage.cached_folder("s3://no bucket/model")


def test_waits_grow_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(faults, "time", SimpleNamespace(sleep=waits.append))  # not `time.sleep` itself, which other threads may call

    def fail() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        faults.with_retries(fail)
    assert len(waits) == faults.ATTEMPTS - 1
    for number, wait in enumerate(waits):
        assert 0.1 * 2**number <= wait <= 0.2 * 2**number
    with pytest.raises(ValueError, match="not tried again"):
        faults.with_retries(lambda: (_ for _ in ()).throw(ValueError("not tried again")))
    assert len(waits) == faults.ATTEMPTS - 1


def test_a_glob_whose_last_part_is_a_pattern_can_be_checked(tmp_path: Path) -> None:
    (tmp_path / "base-1.jpg").write_bytes(b"x")
    storage.check_input(f"{tmp_path}/base-*.jpg")
    with pytest.raises(Refused, match="--input"):
        storage.check_input(f"{tmp_path}/absent/base-*.jpg")


ENTRY = "<Contents><Key>{key}</Key><LastModified>2026-11-22T10:00:00.001Z</LastModified>{more}<Size>7</Size></Contents>"
ETAG = "<ETag>&#34;d41d8cd98f00b204e9800998ecf8427e-3&#34;</ETag>"
IN_ANOTHER_ORDER = f"<Contents><Size>7</Size>{ETAG}<Key>{{key}}</Key><LastModified>2026-11-22T10:00:00Z</LastModified></Contents>"
LISTS = botocore.session.Session().get_service_model("s3").operation_model("ListObjectsV2")


@pytest.mark.parametrize(
    ("entries", "fast"),
    [
        ("", False),
        (ENTRY.format(key="a%2F..//b%0A%2B+%C3%BC%3D%25", more=ETAG), True),
        (ENTRY.format(key="a.jpg", more=ETAG) + ENTRY.format(key="b.jpg/", more=ETAG), True),
        (ENTRY.format(key="a.jpg", more=ETAG.replace("&#34;", "&quot;") + "<Owner><ID>Key</ID></Owner>"), True),
        (ENTRY.format(key="a%FF.jpg", more=ETAG), True),
        (
            ENTRY.format(key="a.jpg", more=ETAG) + ENTRY.format(key="b.jpg", more=f"{ETAG}<ChecksumAlgorithm>CRC32</ChecksumAlgorithm>"),
            True,
        ),
        (ENTRY.format(key="a.jpg", more=ETAG) + ENTRY.format(key="b.jpg", more=f"<Owner><ID>1</ID></Owner>{ETAG}"), True),
        ("".join(ENTRY.format(key=key, more=ETAG) for key in ("%2B%252B", "a+b%20c", "%3d%253D%25", "%2%3D5", "ü..//", "x>y'\"")), True),
        ("".join(ENTRY.format(key=key, more=ETAG) for key in ("a", "", "<b/>")), False),
        ("".join(ENTRY.format(key="a", more=ETAG.replace("d41", etag)) for etag in ("d41", "", "ü")), True),
        (ENTRY.format(key="a", more=ETAG) + ENTRY.format(key="b", more=ETAG.replace("d41", "d&quot;1")), False),
        (ENTRY.format(key="a", more=ETAG) + ENTRY.format(key="b", more=ETAG.replace("&#34;", "")), True),
        (ENTRY.format(key="a", more="<ETag></ETag>") + ENTRY.format(key="b", more="<ETag></ETag>"), True),
        (ENTRY.format(key="a", more=f"{ETAG}<Owner></Owner>") + ENTRY.format(key="b", more=f"<Owner></Owner>{ETAG}"), True),
        (ENTRY.format(key="a", more=f"{ETAG}<Owner></Owner>") + ENTRY.format(key="b<!-- -->", more=ETAG), False),
        ("".join(ENTRY.format(key=key, more=ETAG).replace("2026", year) for key, year in (("a", "2026"), ("longer", "02027"))), False),
        ("".join(IN_ANOTHER_ORDER.format(key=key) for key in ("a", "longer%3Dthan", "")), True),
        (ENTRY.format(key="a.jpg", more=ETAG) + ENTRY.format(key="b.jpg", more=""), False),
        (ENTRY.format(key="a.jpg", more="<ETag/>"), False),
        (ENTRY.format(key="a.jpg&amp;", more=ETAG), False),
        (ENTRY.format(key="<![CDATA[<a>]]>", more=ETAG), False),
        (ENTRY.format(key="a\nb", more=ETAG), True),
        (ENTRY.format(key="a\rb", more=ETAG), False),
        (
            ENTRY.format(key="a", more=ETAG) + "<CommonPrefixes><Prefix>f/</Prefix></CommonPrefixes>" + ENTRY.format(key="b", more=ETAG),
            False,
        ),
    ],
)
@pytest.mark.parametrize("encoding", ["<EncodingType>url</EncodingType>", ""])
def test_a_listing_is_read_as_botocore_reads_it(entries: str, fast: bool, encoding: str) -> None:
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
    body = f'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{encoding}{more}{entries}</ListBucketResult>'

    def read(**taken: object) -> dict[str, Any]:
        found = botocore.parsers.create_parser("rest-xml").parse({**answer, **taken}, LISTS.output_shape)
        handlers._decode_list_object([], [("Contents", "Key")], found, {"encoding_type_auto_set": True})
        return cast("dict[str, Any]", found)

    answer: dict[str, Any] = {"status_code": 200, "headers": {}, "body": body.encode(), "context": {}}
    theirs = read()
    columns: dict[str, Any] = {}
    answers._take_entries(LISTS, answer, columns)
    ours = {**read(), **columns}
    assert ("Columns" in ours) is fast
    expected = [(entry["Key"], entry.get("ETag", "").strip('"') or None, 7, entry["LastModified"]) for entry in theirs.get("Contents", ())]
    assert [tuple(row.values()) for row in answers.listed(ours).to_pylist()] == expected
    assert ours["NextContinuationToken"] == "t"


def test_botocore_reads_only_what_is_left_of_a_listing() -> None:
    entry = ENTRY.format(key="a", more=f"{ETAG}<Owner><ID>R&D</ID></Owner>")  # whoever reads it as XML takes it for half an answer
    answer: dict[str, Any] = {"status_code": 200, "headers": {}, "body": f"<ListBucketResult>{entry}</ListBucketResult>".encode()}
    columns: dict[str, Any] = {}

    async def ask() -> None:
        async with answers.session_for_listing().create_client("s3", region_name="us-east-1") as client:
            sent = {"operation_model": LISTS, "response_dict": answer, "customized_response_dict": columns}
            await client.meta.events.emit("before-parse.s3.ListObjectsV2", **sent)

    asyncio.run(ask())
    assert (answer["status_code"], answer["body"]) == (200, b"<ListBucketResult></ListBucketResult>")
    assert columns["Columns"]["key"].to_pylist() == ["a"]


def test_an_error_in_place_of_a_listing_stays_one_and_half_a_listing_is_none() -> None:
    half = f"<ListBucketResult>{ENTRY.format(key='a', more=ETAG)}<Contents><Key>b".encode()
    for status, body in ((503, b"<Error><Contents></Contents></Error>"), (200, half)):
        answer: dict[str, Any] = {"status_code": status, "headers": {}, "body": body, "context": {}}
        answers._take_entries(LISTS, answer, {})
        assert status != 503 or answer["body"] == body
        assert status != 200 or handlers._looks_like_special_case_error(200, answer["body"]), "botocore asks again"


@pytest.mark.parametrize(
    ("layout", "objects", "most_requests"),
    [
        ("flat", 5_500, 6),
        ("days", 102_000, 102 + 4),
        ("users", 999, 1),
        ("users", 20_000, 20),
        ("tree", 40_500, 41 * 9 // 8 + 128 + 2 * 16),  # that may be spent, and what is under way when it has been
    ],
)
@pytest.mark.slow
def test_a_listing_takes_few_more_requests_than_it_has_pages(
    monkeypatch: pytest.MonkeyPatch, layout: str, objects: int, most_requests: int
) -> None:
    store = ListedStore(layout, objects, latency=0.0)
    with served(store) as endpoint:
        for name, value in (("ENDPOINT_URL", endpoint), ("ENDPOINT_URL_S3", endpoint), ("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x")):
            monkeypatch.setenv(f"AWS_{name}", value)
        found = [file.uri for page in storage.list_files("s3://lake/images/") for file in page]
    assert sorted(found) == [f"s3://lake/{LAYOUTS[layout](number)}" for number in range(objects)]
    assert store.requests <= most_requests


@contextmanager
def served(store: ListedStore) -> Iterator[str]:
    """The endpoint of a store that a thread of its own serves."""
    started: queue.Queue[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = queue.Queue()

    async def serve() -> None:
        server, over = await store.serve(), asyncio.Event()
        started.put((server.sockets[0].getsockname()[1], asyncio.get_running_loop(), over))
        await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    port, loop, over = started.get(timeout=100)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()


def test_only_the_version_that_was_listed_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"first")
    os.utime(path, (1, 1))  # the kernel's clock stands still for milliseconds
    (listed,) = storage.stat_many([str(path)])
    assert isinstance(listed, storage.StoredFile)
    changed = ImageFailure(ErrorCode.CHANGED, "it has changed since it was listed")
    assert storage.read_versions([(str(path), listed.etag), (str(path), None)]) == [b"first", b"first"]
    assert storage.read_versions([(str(path), "another")]) == [changed]

    real = Path.read_bytes

    def replaced_meanwhile(self: Path) -> bytes:
        monkeypatch.undo()
        data = real(self)
        (tmp_path / "new").write_bytes(b"other")
        (tmp_path / "new").replace(path)
        return data

    monkeypatch.setattr(Path, "read_bytes", replaced_meanwhile)
    assert storage.read_versions([(str(path), listed.etag)]) == [changed]
    assert storage.read_many([str(path)]) == [b"other"]
