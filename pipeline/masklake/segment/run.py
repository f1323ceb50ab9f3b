"""One run of `segment`, from settings to summary: resolve, plan, take the epoch, stream, commit, report.

The committed table is the only checkpoint: whatever ends a run, the same command goes on with what is missing.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from masklake import stopping, storage, variables
from masklake.errors import MasklakeError, Refused
from masklake.images import conditions
from masklake.images.conditions import Condition
from masklake.inference import forwards
from masklake.schema import TABLE
from masklake.segment import ahead, images, precision, preview
from masklake.segment.account import Account, Summary
from masklake.segment.checked import check_weights
from masklake.segment.choice import Choice, choose, seconds_here
from masklake.segment.committing import Committing
from masklake.segment.digests import digest
from masklake.segment.engine import Engine, Resources
from masklake.segment.estimate import LOOKED_AT, Estimate, estimate
from masklake.segment.filling import Fill
from masklake.segment.images import Images
from masklake.segment.local import Local
from masklake.segment.machine import cluster_address, cores, has_gpus
from masklake.segment.model import RunModel
from masklake.segment.notices import told
from masklake.segment.picks import Some
from masklake.segment.pictures import Pictures
from masklake.segment.plan import Filter, Plan, WorkList, make_plan
from masklake.segment.precision import held_by
from masklake.segment.progress import Listener, State
from masklake.segment.report import in_words
from masklake.segment.session import Session
from masklake.segment.settings import Config
from masklake.segment.stages import Work
from masklake.spelling import plural
from masklake.table import overlap, runs, write
from masklake.table.append import Table
from masklake.table.definition import check_log
from masklake.table.keys import KEYS, KeyFile, Wanted
from masklake.table.place import check_table_place
from masklake.table.reports import last_reports
from masklake.table.rows import RunStamp

if TYPE_CHECKING:
    from masklake.segment.on_ray import OnRay

GROUP_ROWS = 32
"""Images that travel together: one group of the work list is one load, and about one call of an actor."""

CLUSTER_ROWS = 20_000_000
"""Rows of the table, in files that may matter to a plan, from which they are read on the cluster: in one process they take about as long as
starting Ray does."""


def segment(config: Config, listener: Listener) -> Summary:
    """Do what is missing, say what was done, and tell whoever is to know.

    Raises:
        Refused: a setting, credential, bucket or model is wrong; nothing was started.
        Fenced: a newer run on overlapping input took over.
        MasklakeError: the run failed; what was committed stays.
    """
    with variables.prepared(config.ray_address, lean_data=True):
        storage.use_places(_places(config))
        return told(config, listener, partial(_segment, config))


def _segment(config: Config, listener: Listener) -> Summary:
    where = None if config.where is None else conditions.parse(config.where)
    images.check(config)
    if config.output:
        storage.check_output(config.output)
        check_table_place(config.output, config.input)
        check_log(config.output)
    with ExitStack() as afterwards, ExitStack() as opened:
        if config.preview:
            return _preview(config, where, listener, opened)
        session = opened.enter_context(Session(config.ray_address))
        ray = _joined(config, session, listener) if cluster_address(config) else None
        on_gpus = ray.has_gpus if ray else partial(has_gpus, config)
        # Settled before the plan, since it is part of the fingerprint.
        config, model = precision.settle(config, RunModel.resolve(config, listener.say), on_gpus, listener.say)
        _check_forward(config, model, on_gpus)
        run = _Run(config, where, model, listener, session, ray)
        table = Table.open(config.output, config.partition_by, run.carried.schema)
        if table and not config.dry_run and not run.may_go_on(table):
            return run.end_without_work("skipped")
        planned = run.plan(table)
        engine = run.engine(planned)
        if config.dry_run:
            check_weights(run.model.description, run.model.folder)
            return run.end_without_work("planned", planned) | run.estimate(table, planned)
        if not planned.todo_images:
            if table:
                run.clean_up_behind_dead(table)
            return run.end_without_work("nothing to do", planned)
        afterwards.callback(run.leave)  # when Ray has ended
        beside = ThreadPoolExecutor(1)
        checked = beside.submit(check_weights, run.model.description, run.model.folder)  # takes as long as Ray's start
        beside.shutdown(wait=False)  # a stop does not wait for it
        listener.update(State(engine.starting))
        engine.start()
        resources = engine.resources(GROUP_ROWS, _most_rows(config, planned))
        checked.result()
        begun = run.begin(table, planned)
        return run.work(*begun, engine, resources) if begun else run.end_without_work("skipped")


def _preview(config: Config, where: Condition | None, listener: Listener, opened: ExitStack) -> Summary:
    """Answer a few of the images, and write nothing but a page."""
    preview.check(config)
    given, (config, scratch) = config, preview.here(config, opened)
    config, model = precision.settle(config, RunModel.resolve(config, listener.say), partial(has_gpus, config), listener.say)
    _check_forward(config, model, partial(has_gpus, config))
    run = _Run(config, where, model, listener, Session(None), None)
    run.folder = scratch
    table = Table.open(config.output, config.partition_by, run.carried.schema)
    planned = run.plan(table)
    ended = run.end_without_work("previewed" if planned.groups else "nothing to do", planned)
    return ended | (run.preview(given, table, planned) if planned.groups else {}) | ({} if given.output else {"table": None})


def _check_forward(config: Config, model: RunModel, on_gpus: Callable[[], bool]) -> None:
    """What the model's process would refuse is refused before anything is listed."""
    if config.forward not in {"auto", "eager"}:
        device = "cuda" if on_gpus() else "mps" if config.device == "mps" else "cpu"
        forwards.check(config.forward, device, config.precision, bool(model.description.concepts))


def _joined(config: Config, session: Session, listener: Listener) -> OnRay:
    """The cluster that is named; what it can never hold is refused before anything is listed."""
    from masklake.segment.on_ray import OnRay  # which takes seconds to be imported

    ray = OnRay(config, session, listener.say)
    listener.update(State(ray.starting))
    ray.refuse_at_once()
    return ray


class _Run:
    """One run's identity, and its steps in order."""

    def __init__(
        self, config: Config, where: Condition | None, model: RunModel, listener: Listener, session: Session, ray: OnRay | None
    ) -> None:
        self.config, self.model, self.listener, self._session = config, model, listener, session
        self._ray = ray
        self.started_at = datetime.now(UTC)
        self.run_id = f"{self.started_at:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
        self.table_uri = storage.normalise(config.output).rstrip("/")
        self._images = Images(config, self.started_at, self.table_uri)
        self.scope, self.carried = self._images.scope, self._images.carried
        self._pictures = Pictures(config, self.table_uri, self._images.asked.indexes)
        self._where = where
        told = {"model": config.model, "model_revision": model.revision}
        partitions = {name: told[name] for name in config.partition_by if name in told}
        if not write.fits(self.table_uri, partitions, self.run_id):
            raise Refused(f"--partition-by {','.join(partitions)}: {config.model} is too long for a folder's name: leave it out")
        self.folder = runs.run_folder(self.table_uri, self.run_id)
        self.account = Account(config, self.run_id, self.started_at, self.table_uri, model.revision)
        self._table: Table | None = None
        self._stopped = False
        self._watch = overlap.Watch(config.lease_seconds)
        listener.begin(self.run_id, self.table_uri)
        for line in (f"run {self.run_id}", *model.say()):
            listener.say(line)

    def plan(self, table: Table | None) -> Plan:
        """List the images and take away what the table holds; the work list goes into the run's folder unless this is a dry run."""
        self.listener.update(State("listing"))
        started = time.monotonic()
        fingerprints = self.model.fingerprints
        where_keys = self._where.keys if self._where else ()
        hive_columns = tuple(name for name in self.config.partition_by if name not in TABLE.names)
        wanted = Wanted(fingerprints, self._images.may_hold())
        files = table.key_files(wanted) if table else []
        pages = self._images.pages((*hive_columns, *where_keys), () if table else hive_columns)
        planned = make_plan(
            self._watched(pages, files),
            self._done(table, wanted, files) if table else None,
            fingerprints,
            Filter(self._where, self.config.retry_errors, self.config.limit, self._images.asked.tables.found),
            None if self.config.dry_run else self._work_list(hive_columns),
            held_by(table, self.model, self._images.may_hold()) if table else None,
        )
        self.account.totals = self.account.totals.spend("plan", time.monotonic() - started)
        planned = self._images.counted(planned)
        self.listener.say(self._images.describe(planned))
        if self.config.preview is None and planned.todo_images:
            self.listener.say(str(Fill(self.config.rows_per_file, self.config.commit_seconds)))
        if table and planned.todo_images:
            for near in precision.nearest(table, self.model):
                self.listener.say(str(near))
        return planned

    def _watched(self, pages: Iterator[pa.Table], files: Sequence[KeyFile] | None) -> Iterator[pa.Table]:
        """The pages, while Ray begins to start as soon as what is listed is certain to be work for it."""
        asked = self.config
        if asked.local or asked.dry_run or asked.preview is not None or self._where or self.model.description.concepts or files is None:
            return pages  # with --local none will be Ray's, and all of them would be remembered
        return ahead.watched(
            pages, sum(file.rows for file in files), asked.limit, lambda least: not self._choose(least).local, self._session.begin
        )

    def _work_list(self, hive_columns: tuple[str, ...]) -> WorkList:
        if self.config.preview is None:
            return WorkList(self.folder, GROUP_ROWS, hive_columns, self.carried)
        some = Some(self.config.preview, self.config.preview_seed)
        return WorkList(self.folder, preview.GROUP_ROWS, hive_columns, self.carried, some)

    def preview(self, given: Config, table: Table | None, planned: Plan) -> Summary:
        """Answer the few images of the work list, in this process; `given` are the settings as the user gave them."""
        engine = Local(self.config)
        engine.start()
        check_weights(self.model.description, self.model.folder)
        images = min(given.preview or 0, planned.images)
        resources = engine.resources(preview.GROUP_ROWS, images)
        work = self._work_order(0, planned, resources)
        looked = preview.look(work, engine, resources, images, self.account.started, self.listener.update)
        return preview.told(given, self.model, planned, looked, self.estimated(table, planned), self.listener.say)

    def _done(self, table: Table, wanted: Wanted, files: Sequence[KeyFile] | None) -> Iterator[pa.RecordBatch]:
        """What the table holds, read here or, where that is much, on the cluster."""
        rows = sum(file.rows for file in files or ())
        if files is None or rows < CLUSTER_ROWS or self.config.local:
            return digest(table.done_keys(wanted), KEYS, wanted.fingerprints)
        self.listener.say(f"{plural(rows, 'row')} of the table to compare with, in {plural(len(files), 'file')}: read on the cluster")
        return self._on_ray().done_digests(table.uri, wanted, files)

    def engine(self, planned: Plan) -> Engine:
        """What will do the work, which is said."""
        choice = self._choose(planned)
        if planned.todo_images:
            self.listener.say(choice.words)
        return Local(self.config) if choice.local else self._on_ray()

    def _choose(self, planned: Plan) -> Choice:
        gpu = not cluster_address(self.config) and has_gpus(self.config)
        return choose(self.config, seconds_here(planned, self.model.description, self.model.weights, cores(), gpu))

    def _on_ray(self) -> OnRay:
        from masklake.segment.on_ray import OnRay  # which takes seconds to be imported

        self._ray = self._ray or OnRay(self.config, self._session, self.listener.say)
        return self._ray

    def end_without_work(self, outcome: str, planned: Plan | None = None) -> Summary:
        """The summary of a dry run, of one that found nothing missing, or of one that gave way to another."""
        if outcome == "nothing to do" and planned:
            self.listener.say(f"nothing to do: {self._images.describe_nothing(planned)}; no model was started")
        return {
            "outcome": outcome,
            "run_id": self.run_id,
            "table": self.table_uri,
            "planned": planned.todo_images if planned and self.config.dry_run else 0,
            "images": 0,
            "errors": 0,
            "plan": asdict(planned) if planned else None,
            "too_many_failed": False,
        }

    def estimate(self, table: Table | None, planned: Plan) -> Summary:
        """What the planned work will take, by the table's earlier runs."""
        found = self.estimated(table, planned)
        if found:
            self.listener.say(str(found))
        return {"estimate": found.keys() if found else None}

    def estimated(self, table: Table | None, planned: Plan) -> Estimate | None:
        """What the planned work will take, by the table's earlier runs; None where they do not tell."""
        told = last_reports(table.uri, LOOKED_AT) if table and planned.todo_images else []
        return estimate(planned.todo_images, self.config.model, told, self.config.price_per_hour)

    def may_go_on(self, table: Table) -> bool:
        """Whether nobody else is at work on overlapping input, as far as `--on-overlap` cares; `wait` comes back when that is so."""
        asked, tell = self.config, self.listener
        return overlap.may_go_on(table, self.scope, asked.on_overlap, asked.lease_seconds, tell.say, lambda text: tell.update(State(text)))

    def clean_up_behind_dead(self, table: Table) -> None:
        """Where a run died after its last commit, nothing is to do but this: or every later run would wonder whether it lives."""
        asked, tell = self.config, self.listener
        dead = overlap.only_dead(table, self.scope, asked.lease_seconds, tell.say, lambda text: tell.update(State(text)))
        if dead and table.begin_run(self.scope, self.run_id, polite=True):
            table.finish_run()
        self._clear_never_begun(table)

    def _clear_never_begun(self, table: Table) -> None:
        tell = self.listener
        overlap.clear_never_begun(table, self.scope, self._watch, tell.say, lambda text: tell.update(State(text)))

    def begin(self, table: Table | None, planned: Plan) -> tuple[Table, Plan] | None:
        """Take over the input, or give way (None) as `--on-overlap` says; plan again where somebody committed since the plan was made."""
        known = table.version if table else 0
        self._table = table = table or Table.open_or_create(self.config.output, self.config.partition_by, self.carried.schema)
        polite = self.config.on_overlap != "takeover"
        while self.may_go_on(table):
            if table.begin_run(self.scope, self.run_id, polite):
                precision.remember(table, self.model)
                self._watch.look(table.never_begun(self.scope), time.monotonic())  # so that nobody has to wait for it at the end
                return table, planned if table.version == known + table.extensions + 1 else self.plan(table)
        return None

    def leave(self) -> None:
        """However the run ended: show no more signs of life, and leave no work list behind."""
        self._pictures.end()
        if self._table and self._stopped:
            with suppress(MasklakeError):  # the next run cleans up, then
                self._table.stop_run()
                self.account.write_report(self.folder, "stopped")
        elif self._table:
            self._table.rest()
            with suppress(MasklakeError):  # what ended the run matters more; a vacuum finds what is left
                self._table.clean_up_if_fenced()
        runs.delete_work_list(self.table_uri, self.run_id)

    def work(self, table: Table, planned: Plan, engine: Engine, resources: Resources) -> Summary:
        """Stream the flow's files into the table, then check, report and end the run; where it is stopped, commit what is written.

        Raises:
            Stopped: after that commit.
        """
        account = self.account
        account.totals = replace(
            account.totals, planned_images=planned.todo_images, planned_rows=planned.todo_rows, planned_bytes=planned.todo_bytes
        )
        if planned.todo_images:
            work = self._work_order(table.run_order, planned, resources)
            account.machine = engine.machine(work, resources)
            show = engine.meter(self.table_uri, self.run_id)
            try:
                with engine.flowing(work, resources) as flowing, stopping.held():
                    committing = Committing(self.config, table, account, self.listener.update)
                    begin_pictures = partial(account.begin_pictures, self._pictures)
                    committing.stream(flowing, lambda: show(account.totals, planned.oldest_modified), begin_pictures)
            except stopping.Stopped as stop:
                self._stopped = True
                stop.summary = account.summary("stopped")
                raise
            except MasklakeError:
                table.refuse_if_fenced()  # whoever took over also took the work list away: that is why, then
                raise
        self._check_complete(table)
        return self._report(table)

    def _work_order(self, run_order: int, planned: Plan, resources: Resources) -> Work:
        model, config = self.model, self.config
        return Work(
            plan_uri=self.folder,
            groups=planned.groups,
            table_uri=self.table_uri,
            partition_by=config.partition_by,
            carried=self.carried.schema,
            source=model.source,
            description=model.description,
            stamp=RunStamp(config.model, model.revision, model.fingerprints, self.run_id, run_order, self.started_at),
            max_pixels=config.max_pixels,
            max_image_bytes=config.max_image_bytes,
            max_decode_seconds=config.max_decode_seconds,
            precision=config.precision,
            batch_size=config.batch_size,
            forward=config.forward,
            fast_decode=config.decode == "fast",
            of_model=planned.model_images > 0 or config.preview is not None,
            device="cuda" if resources.gpus_per_actor else "mps" if config.device == "mps" else "cpu",
        )

    def _check_complete(self, table: Table) -> None:
        """Whatever the engine said: the table must hold a row for each one planned."""
        held = table.rows_of_run(self.run_id)
        planned = self.account.totals.planned_rows
        if held != planned:
            raise MasklakeError(
                f"{plural(planned, 'row')} planned, {held:,} in the table: the engine lost or repeated work; "
                "run the same command to do what is missing"
            )

    def _report(self, table: Table) -> Summary:
        """Write the report and the gallery beside the table, and end the run."""
        account, most = self.account, self.config.max_error_rate
        account.write_report_and_gallery(self.folder, self._pictures)
        table.finish_run()
        self._clear_never_begun(table)
        found, totals = account.advice(), account.totals
        if found.change:
            self.listener.say(f"{found.bottleneck} took longest: {found.change}")
        self.listener.say(f"report and gallery: {self.folder}gallery.html")
        self.listener.say(in_words(totals))
        failed = totals.error_rate > most
        if failed:
            self.listener.say(
                f"{totals.failed_images:,} of {plural(totals.images, 'image')} failed: more than --max-error-rate {most:g} allows"
            )
        return {**account.summary("done"), "report_uri": self.folder.rstrip("/"), "too_many_failed": failed}


def _places(config: Config) -> list[storage.Place]:
    """How the three places are reached. An input's settings are for its whole bucket; the table's folder and the model's go before."""
    uris = {"input": storage.bucket_of(config.input), "output": config.output, "model": config.model if "://" in config.model else ""}
    settings = ("profile", "endpoint", "anonymous", "requester_pays")
    return [
        storage.Place(storage.as_folder(uri), *(getattr(config, f"{place}_{setting}") for setting in settings))
        for place, uri in uris.items()
        if uri
    ]


def _most_rows(config: Config, planned: Plan) -> int:
    """Images of one call of a model: not so many that a short run's first answers come late."""
    return config.rows_per_file or max(64, planned.todo_rows // 16)
