"""Lists of images in every format: what names the images, what is believed, what is asked for, and what is refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from masklake import storage
from masklake.errors import Refused
from masklake.images.discover import carried_columns, discover
from masklake.images.pages import PAGE_SCHEMA
from masklake.images.source import Input as RealInput
from masklake.images.sources import names_listed, source_of
from masklake.segment.plan import WorkList, make_plan, read_group
from tests.unit.images.sources.test_shards import write_tar
from tests.unit.images.test_discover import ANYWHERE, files, found

Input = partial(RealInput, allowed=ANYWHERE)


def manifest(folder: Path, **columns: object) -> Path:
    path = folder / "images.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def test_a_manifest_names_images_and_the_store_describes_them(tmp_path: Path) -> None:
    files(tmp_path, "in/a.jpg", "in/_b c%20.jpg")
    rows = found(manifest(tmp_path, uri=[f"{tmp_path}/in/a.jpg", "in/_b c%20.jpg", f"file://{tmp_path}/absent.jpg"]))
    a, b, absent = rows.values()
    assert (a["image_uri"], a["image_bytes"], a["error_code"]) == (f"file://{tmp_path}/in/a.jpg", 8, None)
    assert (b["image_uri"], b["image_bytes"], b["error_code"]) == (f"file://{tmp_path}/in/_b c%20.jpg", 14, None)
    assert (absent["error_code"], absent["error_message"], absent["image_etag"]) == ("not_found", "there is no such object", None)


def test_a_scheme_that_nobody_knows_is_refused_once(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no storage is known by nosuch://"):
        found(manifest(tmp_path, uri=["nosuch://x", "nosuch://y"]))


def test_what_a_manifest_says_with_an_etag_is_believed(tmp_path: Path) -> None:
    files(tmp_path, "b.jpg")
    noon = datetime(2026, 11, 22, 12)  # noqa: DTZ001 - without a zone it means UTC
    path = manifest(
        tmp_path, uri=["s3://lake/a.jpg", "b.jpg"], etag=["e1", None], size=pa.array([7, 8], pa.int32()), modified=[noon, noon], more=[1, 2]
    )
    a, b = found(path).values()
    expected = {"image_uri": "s3://lake/a.jpg", "image_etag": "e1", "image_bytes": 7, "image_modified": noon.replace(tzinfo=UTC)}
    assert a == {**dict.fromkeys(PAGE_SCHEMA.names), **expected}
    assert b["image_bytes"] == 5  # asked for, as there was no etag


def test_columns_of_a_manifest_take_the_place_of_hive_style_keys_where_asked_for(tmp_path: Path) -> None:
    write_tar(tmp_path / "dt=1" / "b.tar", {"1.jpg": b"1", "2.jpg": b"2"})
    files(tmp_path, "dt=1/a.jpg")
    path = manifest(tmp_path, uri=["dt=1/a.jpg", "dt=1/b.tar"], camera=[7, 8], dt=["x", None], unused=["", ""])
    pages = discover(Input(str(path)), keys=("camera", "dt", "site"))
    make_plan(pages, None, {"panoptic": "p"}, work_list=WorkList(str(tmp_path / "plan"), 9, ("camera", "dt", "site")))
    group = read_group(str(tmp_path / "plan"), 0)
    assert group["image_uri"].to_pylist() == [f"file://{tmp_path}/dt=1/{name}" for name in ("a.jpg", "b.tar/1.jpg", "b.tar/2.jpg")]
    assert group["camera"].to_pylist() == ["7", "8", "8"]
    assert group["dt"].to_pylist() == ["x", None, None]
    assert group["site"].to_pylist() == [None, None, None]


def test_a_long_manifest_comes_in_pages(tmp_path: Path) -> None:
    count = 2 * storage.PAGE + 1
    path = manifest(tmp_path, uri=[f"s3://lake/{n}.jpg" for n in range(count)], etag=["e"] * count)
    assert [page.num_rows for page in discover(Input(str(path)))] == [storage.PAGE, storage.PAGE, 1]


NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
FORMATS = ("parquet", "csv", "csv.gz", "jsonl", "jsonl.gz")


def write(stem: Path, form: str, /, **columns: Sequence[Any]) -> Path:
    """The same list in one of the formats."""
    path = stem.with_name(f"{stem.name}.{form}")
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if form == "parquet":
        pq.write_table(pa.table(columns), path)
        return path
    if form.startswith("csv"):
        quoted = [["" if value is None else '"' + str(value).replace('"', '""') + '"' for value in row.values()] for row in rows]
        text = "\r\n".join(",".join(line) for line in [list(columns), *quoted])
    else:
        text = "\n".join(json.dumps(row) for row in rows)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if form.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("form", FORMATS)
def test_a_list_says_the_same_in_every_format(tmp_path: Path, form: str) -> None:
    files(tmp_path, 'b,"é".jpg')
    names, etags = ["s3://lake/a.jpg", 'b,"é".jpg'], ['"0123"', None]
    path = write(tmp_path / "list", form, url=names, etag=etags, size=[7, None], modified=["2026-11-22T12:00:00Z", None], more=["x", "y"])
    a, b = found(path).values()
    expected = {"image_uri": "s3://lake/a.jpg", "image_etag": "0123", "image_bytes": 7, "image_modified": NOON}
    assert a == {**dict.fromkeys(PAGE_SCHEMA.names), **expected}
    assert (b["image_uri"], b["image_bytes"]) == (f'file://{tmp_path}/b,"é".jpg', len('b,"é".jpg'.encode()))
    columns = carried_columns(Input(str(path)), ["more"])
    make_plan(discover(Input(str(path)), carried=columns), None, {"p": "p"}, work_list=WorkList(str(tmp_path / "plan"), 9, carried=columns))
    assert sorted(row["more"] for row in read_group(str(tmp_path / "plan"), 0)["carried"].to_pylist()) == ["x", "y"]


def test_text_is_a_name_a_line(tmp_path: Path) -> None:
    files(tmp_path, "in/a.jpg", "in/#b c.jpg")
    (tmp_path / "in/list.txt").write_bytes(b"\xef\xbb\xbfa.jpg\r\n\r\n  #b c.jpg \n" + str(tmp_path).encode() + b"/in/a.jpg")
    assert list(found_in_order(tmp_path / "in/list.txt")) == [f"file://{tmp_path}/in/{name}" for name in ("a.jpg", "#b c.jpg", "a.jpg")]


def found_in_order(uri: object) -> list[str]:
    return [name for page in discover(Input(str(uri))) for name in page["image_uri"].to_pylist()]


@pytest.mark.parametrize("delimiter", ["\t", ";", "|"])
def test_csv_comes_with_other_delimiters(tmp_path: Path, delimiter: str) -> None:
    files(tmp_path, "a,b.jpg")
    (tmp_path / "list.tsv").write_text(f"split{delimiter} path \ntrain{delimiter}a,b.jpg\n")
    assert found_in_order(tmp_path / "list.tsv") == [f"file://{tmp_path}/a,b.jpg"]


def test_csv_as_spreadsheets_write_it(tmp_path: Path) -> None:
    """With a line that says the delimiter, a mark of UTF-8, empty rows, as many as fill a page among them, and line breaks in a value."""
    files(tmp_path, "a.jpg")
    files(tmp_path, "b.jpg")
    rows = 'sep=;\r\nnote;path\r\n"a, b\r\nc";a.jpg\r\n' + ";\r\n" * (storage.PAGE + 1) + "\r\n;b.jpg\r\n;\r\n"
    (tmp_path / "list.csv").write_text(rows, encoding="utf-8-sig", newline="")
    assert found_in_order(tmp_path / "list.csv") == [f"file://{tmp_path}/{name}.jpg" for name in "ab"]


@pytest.mark.parametrize("column", ["uri", "URL", "path", "image", "File_Name", "src"])
def test_the_column_that_names_images_has_a_usual_name_or_is_said(tmp_path: Path, column: str) -> None:
    files(tmp_path, "a.jpg")
    for form in FORMATS:
        assert found_in_order(write(tmp_path / "usual", form, nr=["0"], **{column: ["a.jpg"]})) == [f"file://{tmp_path}/a.jpg"]
        said = write(tmp_path / "said", form, odd=["a.jpg"], **{column: ["b.jpg"]})
        (page,) = discover(Input(str(said), uri_column="odd"))
        assert page["image_uri"].to_pylist() == [f"file://{tmp_path}/a.jpg"]


def test_of_several_usual_names_the_first_counts_and_bytes_are_no_names(tmp_path: Path) -> None:
    path = write(tmp_path / "list", "parquet", image=[b"jpeg"], path=["p.jpg"], uri=["u.jpg"])
    assert found_in_order(path) == [f"file://{tmp_path}/u.jpg"]
    path = write(tmp_path / "list", "parquet", image=[b"jpeg"], path=["p.jpg"])
    assert found_in_order(path) == [f"file://{tmp_path}/p.jpg"]
    path = write(tmp_path / "list", "parquet", image=[{"bytes": b"jpeg", "path": "p.jpg"}], label=[1])
    with pytest.raises(Refused, match=r"say which by --uri-column; or are these the images themselves\? say --bytes-column image"):
        found(path)


@pytest.mark.parametrize(
    "modified",
    [
        *(1795348800, 1795348800.0, 1795348800_000, 1795348800_000_000, 1795348800_000_000_000),
        *("2026-11-22T12:00:00Z", "2026-11-22 12:00", "2026-11-22T13:00+01:00", "1795348800", "1795348800000"),
        *(NOON, NOON.replace(tzinfo=None)),
    ],
)
def test_a_time_is_understood_whatever_its_form(tmp_path: Path, modified: object) -> None:
    for form in FORMATS if isinstance(modified, (int, str)) else ("parquet",):
        (row,) = found(write(tmp_path / "list", form, uri=["s3://lake/a.jpg"], etag=["e"], modified=[modified])).values()
        assert row["image_modified"] == NOON


def test_a_date_is_its_midnight_and_what_is_not_known_is_null(tmp_path: Path) -> None:
    path = write(
        tmp_path / "list", "parquet", uri=["s3://lake/a.jpg", "s3://lake/b.jpg"], etag=["e", "f"], last_modified=[date(2026, 11, 22), None]
    )
    assert [row["image_modified"] for row in found(path).values()] == [NOON.replace(hour=0), None]
    path = write(tmp_path / "list", "csv", uri=["s3://lake/a.jpg"], etag=["e"], size=[None], modified=[None])
    assert [(row["image_modified"], row["image_bytes"]) for row in found(path).values()] == [(None, None)]


@pytest.mark.parametrize("modified", [0, 7, 20261122, -1795348800, 10**21, "yesterday", True, "1.5"])
def test_what_is_no_time_is_refused_and_never_1970(tmp_path: Path, modified: object) -> None:
    for form in ("parquet", "jsonl"):
        path = write(
            tmp_path / "list", form, uri=["s3://lake/a.jpg"], etag=["e"], modified=[modified] if modified != 10**21 else ["9" * 21]
        )
        with pytest.raises(
            Refused, match=r"--input .*: not a list of images .* its column `modified` has .*, which is not a time: use such as"
        ):
            found(path)


def test_size_and_time_mean_something_beside_an_etag_only(tmp_path: Path) -> None:
    files(tmp_path, "a.jpg")
    (row,) = found(write(tmp_path / "list", "csv", file_name=["a.jpg"], size=["XL"], modified=["never"])).values()
    assert row["image_bytes"] == 5
    with pytest.raises(Refused, match="its column `size` has a value that is not a number of bytes"):
        found(write(tmp_path / "list", "csv", file_name=["a.jpg"], size=["XL"], etag=["e"]))


def test_quoted_etags_are_those_of_a_listing(tmp_path: Path) -> None:
    files(tmp_path, "a.jpg")
    (row,) = found(tmp_path / "a.jpg").values()
    for form in FORMATS:
        for etag in (row["image_etag"], f'"{row["image_etag"]}"'):
            (same,) = found(write(tmp_path / "list", form, uri=["a.jpg"], etag=[etag])).values()
            assert same["image_etag"] == row["image_etag"]
    (asked_for,) = found(write(tmp_path / "list", "csv", uri=["a.jpg"], etag=['""'])).values()
    assert asked_for["image_etag"] == row["image_etag"]


# --- folders and patterns -----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_a_folder_or_pattern_of_lists_is_all_of_them_and_their_paths_have_keys(tmp_path: Path, form: str) -> None:
    files(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    write(tmp_path / "lists/dt=1/x", form, uri=[f"{tmp_path}/a.jpg", f"{tmp_path}/b.jpg"], camera=["left", None])
    write(tmp_path / "lists/dt=2/x", form, uri=[f"{tmp_path}/c.jpg"])
    (tmp_path / "lists/_SUCCESS").touch()
    for uri in (
        f"{tmp_path}/lists",
        f"{tmp_path}/lists/",
        f"{tmp_path}/lists/*/*.{form}",
        f"{tmp_path}/lists/dt=*/",
        f"{tmp_path}/lists/**/*.{form}",
    ):
        asked = Input(uri)
        assert source_of(asked).name == {"parquet": "manifest"}.get(form, form.removesuffix(".gz"))
        assert source_of(asked).may_hold(asked) is None
        columns = carried_columns(asked, ["camera", "dt"])
        pages = discover(asked, keys=("dt",), carried=columns)
        plan = WorkList(str(tmp_path / "plan"), 9, ("dt",), columns)
        make_plan(pages, None, {"panoptic": "p"}, work_list=plan)
        rows = read_group(str(tmp_path / "plan"), 0).to_pylist()
        assert [(row["image_uri"][-5:], row["dt"], row["carried"]["camera"]) for row in rows] == [
            ("a.jpg", "1", "left"),
            ("b.jpg", "1", None),
            ("c.jpg", "2", None),
        ]


def test_what_is_not_lists_alone_is_a_lake_like_any_other(tmp_path: Path) -> None:
    files(tmp_path, "in/a.jpg", "in/metadata.csv", "texts/README.txt")
    assert source_of(Input(str(tmp_path / "in"))).name == "objects"
    assert source_of(Input(str(tmp_path / "texts"))).name == "objects"
    with pytest.raises(Refused, match=r"--uri-column url: .*/in is not a list of images: a list is a file that ends in .parquet, .csv, "):
        found_with(tmp_path / "in", uri_column="url")


def found_with(uri: object, **settings: Any) -> list[pa.Table]:
    return list(discover(Input(str(uri), **settings)))


def test_a_delta_table_of_names_is_its_newest_version(tmp_path: Path) -> None:
    for mode, name in (("overwrite", "old.jpg"), ("overwrite", "a.jpg"), ("append", "b.jpg")):
        write_deltalake(str(tmp_path / "t"), pa.table({"uri": [f"s3://lake/{name}"], "etag": ["e"]}), mode=mode)  # type: ignore[call-overload]
    assert sorted(found(tmp_path / "t")) == ["s3://lake/a.jpg", "s3://lake/b.jpg"]


@pytest.mark.parametrize("form", FORMATS)
def test_one_of_several_lists_that_cannot_be_read_is_a_row_and_alone_it_is_refused(tmp_path: Path, form: str) -> None:
    write(tmp_path / "lists/good", form, uri=["s3://lake/a.jpg"], etag=["e"])
    bad = tmp_path / f"lists/bad.{form}"
    bad.write_bytes(b"\xff\xfe\x00no list of that format\n" * 100)
    rows = found(tmp_path / "lists")
    assert {name: row["error_code"] for name, row in rows.items()} == {"s3://lake/a.jpg": None, f"file://{bad}": "broken"}
    assert "not a list of images that can be read" in rows[f"file://{bad}"]["error_message"]
    with pytest.raises(Refused, match=rf"--input {bad.as_uri()}: not a list of images that can be read: "):
        found(bad)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", b"uri,n\na.jpg\n", "record 2 has 1 value, and the header 2 names"),
        ("a.csv", b'uri\n"a.jpg\n', "not CSV: unexpected end of data"),
        ("a.csv", b"", "it has no header"),
        ("a.csv", b"uri,n\n,7\n", "1 of its rows has no `uri`"),
        ("a.csv", b"s3://lake/a.jpg\ns3://lake/b.jpg\n", "this one has s3://lake/a.jpg: that is an image, so give the list a first line"),
        ("a.csv", b"s3://lake/a;b\n", "this one has s3://lake/a, b: say which by --uri-column"),
        ("a.csv", b"uri\ra.jpg\rb.jpg\r", "its lines end in CR alone"),
        ("a.csv", "uri\na.jpg\n".encode("utf-16"), "line 1 is not UTF-8: save it as that"),
        ("a.csv", b"sep=;\n", "it has no header"),
        ("a.json", b'[{"uri": "a.jpg"}]', "is no image by its name, and a list of images is a file that ends in .parquet, .csv,"),
        ("a.xlsx", b"PK", "is no image by its name"),
        ("a.csv", b"uri\n\xfcber.jpg\n", "line 2 is not UTF-8"),
        ("a.txt", b"x" * (1 << 20) + b"\n", "line 1 is longer than 1,048,576 bytes"),
        ("a.jsonl", b'{"uri": "a.jpg"}\n{"uri":\n', "line 2 is not JSON"),
        ("a.jsonl", b'["a.jpg"]\n', "line 1 is not a JSON object"),
        ("a.jsonl", b'{"uri": null}\n', "1 of its rows has no `uri`"),
        ("a.txt.gz", gzip.compress(b"a.jpg\n" * 9999, mtime=0)[:50], "the gzip data cannot be read"),
        ("a.parquet", b"uri\na.jpg\n", "not a list of images that can be read"),
    ],
)
def test_what_is_wrong_with_a_list_is_said_with_its_line(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Refused) as refused:
        found(tmp_path / name)
    assert str(refused.value).startswith(f"--input file://{tmp_path}/{name}: ")
    assert reason in str(refused.value)


def test_a_column_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "list", "parquet", name=["a.jpg"], n=[1])
    with pytest.raises(
        Refused, match=r"a column of text that names them, such as uri, url, path, image; this one has name, n: say which by --uri-c"
    ):
        found(path)
    with pytest.raises(Refused, match=r"--uri-column names: .* has no such column; it has name, n"):
        found_with(path, uri_column="names")
    with pytest.raises(Refused, match=r"--uri-column n: it is int64 in .*, and should be text"):
        found_with(path, uri_column="n")
    write(tmp_path / "in/list", "csv", uri=["a.jpg"])
    source = source_of(Input(str(tmp_path / "in")))
    files(tmp_path, "in/b.jpg")  # it came too late, or behind very many lists
    with pytest.raises(Refused, match=r"it holds lists of images, and .*/b.jpg, which is none: name the lists by a pattern"):
        list(discover(Input(str(tmp_path / "in")), source=source))


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, None, 2.5], pa.float64(), [1.0, None, 2.5]),
        ([None, 2**62], pa.int64(), [None, 2**62]),
        ([True, None], pa.bool_(), [True, None]),
        ([None, "x"], pa.string(), [None, "x"]),
        ([None, None], pa.string(), [None, None]),
    ],
)
def test_values_of_json_keep_their_kind_however_late_they_come(
    tmp_path: Path, values: list[Any], kind: pa.DataType, expected: list[Any]
) -> None:
    before = storage.PAGE - 1  # the value that decides is not on the first page
    more = [None] * before + values
    path = write(
        tmp_path / "list", "jsonl", uri=[f"s3://lake/{number:04}.jpg" for number in range(len(more))], etag=["e"] * len(more), more=more
    )
    columns = carried_columns(Input(str(path)), ["more"])
    assert columns.told.field("more").type == kind
    plan = make_plan(
        discover(Input(str(path)), carried=columns), None, {"p": "p"}, work_list=WorkList(str(tmp_path / "plan"), 5000, carried=columns)
    )
    assert plan.groups == 1
    assert [row["more"] for row in read_group(str(tmp_path / "plan"), 0)["carried"].to_pylist()] == [None] * before + expected


def test_values_of_json_of_several_kinds_are_not_carried(tmp_path: Path) -> None:
    path = write(tmp_path / "list", "jsonl", uri=["a.jpg", "b.jpg"], more=[1, "x"], deep=[{"a": 1}, None])
    with pytest.raises(Refused, match=r"--carry more: .* has values of several kinds in it \(int, str\)"):
        carried_columns(Input(str(path)), ["more"])
    with pytest.raises(Refused, match=r"--carry deep: it is struct<> in .*: text, numbers, booleans"):
        carried_columns(Input(str(path)), ["deep"])


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a.jsonl", "line 2 has half of a surrogate pair"),
        ("b.jsonl", "line 1 has half of a surrogate pair"),
        ("c.parquet", "column `uri` has a text that is not UTF-8"),
        ("d.parquet", "column `dt` has a text that is not UTF-8"),
    ],
)
def test_a_text_that_is_none_is_told_whatever_the_format_allows(name: str, why: str, tmp_path: Path) -> None:
    """JSON may name halves of surrogate pairs, and Parquet's texts may be any bytes: a list of either is refused, and of several a row."""
    bad = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\4\0\0\0"), pa.py_buffer(b"in/\xff")])
    (tmp_path / "a.jsonl").write_text('{"uri": "a.jpg"}\n{"uri": "\\uD800.jpg"}\n')
    (tmp_path / "b.jsonl").write_text('{"uri": "a.jpg", "\\udfff": 1}\n')
    (tmp_path / "ok.jsonl").write_text('{"uri": "\\ud83d\\ude00.jpg"}\n')
    pq.write_table(pa.table({"uri": bad}), tmp_path / "c.parquet", store_schema=False)
    pq.write_table(pa.table({"uri": ["a.jpg"], "dt": bad}), tmp_path / "d.parquet", store_schema=False)
    keys = ("dt",) if name.startswith("d") else ()
    with pytest.raises(Refused, match=why):
        list(discover(Input(str(tmp_path / name)), keys))
    if not keys:
        with pytest.raises(Refused, match=f"--uris .*{why}"):
            list(names_listed(str(tmp_path / name), "--uris"))
    rows = [row for page in discover(Input(f"{tmp_path}/[{name[0]}o]*{Path(name).suffix}"), keys) for row in page.to_pylist()]
    assert [row["error_code"] for row in rows if row["image_uri"] == f"file://{tmp_path / name}"] == ["broken"]
    assert name.endswith(".parquet") or any(row["image_uri"].endswith("/\U0001f600.jpg") for row in rows)
