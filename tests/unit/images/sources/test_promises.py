"""Every kind of input keeps the same promises; one that needs S3 is run through them in tests/integration/test_sources_s3.py."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from masklake.errors import ErrorCode
from masklake.images.source import Input
from masklake.images.sources import SOURCES, source_of
from tests.promises import MOST, Example, check_promises
from tests.unit.images.sources.test_shards import write_tar

ON_S3 = {"inventory"}


def _objects(folder: Path) -> Example:
    for name in ("a.jpg", "b c%20.png"):
        (folder / name).write_bytes(name.encode())
    (folder / "huge.jpg").write_bytes(bytes(MOST + 1))
    uri = f"file://{folder}"

    def change() -> set[str]:
        (folder / "a.jpg").write_bytes(b"another a")
        return {f"{uri}/a.jpg"}

    images = {f"{uri}/a.jpg": b"a.jpg", f"{uri}/b c%20.png": b"b c%20.png"}
    return Example(Input(str(folder.parent)), images, {f"{uri}/huge.jpg": ErrorCode.TOO_LARGE}, change)


def _shards(folder: Path) -> Example:
    shard = write_tar(folder / "a.tar", {"x/1.jpg": b"1", "2.png": b"22", "2.json": b"{}"})
    os.utime(shard, (1, 1))  # it is as large as what takes its place
    torn = write_tar(folder / "torn.tar", {"1.jpg": b"1" * 600, "2.jpg": b"2" * 600})
    torn.write_bytes(torn.read_bytes()[:2300])
    uri = f"file://{folder}"

    def change() -> set[str]:
        write_tar(shard, {"x/1.jpg": b"one", "2.png": b"22", "3.jpg": b"3"})
        return {f"{uri}/a.tar/{name}" for name in ("x/1.jpg", "2.png", "3.jpg")}  # all have the shard's etag

    images = {f"{uri}/a.tar/x/1.jpg": b"1", f"{uri}/a.tar/2.png": b"22", f"{uri}/torn.tar/1.jpg": b"1" * 600}
    broken = dict.fromkeys((f"{uri}/torn.tar/2.jpg", f"{uri}/torn.tar"), ErrorCode.TRUNCATED)
    return Example(Input(str(folder)), images, broken, change)


def _tables(folder: Path) -> Example:
    def write(name: str, *values: bytes | None) -> None:
        pq.write_table(pa.table({"image": pa.array(values, pa.binary()), "id": list(range(len(values)))}), folder / name)

    write("a.parquet", b"zero", None, b"two")
    write("b.parquet", b"another zero")
    (folder / "torn.parquet").write_bytes((folder / "b.parquet").read_bytes()[:200])

    def uri(name: str, key: int) -> str:
        return f"file://{folder}/{name}#column=image&id={key}"

    def change() -> set[str]:
        write("b.parquet", b"one more zero")
        return {uri("b.parquet", 0)}

    images = {uri("a.parquet", 0): b"zero", uri("a.parquet", 2): b"two", uri("b.parquet", 0): b"another zero"}
    broken = {uri("a.parquet", 1): ErrorCode.EMPTY, f"file://{folder}/torn.parquet": ErrorCode.BROKEN}
    return Example(Input(str(folder), bytes_column="image", key_column="id"), images, broken, change)


def _listed(folder: Path) -> tuple[list[str], dict[str, bytes], dict[str, ErrorCode], Callable[[], set[str]]]:
    """What a list of images names, by relative and absolute names; and what becomes of these."""
    (folder / "a.jpg").write_bytes(b"a")
    shard = write_tar(folder / "b.tar", {"1.jpg": b"1"})
    uri = f"file://{folder}"

    def change() -> set[str]:
        (folder / "a.jpg").write_bytes(b"another a")
        return {f"{uri}/a.jpg"}

    names = ["dt=1/a.jpg", str(shard), f"{uri}/gone.jpg"]
    return names, {f"{uri}/a.jpg": b"a", f"{uri}/b.tar/1.jpg": b"1"}, {f"{uri}/gone.jpg": ErrorCode.NOT_FOUND}, change


def _manifests(folder: Path) -> Example:
    names, images, broken, change = _listed(folder)
    pq.write_table(pa.table({"uri": names}), folder.parent / "list.parquet")
    return Example(Input(str(folder.parent / "list.parquet")), images, broken, change)


def _text_list(name: str, header: str, line: Callable[[str], str]) -> Callable[[Path], Example]:
    def example(folder: Path) -> Example:
        names, images, broken, change = _listed(folder)
        (folder.parent / name).write_text("\n".join([*([header] if header else []), *map(line, names)]))
        return Example(Input(str(folder.parent / name)), images, broken, change)

    return example


EXAMPLES = {
    "objects": _objects,
    "tar": _shards,
    "table": _tables,
    "manifest": _manifests,
    "csv": _text_list("list.csv", "split,url", lambda name: f"train,{name}"),
    "jsonl": _text_list("list.jsonl", "", lambda name: json.dumps({"path": name})),
    "text": _text_list("list.txt", "", str),
}


def test_every_kind_has_an_example() -> None:
    assert {source.name for source in SOURCES} == EXAMPLES.keys() | ON_S3


@pytest.mark.slow
@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_kind_keeps_its_promises(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "in" / "dt=1"
    folder.mkdir(parents=True)
    check_promises(EXAMPLES[kind](folder), tmp_path)


@pytest.mark.parametrize(
    ("uri", "prefix"),
    [
        ("s3://lake/images/", "s3://lake/images"),
        ("s3://lake", "s3://lake"),
        ("s3://lake/images/dt=2026-11-2?/*.jpg", "s3://lake/images/dt=2026-11-2"),
        ("s3://lake/shard-0.tar", "s3://lake/shard-0.tar"),
        ("s3://lake/*/", "s3://lake"),
    ],
)
def test_images_of_a_listing_are_looked_for_below_what_its_pattern_begins_with(uri: str, prefix: str) -> None:
    asked = Input(uri)
    assert SOURCES[-1].may_hold(asked) == prefix


def test_a_delta_table_of_images_may_hold_files_that_lie_elsewhere(tmp_path: Path) -> None:
    from deltalake import write_deltalake

    write_deltalake(str(tmp_path / "t"), pa.table({"image": [b"x"]}))
    asked = Input(str(tmp_path / "t"), bytes_column="image")
    assert source_of(asked).may_hold(asked) == f"file://{tmp_path}/t"
    log = tmp_path / "t" / "_delta_log" / "00000000000000000000.json"
    log.write_text(log.read_text().replace('"path":"', f'"path":"file://{tmp_path}/t/'))
    assert source_of(asked).may_hold(asked) is None
