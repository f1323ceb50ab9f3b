"""Tables of other schema versions: older ones are extended by the first run that writes, newer and foreign ones refused."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, Schema, write_deltalake

from masklake import reading, schema
from masklake.errors import ErrorCode, ImageFailure, Refused
from masklake.export.segments import flat_schema
from masklake.schema import VERSION_PROPERTY, table_schema
from masklake.table import append as table
from masklake.table import definition
from masklake.table.append import Table
from masklake.table.keys import Wanted
from masklake.table.rows import build_rows
from masklake.table.write import write_rows
from masklake.upkeep.compact import compact
from masklake.upkeep.erase import erase
from masklake.upkeep.upkeep import UpkeepTable
from tests.answers import images, rectangle, rows, segment, stamp
from tests.tables import BY, LAKE, begun, files


def older(folder: Path, lacks: tuple[str, ...] = ("format", "error_message")) -> None:
    """A table from before these columns were thought of, with one row."""
    made = rows([f"{LAKE}old.jpg"], "run-0", BY, dt=["2026-11-22"]).drop_columns(list(lacks))
    DeltaTable.create(str(folder), Schema.from_arrow(made.schema), partition_by=list(BY))
    write_deltalake(str(folder), made, mode="append")


def test_a_new_table_says_its_version(tmp_path: Path) -> None:
    Table.open_or_create(str(tmp_path), BY)
    assert DeltaTable(str(tmp_path)).metadata().configuration[VERSION_PROPERTY] == str(schema.SCHEMA_VERSION)


def test_an_older_table_is_extended_by_the_first_run_that_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (definition, table):
        monkeypatch.setattr(module, "SCHEMA_VERSION", 99)
    older(tmp_path)
    assert [row["image_uri"] for row in reading.open_table(str(tmp_path)).newest()] == [f"{LAKE}old.jpg"]
    opened = Table.open(str(tmp_path), BY)
    assert opened
    assert opened.done_keys(Wanted({"panoptic": "f-panoptic"})).read_all().num_rows == 1
    assert "format" not in [field.name for field in DeltaTable(str(tmp_path)).schema().fields], "only looked at"

    run = begun(tmp_path, "run-1")
    run.commit(files(run, "run-1", ["new"]))
    delta = DeltaTable(str(tmp_path))
    assert {field.name for field in delta.schema().fields} == set(table_schema(BY).names)
    assert delta.metadata().configuration[VERSION_PROPERTY] == "99"
    expected = {f"{LAKE}old.jpg": None, f"{LAKE}dt=2026-11-22/new.jpg": "JPEG"}
    assert dict(pl.read_delta(str(tmp_path)).select("image_uri", "format").rows()) == expected
    assert {row["image_uri"]: row["format"] for row in reading.open_table(str(tmp_path)).newest()} == expected

    version = delta.version()
    with UpkeepTable.job(str(tmp_path), "compact-1", beat=False) as upkeep:
        assert compact(upkeep, 1_000_000, say=lambda text: None).files_after == 1
    assert dict(pl.read_delta(str(tmp_path)).select("image_uri", "format").rows()) == expected
    begun(tmp_path, "run-2")
    assert DeltaTable(str(tmp_path)).version() == version + 2, "the compaction and the beginning: nothing is extended twice"


def test_many_can_extend_it_at_once(tmp_path: Path) -> None:
    older(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda number: begun(tmp_path, f"run-{number}", f"{LAKE}{number}/"), range(4)))
    for number, run in enumerate(runs):
        run.commit(files(run, f"run-{number}", [f"{number}"]))
    delta = DeltaTable(str(tmp_path))
    assert [field.name for field in delta.schema().fields].count("format") == 1
    assert delta.to_pyarrow_table().num_rows == 5


def test_a_run_that_works_while_another_extends_the_table_goes_on(tmp_path: Path) -> None:
    older(tmp_path)
    run = begun(tmp_path, "run-1", f"{LAKE}1/")
    delta = DeltaTable(str(tmp_path))
    delta.alter.add_columns(Schema.from_arrow(pa.schema([pa.field("from_the_future", pa.string())])).fields)
    run.commit(files(run, "run-1", ["a"]))
    assert DeltaTable(str(tmp_path)).to_pyarrow_table().num_rows == 2


def test_a_newer_table_is_refused(tmp_path: Path) -> None:
    Table.open_or_create(str(tmp_path), BY)
    DeltaTable(str(tmp_path)).alter.set_table_properties({VERSION_PROPERTY: "100"}, raise_if_not_exists=False)
    with pytest.raises(Refused, match=r"a newer masklake wrote this table \(schema version 100, this one knows 3\): update masklake"):
        Table.open(str(tmp_path), BY)


@pytest.mark.parametrize("lacks", [("fingerprint",), ("image_uri", "format")])
def test_a_table_without_what_every_row_must_have_is_refused(tmp_path: Path, lacks: tuple[str, ...]) -> None:
    older(tmp_path, lacks)
    with pytest.raises(Refused, match=f"other columns than masklake's .*{lacks[0]}"):
        Table.open(str(tmp_path), BY)


def test_a_column_of_another_type_is_refused(tmp_path: Path) -> None:
    odd = table_schema(BY).set(table_schema(BY).get_field_index("width"), pa.field("width", pa.string()))
    DeltaTable.create(str(tmp_path), Schema.from_arrow(odd), partition_by=list(BY))
    with pytest.raises(Refused, match=r"other columns than masklake's \(width\)"):
        Table.open(str(tmp_path), BY)


# --- fields of segments -------------------------------------------------------------------------------------------------------------------


def with_segments(*fields: pa.Field, lacks: str | None = None) -> pa.Schema:
    """The table's schema with further fields in its segments, or without one."""
    kept = [field for field in schema.SEGMENT if field.name != lacks]
    made = table_schema(BY)
    return made.set(made.get_field_index("segments"), pa.field("segments", pa.list_(pa.struct([*kept, *fields]))))


def before_class_scores(folder: Path) -> None:
    """A table of the version before segments had `class_score`, with a row of two segments and one that failed."""
    found = [segment(1, rectangle(4, 6, slice(2), slice(3))), segment(2, rectangle(4, 6, slice(2, 4), slice(3)))]
    uris = [f"{LAKE}old.jpg", f"{LAKE}failed.jpg"]
    answers: list[Any] = [{"panoptic": found}, {"panoptic": ImageFailure(ErrorCode.MODEL_FAILED, "no")}]
    made = build_rows(images(uris, dt=["2026-11-22"] * 2), answers, stamp("run-0"), BY)
    older_schema = with_segments(lacks="class_score")
    DeltaTable.create(
        str(folder),
        Schema.from_arrow(older_schema),
        partition_by=list(BY),
        configuration={VERSION_PROPERTY: "2"},
        raise_if_key_not_exists=False,
    )
    write_deltalake(str(folder), made.cast(older_schema), mode="append")


def class_scores(folder: Path) -> dict[str, list[float | None] | None]:
    """Of each image, by an independent reader."""
    rows = pl.read_delta(str(folder)).select("image_uri", "segments").rows()
    return {uri.rpartition("/")[2]: found if found is None else [each["class_score"] for each in found] for uri, found in rows}


def test_a_table_from_before_a_field_of_segments_is_read_and_extended(tmp_path: Path) -> None:
    before_class_scores(tmp_path)
    (old,) = reading.open_table(str(tmp_path)).newest(where="status = 'ok'")
    assert [(each["label_id"], each["class_score"]) for each in old["segments"]] == [(3, None), (3, None)]
    assert reading.masks(old).sum() == 12

    run = begun(tmp_path, "run-1")
    answer = {"panoptic": [replace(segment(1, rectangle(4, 6, slice(1), slice(1))), class_score=0.75)]}
    made = build_rows(images([f"{LAKE}new.jpg"], dt=["2026-11-22"]), [answer], stamp("run-1"), BY)
    run.commit(write_rows(made, run.uri, BY, "run-1"))
    run.finish_run()
    expected = {"old.jpg": [None, None], "failed.jpg": None, "new.jpg": [0.75]}
    assert class_scores(tmp_path) == expected
    newest = {row["image_uri"].rpartition("/")[2]: row["segments"] for row in reading.open_table(str(tmp_path)).newest()}
    assert {name: found and [each["class_score"] for each in found] for name, found in newest.items()} == expected
    assert DeltaTable(str(tmp_path)).metadata().configuration[VERSION_PROPERTY] == str(schema.SCHEMA_VERSION)

    version = DeltaTable(str(tmp_path)).version()
    with UpkeepTable.job(str(tmp_path), "compact-1", beat=False) as upkeep:
        assert compact(upkeep, 1_000_000, say=lambda text: None).files_after == 1
    assert class_scores(tmp_path) == expected
    begun(tmp_path, "run-2")
    assert DeltaTable(str(tmp_path)).version() == version + 2, "the compaction and the beginning: nothing is extended twice"


def test_segments_may_have_further_fields_that_can_be_null(tmp_path: Path) -> None:
    deep = pa.field("track", pa.struct([pa.field("id", pa.int64()), pa.field("seen", pa.list_(pa.int32()))]))
    DeltaTable.create(str(tmp_path), Schema.from_arrow(with_segments(deep)), partition_by=list(BY))
    run = begun(tmp_path, "run-1")
    run.commit(files(run, "run-1", ["a"]))
    foreign = with_segments(deep)
    by_another = {
        "segment_id": 1,
        "label_id": 1,
        "label": "x",
        "isthing": True,
        "score": 0.5,
        "area": 1,
        "bbox": [0, 0, 1, 1],
        "counts": b"0",
    }
    track = {"id": 7, "seen": [1, None]}
    (mine,) = rows([f"{LAKE}b.jpg"], "run-1", BY, dt=["2026-11-22"]).to_pylist()
    theirs = pa.Table.from_pylist([{**mine, "segments": [{**by_another, "class_score": 0.5, "track": track}]}], schema=foreign)
    write_deltalake(str(tmp_path), theirs, mode="append")
    with UpkeepTable.job(str(tmp_path), "compact-1", beat=False) as upkeep:
        assert compact(upkeep, 1_000_000, say=lambda text: None).files_after == 1
    found = {row["image_uri"][-5:]: row["segments"] for row in reading.open_table(str(tmp_path)).newest()}
    assert [each["track"] for each in found["b.jpg"]] == [track], "what another program adds is kept"
    assert found["a.jpg"] is not None
    assert pl.read_delta(str(tmp_path)).height == 2


def test_an_older_table_is_compacted_as_it_is(tmp_path: Path) -> None:
    before_class_scores(tmp_path)
    write_deltalake(str(tmp_path), DeltaTable(str(tmp_path)).to_pyarrow_table(), mode="append")
    with UpkeepTable.job(str(tmp_path), "compact-1", beat=False) as upkeep:
        assert compact(upkeep, 1_000_000, say=lambda text: None).files_after == 1
    (data,) = (path for path in tmp_path.rglob("part-compact-1-*.parquet"))
    assert "class_score" not in str(pq.read_schema(data)), "the table has no such field yet"


@pytest.mark.parametrize(
    "odd",
    [
        with_segments(pa.field("must", pa.int64(), nullable=False)),
        with_segments(pa.field("score", pa.float64(), nullable=False), lacks="score"),
        with_segments(pa.field("score", pa.float32()), lacks="score"),
        with_segments(pa.field("bbox", pa.list_(pa.int64()), nullable=False), lacks="bbox"),
        with_segments(lacks="counts"),
    ],
    ids=["more that must be there", "another type", "null where there must be one", "another type of elements", "one less"],
)
def test_segments_that_differ_otherwise_are_refused(tmp_path: Path, odd: pa.Schema) -> None:
    DeltaTable.create(str(tmp_path), Schema.from_arrow(odd), partition_by=list(BY))
    with pytest.raises(Refused, match=r"other columns than masklake's \(segments\)"):
        Table.open(str(tmp_path), BY)


# --- carried columns ----------------------------------------------------------------------------------------------------------------------

SPLIT = pa.schema([("split", pa.string()), ("taken", pa.timestamp("us", tz="UTC"))])
SITE = pa.schema([("site", pa.int64())])
NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, UTC)


def carrying(folder: Path, run_id: str, carried: pa.Schema, values: dict[str, list[Any]], name: str, failed: bool = False) -> Table:
    """A run that has begun and committed one image with these carried values, in a scope of its own."""
    run = Table.open_or_create(str(folder), BY, carried)
    run.begin_run(f"{LAKE}{run_id}/", run_id, beat=False)
    uri = f"{LAKE}{run_id}/{name}.jpg"
    beside = pa.StructArray.from_arrays([pa.array(values[field.name], field.type) for field in carried], fields=list(carried))
    answers: list[Any] = [{"panoptic": ImageFailure(ErrorCode.MODEL_FAILED, "no") if failed else []}]
    made = build_rows(images([uri], dt=["2026-11-22"], carried=beside), answers, stamp(run_id), BY, carried)
    run.commit(write_rows(made, run.uri, BY, run_id))
    return run


def held(folder: Path) -> dict[str, tuple[Any, ...]]:
    """The carried values of each image, by an independent reader."""
    found = pl.read_delta(str(folder)).select("image_uri", "split", "taken", "site").rows()
    return {row[0].rpartition("/")[2]: row[1:] for row in found}


def test_carried_columns_come_with_the_first_run_that_carries_them_and_others_read_null(tmp_path: Path) -> None:
    plain = begun(tmp_path, "run-0", f"{LAKE}dt=2026-11-22/")
    first = carrying(tmp_path, "run-1", SPLIT, {"split": ["train"], "taken": [NOON]}, "one")
    other = carrying(tmp_path, "run-2", SITE, {"site": [7]}, "two", failed=True)
    plain.commit(files(plain, "run-0", ["old"]))
    assert (plain.extensions, first.extensions, other.extensions) == (0, 1, 1)
    again = carrying(tmp_path, "run-3", SPLIT, {"split": [None], "taken": [None]}, "three")
    assert again.extensions == 0
    expected = {
        "old.jpg": (None, None, None),
        "one.jpg": ("train", NOON, None),
        "two.jpg": (None, None, 7),
        "three.jpg": (None, None, None),
    }
    assert held(tmp_path) == expected

    newest = {row["image_uri"].rpartition("/")[2]: row for row in reading.open_table(str(tmp_path)).newest()}
    assert {name: (row["split"], row["taken"], row["site"]) for name, row in newest.items()} == expected
    assert newest["two.jpg"]["status"] == "error"
    assert [row["site"] for row in reading.open_table(str(tmp_path)).newest(where="site > 3 OR split = 'none'")] == [7]
    opened = Table.open(str(tmp_path), BY)
    assert opened
    assert opened.done_keys(Wanted({"panoptic": "f-panoptic"}, None)).read_all().num_rows == 4


def test_carried_values_survive_compaction_and_erasure_and_go_out(tmp_path: Path) -> None:
    table = tmp_path / "masks"
    carrying(table, "run-1", SPLIT, {"split": ["train"], "taken": [NOON]}, "one").finish_run()
    carrying(table, "run-2", SITE, {"site": [7]}, "two").finish_run()
    carrying(table, "run-3", SITE, {"site": [8]}, "three").finish_run()
    expected = held(table)
    with UpkeepTable.job(str(table), "compact-1", beat=False) as upkeep:
        assert compact(upkeep, 1_000_000, say=lambda text: None).files_after == 1
    assert held(table) == expected
    with UpkeepTable.job(str(table), "erase-1", beat=False) as upkeep:
        assert erase(upkeep, [f"{LAKE}run-3/three.jpg"]).rows == 1
    assert held(table) == {name: values for name, values in expected.items() if name != "three.jpg"}
    flat = flat_schema(reading.open_table(str(table)))
    assert [flat.field(name).type for name in ("split", "taken", "site")] == [*SPLIT.types, *SITE.types]


def test_a_new_table_has_its_carried_columns_from_the_start(tmp_path: Path) -> None:
    run = Table.open_or_create(str(tmp_path), BY, SPLIT)
    assert (run.version, run.begin_run(LAKE, "run-1", beat=False), run.version, run.extensions) == (0, True, 1, 0)


@pytest.mark.parametrize(
    ("carried", "message"),
    [
        (("split", pa.int64()), "--carry split: it is long here, and the table .* has a column of that name with string"),
        (("Split", pa.string()), "--carry Split: the table .* has a column split: call it so"),
        (("DT", pa.string()), "--carry DT: the table .* has a column dt"),
    ],
)
def test_a_carried_column_that_conflicts_is_refused(tmp_path: Path, carried: tuple[str, pa.DataType], message: str) -> None:
    Table.open_or_create(str(tmp_path), BY, SPLIT)
    with pytest.raises(Refused, match=message):
        Table.open(str(tmp_path), BY, pa.schema([carried]))


def test_of_two_runs_that_bring_a_column_with_different_types_one_is_refused_before_it_begins(tmp_path: Path) -> None:
    Table.open_or_create(str(tmp_path), BY)
    late = Table.open_or_create(str(tmp_path), BY, pa.schema([("site", pa.string())]))
    carrying(tmp_path, "run-1", SITE, {"site": [7]}, "one")
    version = DeltaTable(str(tmp_path)).version()
    with pytest.raises(Refused, match=r"--carry site: it is string here, and the table .* with long"):
        late.begin_run(f"{LAKE}2/", "run-2", beat=False)
    assert DeltaTable(str(tmp_path)).version() == version


def test_a_column_that_somebody_else_added_is_left_alone_if_it_may_be_null(tmp_path: Path) -> None:
    Table.open_or_create(str(tmp_path), BY)
    nested = pa.schema([pa.field("review", pa.list_(pa.struct([("by", pa.string())])))])
    DeltaTable(str(tmp_path)).alter.add_columns(Schema.from_arrow(nested).fields)
    run = begun(tmp_path, "run-1")
    run.commit(files(run, "run-1", ["a"]))
    assert [row["review"] for row in reading.open_table(str(tmp_path)).newest()] == [None]


# --- rules of others ----------------------------------------------------------------------------------------------------------------------


def changed(
    folder: Path, configuration: dict[str, str], columns: dict[str, dict[str, Any]], protocol: dict[str, Any] | None = None
) -> None:
    """Commit, as another program would, table properties, metadata of columns, and a protocol."""
    first = (folder / "_delta_log" / f"{0:020d}.json").read_text().splitlines()
    metadata = next(action["metaData"] for action in map(json.loads, first) if "metaData" in action)
    metadata["configuration"] |= configuration
    fields = json.loads(metadata["schemaString"])
    for field in fields["fields"]:
        field["metadata"] = columns.get(field["name"], {})
    metadata["schemaString"] = json.dumps(fields)
    actions = [{"protocol": protocol or {"minReaderVersion": 1, "minWriterVersion": 4}}, {"metaData": metadata}, {"commitInfo": {}}]
    version = DeltaTable(str(folder)).version() + 1
    (folder / "_delta_log" / f"{version:020d}.json").write_text("\n".join(map(json.dumps, actions)))


def test_a_table_with_constraints_of_others_is_refused_before_and_during_a_run(tmp_path: Path) -> None:
    run = begun(tmp_path, "run-1")
    run.commit(files(run, "run-1", ["a"]))
    DeltaTable(str(tmp_path)).alter.add_constraint({"only_ok": "status = 'ok'"})
    refusal = r"the constraint only_ok \(status = 'ok'\), which cannot be kept here"
    with pytest.raises(Refused, match=refusal):
        Table.open(str(tmp_path), BY)
    with pytest.raises(Refused, match=refusal):
        run.commit(files(run, "run-1", ["b"], failed=[f"{LAKE}dt=2026-11-22/b.jpg"]))
    assert [row["image_uri"] for row in reading.open_table(str(tmp_path)).newest()] == [f"{LAKE}dt=2026-11-22/a.jpg"]
    assert DeltaTable(str(tmp_path)).metadata().configuration["delta.constraints.only_ok"] == "status = 'ok'"


@pytest.mark.parametrize(
    ("columns", "protocol", "why"),
    [
        ({"width": {"delta.invariants": '{"expression": {"expression": "width > 3"}}'}}, None, "invariants of its columns"),
        ({"width": {"delta.generationExpression": "height"}}, None, "expressions of its columns"),
        ({}, {"minReaderVersion": 1, "minWriterVersion": 6}, "identity columns"),
        (
            {},
            {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": ["rowTracking", "domainMetadata"]},
            "domainMetadata, rowTracking",
        ),
    ],
)
def test_so_is_one_with_other_rules(tmp_path: Path, columns: dict[str, Any], protocol: dict[str, Any] | None, why: str) -> None:
    begun(tmp_path, "run-1").finish_run()
    changed(tmp_path, {}, columns, protocol)
    with pytest.raises(Refused, match=why):
        Table.open(str(tmp_path), BY)


def test_in_an_append_only_table_nothing_is_replaced(tmp_path: Path) -> None:
    begun(tmp_path, "run-1").finish_run()
    changed(tmp_path, {"delta.appendOnly": "true"}, {})
    run = begun(tmp_path, "run-2")
    run.commit(files(run, "run-2", ["a"]))
    with pytest.raises(Refused, match="append-only"), UpkeepTable.job(str(tmp_path), "compact-1", beat=False):
        pass
