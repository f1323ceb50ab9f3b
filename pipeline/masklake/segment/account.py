"""What a run has done so far, and the documents that tell of it: report, gallery, the last line."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from masklake import storage
from masklake.segment import gallery, report
from masklake.segment.advice import Advice, advice
from masklake.segment.gallery import GalleryInput
from masklake.segment.machine import Machine
from masklake.segment.pictures import Pictures
from masklake.segment.report import RunFacts, RunTotals
from masklake.segment.settings import Config
from masklake.table.write import FileRecord

Summary = dict[str, Any]
"""The JSON object that a run ends with."""


class Account:
    """A run's totals while it goes on; begins when it is made."""

    def __init__(self, config: Config, run_id: str, started_at: datetime, table_uri: str, revision: str) -> None:
        self.totals = RunTotals()
        self.machine: Machine | None = None
        self.started = time.monotonic()
        self._config = config
        self._named = run_id, started_at, table_uri, revision

    def seconds(self) -> float:
        """Since the run's start."""
        return time.monotonic() - self.started

    def facts(self) -> RunFacts:
        """Where the images come from, what looks at them, and where the answers are."""
        config, (run_id, started_at, table_uri, revision) = self._config, self._named
        tasks = tuple(str(task) for task in config.tasks)
        return RunFacts(run_id, config.input, table_uri, config.model, revision, tasks, started_at, datetime.now(UTC), self.machine)

    def advice(self) -> Advice:
        """What bounds the run, and what would change that."""
        return advice(self.totals.lasting(self.seconds()), self.machine, self._config.price_per_hour)

    def summary(self, outcome: str) -> Summary:
        """The run's last line, of the totals as they are."""
        totals = self.totals.lasting(self.seconds())
        return report.summary(
            self.facts(),
            totals,
            outcome=outcome,
            steady_images_per_second=round(totals.steady_images_per_second or 0.0, 3),
            seconds_to_first_commit=None if totals.first_commit_seconds is None else round(totals.first_commit_seconds, 3),
            **self.advice().keys(),
            driver_peak_mb=_peak_mb(),
        )

    def write_report(self, folder: str, outcome: str, pictures: Sequence[str] = ()) -> None:
        """Write `report.json` into the run's folder; `pictures` are the images that its gallery shows."""
        self.totals = self.totals.lasting(self.seconds())
        asked = self._config.model_dump(mode="json", exclude={"notify"})
        document = report.report_dict(self.facts(), self.totals, asked, pictures, {"outcome": outcome, **self.advice().keys()})
        storage.write_bytes(folder + "report.json", json.dumps(document, indent=2).encode())

    def begin_pictures(self, pictures: Pictures, last: Sequence[FileRecord]) -> None:
        """Begin with the gallery's pictures, which are known once nothing but these files is still to be committed."""
        totals = self.totals
        for record in last:
            totals = totals.merge(record)
        pictures.begin(totals.samples)

    def write_report_and_gallery(self, folder: str, pictures: Pictures) -> None:
        """Write what a finished run leaves beside the table."""
        self.totals = self.totals.lasting(self.seconds())
        page = gallery.render_gallery(GalleryInput(self.facts(), self.totals, pictures.of(self.totals.samples)))
        self.write_report(folder, "done", page.pictures)
        storage.write_bytes(folder + "gallery.html", page.html.encode())


def _peak_mb() -> int:
    """The most memory that this process had, in MB."""
    unit = 1024**2 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kB
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)
