"""A run as OpenLineage events (openlineage.io): which images became which table. The client library is an extra; it reads
`OPENLINEAGE_URL` and `OPENLINEAGE_API_KEY` by itself."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from masklake import storage
from masklake.config import extras
from masklake.errors import Say
from masklake.segment.machine import own_version
from masklake.segment.settings import RunConfig

_STATES = {"done": "COMPLETE", "nothing to do": "COMPLETE", "skipped": "COMPLETE", "stopped": "ABORT"}
"""What an outcome is called there; any other is a failure."""


class Lineage:
    """The events of one run: a start, once it is known which run of which table it is, and an end."""

    def __init__(self, input_uri: str) -> None:
        self._input = input_uri
        self._run_id = self._table = ""
        self._starting = threading.Thread(target=self._start, name="lineage", daemon=True)

    @classmethod
    def here(cls, config: RunConfig, say: Say) -> Lineage | None:
        """For a run whose environment names somebody who takes events; None otherwise, and where the client library is not installed."""
        if not os.environ.get("OPENLINEAGE_URL"):
            return None
        try:
            import openlineage.client  # noqa: F401
        except ModuleNotFoundError:
            say(f"OPENLINEAGE_URL is set, and no events are sent: {extras.install('lineage')}")
            return None
        return cls(config.input)

    def begin(self, run_id: str, table: str) -> None:
        """Send the start, beside the run."""
        self._run_id, self._table = run_id, table
        self._starting.start()

    def end(self, ended: Mapping[str, Any]) -> None:
        """Send the end, after the start; nothing of a run that was refused before it began.

        Raises:
            Exception: nobody took it.
        """
        if not self._run_id:
            return
        self._starting.join()
        self._emit(_STATES.get(ended["outcome"], "FAIL"), ended)

    def _start(self) -> None:
        with suppress(Exception):  # the end is sent as well, and says what is wrong
            self._emit("START", {})

    def _emit(self, state: str, ended: Mapping[str, Any]) -> None:
        from openlineage.client import OpenLineageClient
        from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
        from openlineage.client.facet_v2 import error_message_run, output_statistics_output_dataset, processing_engine_run

        facets: dict[str, Any] = {"processing_engine": processing_engine_run.ProcessingEngineRunFacet(own_version(), "masklake")}
        if state == "FAIL":
            facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(str(ended.get("error", ended["outcome"])), "Python")
        written = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=ended.get("rows", 0))
        run = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self._table}#{self._run_id}"))
        event = RunEvent(
            eventTime=datetime.now(UTC).isoformat(),
            producer=f"https://masklake.example.com/{own_version()}",
            run=Run(run, facets),
            job=Job(os.environ.get("OPENLINEAGE_NAMESPACE", "masklake"), f"segment.{dataset(self._table)[1].replace('/', '_')}"),
            inputs=[InputDataset(*dataset(storage.normalise(self._input)))],
            outputs=[OutputDataset(*dataset(self._table), outputFacets={"outputStatistics": written} if ended else {})],
            eventType=RunState[state],
        )
        OpenLineageClient().emit(event)


def dataset(uri: str) -> tuple[str, str]:
    """A dataset's namespace and name as OpenLineage has them (spec/Naming.md): `s3://bucket` and the key; `file` and the path."""
    scheme, _, rest = uri.rstrip("/").partition("://")
    bucket, _, key = rest.partition("/")
    return ("file", f"/{key}") if scheme == "file" else (f"{scheme}://{bucket}", key or "/")
