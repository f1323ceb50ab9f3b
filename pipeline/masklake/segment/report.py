"""What a run did, in numbers: totals that grow with the committed files, the report, and the summary line.

Pure functions of small values; memory does not grow with the number of images. Rows and images are counted apart: an image has one row
per task.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, TypeVar

from masklake.segment.machine import Machine
from masklake.spelling import plural
from masklake.table.write import EXAMPLES, SAMPLES, FileRecord, Sample, merge_samples

Amount = TypeVar("Amount", int, float)
Examples = Mapping[str, tuple[tuple[str, str], ...]]

STAGES = ("discover", "plan", "fetch", "decode", "segment", "write", "commit")
"""In the order of the flow."""


@dataclass(frozen=True)
class RunFacts:
    """Where a run's images came from, what looked at them and where the answers are."""

    run_id: str
    input_uri: str
    table_uri: str
    model: str
    model_revision: str
    tasks: tuple[str, ...]
    started_at: datetime
    finished_at: datetime
    machine: Machine | None = None
    """None before the model's actors are planned."""


@dataclass(frozen=True)
class RunTotals:
    """What was planned, what is committed, and how long it took; of bounded size, whatever the number of files and images."""

    planned_images: int = 0
    planned_rows: int = 0
    planned_bytes: int = 0
    images: int = 0
    failed_images: int = 0
    """Of `images`: those of which at least one task failed."""
    files: int = 0
    written_bytes: int = 0
    rows: int = 0
    ok: int = 0
    """Of `rows`: those with status `ok`; the others have status `error`."""
    errors: Mapping[str, int] = field(default_factory=dict)
    """Error rows by code."""
    examples: Examples = field(default_factory=dict)
    """Up to three (image URI, message) of each code."""
    label_counts: Mapping[str, int] = field(default_factory=dict)
    """Segments by label."""
    samples: tuple[Sample, ...] = ()
    """Some of the images with an answer, drawn evenly from all of them."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Time by stage, added up over all workers, so that the sum may exceed `wall_seconds`."""
    commits: int = 0
    """That had rows."""
    busy_seconds: float = 0.0
    """In which models were at work, added up over all of them."""
    halvings: int = 0
    """Of batches that did not fit into a device's memory."""
    read_bytes: int = 0
    """Of `images`, as far as their sizes are known."""
    wall_seconds: float = 0.0
    first_commit_seconds: float | None = None
    """From the start to the first commit of rows: Ray's start and the model's are in it; None before."""
    first_answer_seconds: float | None = None
    """From the start to the first answers; None before they are committed."""
    first_answer_images: int = 0
    """Of how many images they were."""
    last_commit_seconds: float | None = None
    """From the start to the last commit of rows."""

    def merge(self, record: FileRecord) -> RunTotals:
        """These totals and one committed file. A file knows rows, not images: see `count_images`."""
        return replace(
            self,
            files=self.files + 1,
            written_bytes=self.written_bytes + record.size,
            rows=self.rows + record.rows,
            ok=self.ok + record.ok,
            errors=_sum(self.errors, record.errors),
            examples=_first_examples(self.examples, record.examples),
            label_counts=_sum(self.label_counts, record.label_counts),
            samples=merge_samples(self.samples, record.samples, SAMPLES),
            seconds=_sum(self.seconds, record.seconds),
        )

    def count_images(self, images: int, failed: int = 0) -> RunTotals:
        """These totals and so many images whose rows are now committed, failed ones among them."""
        return replace(self, images=self.images + images, failed_images=self.failed_images + failed)

    def worked(self, busy_seconds: float, halvings: int, read_bytes: int) -> RunTotals:
        """These totals and what models did for a write."""
        return replace(
            self,
            busy_seconds=self.busy_seconds + busy_seconds,
            halvings=self.halvings + halvings,
            read_bytes=self.read_bytes + read_bytes,
        )

    def spend(self, stage: str, seconds: float) -> RunTotals:
        """These totals and some time that the driver spent on a stage."""
        return replace(self, seconds=_sum(self.seconds, {stage: seconds}))

    def lasting(self, wall_seconds: float) -> RunTotals:
        """These totals of a run that took so long from start to end."""
        return replace(self, wall_seconds=wall_seconds)

    def committed(self, seconds: float) -> RunTotals:
        """These totals after a commit of rows, so long after the start."""
        later = replace(self, commits=self.commits + 1, last_commit_seconds=seconds)
        return later if self.first_commit_seconds is not None else replace(later, first_commit_seconds=seconds)

    def began(self, seconds: float, images: int) -> RunTotals:
        """These totals and when the first answers of a write came, of so many images."""
        if self.first_answer_seconds is not None and self.first_answer_seconds <= seconds:
            return self
        return replace(self, first_answer_seconds=seconds, first_answer_images=images)

    @property
    def steady_seconds(self) -> float | None:
        """From the first answers to the last commit, so without the start; None where there was one commit only.

        Not from the first commit: what was answered before it is in later commits, too, which made a short run look twice as fast.
        """
        first, last = self.first_answer_seconds, self.last_commit_seconds
        return last - first if first is not None and last is not None and self.commits > 1 and last > first else None

    @property
    def failed_rows(self) -> int:
        """Rows with status `error`."""
        return sum(self.errors.values())

    @property
    def missing_rows(self) -> int:
        """Planned rows that are not in the table: 0 after a run that came to its end."""
        return self.planned_rows - self.rows

    @property
    def segments(self) -> int:
        """Segments found, in all tasks."""
        return sum(self.label_counts.values())

    @property
    def steady_images_per_second(self) -> float | None:
        """Images after the first answers, over `steady_seconds`."""
        seconds = self.steady_seconds
        return None if seconds is None else (self.images - self.first_answer_images) / seconds

    @property
    def images_per_second(self) -> float:
        """Of the whole run, start-up included; 0 where nothing was done."""
        return self.images / self.wall_seconds if self.wall_seconds else 0.0

    @property
    def error_rate(self) -> float:
        """Failed images as a share of all images done; 0 where nothing was done."""
        return self.failed_images / self.images if self.images else 0.0

    @property
    def stage_seconds(self) -> dict[str, float]:
        """`seconds`, in the order of the flow."""
        return {stage: self.seconds[stage] for stage in (*STAGES, *sorted(self.seconds)) if stage in self.seconds}


def report_dict(
    facts: RunFacts,
    totals: RunTotals,
    configuration: Mapping[str, Any],
    pictures: Sequence[str] = (),
    advice: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """The report of a run: JSON values only, keys in a fixed order.

    `configuration` is the resolved one, defaults filled in; whatever JSON cannot hold in it becomes text. `pictures` are the URIs of the
    images that the gallery shows: whoever erases one of them deletes that gallery. `advice` are further keys, of what bounded the run.
    """
    return {
        "run_id": facts.run_id,
        "input": facts.input_uri,
        "table": facts.table_uri,
        "model": {"name": facts.model, "revision": facts.model_revision},
        "tasks": list(facts.tasks),
        "started_at": facts.started_at.isoformat(),
        "finished_at": facts.finished_at.isoformat(),
        "images": {
            "planned": totals.planned_images,
            "done": totals.images,
            "ok": totals.images - totals.failed_images,
            "failed": totals.failed_images,
        },
        "rows": {"planned": totals.planned_rows, "ok": totals.ok, "error": totals.failed_rows, "missing": totals.missing_rows},
        "bytes": {"planned": totals.planned_bytes, "written": totals.written_bytes},
        "files": totals.files,
        "errors": {code: {"rows": rows, "examples": _examples(totals.examples, code)} for code, rows in by_count(totals.errors)},
        "segments": dict(by_count(totals.label_counts)),
        "seconds": round(totals.wall_seconds, 3),
        "seconds_to_first_commit": None if totals.first_commit_seconds is None else round(totals.first_commit_seconds, 3),
        "seconds_to_first_answer": None if totals.first_answer_seconds is None else round(totals.first_answer_seconds, 3),
        "images_in_first_answer": totals.first_answer_images,
        "images_per_second": round(totals.images_per_second, 3),
        "steady_images_per_second": None if totals.steady_images_per_second is None else round(totals.steady_images_per_second, 3),
        "memory_halvings": totals.halvings,
        **_machine(facts.machine),
        **advice,
        "stages": {stage: _stage(seconds, totals.images) for stage, seconds in totals.stage_seconds.items()},
        "pictures": list(pictures),
        "configuration": json.loads(json.dumps(dict(configuration), default=str)),
    }


def _machine(machine: Machine | None) -> dict[str, Any]:
    if machine is None:
        return {}
    return {
        "host": {"name": machine.host, "system": machine.system},
        "cluster": {"cpus": machine.cpus, "gpus": machine.gpus, "accelerators": list(machine.accelerators)},
        "device": machine.device,
        "actors": {"count": machine.actors, "cpus": machine.cpus_per_actor, "gpus": machine.gpus_per_actor},
        "versions": dict(machine.versions),
    }


def summary(facts: RunFacts, totals: RunTotals, **more: Any) -> dict[str, Any]:
    """What a run ends with: its totals in a few flat keys, then `more` (a status, where report and gallery are)."""
    return {
        "run_id": facts.run_id,
        "table": facts.table_uri,
        "planned": totals.planned_images,
        "images": totals.images,
        "ok": totals.images - totals.failed_images,
        "errors": totals.failed_images,
        "errors_by_code": dict(by_count(totals.errors)),
        "rows": totals.rows,
        "segments": totals.segments,
        "seconds": round(totals.wall_seconds, 3),
        "images_per_second": round(totals.images_per_second, 3),
        **more,
    }


def in_words(totals: RunTotals) -> str:
    """What a run has done, as a sentence."""
    took = f"{plural(totals.images, 'image')} in {totals.wall_seconds:,.0f} s ({totals.images_per_second:,.1f}/s)"
    if not totals.failed_images:
        return f"done: {took}, {plural(totals.segments, 'segment')}"
    codes = ", ".join(f"{code} {count:,}" for code, count in by_count(totals.errors))
    return f"done: {took}, {plural(totals.segments, 'segment')}; {totals.failed_images:,} of the images failed (rows: {codes})"


def by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Most frequent first; equally frequent ones by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _sum(left: Mapping[str, Amount], right: Mapping[str, Amount]) -> dict[str, Amount]:
    return {name: left.get(name, 0) + right.get(name, 0) for name in {**left, **right}}


def _first_examples(left: Examples, right: Examples) -> Examples:
    """Up to `EXAMPLES` of each code, each image once."""
    return {code: tuple(dict.fromkeys((*left.get(code, ()), *right.get(code, ()))))[:EXAMPLES] for code in {**left, **right}}


def _examples(examples: Examples, code: str) -> list[dict[str, str]]:
    return [{"uri": uri, "message": message} for uri, message in examples.get(code, ())]


def _stage(seconds: float, images: int) -> dict[str, float | None]:
    """Throughput is that of one worker of this stage."""
    return {"seconds": round(seconds, 3), "images_per_second": round(images / seconds, 3) if seconds else None}
