"""What must hold after recovery, found out with the S3 listing, the log's JSON, deltalake, pyarrow and pycocotools: none of it is ours."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.faults.log import data_commits, present
from tests.faults.pictures import Picture, wrong_masks
from tests.faults.stored import Expected, Key, Stored, rows_of

TASKS = ("panoptic", "semantic")
_STALE = ("changed", "not_found")  # what may be said of a version of an image that is there no more


class Answers:
    """What all trials have in common: the answer to each scene and task, and what was wrong with it; the fingerprint of each task."""

    def __init__(self) -> None:
        self._segments: dict[tuple[int, str], Any] = {}
        self._judged: dict[tuple[int, str], str] = {}
        self._fingerprints: dict[str, str] = {}
        self._lock = threading.Lock()

    def problem(self, picture: Picture, row: dict[str, Any]) -> str:
        """What is wrong with a row of a picture; '' where nothing is."""
        if (row["height"], row["width"]) != picture.size or row["image_bytes"] != len(picture.content):
            return (
                f"its row says {row['height']} x {row['width']}, {row['image_bytes']} bytes: it has {picture.size}, {len(picture.content)}"
            )
        key = picture.scene, row["task"]
        with self._lock:
            if self._fingerprints.setdefault(row["task"], row["fingerprint"]) != row["fingerprint"]:
                return "its row has another fingerprint than others of its task"
            if len(set(self._fingerprints.values())) != len(self._fingerprints):
                return "its row has the fingerprint of another task"
            if key not in self._segments or self._judged[key]:
                self._segments[key], self._judged[key] = row["segments"], wrong_masks(picture.scene, row["segments"])
            elif self._segments[key] != row["segments"]:
                return wrong_masks(picture.scene, row["segments"]) or "another answer than a copy of it has"
            return self._judged[key]


@dataclass
class Findings:
    """What is wrong, in numbers and in words; all of it empty is what is promised."""

    lost: int = 0
    doubled: int = 0
    repeated: int = 0
    kept: int = 0
    missing_files: int = 0
    orphans: int = 0
    leftovers: int = 0
    after_fence: int = 0
    others_touched: int = 0
    problems: list[str] = field(default_factory=list)

    def note(self, kind: str, things: object, words: str) -> None:
        """Count some things and keep a few words of them."""
        found = list(things) if isinstance(things, (list, set, dict, tuple)) else []
        if found:
            setattr(self, kind, getattr(self, kind) + len(found))
            self.problems.append(f"{len(found)} {words}: {sorted(map(str, found))[:3]}")


COUNTS = tuple(name for name in Findings.__dataclass_fields__ if name != "problems")


def held(stored: Stored) -> dict[Key, str]:
    """The run that made each committed answer; rows that say what failed are left out."""
    return {
        _key(row): row["run_id"] for row in stored.rows(["image_uri", "image_etag", "task", "run_id", "status"]) if row["status"] == "ok"
    }


def verify(stored: Stored, expected: Expected, answers: Answers, vacuumed: bool) -> Findings:
    """Everything that must hold when a run has ended with 0; after a vacuum that kept no past, also that no other data file is there."""
    findings = Findings()
    _check_files(stored, findings, vacuumed)
    _check_rows(stored, expected, findings, answers)
    _check_fences(stored, findings)
    _check_gone(stored, expected, findings, vacuumed)
    changed = {key for key, etag in expected.others.items() if stored.etags.get(key) != etag}
    findings.note("others_touched", changed, "objects that are not the table's were changed or deleted")
    return findings


def _check_files(stored: Stored, findings: Findings, vacuumed: bool) -> None:
    files, sizes = present(stored.log), stored.sizes
    findings.note("missing_files", set(stored.by_delta) ^ set(files), "files about which deltalake and the log's JSON differ")
    findings.note("missing_files", {path for path in files if path not in sizes}, "committed files that are not there")
    findings.note(
        "missing_files", {path for path, file in files.items() if sizes.get(path, file.size) != file.size}, "files of another size"
    )
    data = {path for path in sizes if not path.startswith("_")}
    known = set(files) if vacuumed else {added.path for commit in stored.log for added in commit.adds}
    findings.note("orphans", data - known, "orphan files")
    # Until it has begun, a run leaves nothing by which others could know of it: a work list of one that died so early is the vacuum's.
    begun = {commit.run_id for commit in stored.log if commit.event == "begin"}
    own = {path for path in sizes if path.startswith("_masklake/live/") or ("/plan-" in path and path.split("/")[2] in begun)}
    findings.note("leftovers", own, "markers and work lists of runs that are over")


def _check_rows(stored: Stored, expected: Expected, findings: Findings, answers: Answers) -> None:
    for path, file in present(stored.log).items():
        if path in stored.data and len(rows_of(path, stored.data[path], ["image_uri"])) != file.rows:
            findings.note("missing_files", [path], "files with another number of rows than the log says")
    every = stored.rows()
    rows = [row for row in every if not _stale(row, expected)]
    right = {_key(row) for row in rows if row["status"] == "ok"}
    failed = {row["image_uri"]: f"{row['error_code']}: {row['error_message']}" for row in rows if row["status"] != "ok"}
    findings.note("lost", expected.keys(TASKS) - right, f"images without an answer ({next(iter(failed.values()), 'no row')})")
    findings.note("lost", set(failed), "images with an error row")
    counted = Counter((*_key(row), row["fingerprint"]) for row in rows)
    findings.note("doubled", {key for key, count in counted.items() if count > 1}, "images with more than one row")
    findings.note("doubled", {key for key in counted if not expected.picture(key[0], key[1])}, "rows of no image that ever was there")
    committed = sum(added.rows for commit in data_commits(stored.log) for added in commit.adds)
    again = committed - len({_key(row) for row in every} | expected.gone)
    findings.note("repeated", ["row"] * again, "rows of images that were done already were committed")
    for row in rows:
        picture = expected.picture(row["image_uri"], row["image_etag"])
        if picture and row["status"] == "ok" and (problem := answers.problem(picture, row)):
            findings.problems.append(f"{row['image_uri']}, {row['task']}: {problem}")


def _key(row: dict[str, Any]) -> Key:
    return row["image_uri"], row["image_etag"], row["task"]


def _stale(row: dict[str, Any], expected: Expected) -> bool:
    """Whether a row says that an image was replaced or deleted while it was to be read, and that is true."""
    versions = expected.history.get(row["image_uri"], [])
    return row["status"] == "error" and row["error_code"] in _STALE and len(versions) > 1


def _check_fences(stored: Stored, findings: Findings) -> None:
    """No run commits after one on overlapping input has begun."""
    begun: dict[str, str] = {}
    fenced: set[str] = set()
    for commit in stored.log:
        if commit.event == "begin":
            fenced |= {run for run, scope in begun.items() if scope.startswith(commit.scope) or commit.scope.startswith(scope)}
            begun[commit.run_id] = commit.scope
        elif commit.run_id in fenced and commit.event:
            findings.note("after_fence", [f"{commit.version} by {commit.run_id}"], "commits of a fenced run")


def _check_gone(stored: Stored, expected: Expected, findings: Findings, vacuumed: bool) -> None:
    """What was taken out is in no file of the table; of an image that is to be forgotten, nothing is in any file or page."""
    files = stored.data if vacuumed else present(stored.log)
    held_keys = {
        _key(row) for path in files if path in stored.data for row in rows_of(path, stored.data[path], ["image_uri", "image_etag", "task"])
    }
    findings.note("kept", held_keys & expected.gone, "rows that were taken out are still there")
    forgotten = {uri for uri, _, _ in expected.gone} - {uri for uri, _, _ in expected.keys(TASKS)}
    for path, page in stored.pages.items():
        named = {uri for uri in forgotten if uri.encode() in page}
        findings.note("kept", named, f"erased images are named in {path}")
