"""Images as values of a column: Parquet files and Delta tables, read a few rows at a time."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from masklake import storage
from masklake.errors import ErrorCode, ImageFailure, Refused
from masklake.images.discover import discover
from masklake.images.fetch import fetch, fetch_by_uri
from masklake.images.pages import PAGE_SCHEMA
from masklake.images.source import Input
from masklake.images.sources import image_tables
from masklake.segment.plan import WorkList, make_plan, read_group

IMAGE = ("image", None)
MOST = 10**6


def write(path: Path, values: list[Any], kind: pa.DataType | None = None, row_group_size: int | None = None, **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": pa.array(values, kind or pa.binary()), **more}), path, row_group_size=row_group_size)
    return path


def found(uri: object, column: tuple[str, str | None] = IMAGE) -> dict[str, dict[str, Any]]:
    pages = list(discover(Input(str(uri), *column)))
    assert all(page.schema == PAGE_SCHEMA for page in pages)
    return {row["image_uri"]: row for page in pages for row in page.to_pylist()}


def contents(uri: object, column: tuple[str, str | None] = IMAGE, max_bytes: int = MOST) -> dict[str, bytes | ImageFailure]:
    return {
        name: content
        for page in discover(Input(str(uri), *column))
        for name, content in zip(page["image_uri"].to_pylist(), fetch(page, max_bytes), strict=True)
    }


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_every_row_is_an_image(tmp_path: Path, kind: pa.DataType) -> None:
    path = write(tmp_path / "a.parquet", [b"zero", None, b"", b"three"], kind, 2)
    (stored,) = storage.stat_many([str(path)])
    assert isinstance(stored, storage.StoredFile)
    rows = found(path)
    assert list(rows) == [f"file://{path}#column=image&row={number}" for number in range(4)]
    last = rows[f"file://{path}#column=image&row=3"]
    assert (last["image_etag"], last["image_modified"], last["image_bytes"]) == (stored.etag, stored.modified, None)
    assert list(contents(path).values()) == [b"zero", ImageFailure(ErrorCode.EMPTY, "the row has no bytes"), b"", b"three"]
    assert contents(path, max_bytes=4)[f"file://{path}#column=image&row=3"] == ImageFailure(
        ErrorCode.TOO_LARGE, "5 bytes, more than the limit of 4"
    )


def test_a_struct_of_bytes_and_path_as_hugging_face_writes_it(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    values = [{"bytes": b"zero", "path": "train/0.jpg"}, {"bytes": None, "path": "1.jpg"}, None]
    path = write(tmp_path / "train-00000-of-00001.parquet", values, kind, label=[1, 2, 3])
    empty = ImageFailure(ErrorCode.EMPTY, "the row has no bytes")
    assert list(contents(path).values()) == [b"zero", empty, empty]
    with pytest.raises(Refused, match=r"--key-column image.path: 1 row of .* has none"):
        found(path, ("image", "image.path"))
    path = write(tmp_path / "two.parquet", values[:2], kind)
    assert list(found(path, ("image", "image.path"))) == [
        f"file://{path}#column=image&image.path={name}" for name in ("train/0.jpg", "1.jpg")
    ]


def test_a_key_names_the_rows_and_must_tell_them_apart(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [b"zero", b"one"], id=[7, 8], kind_of=["x", "x"])
    uri = f"file://{path}#column=image&id="
    assert contents(path, ("image", "id")) == {f"{uri}7": b"zero", f"{uri}8": b"one"}
    assert fetch_by_uri(f"{uri}8") == b"one"
    with pytest.raises(Refused, match=r"--key-column kind_of: it does not tell rows apart; .* has 'x' more than once"):
        found(path, ("image", "kind_of"))


def test_an_image_is_found_again_by_its_uri_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [b"zero", b"one"], row_group_size=1)
    assert fetch_by_uri(f"file://{path}#column=image&row=1") == b"one"
    for wrong in (
        "#column=image&row=2",
        "#column=image&row=x",
        "#column=image&row=-1",
        "#column=nothing&row=0",
        "#column=image&no=1",
        "#x",
    ):
        answer = fetch_by_uri(f"file://{path}{wrong}")
        assert isinstance(answer, ImageFailure)
        assert answer.code == ErrorCode.NOT_FOUND


def test_a_prefix_or_pattern_of_files_keeps_its_hive_style_keys(tmp_path: Path) -> None:
    for day in (1, 2):
        write(tmp_path / "in" / f"dt={day}" / "a.parquet", [b"x"], name=["k=v/b.jpg"])
    (tmp_path / "in" / "_SUCCESS").touch()
    (tmp_path / "in" / "readme.txt").touch()
    planned = make_plan(
        discover(Input(str(tmp_path / "in"), "image", "name")),
        None,
        {"panoptic": "p"},
        work_list=WorkList(str(tmp_path / "plan"), 4, ("dt", "k")),
    )
    rows = read_group(str(tmp_path / "plan"), 0)
    assert (planned.images, planned.bytes) == (2, 0)
    assert rows["dt"].to_pylist() == ["1", "2"]
    assert rows["k"].to_pylist() == [None, None]
    assert len(found(f"{tmp_path}/in/dt=*/*.parquet")) == 2


def test_the_newest_version_of_a_delta_table(tmp_path: Path) -> None:
    uri = tmp_path / "table of images"
    for mode, value in (("overwrite", b"old"), ("overwrite", b"zero"), ("append", b"one")):
        write_deltalake(str(uri), pa.table({"image": [value], "dt": ["ü /1%"]}), partition_by=["dt"], mode=mode)  # type: ignore[call-overload]
    assert sorted(contents(uri).values(), key=str) == [b"one", b"zero"]
    planned = make_plan(discover(Input(str(uri), *IMAGE)), None, {"panoptic": "p"}, work_list=WorkList(str(tmp_path / "plan"), 4, ("dt",)))
    assert planned.todo_images == 2
    assert read_group(str(tmp_path / "plan"), 0)["dt"].to_pylist() == ["ü /1%"] * 2


def test_rows_are_read_in_order_without_reading_anything_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_tables, "_ROWS_AT_ONCE", 3)
    values = [f"value {number}".encode() for number in range(50)]
    path = write(tmp_path / "a.parquet", values, row_group_size=7)
    (page,) = discover(Input(str(path), *IMAGE))
    for rows in ([0, 1, 2], [3, 20], [21, 22, 49], [5], [48, 6, 13]):  # forwards, then back
        assert [*fetch(page.take(rows), MOST)] == [values[row] for row in rows]


def test_one_file_that_cannot_be_read_is_a_row_and_the_others_are_read(tmp_path: Path) -> None:
    write(tmp_path / "in" / "b.parquet", [b"one"])
    (tmp_path / "in" / "a.parquet").write_bytes(b"no Parquet")
    codes = {name.rpartition("/")[2]: row["error_code"] for name, row in found(tmp_path / "in").items()}
    assert codes == {"a.parquet": "broken", "b.parquet#column=image&row=0": None}


def test_a_file_that_changed_since_it_was_listed_gives_no_wrong_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [b"zero", b"one"])
    (page,) = discover(Input(str(path), *IMAGE))
    assert [*fetch(page, MOST)] == [b"zero", b"one"]
    write(path, [b"other", b"rows", b"now"])
    image_tables._reader.cache_clear()  # as in another process: an open file goes on with what it was
    assert [*fetch(page, MOST)] == [ImageFailure(ErrorCode.CHANGED, f"file://{path}: it has changed since it was listed")] * 2


def test_damage_within_a_file_is_an_error_of_its_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [bytes([number]) * 4000 for number in range(4)], row_group_size=2)
    data = bytearray(path.read_bytes())
    first = pq.ParquetFile(path).metadata.row_group(0).column(0)
    data[first.data_page_offset : first.data_page_offset + 40] = b"\xff" * 40
    path.write_bytes(data)
    answers = list(contents(path).values())
    assert [answer.code for answer in answers[:2] if isinstance(answer, ImageFailure)] == [ErrorCode.BROKEN] * 2
    assert answers[2:] == [bytes([number]) * 4000 for number in (2, 3)]


def test_a_table_that_holds_no_images_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "in" / "a.parquet", [b"x"], label=["cat"])
    with pytest.raises(Refused, match=r"--bytes-column picture: .* has no such column; it has image, label"):
        found(path, ("picture", None))
    with pytest.raises(Refused, match=r"--bytes-column label: it is string in .*, and should be binary"):
        found(path, ("label", None))
    with pytest.raises(Refused, match=r"--key-column id: .* has no such column"):
        found(path, ("image", "id"))
    (tmp_path / "jpegs").mkdir()
    (tmp_path / "jpegs" / "a.jpg").touch()
    with pytest.raises(Refused, match=r"it holds Parquet files; there is none, but .*a\.jpg"):
        found(tmp_path / "jpegs")


def test_files_that_are_too_old_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"never read")
    assert list(discover(Input(str(tmp_path), *IMAGE, since=datetime(2100, 1, 1, tzinfo=UTC)))) == []


def test_a_store_that_fails_in_the_middle_of_a_file_is_told_once_and_asked_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = [bytes([number]) * 3000 for number in range(40)]
    path = write(tmp_path / "a.parquet", values, row_group_size=10)
    (page,) = discover(Input(str(path), *IMAGE))
    opened: list[int] = []

    class Failing(io.FileIO):
        def read(self, size: int = -1, /) -> bytes:  # type: ignore[override]
            if self.tell() < 60_000:
                raise storage.StorageError(f"file://{path}", ImageFailure(ErrorCode.UNREACHABLE, "no answer"))
            return super().read(size)

    def open_failing(uri: str) -> io.FileIO:
        opened.append(1)
        return Failing(path)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "open_file", open_failing)
        assert [*fetch(page, MOST)] == [ImageFailure(ErrorCode.UNREACHABLE, f"file://{path}: no answer")] * 40
    assert len(opened) == 1
    assert [*fetch(page, MOST)] == values


def test_a_delta_table_with_deleted_rows_inside_files_is_refused(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path / "t"), pa.table({"image": [b"x"]}))
    log = tmp_path / "t" / "_delta_log" / "00000000000000000000.json"
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    features = {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
    log.write_text("\n".join(json.dumps({"protocol": features} if "protocol" in action else action) for action in actions))
    with pytest.raises(Refused, match="the Delta table uses deletionVectors, which is not read here"):
        found(tmp_path / "t")


def test_nothing_that_a_key_or_a_member_is_called_leads_to_another_file(tmp_path: Path) -> None:
    """The secret is a file, and a row of another table; the table of images only names them."""
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    write(tmp_path / "other.parquet", [b"secret"])
    lake = tmp_path / "lake"
    keys = ["/../../secret.jpg", "/../../other.parquet#column=image&row=0"]
    path = write(lake / "a.parquet", [b"one", b"two"], id=keys)
    uris = list(found(path, ("image", "id")))
    assert uris == [f"file://{path}#column=image&id={key}" for key in keys]
    assert [fetch_by_uri(uri) for uri in uris] == [b"one", b"two"]

    # As no input gives them, but a table that somebody else has written.
    for uri in (
        f"file://{lake}/../secret.jpg",
        f"file://{lake}/../other.parquet#column=image&row=0",
        f"file://{lake}/x.tar/../../secret.jpg",
    ):
        assert isinstance(fetch_by_uri(uri), ImageFailure)
