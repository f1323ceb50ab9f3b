"""Images inside tar files: found by headers, read by offset, whatever tar is it."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from masklake import storage
from masklake.errors import ErrorCode, ImageFailure, Refused
from masklake.images.discover import discover
from masklake.images.fetch import fetch, fetch_by_uri
from masklake.images.indexes import Indexes
from masklake.images.pages import PAGE_SCHEMA
from masklake.images.source import Input
from masklake.images.sources import shards
from masklake.segment.plan import Filter, WorkList, make_plan, read_group

MOST = 10**6


def write_tar(path: Path, files: Mapping[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def found(uri: object) -> dict[str, dict[str, Any]]:
    pages = list(discover(Input(str(uri))))
    assert all(page.schema == PAGE_SCHEMA for page in pages)
    return {row["image_uri"]: row for page in pages for row in page.to_pylist()}


def contents(uri: object, max_bytes: int = MOST) -> dict[str, bytes | ImageFailure]:
    """What is read of every image that is found."""
    return {
        name: content
        for page in discover(Input(str(uri)))
        for name, content in zip(page["image_uri"].to_pylist(), fetch(page, max_bytes), strict=True)
    }


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_images_of_a_tar_are_found_with_their_bytes_in_every_format_of_tar(tmp_path: Path, form: int) -> None:
    long = "/".join(["folder-of-some-length"] * 7) + "/picture.jpg"
    files = {"000.jpg": b"a" * 700, "000.json": b"{}", "./001.PNG": b"b", long: b"c" * 2000, "002.seg.webp": b""}
    if form != tarfile.USTAR_FORMAT:
        files |= {"ümläut and space.jpeg": b"d", "x" * 300 + ".tiff": b"e" * 513}
    path = write_tar(tmp_path / "dt=1" / "shard-0.tar", files, form)
    expected = {f"file://{path}/{name.removeprefix('./')}": data for name, data in files.items() if not name.endswith("json")}
    assert contents(path) == expected
    with tarfile.open(path) as tar:  # an independent opinion on what is where
        assert {name: tar.extractfile(member).read() for member in tar for name in [member.name]} == files  # type: ignore[union-attr]


def test_a_member_has_the_shards_etag_and_time_and_its_own_size(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"1.jpg": b"12345"})
    (stored,) = storage.stat_many([str(path)])
    assert isinstance(stored, storage.StoredFile)
    (row,) = found(tmp_path).values()
    assert (row["image_etag"], row["image_modified"], row["image_bytes"], row["error_code"]) == (stored.etag, stored.modified, 5, None)
    assert (row["image_uri"][: row["image_container"]], row["image_start"]) == (f"file://{path}", 512)


def test_shards_lie_among_other_images_and_hidden_members_stay_hidden(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/b.tar", {"x/1.jpg": b"1", "._1.jpg": b"", "__MACOSX/2.jpg": b"", "x/.tmp/3.jpg": b"", "readme.txt": b""})
    (tmp_path / "in/a.jpg").write_bytes(b"plain")
    write_tar(tmp_path / "in/_c.tar", {"1.jpg": b"1"})
    assert contents(tmp_path / "in") == {f"file://{tmp_path}/in/a.jpg": b"plain", f"file://{tmp_path}/in/b.tar/x/1.jpg": b"1"}
    assert list(found(f"{tmp_path}/in/*.tar")) == [f"file://{tmp_path}/in/b.tar/x/1.jpg"]


def test_a_folder_called_like_a_tar_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.tar").mkdir()
    (tmp_path / "a.tar" / "1.jpg").write_bytes(b"1")
    assert contents(tmp_path / "a.tar") == {f"file://{tmp_path}/a.tar/1.jpg": b"1"}
    assert fetch_by_uri(f"file://{tmp_path}/a.tar/1.jpg") == b"1"


def test_what_is_wrong_with_a_member_is_its_row(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in (("link.jpg", tarfile.SYMTYPE), ("hard.jpg", tarfile.LNKTYPE), ("pipe.jpg", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "000.jpg"
            tar.addfile(member)
        member = tarfile.TarInfo("folder.jpg")
        member.type = tarfile.DIRTYPE
        tar.addfile(member)
    codes = {name.rpartition("/")[2]: row["error_code"] for name, row in found(path).items()}
    assert codes == dict.fromkeys(("link.jpg", "hard.jpg", "pipe.jpg"), "unsupported")
    big = write_tar(tmp_path / "b.tar", {"0.jpg": b"12", "1.jpg": b"12345"})
    assert list(contents(big, max_bytes=4).values()) == [b"12", ImageFailure(ErrorCode.TOO_LARGE, "5 bytes, more than the limit of 4")]


def damaged(tmp_path: Path, change: Any) -> dict[str, str | None]:
    """Codes by name of a tar of three images after a change of its bytes; the shard itself is called ''."""
    path = write_tar(tmp_path / "a.tar", {f"{number}.jpg": b"x" * 1000 for number in range(3)})
    path.write_bytes(change(path.read_bytes()))
    rows = found(path)
    assert all(row["error_message"] for row in rows.values() if row["error_code"])
    return {name.removeprefix(f"file://{path}").lstrip("/"): row["error_code"] for name, row in rows.items()}


def test_a_damaged_tar_loses_nothing_in_silence(tmp_path: Path) -> None:
    member = 512 + 1024
    assert damaged(tmp_path, lambda data: data[: 2 * member + 600]) == {"0.jpg": None, "1.jpg": None, "2.jpg": "truncated", "": "truncated"}
    assert damaged(tmp_path, lambda data: data[: 2 * member + 100]) == {"0.jpg": None, "1.jpg": None, "": "truncated"}
    assert damaged(tmp_path, lambda data: data[:member] + b"!" * 512 + data[member + 512 :]) == {"0.jpg": None, "": "broken"}
    assert damaged(tmp_path, lambda data: data[: 3 * member]) == {
        "0.jpg": None,
        "1.jpg": None,
        "2.jpg": None,
    }  # only the end mark is missing
    assert damaged(tmp_path, lambda _: b"") == {"": "empty"}
    assert damaged(tmp_path, lambda _: b"<!doctype html>" * 100) == {"": "broken"}
    assert damaged(tmp_path, gzip.compress) == {"": "unsupported"}


@pytest.mark.parametrize("size", [b"\x80" + b"\0" * 4 + b"\x7f" * 7, b"\xff" * 12, b"77777777777\0"])
@pytest.mark.parametrize("kind", [b"0", b"L", b"x", b"5"])
def test_a_header_that_lies_about_its_size_is_not_believed(tmp_path: Path, size: bytes, kind: bytes) -> None:
    header = bytearray(tarfile.TarInfo("1.jpg").tobuf(tarfile.USTAR_FORMAT))
    header[124:136], header[156:157], header[148:156] = size, kind, b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path = tmp_path / "a.tar"
    path.write_bytes(header + b"x" * 1024)
    assert f"file://{path}" in found(path)


def test_a_compressed_tar_is_refused_by_name(tmp_path: Path) -> None:
    for name in (tmp_path / "a.tar.gz", tmp_path / "*.tgz"):
        with pytest.raises(Refused, match="compressed tar files cannot be read by offset"):
            found(name)


def test_neighbours_are_read_together_and_distant_images_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[storage.Span] = []
    read_spans = storage.read_spans

    def watched(spans: list[storage.Span]) -> list[bytes | ImageFailure]:
        asked.extend(spans)
        return read_spans(spans)

    monkeypatch.setattr(storage, "read_spans", watched)
    monkeypatch.setattr(shards, "_GAP", 1024)
    monkeypatch.setattr(shards, "_LONGEST_READ", 8192)
    files = {"0.jpg": b"0" * 100, "1.jpg": b"1" * 100, "far.bin": b"-" * 5000, "2.jpg": b"2" * 6000, "3.jpg": b"3" * 6000}
    path = write_tar(tmp_path / "a.tar", files)
    assert list(contents(path).values()) == [files[f"{number}.jpg"] for number in range(4)]
    assert [(span.start, span.length) for span in asked] == [(512, 1124), (2048 + 512 + 5120 + 512, 6000), (8192 + 6144 + 512, 6000)]


def test_a_shard_that_changed_since_it_was_listed_gives_no_wrong_bytes(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"0.jpg": b"0" * 100, "1.jpg": b"1" * 100})
    os.utime(path, (1, 1))  # all small tar files are of one size, and the kernel's clock stands still for milliseconds
    (page,) = discover(Input(str(path)))
    write_tar(path, {"other.jpg": b"-" * 3000})
    failure = ImageFailure(ErrorCode.CHANGED, "it has changed since it was listed")
    assert [*fetch(page, MOST)] == [failure, failure]
    path.unlink()
    assert [answer.code for answer in fetch(page, MOST) if isinstance(answer, ImageFailure)] == [ErrorCode.NOT_FOUND] * 2


def test_an_image_is_found_again_by_its_uri_alone(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "odd.tar" / "a.tar", {"x/0.jpg": b"zero", "1.jpg": b"one"})
    assert fetch_by_uri(f"file://{path}/x/0.jpg") == b"zero"
    assert fetch_by_uri(f"file://{path}/1.jpg", max_bytes=2) == ImageFailure(ErrorCode.TOO_LARGE, "3 bytes, more than the limit of 2")
    absent = fetch_by_uri(f"file://{path}/2.jpg")
    assert isinstance(absent, ImageFailure)
    assert absent.code == ErrorCode.NOT_FOUND


def test_the_work_list_keeps_neighbours_of_a_shard_together(tmp_path: Path) -> None:
    names = ["zebra.jpg", "ant.jpg", "moth.jpg"]  # as stored; by name it would be another order
    for shard in "ba":
        write_tar(tmp_path / "in" / "dt=2" / f"{shard}.tar", {name: name.encode() for name in names})
    (tmp_path / "in" / "c.jpg").write_bytes(b"plain")
    planned = make_plan(
        discover(Input(str(tmp_path / "in"))), None, {"panoptic": "p"}, Filter(limit=6), WorkList(str(tmp_path / "plan"), 3, ("dt",))
    )
    assert (planned.images, planned.todo_images, planned.groups) == (7, 6, 2)
    groups = [read_group(str(tmp_path / "plan"), number) for number in range(2)]
    uris = [name.removeprefix(f"file://{tmp_path}/in/") for group in groups for name in group["image_uri"].to_pylist()]
    assert uris == ["c.jpg", *(f"dt=2/a.tar/{name}" for name in names), *(f"dt=2/b.tar/{name}" for name in names[:2])]
    assert groups[1]["dt"].to_pylist() == ["2"] * 3
    assert [*fetch(groups[1], MOST)] == [b"moth.jpg", b"zebra.jpg", b"ant.jpg"]


def test_a_long_shard_comes_in_pages(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {f"{number}.jpg": b"" for number in range(storage.PAGE + 1)})
    assert [page.num_rows for page in discover(Input(str(path)))] == [storage.PAGE, 1]


def test_what_a_shard_holds_is_known_the_next_time_unless_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "a.tar", {"0.jpg": b"zero", "1.jpg": b"one"})
    write_tar(tmp_path / "torn.tar", {"0.jpg": b"zero"})
    (tmp_path / "torn.tar").write_bytes((tmp_path / "torn.tar").read_bytes()[:600])
    indexes = Indexes(f"{tmp_path}/_indexes/")
    list(discover(Input(str(path), indexes=Indexes(f"{tmp_path}/_indexes/", kept=False))))
    assert not (tmp_path / "_indexes").exists()
    first = [page.to_pylist() for page in discover(Input(str(tmp_path), indexes=indexes))]
    assert len(list((tmp_path / "_indexes").iterdir())) == 1, "what is damaged is looked at again"
    headers = shards._read_headers

    def only_the_torn(source: Any, size: int, members: list[Mapping[str, Any]]) -> ImageFailure | None:
        assert size == 600
        return headers(source, size, members)

    monkeypatch.setattr(shards, "_read_headers", only_the_torn)
    assert [page.to_pylist() for page in discover(Input(str(tmp_path), indexes=indexes))] == first
    assert fetch_by_uri(f"file://{path}/1.jpg", indexes=indexes) == b"one"
    monkeypatch.undo()
    write_tar(path, {"2.jpg": b"two"})
    assert contents(path) == {f"file://{path}/2.jpg": b"two"}
    assert [page["image_uri"].to_pylist() for page in discover(Input(str(path), indexes=indexes))] == [[f"file://{path}/2.jpg"]]
