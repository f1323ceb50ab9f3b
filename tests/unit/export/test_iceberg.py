"""A published table is the Delta table, row by row and file by file, whatever happened to either of them in between."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import DataFile

from masklake.commands import cli
from masklake.errors import MasklakeError, Refused
from masklake.export.iceberg import mirror as mirror_module
from masklake.export.iceberg.publish import publish
from masklake.export.iceberg.settings import PublishConfig
from masklake.table import append as table_module
from masklake.table.write import write_rows
from masklake.upkeep.compact import compact
from masklake.upkeep.erase import erase
from masklake.upkeep.upkeep import UpkeepTable
from masklake.upkeep.vacuum import vacuum
from tests.answers import rows
from tests.exports import build
from tests.icebergs import NAME, by_delta, by_polars, by_pyiceberg, delta_files, file_entries, mirror, published
from tests.lakes import ROOT
from tests.tables import BY, LAKE, begun
from tests.unit.table.test_definition import before_class_scores, older


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return tmp_path / "catalog" / "iceberg.db"


def grown(folder: Path, run_id: str, names: str, day: str | None = "2026-11-22", by: Sequence[str] = BY) -> None:
    """One run more, with a commit, and so a file, per image."""
    table = table_module.Table.open_or_create(str(folder), by)
    table.begin_run(LAKE, run_id, beat=False)
    for name in names:
        table.commit(write_rows(rows([f"{LAKE}{name}.jpg"], run_id, by, dt=[day]), table.uri, by, run_id))
    table.finish_run()


def kept(folder: Path, job: str, **vacuum_hours: float) -> None:
    """Compact, or erase image a; then vacuum."""
    with UpkeepTable.job(str(folder), f"{job}-1", beat=False) as table:
        if job == "compact":
            compact(table, 1_000_000, say=lambda text: None)
        else:
            erase(table, [f"{LAKE}a.jpg"])
        vacuum(table, vacuum_hours.get("hours", 0), 0.1, say=lambda text: None)


def assert_same(folder: Path | str, catalog: Path) -> None:
    """Two readers of the Iceberg table and one of the Delta table agree on every value of every row, and no file is there twice."""
    expected = by_delta(folder)
    assert by_polars(catalog) == expected
    # pyiceberg reads a list of structs that is null as an empty one (https://github.com/apache/iceberg-python/issues/3833).
    assert by_pyiceberg(catalog) == [{**row, "segments": row["segments"] or []} for row in expected]
    assert file_entries(catalog) == delta_files(folder)


def snapshots(catalog: Path) -> list[tuple[str, str]]:
    """Operation and Delta version of each snapshot."""
    found = [snapshot.summary for snapshot in mirror(catalog).snapshots()]
    return [(summary.operation.value, summary[mirror_module.VERSION] or "") for summary in found if summary]


def test_every_value_of_every_row_is_there_and_nothing_is_rewritten(tmp_path: Path, catalog: Path) -> None:
    table = Path(build(str(tmp_path / "masks")))
    grown(table, "run-8", "x", day=None)
    grown(table, "run-9", "yz", day="100 % of/ü?#&'")
    before = {path: path.stat().st_mtime_ns for path in table.rglob("*") if path.is_file()}
    summary = published(table, catalog)
    assert (summary["outcome"], summary["added_files"], summary["removed_files"]) == ("published", 15, 0)
    assert summary["table_version"] == DeltaTable(str(table)).version()
    assert_same(table, catalog)
    assert pl.scan_iceberg(summary["metadata"]).collect().height == len(by_delta(table)), "a reader with no catalog at all"
    assert {path: path.stat().st_mtime_ns for path in before} == before
    added = {path for path in table.rglob("*") if path.is_file()} - set(before)
    assert {path.parent for path in added} == {table / "_masklake" / "iceberg" / "metadata"}
    assert len(json.loads(Path(summary["metadata"].removeprefix("file://")).read_bytes())["partition-specs"]) == 1


def test_files_are_skipped_by_partition_and_by_statistics(tmp_path: Path, catalog: Path) -> None:
    grown(tmp_path / "masks", "run-1", "ab")
    grown(tmp_path / "masks", "run-2", "c", day=None)
    published(tmp_path / "masks", catalog)

    def planned(condition: str) -> int:
        return len(list(mirror(catalog).scan(row_filter=condition).plan_files()))

    assert planned("dt = '2026-11-22'") == 2
    assert planned("dt IS NULL") == 1
    assert planned(f"image_uri = '{LAKE}a.jpg'") == 1
    assert planned("processed_at > '2026-11-22T12:00:01+00:00'") == 0
    assert planned("status = 'error'") == 0
    assert planned("run_id = 'run-2'") == 1
    assert [row["image_uri"] for row in by_pyiceberg(catalog, row_filter="dt IS NULL")] == [f"{LAKE}c.jpg"]


def test_publishing_again_does_nothing_and_new_files_are_added_by_one_snapshot(tmp_path: Path, catalog: Path) -> None:
    grown(tmp_path / "masks", "run-1", "ab")
    first = published(tmp_path / "masks", catalog)
    again = published(tmp_path / "masks", catalog)
    assert (again["outcome"], again["added_files"], again["snapshot"]) == ("nothing to do", 0, first["snapshot"])
    begun(tmp_path / "masks", "run-2").finish_run()  # versions without files
    assert published(tmp_path / "masks", catalog)["metadata"] == first["metadata"]
    grown(tmp_path / "masks", "run-3", "cde")
    assert published(tmp_path / "masks", catalog)["added_files"] == 3
    assert_same(tmp_path / "masks", catalog)
    versions = [first["table_version"], DeltaTable(str(tmp_path / "masks")).version()]
    assert snapshots(catalog) == [("append", str(version)) for version in versions]
    assert len(by_pyiceberg(catalog, snapshot_id=first["snapshot"])) == 2, "the past is still there"


@pytest.mark.slow
@pytest.mark.parametrize("job", ["compact", "erase"])
def test_files_that_a_job_replaced_are_replaced_by_one_snapshot(tmp_path: Path, catalog: Path, job: str) -> None:
    grown(tmp_path / "masks", "run-1", "abc")
    grown(tmp_path / "masks", "run-2", "de", day=None)
    published(tmp_path / "masks", catalog)
    kept(tmp_path / "masks", job)
    with pytest.raises(FileNotFoundError):
        by_pyiceberg(catalog)
    grown(tmp_path / "masks", "run-3", "f")
    summary = published(tmp_path / "masks", catalog)
    assert (summary["removed_files"], summary["added_files"]) == ((5, 3) if job == "compact" else (1, 1))
    assert_same(tmp_path / "masks", catalog)
    assert [operation for operation, _ in snapshots(catalog)] == ["append", "overwrite"]


def test_a_table_without_files_and_one_that_lost_all_of_them(tmp_path: Path, catalog: Path) -> None:
    begun(tmp_path / "masks", "run-1").finish_run()
    assert published(tmp_path / "masks", catalog)["outcome"] == "published"
    assert by_pyiceberg(catalog) == []
    assert published(tmp_path / "masks", catalog)["outcome"] == "nothing to do"
    grown(tmp_path / "masks", "run-2", "a")
    published(tmp_path / "masks", catalog)
    kept(tmp_path / "masks", "erase")
    summary = published(tmp_path / "masks", catalog)
    assert (summary["removed_files"], summary["files"]) == (1, 0)
    assert by_pyiceberg(catalog) == []


@pytest.mark.parametrize("by", [(), ("task",), ("status", "fingerprint", "dt")])
def test_any_partitioning(tmp_path: Path, catalog: Path, by: tuple[str, ...]) -> None:
    made = rows([f"{LAKE}{name}.jpg" for name in "abc"], "run-1", by, failed=[f"{LAKE}b.jpg"], dt=["1", None, ""])
    table = table_module.Table.open_or_create(str(tmp_path / "masks"), by)
    table.begin_run(LAKE, "run-1", beat=False)
    table.commit(write_rows(made, table.uri, by, "run-1"))
    published(tmp_path / "masks", catalog)
    assert_same(tmp_path / "masks", catalog)


def test_columns_that_the_table_gained_are_added(tmp_path: Path, catalog: Path) -> None:
    older(tmp_path / "masks")
    published(tmp_path / "masks", catalog)
    assert_same(tmp_path / "masks", catalog)
    assert "format" not in mirror(catalog).schema().column_names
    begun(tmp_path / "masks", "run-1").finish_run()
    assert published(tmp_path / "masks", catalog)["outcome"] == "nothing to do"
    assert "format" in mirror(catalog).schema().column_names, "also without new files"
    grown(tmp_path / "masks", "run-2", "n")
    published(tmp_path / "masks", catalog)
    assert_same(tmp_path / "masks", catalog)
    assert {row["image_uri"]: row["format"] for row in by_pyiceberg(catalog)} == {f"{LAKE}old.jpg": None, f"{LAKE}n.jpg": "JPEG"}


def test_fields_that_segments_gained_are_added(tmp_path: Path, catalog: Path) -> None:
    before_class_scores(tmp_path / "masks")
    published(tmp_path / "masks", catalog)
    assert_same(tmp_path / "masks", catalog)
    assert "segments.element.class_score" not in mirror(catalog).schema().column_names
    grown(tmp_path / "masks", "run-1", "n")
    published(tmp_path / "masks", catalog)
    assert "segments.element.class_score" in mirror(catalog).schema().column_names
    assert_same(tmp_path / "masks", catalog)


@pytest.mark.slow
def test_a_publication_that_is_killed_before_its_commit_changes_nothing(tmp_path: Path, catalog: Path) -> None:
    grown(tmp_path / "masks", "run-1", "ab")
    command = ["publish", "--table", str(tmp_path / "masks"), "--catalog-file", str(catalog)]
    dying = (
        "import os, sys; from masklake.commands import cli; from pyiceberg.catalog.sql import SqlCatalog\n"
        "write = SqlCatalog._write_metadata\n"
        "def and_die(*given, **named): write(*given, **named); os.kill(os.getpid(), 9)\n"
        "SqlCatalog._write_metadata = staticmethod(and_die); cli.main(sys.argv[1:])"
    )

    def killed() -> None:
        done = subprocess.run([sys.executable, "-c", dying, *command], cwd=ROOT, check=False, capture_output=True, timeout=250)
        assert done.returncode == -signal.SIGKILL, done.stderr

    killed()
    assert list((tmp_path / "masks").rglob("*.metadata.json")), "it died late enough"
    published(tmp_path / "masks", catalog)
    assert_same(tmp_path / "masks", catalog)
    grown(tmp_path / "masks", "run-2", "c")
    killed()
    assert len(by_pyiceberg(catalog)) == 2
    assert published(tmp_path / "masks", catalog)["added_files"] == 1
    assert_same(tmp_path / "masks", catalog)


@pytest.mark.slow
def test_two_publications_at_once_leave_each_file_there_once(tmp_path: Path, catalog: Path) -> None:
    grown(tmp_path / "masks", "run-1", "abc")
    command = [sys.executable, "-m", "masklake", "publish", "--table", str(tmp_path / "masks"), "--catalog-file", str(catalog)]
    jobs = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        ended = [(*job.communicate(timeout=200), job.returncode) for job in jobs]
    finally:
        for job in jobs:
            job.kill()
    assert [code for *_, code in ended] == [0, 0], ended
    assert sorted(json.loads(out.splitlines()[-1])["outcome"] for out, *_ in ended) == ["nothing to do", "published"]
    assert_same(tmp_path / "masks", catalog)
    assert len(snapshots(catalog)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("first", [True, False])
def test_one_that_is_overtaken_looks_again(tmp_path: Path, catalog: Path, first: bool) -> None:
    if not first:
        grown(tmp_path / "masks", "run-0", "xyz")
        published(tmp_path / "masks", catalog)
    grown(tmp_path / "masks", "run-1", "ab")
    between: list[dict[str, Any]] = []

    def another(_: str) -> None:
        if not between:  # while ours has looked at both tables, and has not committed
            grown(tmp_path / "masks", "run-2", "c")
            kept(tmp_path / "masks", "compact", hours=1)
            between.append(published(tmp_path / "masks", catalog))

    settings = PublishConfig(table=str(tmp_path / "masks"), catalog_file=str(catalog))
    summary = publish(settings, lambda text: None, another)
    assert (between[0]["outcome"], summary["outcome"]) == ("published", "nothing to do")
    assert summary["table_version"] >= between[0]["table_version"]
    assert_same(tmp_path / "masks", catalog)


def test_files_that_a_vacuum_deletes_meanwhile_are_looked_up_again(tmp_path: Path, catalog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grown(tmp_path / "masks", "run-1", "abc")
    describe, compacted = mirror_module.data_files, list[bool]()

    def after_a_compaction(*given: Any) -> list[DataFile]:
        if not compacted:
            compacted.append(True)
            kept(tmp_path / "masks", "compact")
        return describe(*given)

    monkeypatch.setattr(mirror_module, "data_files", after_a_compaction)
    assert published(tmp_path / "masks", catalog)["added_files"] == 1
    assert_same(tmp_path / "masks", catalog)


def test_a_file_that_is_gone_ends_it_in_words_and_changes_nothing(tmp_path: Path, catalog: Path) -> None:
    grown(tmp_path / "masks", "run-1", "a")
    published(tmp_path / "masks", catalog)
    grown(tmp_path / "masks", "run-2", "b")
    next((tmp_path / "masks").rglob("part-run-2-*.parquet")).unlink()
    with pytest.raises(MasklakeError, match=r"part-run-2-.*: there is no such object") as ended:
        published(tmp_path / "masks", catalog)
    assert ended.value.exit_code == 1
    assert [row["image_uri"] for row in by_pyiceberg(catalog)] == [f"{LAKE}a.jpg"]


@pytest.mark.slow
def test_what_another_program_did_to_the_iceberg_table_is_undone(tmp_path: Path, catalog: Path) -> None:
    grown(tmp_path / "masks", "run-1", "abc")
    published(tmp_path / "masks", catalog)
    iceberg = mirror(catalog)
    iceberg.append(pa.concat_tables([iceberg.scan().to_arrow()] * 2))
    iceberg.delete(f"image_uri = '{LAKE}a.jpg'")
    iceberg.add_files([], check_duplicate_files=False)
    doubled = next(iter(file_entries(catalog)))
    with iceberg.transaction() as change, change.update_snapshot().fast_append() as snapshot:
        entries = [task.file for task in iceberg.scan().plan_files() if task.file.file_path == doubled]
        snapshot.append_data_file(entries[0])
    with iceberg.transaction() as change:
        change.set_properties({"commit.retry.num-retries": "4", "gc.enabled": "true"})
    assert file_entries(catalog)[doubled] == 2
    published(tmp_path / "masks", catalog)
    assert_same(tmp_path / "masks", catalog)
    assert {name: mirror(catalog).properties[name] for name in mirror_module.RULES} == mirror_module.RULES
    iceberg = mirror(catalog)
    iceberg.manage_snapshots().rollback_to_snapshot(iceberg.snapshots()[0].snapshot_id).commit()
    grown(tmp_path / "masks", "run-2", "d")
    published(tmp_path / "masks", catalog)
    assert_same(tmp_path / "masks", catalog)


@pytest.mark.slow
def test_many_publications_leave_few_manifests(tmp_path: Path, catalog: Path) -> None:
    grown(tmp_path / "masks", "run-0", "z")
    published(tmp_path / "masks", catalog)
    with mirror(catalog).transaction() as change:
        change.set_properties({"commit.manifest.min-count-to-merge": "4"})
    for number, name in enumerate("abcdefg"):
        grown(tmp_path / "masks", f"run-{number + 1}", name)
        published(tmp_path / "masks", catalog)
    snapshot = mirror(catalog).current_snapshot()
    assert snapshot
    assert len(snapshot.manifests(mirror(catalog).io)) < 6
    assert_same(tmp_path / "masks", catalog)


def test_another_table_at_the_same_place_or_of_the_same_name_is_refused(tmp_path: Path, catalog: Path) -> None:
    grown(tmp_path / "masks", "run-1", "a")
    published(tmp_path / "masks", catalog)
    grown(tmp_path / "others", "run-1", "b")
    with pytest.raises(
        Refused, match=r"--name masklake.masks: that Iceberg table was published from another Delta table than file://.*/others"
    ):
        published(tmp_path / "others", catalog)
    (tmp_path / "masks").rename(tmp_path / "old")
    grown(tmp_path / "masks", "run-1", "b")
    with pytest.raises(Refused, match=r"knows a table masklake.masks whose metadata are gone: drop it from the catalog"):
        published(tmp_path / "masks", catalog)


def test_a_table_that_is_partitioned_in_another_way_is_refused(tmp_path: Path, catalog: Path) -> None:
    grown(tmp_path / "masks", "run-1", "a")
    grown(tmp_path / "others", "run-1", "a", by=("dt", "task"))
    published(tmp_path / "masks", catalog)
    with pytest.raises(Refused, match=r"partitioned by task, dt, and file://.*/others by dt, task: give another --name"):
        published(tmp_path / "others", catalog)


def test_an_iceberg_table_of_somebody_else_is_left_alone(tmp_path: Path, catalog: Path) -> None:
    grown(tmp_path / "masks", "run-1", "a")
    catalog.parent.mkdir()
    other = SqlCatalog("masklake", uri=f"sqlite:///{catalog}")
    other.create_namespace("masklake")
    other.create_table(NAME, pa.schema([("a", pa.string())]), location=f"file://{tmp_path}/other")
    with pytest.raises(Refused, match=r"--name masklake.masks: an Iceberg table of this name exists and was not published by masklake"):
        published(tmp_path / "masks", catalog)


def ended(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, dict[str, Any], str]:
    """Exit code, summary and stderr of the job."""
    code = cli.main(["publish", *map(str, arguments)])
    told = capsys.readouterr()
    return code, json.loads(told.out.splitlines()[-1]), told.err


def test_the_job_says_where_the_table_is_and_a_dry_run_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    grown(tmp_path / "my-masks", "run-1", "ab")
    before = sorted(tmp_path.rglob("*"))
    code, summary, errors = ended(capsys, "--table", tmp_path / "my-masks", "--dry-run")
    assert (code, summary["outcome"], summary["added_files"], summary["name"]) == (0, "planned", 2, "masklake.my_masks")
    assert sorted(tmp_path.rglob("*")) == before
    code, summary, errors = ended(capsys, "--table", tmp_path / "my-masks", "--location", tmp_path / "elsewhere")
    assert (code, summary["catalog"]) == (0, str(tmp_path / "home" / ".masklake" / "iceberg.db"))
    assert summary["metadata"].startswith(f"file://{tmp_path}/elsewhere/metadata/")
    assert f"masklake.my_masks in the SQLite catalog {summary['catalog']} is version {summary['table_version']}" in errors
    assert ended(capsys, "--table", tmp_path / "my-masks")[1]["outcome"] == "nothing to do"
    assert not (tmp_path / "my-masks" / "_masklake" / "iceberg").exists()
    code, summary, _ = ended(capsys, "--table", tmp_path / "my-masks", "--location", tmp_path / "third")
    assert (code, "lie at file://" in summary["error"]) == (2, True)


def test_a_catalog_of_pyicebergs_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    grown(tmp_path / "masks", "run-1", "ab")
    monkeypatch.setenv("PYICEBERG_CATALOG__LAB__URI", f"sqlite:///{tmp_path}/lab.db")
    code, summary, _ = ended(capsys, "--table", tmp_path / "masks", "--catalog", "lab", "--name", "vision.masks")
    assert (code, summary["catalog"], summary["name"]) == (0, "lab", "vision.masks")
    found = SqlCatalog("lab", uri=f"sqlite:///{tmp_path}/lab.db").load_table("vision.masks")
    assert found.scan().to_arrow().num_rows == 2
    code, summary, _ = ended(
        capsys, "--table", tmp_path / "masks", "--catalog", "other", "--property", f"uri=sqlite:///{tmp_path}/other.db"
    )
    assert (code, summary["added_files"]) == (0, 2)


def test_whoever_keeps_a_published_table_hears_what_its_readers_see(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grown(tmp_path / "masks", "run-1", "ab")
    command = ["--table", str(tmp_path / "masks")]
    assert ended(capsys, *command, "--catalog-file", tmp_path / "c.db")[0] == 0
    assert cli.main(["compact", *command]) == 0
    assert "published to Iceberg" not in capsys.readouterr().err, "nothing was deleted"
    assert cli.main(["erase", *command, f"{LAKE}a.jpg"]) == 0
    assert "masklake publish gives them the present version" in capsys.readouterr().err
    assert cli.main(["erase", *command, "--vacuum-hours", "24", f"{LAKE}b.jpg"]) == 0
    assert "readers see the erased rows until the next masklake publish" in capsys.readouterr().err


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--table", "absent"], "/absent: there is no such file or folder"),
        (["--table", "empty"], "--table file://"),
        (["--table", "masks", "--catalog", "prod"], "--catalog prod: pyiceberg's configuration knows no such catalog"),
        (
            ["--table", "masks", "--catalog", "prod", "--property", "uri=gopher://x:hunter2@y"],
            "--catalog prod: Could not infer the catalog",
        ),
        (
            ["--table", "masks", "--catalog", "prod", "--property", "type=hive", "--property", "uri=thrift://x"],
            "pip install 'pyiceberg[hive]'",
        ),
        (
            ["--table", "masks", "--catalog", "prod", "--property", "uri=http://127.0.0.1:PORT", "--property", "token=hunter2"],
            "--catalog prod",
        ),
        (["--table", "masks", "--catalog", "prod", "--property", "uri"], "--properties (on the command line): must be KEY=VALUE"),
        (["--table", "masks", "--property", "uri=x"], "the embedded catalog needs none"),
        (["--table", "masks", "--catalog", "prod", "--catalog-file", "x"], "names another: leave one out"),
        (["--table", "masks", "--catalog-file", "empty"], "unable to open database file"),
        (["--table", "masks", "--catalog-file", "text"], "file is not a database"),
        (["--table", "masks", "--name", "masks"], "--name masks: must be a namespace and a table"),
        (["--table", "masks", "--location", "."], "holds the table"),
        (["--table", "masks#1"], "Iceberg's readers would end the name at '#' or '?'"),
        ([], "--table is missing"),
    ],
)
def test_what_cannot_be_right_is_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    grown(tmp_path / "masks", "run-1", "a")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("not a database, but long enough to be taken for one at first sight" * 20)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    code, summary, errors = ended(capsys, *(argument.replace("PORT", str(unused_port())) for argument in arguments))
    assert (code, summary["outcome"]) == (2, "refused")
    assert message in summary["error"]
    assert summary["error"].count("\n") == 0
    assert "hunter2" not in errors + json.dumps(summary)
    assert "Traceback" not in errors
    assert not list((tmp_path / "masks").rglob("*.avro"))


def test_a_catalog_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("masklake.export.iceberg.catalogs._ANSWER_SECONDS", 0.5)
    grown(tmp_path / "masks", "run-1", "a")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = PublishConfig(table=str(tmp_path / "masks"), catalog="prod", properties={"uri": uri})
        with pytest.raises(Refused, match=r"--catalog prod: no answer within 0.5 s"):
            publish(settings, lambda text: None)
