"""The whole job on images that are not files of their own: members of tar files, and rows of a table."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from masklake import reading
from masklake.commands import cli
from masklake.demo.lake import broken_files
from tests.lakes import MODEL, rows_by_image, scene


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any], str]:
    code = cli.main(["segment", "--model", str(MODEL), *arguments])
    captured = capsys.readouterr()
    return code, json.loads(captured.out.strip().splitlines()[-1]), captured.err


def test_shards_among_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = tmp_path / "images" / "dt=2026-11-22"
    images.mkdir(parents=True)
    (images / "0.jpg").write_bytes(scene(0))
    members = {**{f"{number}.jpg": scene(number) for number in range(3)}, "0.json": b"{}", **broken_files()}
    with tarfile.open(images / "shard.tar", "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    (images / "torn.tar").write_bytes((images / "shard.tar").read_bytes()[:3000])

    arguments = ["--input", str(tmp_path / "images"), "--output", str(tmp_path / "masks"), "--partition-by", "dt,task"]
    arguments += ["--max-error-rate", "1"]
    code, summary, errors = run(capsys, *arguments)
    assert code == 0, errors
    expected = [f"shard.tar/{name}" for name in members if not name.endswith("json")] + ["0.jpg", "torn.tar", "torn.tar/0.jpg"]
    assert rows_by_image(str(tmp_path / "masks")) == Counter(f"file://{images}/{name}" for name in expected)
    assert summary["errors_by_code"] == {"empty": 1, "not_an_image": 1, "too_large": 1, "truncated": 3}

    rows = {row["image_uri"].removeprefix(f"file://{images}/"): row for row in reading.open_table(str(tmp_path / "masks")).newest()}
    assert {row["dt"] for row in rows.values()} == {"2026-11-22"}
    assert rows["shard.tar/0.jpg"]["segments"] == rows["0.jpg"]["segments"]
    assert reading.overlay(rows["shard.tar/0.jpg"]).tolist() == reading.overlay(rows["0.jpg"]).tolist()
    page = (Path(summary["report_uri"].removeprefix("file://")) / "gallery.html").read_text()
    assert "2.jpg with masks" in page

    code, summary, _ = run(capsys, *arguments)
    assert (code, summary["outcome"]) == (0, "nothing to do")
    code, summary, _ = run(capsys, *arguments, "--dry-run", "--retry-errors", "--where", "image_uri LIKE '%/shard.tar/%'")
    assert (code, summary["planned"]) == (0, len(broken_files()))


def test_rows_of_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    values = [{"bytes": data, "path": name} for name, data in (("a.jpg", scene(0)), ("b.jpg", None), ("c.jpg", scene(1)))]
    beside = {"licence": pa.array([3, None, 4], pa.int8()), "taken": pa.array([0, 1, None], pa.timestamp("s"))}
    pq.write_table(pa.table({"image": pa.array(values, kind), **beside}), tmp_path / "train.parquet", row_group_size=2)

    arguments = ["--input", str(tmp_path / "train.parquet"), "--output", str(tmp_path / "masks"), "--bytes-column", "image"]
    arguments += ["--carry", "licence,taken"]
    code, summary, errors = run(capsys, *arguments)
    assert code == 0, errors
    assert (summary["images"], summary["errors_by_code"]) == (3, {"empty": 1})
    rows = {row["image_uri"]: row for row in reading.open_table(str(tmp_path / "masks")).newest()}
    assert sorted(rows) == [f"file://{tmp_path}/train.parquet#column=image&row={number}" for number in range(3)]
    assert rows[f"file://{tmp_path}/train.parquet#column=image&row=2"]["image_bytes"] == len(scene(1))
    times = [datetime(1970, 1, 1, 0, 0, 0, 0, UTC), datetime(1970, 1, 1, 0, 0, 1, 0, UTC), None]
    assert [(row["licence"], row["taken"], row["status"]) for _, row in sorted(rows.items())] == [
        *zip((3, None, 4), times, ("ok", "error", "ok"), strict=True)
    ]
    code, summary, _ = run(capsys, *arguments)
    assert (code, summary["outcome"]) == (0, "nothing to do")
    code, summary, errors = run(capsys, *arguments, "--where", "dt = = 1")
    assert (code, summary["outcome"]) == (2, "refused")
    code, summary, errors = run(capsys, *arguments[:-1], "camera")
    assert (code, summary["outcome"]) == (2, "refused")
    assert "--carry camera" in errors
