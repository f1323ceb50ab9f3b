"""Training on Ray Train, fed by Ray Data: the wiring of `finetune.work`, and the only place of the training that knows Ray.

    driver: examples -> object store; TorchTrainer -> workers
    worker: step and micro-batch numbers -> load and augment (Ray Data tasks, in order) -> train

Each worker reads a data set of its own, of the micro-batches that are its share: which those are is a function of the step, so that a
worker that goes on after a failure sees what it would have seen.
"""

from __future__ import annotations

import itertools
import logging
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import pyarrow as pa
import ray
import ray.data
import ray.train
import torch
from ray.data import DataContext
from ray.exceptions import RayError, RayTaskError
from ray.train.torch import TorchTrainer, get_device

from masklake import leaving, stopping
from masklake.cluster import quiet, say_no_goodbye
from masklake.errors import MasklakeError, Refused
from masklake.segment.session import Session
from masklake.training import batches, finetune
from masklake.training.batches import MicroBatch, Recipe
from masklake.training.examples import Example, Sample
from masklake.training.finetune import Prepared
from masklake.training.loop import Tell
from masklake.training.messages import Messages
from masklake.training.settings import FinetuneConfig
from masklake.training.team import Team

_LOAD_CPUS = 0.5
_TASKS = 1000  # of a data set: the next one follows, so that a long training keeps no long plan
_TRIES = 2  # after a worker or its machine was lost
_POLL_SECONDS = 0.2
_REST_SECONDS = 0.05


def run(prepared: Prepared, tell: Tell) -> dict[str, Any]:
    """Train on the cluster; returns the last thing told, that of the finished run.

    Raises:
        Refused: the cluster cannot hold the workers.
        MasklakeError: training cannot go on.
        Stopped: after the workers have saved their state, or at once where none has anything to save.
    """
    settings = prepared.settings
    with Session(settings.ray_address, lean_data=False) as session:  # in a thread: a stop does not wait for Ray's start
        cpus, gpus = _resources(settings, session.resources())
        scaling = ray.train.ScalingConfig(
            num_workers=settings.workers, use_gpu=gpus > 0, resources_per_worker={"CPU": cpus, **({"GPU": gpus} if gpus else {})}
        )
        logging.getLogger("ray.train").setLevel(logging.CRITICAL)
        messages: Any = ray.remote(Messages).options(num_cpus=0).remote()
        ray.get(messages.take.remote())  # until its process is there, nothing is learned, and it would hear of no stop
        given = {
            "prepared": prepared.without_examples(),
            "training": ray.put(_packed(prepared.training.examples)),
            "held_out": ray.put(_packed(prepared.held_out.examples)),
            "messages": messages,
            "threads": max(1, int(cpus)),
        }
        told: list[dict[str, Any]] = []
        with tempfile.TemporaryDirectory(prefix="masklake-train-", ignore_cleanup_errors=True) as scratch:
            trainer = TorchTrainer(
                _work,
                train_loop_config=given,
                scaling_config=scaling,
                run_config=ray.train.RunConfig(storage_path=scratch, failure_config=ray.train.FailureConfig(max_failures=_TRIES)),
            )
            beside = ThreadPoolExecutor(1)  # in the main thread, Ray would take Ctrl-C for itself
            with stopping.held():
                training = beside.submit(trainer.fit)
                beside.shutdown(wait=False)
                if not _listen(messages, training, settings.workers, told, tell):
                    say_no_goodbye()
                    stopping.check()
                _check(messages, training)
    return told[-1]


def _resources(settings: FinetuneConfig, resources: dict[str, float]) -> tuple[float, float]:
    """CPUs and GPUs of a worker: as asked for, else as the cluster has them; workers on few CPUs get less than a whole one."""
    cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    each_gpu = settings.gpus_per_worker if settings.gpus_per_worker is not None else float(gpus > 0)
    share = max(0.0, cpus - _LOAD_CPUS) / settings.workers
    each_cpu = settings.cpus_per_worker or (1.0 if each_gpu else float(int(share)) or round(share, 2))
    for what, flag, each, have in (
        ("GPUs", "--gpus-per-worker", each_gpu, gpus),
        ("CPUs", "--cpus-per-worker", each_cpu, cpus - _LOAD_CPUS),
    ):
        if each * settings.workers > have + 1e-6:
            free = ", of which half a one is for loading" if what == "CPUs" else ""
            raise Refused(
                f"--workers {settings.workers} and {flag} {each:g} need {each * settings.workers:g} {what}; the cluster has "
                f"{resources.get(what[:-1], 0.0):g}{free}: ask for fewer"
            )
    return each_cpu, each_gpu


def _listen(messages: Any, training: Future[Any], workers: int, told: list[dict[str, Any]], tell: Tell) -> bool:
    """Pass on what workers say, until after the end, and to them that they are to stop; returns whether the training came to its end.

    It has not where it was stopped and this process ends with its job: Ray starts and ends workers in many seconds, and hears nothing
    while it does.
    """
    last = left = False
    while not (last or left):
        last = bool(wait([training], _POLL_SECONDS).done)
        try:
            if stopping.requested():
                left = bool(ray.get(messages.stop.remote(workers))) and leaving.is_with_job()
            lines = ray.get(messages.take.remote())
        except RayError:
            return True
        for line in lines:
            told.append(line)
            tell(line)
    return last


def _check(messages: Any, training: Future[Any]) -> None:
    """Of a training that came to its end, say why it failed: what a worker said goes before what Ray makes of it."""
    error = training.exception()
    if reason := ray.get(messages.failure.remote()):
        raise MasklakeError(reason)
    if error is not None:
        raise MasklakeError(f"the cluster ended the training: {_last_line(error)}; run the same command to go on") from error


def _work(given: dict[str, Any]) -> None:
    """One worker of the trainer."""
    messages, prepared = given["messages"], given["prepared"]
    if reason := ray.get(messages.failure.remote()):
        raise MasklakeError(reason)  # another try would end as the first did
    context = ray.train.get_context()
    team = Team(context.get_world_rank(), context.get_world_size())
    device = get_device()
    if device.type == "cpu":
        torch.set_num_threads(given["threads"])

    def feed(first: int) -> Iterator[MicroBatch]:
        read = prepared.training.reader.load
        return _feed(given["training"], prepared.recipe, prepared.sizes[0], read, team, range(first, prepared.settings.steps))

    def tell(line: dict[str, Any]) -> None:
        ray.get(messages.put.remote(line))

    try:
        finetune.work(
            prepared, _unpacked(ray.get(given["held_out"])), feed, team, tell, lambda: bool(ray.get(messages.is_stopped.remote()))
        )
        ray.get(messages.end.remote())
    except Exception as error:
        if reason := reason_of(error):
            ray.get(messages.fail.remote(reason))
            if team.size == 1:
                return  # which ends it now: after an exception, Ray would start the worker again, and yet again
        raise  # of several, for the others wait for this one


def reason_of(error: BaseException) -> str:
    """What the job's own exception says, inside whatever Ray wraps round it; empty where there is none."""
    current: BaseException | None = error
    while current is not None:
        # Ray's wrapper is an instance of what it wraps as well, and says a stack trace
        if isinstance(current, MasklakeError) and not isinstance(current, RayTaskError):
            return str(current)
        current = getattr(current, "cause", None) or current.__cause__
    return ""


def _rests() -> list[type]:
    """Callbacks that let Ray Data's scheduling loop rest between its rounds.

    None where Ray has moved the private name: that costs pace, not the training.

    While micro-batches lie ready and wait for the training, that loop goes round without a pause, as a thread of the process that trains:
    it took half of a CPU and the interpreter's lock, and steps took two to three times as long.
    """
    try:
        from ray.data._internal.execution.execution_callback import ExecutionCallback
    except ImportError:
        return []

    class Rest(ExecutionCallback):
        """Sleeps after each round."""

        def on_execution_step(self, executor: object) -> None:
            """Called by Ray after each round."""
            time.sleep(_REST_SECONDS)

    return [Rest]


def _feed(training: Any, recipe: Recipe, count: int, read: Callable[[Example], Sample], team: Team, steps: range) -> Iterator[MicroBatch]:
    """This worker's micro-batches of these steps, in order; made ahead by tasks of Ray Data anywhere on the cluster."""
    quiet()
    context = DataContext.get_current()
    context.execution_options.preserve_order = True
    context.custom_execution_callback_classes = _rests()
    context.execution_no_progress_timeout_s = -1  # micro-batches lie there for as long as the training validates

    def make(place: dict[str, int]) -> dict[str, bytes]:
        examples = ray.get(training)["example"]
        positions = batches.places(recipe, place["step"], place["index"])
        chosen = [pickle.loads(examples[each].as_py()) for each in batches.examples_at(count, recipe, positions)]  # noqa: S301 - our own
        try:
            return {"made": pickle.dumps(batches.make(recipe, positions, chosen, read))}
        except MasklakeError as error:  # as an exception, Ray would wrap it in its own, without the reason
            return {"made": pickle.dumps(error)}

    # One micro-batch a task: a task that had made one of several, and waited until it is taken, would keep the CPU that a micro-batch of
    # another worker needs, for which this one waits.
    mine = ((step, index) for step in steps for index in range(team.rank, recipe.batch // recipe.micro, team.size))
    while places := list(itertools.islice(mine, _TASKS)):
        items = [{"step": step, "index": index} for step, index in places]  # other sources would start tasks of a whole CPU to look at them
        dataset = ray.data.from_items(items, override_num_blocks=len(items)).map(make, num_cpus=_LOAD_CPUS)
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
            assert isinstance(batch, pa.Table)
            for content in batch["made"].to_pylist():
                made = pickle.loads(content)  # noqa: S301 - our own workers made it
                if isinstance(made, MasklakeError):
                    raise made
                yield made


def _packed(examples: tuple[Example, ...]) -> pa.Table:
    """Examples as a table: one is read without the others being unpacked."""
    return pa.table({"example": pa.array([pickle.dumps(example) for example in examples], pa.large_binary())})


def _unpacked(table: pa.Table) -> list[Example]:
    return [pickle.loads(example) for example in table["example"].to_pylist()]  # noqa: S301 - our own driver made it


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
