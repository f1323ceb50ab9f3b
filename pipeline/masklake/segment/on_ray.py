"""The engine that is Ray: a local one, or a cluster. Importing this module imports Ray, which takes seconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from masklake.addresses import LOCAL, target_of
from masklake.cluster import Pulse
from masklake.errors import Say
from masklake.segment import flow, nodes, patience
from masklake.segment.engine import Flowing, Meter, Resources
from masklake.segment.filling import Fill
from masklake.segment.machine import Machine, machine
from masklake.segment.metrics import RunMeter
from masklake.segment.placement import Pool
from masklake.segment.session import Session
from masklake.segment.settings import RunConfig
from masklake.segment.stages import Work
from masklake.table.keys import KeyFile, Wanted


class OnRay:
    """Ray, started or joined when it is first needed, unless the session has begun to before, until that is left."""

    starting = "starting Ray"

    def __init__(self, config: RunConfig, session: Session, say: Say) -> None:
        self._config, self._session, self._say = config, session, say

    def start(self) -> None:
        """Start Ray, or join the cluster."""
        self._session.resources()

    def refuse_at_once(self) -> None:
        """Before anything is listed: see `flow.refuse_at_once`."""
        flow.refuse_at_once(self._config, self._look())

    def has_gpus(self) -> bool:
        """Whether the model will run on GPUs: see `flow.has_gpus`."""
        return flow.has_gpus(self._config, self._look())

    def _look(self) -> patience.Cluster:
        self.start()
        return nodes.look(local=target_of(self._config.ray_address) == LOCAL)

    def done_digests(self, table_uri: str, wanted: Wanted, files: Sequence[KeyFile]) -> Iterator[pa.RecordBatch]:
        """What the table holds, read all over the cluster; see `flow.done_digests`."""
        self.start()
        return flow.done_digests(table_uri, wanted, files)

    def resources(self, group_rows: int, most_rows: int) -> Resources:
        """What the cluster has for the models, once it is there; see `flow.room_for_actors`."""
        return self._session.enter(flow.room_for_actors(self._config, self._look, self._say, group_rows, most_rows))

    def machine(self, work: Work, resources: Resources) -> Machine:
        """The cluster."""
        actors = flow.actors_of(work, resources)
        return machine(self._session.resources(), work.device, actors, resources.cpus_per_actor, resources.gpus_per_actor)

    def meter(self, table: str, run_id: str) -> Meter:
        """Metrics of Ray's; see `metrics`."""
        return RunMeter(table, run_id, flow.signs).show

    @contextmanager
    def flowing(self, work: Work, resources: Resources) -> Iterator[Flowing]:
        """Run the dataset of `flow.build`, and write what comes out of it."""
        dataset = flow.build(work, resources, 60 * self._config.stall_minutes)
        filler = flow.filler(work, Fill(self._config.rows_per_file, self._config.commit_seconds))
        pool = Pool(resources.least, resources.actors, resources.cpus_per_actor, resources.gpus_per_actor)

        def signs() -> tuple[patience.StageSign, ...]:
            return *flow.signs(), filler.sign()

        def diagnose(still: float) -> str:
            return patience.diagnosis(still, signs(), nodes.look(), pool, nodes.last_death())

        with Pulse() as pulse:
            written = filler.written(flow.packets(dataset, flow.rows_per_call(work, resources)))
            yield Flowing(written, pulse.check, filler.flush, signs, diagnose)
