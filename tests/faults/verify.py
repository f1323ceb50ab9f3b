"""What must hold after recovery, found out with the S3 listing, the log's JSON, deltalake, pyarrow and pycocotools: none of it is ours."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from pycocotools import mask as coco

from tests.faults.lake import TASKS, Commit, Lake

Answers = dict[tuple[str, str], Any]
"""The segments of each image (by the hash of its bytes) and task, of all trials: the same image always gets the same answer."""


@dataclass
class Findings:
    """What is wrong, in numbers and in words; all of it empty is what is promised."""

    lost: int = 0
    doubled: int = 0
    missing_files: int = 0
    orphans: int = 0
    leftovers: int = 0
    after_fence: int = 0
    problems: list[str] = field(default_factory=list)

    def note(self, kind: str, things: object, words: str) -> None:
        """Count some things and keep a few words of them."""
        found = list(things) if isinstance(things, (list, set, dict, tuple)) else []
        if found:
            setattr(self, kind, getattr(self, kind) + len(found))
            self.problems.append(f"{len(found)} {words}: {sorted(map(str, found))[:3]}")


def rows(lake: Lake) -> pa.Table:
    """All rows of the table's present files; no rows where there is no table."""
    tables = []
    for path in _present(lake.log()):
        content = pq.read_table(io.BytesIO(lake.read(f"masks/{path}")), partitioning=None)
        for name, _, value in (part.partition("=") for part in path.split("/")[:-1]):
            content = content.append_column(name, pa.array([unquote(value)] * len(content), pa.string()))
        tables.append(content)
    return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})


def held(lake: Lake) -> dict[tuple[str, str], str]:
    """The run that made each committed row, by image and task."""
    found = rows(lake)
    if not len(found):
        return {}
    return {(row["image_uri"], row["task"]): row["run_id"] for row in found.select(["image_uri", "task", "run_id"]).to_pylist()}


def verify(lake: Lake, answers: Answers, vacuumed: bool) -> Findings:
    """Everything that must hold when a run has ended with 0."""
    findings, log = Findings(), lake.log()
    _check_files(lake, log, findings, vacuumed)
    _check_rows(lake, rows(lake), findings, answers)
    _check_fences(log, findings)
    return findings


def _present(log: list[Commit]) -> dict[str, int]:
    """The files of the newest version and their sizes, by replaying the log."""
    files: dict[str, int] = {}
    for commit in log:
        for path in commit.removes:
            files.pop(unquote(path), None)
        files.update((unquote(path), size) for path, size in commit.adds)
    return files


def _check_files(lake: Lake, log: list[Commit], findings: Findings, vacuumed: bool) -> None:
    present, stored = _present(log), lake.objects("masks/")
    options = {**{name.lower(): value for name, value in lake.store.env().items()}, "aws_conditional_put": "etag"}
    by_delta = {unquote(uri.partition("/masks/")[2]) for uri in DeltaTable(lake.output, storage_options=options).file_uris()}
    findings.note("missing_files", by_delta ^ set(present), "files about which deltalake and the log's JSON differ")
    sizes = {key.removeprefix("masks/"): found["Size"] for key, found in stored.items()}
    findings.note("missing_files", {path for path in present if path not in sizes}, "committed files that are not there")
    findings.note("missing_files", {path for path, size in present.items() if sizes.get(path, size) != size}, "files of another size")
    data = {path for path in sizes if not path.startswith("_")}
    known = set(present) if vacuumed else {unquote(path) for commit in log for path, _ in commit.adds}
    findings.note("orphans", data - known, "orphan files")
    # Until it has begun, a run leaves nothing by which others could know of it: a work list of one that died so early is the vacuum's.
    begun = {commit.run_id for commit in log if commit.event == "begin"}
    own = {path for path in sizes if path.startswith("_masklake/live/") or ("/plan-" in path and path.split("/")[2] in begun)}
    findings.note("leftovers", own, "markers and work lists of runs that are over")


def _check_rows(lake: Lake, table: pa.Table, findings: Findings, answers: Answers) -> None:
    etags = {f"s3://{lake.bucket}/{key}": found["ETag"].strip('"') for key, found in lake.objects("images/").items()}
    expected = {(uri, etag, task) for uri, etag in etags.items() for task in TASKS}
    names = ["image_uri", "image_etag", "task", "fingerprint", "status", "error_message", "height", "width", "segments"]
    found = table.select(names).to_pylist() if len(table) else []
    counted = Counter((row["image_uri"], row["image_etag"], row["task"], row["fingerprint"]) for row in found)
    findings.note("lost", expected - {key[:3] for key in counted}, "images without a row")
    findings.note("doubled", {key for key, count in counted.items() if count > 1}, "images with more than one row")
    findings.note("doubled", {key for key in counted if key[:3] not in expected}, "rows of no image")
    if len({key[2:] for key in counted}) != len(TASKS):
        findings.problems.append("there is more than one fingerprint of a task")
    wrong = {row["image_uri"]: row["error_message"] for row in found if row["status"] != "ok"}
    findings.note("lost", wrong, f"images with an error row ({next(iter(wrong.values()), '')})")
    for row in found:
        if row["status"] == "ok" and (problem := _wrong_masks(row)):
            findings.problems.append(f"{row['image_uri']}: {problem}")
        if row["status"] == "ok" and answers.setdefault((row["image_etag"], row["task"]), row["segments"]) != row["segments"]:
            findings.problems.append(f"{row['image_uri']}: another answer than a copy of it has")


def _wrong_masks(row: dict[str, Any]) -> str:
    for segment in row["segments"]:
        encoded = {"size": [row["height"], row["width"]], "counts": segment["counts"]}
        mask = coco.decode(encoded)
        if mask.shape != (row["height"], row["width"]) or int(mask.sum()) != segment["area"]:
            return f"the mask of {segment['label']} has another size or area than its row says"
        if [round(edge) for edge in coco.toBbox(encoded)] != segment["bbox"]:
            return f"the mask of {segment['label']} has another box than its row says"
    return ""


def _check_fences(log: list[Commit], findings: Findings) -> None:
    """No run commits after one on overlapping input has begun."""
    begun: dict[str, str] = {}
    fenced: set[str] = set()
    for commit in log:
        if commit.event == "begin":
            fenced |= {run for run, scope in begun.items() if scope.startswith(commit.scope) or commit.scope.startswith(scope)}
            begun[commit.run_id] = commit.scope
        elif commit.run_id in fenced and commit.event:
            findings.note("after_fence", [f"{commit.version} by {commit.run_id}"], "commits of a fenced run")
