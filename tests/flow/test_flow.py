"""The wiring: resources as the cluster has them; on one real Ray, stages that are not fused, its sockets and errors, what tasks read."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import ray
from ray.data import DataContext
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.logical.optimizers import get_execution_plan

from masklake import cluster, own_ray
from masklake.errors import ErrorCode, ImageFailure, MasklakeError, Refused
from masklake.inference import checkpoint
from masklake.inference.options import Options
from masklake.inference.source import ModelSource
from masklake.schema import NOTHING_CARRIED
from masklake.segment import flow, machine
from masklake.segment.engine import Resources
from masklake.segment.on_ray import OnRay
from masklake.segment.patience import Cluster
from masklake.segment.placement import Node
from masklake.segment.session import Session
from masklake.segment.settings import RunConfig
from masklake.segment.stages import Work
from masklake.storage import StorageError
from masklake.table.keys import Wanted
from masklake.table.rows import RunStamp
from masklake.training import flow as training_flow
from masklake.training.team import Team
from tests.evaluations import evaluate
from tests.exports import build, export
from tests.lakes import MODEL
from tests.planning import FINGERPRINTS, LAKE, planned, random_case, reference, write_table


@pytest.fixture(scope="module")
def on_ray() -> Iterator[dict[str, float]]:
    """One Ray for all that asks for one, and what it has: its start costs more than they do. Afterwards, nothing tells of it."""
    before = os.environ.get("RAY_AUTH_MODE")
    with cluster.cluster("local") as resources, pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "cluster", lambda address: nullcontext(resources))
        yield resources
    assert os.environ.get("RAY_AUTH_MODE") == before


@pytest.fixture(autouse=True)
def _own_settings() -> Iterator[None]:
    """What a test asks of Ray Data is not asked by the next one."""
    with DataContext.current(DataContext.get_current().copy()):
        yield


def there(cpus: float, gpus: float = 0) -> Cluster:
    return Cluster([Node("one", cpus, gpus)], None, grows=False)


def choose(cluster: Cluster, **settings: Any) -> Resources:
    return flow.choose_resources(RunConfig(input="a", output="b", **settings), cluster, group_rows=32, most_rows=320)


def a_work(tmp_path: Path, resolution: str = "checkpoint") -> Work:
    return Work(
        plan_uri=str(tmp_path),
        groups=3,
        table_uri=str(tmp_path),
        partition_by=("task",),
        carried=NOTHING_CARRIED,
        source=ModelSource("folder", str(MODEL)),
        description=checkpoint.describe(MODEL, Options(tasks=("panoptic",), resolution=resolution)),
        stamp=RunStamp("demo", "1", {"panoptic": "f"}, "run-1", 1, datetime(2026, 11, 22, tzinfo=UTC)),
        max_pixels=1,
        max_image_bytes=1,
        max_decode_seconds=1.0,
        precision="float32",
        batch_size=None,
        forward="eager",
        device="cpu",
    )


def test_one_actor_per_gpu_where_there_are_gpus() -> None:
    assert choose(there(32, 4)).actors == 4
    assert choose(there(32, 4)).gpus_per_actor == 1
    assert choose(there(32, 4)).calls_at_once == 2


def test_a_call_of_an_actor_with_a_gpu_fills_batches_and_small_runs_have_small_calls() -> None:
    def rows_per_call(most_rows: int, **settings: Any) -> int:
        config = RunConfig(input="a", output="b", **settings)
        return flow.choose_resources(config, there(8, 1), group_rows=32, most_rows=most_rows).rows_per_call

    assert (rows_per_call(1024), rows_per_call(64)) == (256, 64)
    assert rows_per_call(1024, batch_size=300) == 300
    assert choose(there(8, 1), gpus_per_actor=0.5).actors == 2


def test_a_call_holds_fewer_images_where_the_model_sees_large_ones(tmp_path: Path) -> None:
    def rows(resolution: str, asked: int = 256, batch_size: int | None = None) -> int:
        work = replace(a_work(tmp_path, resolution), batch_size=batch_size)
        return flow.rows_per_call(work, Resources(1, 1, 1, rows_per_call=asked, calls_at_once=2))

    assert rows("384x384") == 256
    assert rows("800/1333") == 104  # 256 MiB of 800x1067
    assert rows("2000x3000") == 64
    assert (rows("2000x3000", asked=32), rows("2000x3000", batch_size=100)) == (32, 100)


def test_more_calls_wait_in_an_actor_whose_images_keep_their_aspect(tmp_path: Path) -> None:
    calls = [
        flow.calls_at_once(a_work(tmp_path, resolution), Resources(1, 1, gpus, rows_per_call=64, calls_at_once=1 + gpus))
        for resolution, gpus in (("384x384", 1), ("800/1333", 1), ("800/1333", 0))
    ]
    assert calls == [2, 4, 1]


def test_gpus_are_as_asked_for_else_as_this_machine_has_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def has_gpus(**settings: Any) -> bool:
        return machine.has_gpus(RunConfig(input="a", output="b", **settings))

    monkeypatch.setattr(machine, "_NVIDIA_GPUS", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert not has_gpus()
    (tmp_path / "0000:01:00.0").mkdir()
    assert has_gpus()
    assert not has_gpus(gpus_per_actor=0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not has_gpus()
    assert has_gpus(gpus_per_actor=0.5)


def test_a_cluster_of_gpu_nodes_is_never_taken_for_one_of_cpus() -> None:
    def has_gpus(cluster: Cluster, **settings: Any) -> bool:
        return flow.has_gpus(RunConfig(input="a", output="b", **settings), cluster)

    head = [Node("head", 0)]
    assert has_gpus(there(8, 1))
    assert not has_gpus(there(8))
    assert has_gpus(Cluster(head, [*head, Node("gpu", 8, 1, count=4)], grows=True))  # the group is at zero
    with pytest.raises(Refused, match="with --gpus-per-actor 1 the run waits for GPUs, with --device cpu it runs without"):
        has_gpus(Cluster(head, None, grows=True))
    assert has_gpus(Cluster(head, None, grows=True), gpus_per_actor=1)
    assert not has_gpus(Cluster(head, None, grows=True), device="cpu")


def test_a_pool_starts_with_what_is_there_and_grows_to_what_is_asked() -> None:
    found = choose(there(8, 1), actors="1:3", cpus_per_actor=2)
    assert (found.least, found.first, found.actors) == (1, 1, 3)
    found = choose(there(8, 2), actors="1:3", cpus_per_actor=2)
    assert (found.least, found.first, found.actors) == (1, 2, 3)
    found = choose(Cluster([Node("head", 0)], [Node("gpu", 8, 1, count=4)], grows=True))
    assert (found.least, found.first, found.actors, found.gpus_per_actor) == (1, 1, 4, 1)


def test_one_actor_per_cpu_beside_the_loading_where_there_are_none() -> None:
    assert choose(there(2)) == Resources(
        actors=2,
        cpus_per_actor=0.5,
        gpus_per_actor=0,
        rows_per_call=32,
        calls_at_once=1,
        least=2,
        first=2,
        load_cpus=0.9,
    )
    assert choose(there(16)).actors == 16
    assert choose(there(16), cpus_per_actor=4).actors == 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_no_two_stages_are_fused_and_each_is_retried_so_often_and_no_more(tmp_path: Path, on_ray: dict[str, float]) -> None:
    work = a_work(tmp_path)
    dataset = flow.build(work, flow.choose_resources(RunConfig(input="a", output="b"), there(on_ray["CPU"]), 32, 64))
    dag = get_execution_plan(dataset._logical_plan)[0].dag
    stages: list[str] = []
    retries: list[int] = []
    while dag.input_dependencies:
        options = getattr(dag, "_ray_remote_args_fn", None)
        retries += options().values() if options else ()
        stages.append(dag.name)
        dag = dag.input_dependencies[0]
    assert len([name for name in stages if "MapBatches" in name]) == 2, stages
    assert retries == [flow.RETRIES] * 2  # a worker that dies again and again ends the run
    assert not any("->MapBatches" in name and "_SegmentActor" in name for name in stages), stages


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
@pytest.mark.usefixtures("on_ray")
def test_a_local_ray_listens_on_loopback_only_and_wants_a_token() -> None:
    assert list(cluster.batches(ray.data.range(3)))  # workers listen as well
    heard = _listening(_descendants(os.getpid()))
    assert len(heard) >= 4  # gcs, raylet and workers among them
    assert set(heard) == {"127.0.0.1"}
    ask = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1]).internal_kv_keys(b'', None, 5)"
    address = ray.get_runtime_context().gcs_address
    stranger = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-c", ask, address]
    refused = subprocess.run(command, env=stranger, capture_output=True, text=True, timeout=100, check=False)
    assert "Authentication token is missing" in refused.stderr
    subprocess.run(command, capture_output=True, timeout=100, check=True)


def _descendants(process: int) -> set[int]:
    children: set[int] = set()
    with suppress(OSError):  # it ended
        children.update(int(child) for task in Path(f"/proc/{process}/task").glob("*/children") for child in task.read_text().split())
    return {process}.union(*(_descendants(child) for child in children))


def _listening(processes: set[int]) -> list[str]:
    """The addresses on which these processes listen by TCP."""
    sockets = set()
    for process in processes:
        with suppress(OSError):  # it ended
            for file in Path(f"/proc/{process}/fd").iterdir():
                with suppress(OSError):  # closed since
                    sockets.add(str(file.readlink()))
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    last_words = [line[1].partition(":")[0][-8:] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets]
    return [socket.inet_ntoa(bytes.fromhex(word)[::-1]) for word in last_words]  # of an address of IPv6 that is one of IPv4


@pytest.mark.usefixtures("on_ray")
def test_an_error_of_a_worker_reaches_the_driver_in_its_own_words_and_no_others(capfd: pytest.CaptureFixture[str]) -> None:
    def fail(batch: pa.Table) -> pa.Table:
        raise StorageError("s3://lake/a.parquet", ImageFailure(ErrorCode.UNREACHABLE, "the store failed"))

    cluster.quiet()
    dataset = ray.data.from_arrow(pa.table({"a": [1]})).map_batches(fail, batch_format="pyarrow")
    with pytest.raises(MasklakeError, match=r"^s3://lake/a\.parquet: the store failed$"):
        list(flow.packets(dataset, 1))
    assert "Traceback" not in capfd.readouterr().err


def test_every_group_is_in_exactly_one_share_however_many_there_are() -> None:
    for groups in (1, 7, 2000, 2001, 123_457):
        shares = list(flow._shares(groups))
        assert len(shares) == min(groups, 2000)
        assert shares[0][0] == 0
        assert shares[-1][1] == groups
        assert all(left[1] == right[0] for left, right in pairwise(shares))
        assert all(end > first for first, end in shares)


@pytest.mark.usefixtures("on_ray")
def test_a_full_disk_of_rays_ends_a_run_that_would_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on by a second whenever the cluster has given a sign of life, however long that takes a busy machine."""
    monkeypatch.setattr(cluster, "_PULSE_SECONDS", 0.02)
    monkeypatch.setattr(own_ray, "_LEAST_BYTES", 1 << 62)
    now = 0.0
    monkeypatch.setattr(cluster, "time", SimpleNamespace(monotonic=lambda: now))

    def watch(pulse: cluster.Pulse) -> None:
        nonlocal now
        for _ in range(60):
            while pulse._beats == pulse._seen:
                time.sleep(0.01)
            now += 1
            pulse.check()

    with cluster.Pulse() as pulse, pytest.raises(MasklakeError, match=r"^no space is left in .*, where Ray's files go"):
        watch(pulse)


@pytest.mark.usefixtures("on_ray")
def test_a_cluster_that_answers_no_more_ends_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """By such a clock, too, that goes on by a second with each question. A control store where nobody listens is what kill -9 leaves."""
    asked, now = 0, 0.0

    def ask(folder: str) -> bool:
        nonlocal asked
        asked += 1
        return False

    monkeypatch.setattr(cluster, "_PULSE_SECONDS", 0.02)
    monkeypatch.setattr(cluster, "_gone", threading.Event())
    monkeypatch.setattr(own_ray, "is_full", ask)
    monkeypatch.setattr(cluster, "time", SimpleNamespace(monotonic=lambda: now))

    def watch(pulse: cluster.Pulse) -> None:
        nonlocal now
        for _ in range(60):
            before = asked
            while asked < before + 2:  # the question before this one has had its answer
                time.sleep(0.01)
            now += 1
            pulse.check()

    with cluster.Pulse() as pulse, socket.socket() as nobody:
        watch(pulse)
        nobody.bind(("127.0.0.1", 0))
        pulse._control = nobody.getsockname()
        with pytest.raises(
            cluster.ClusterLost, match=r"^the Ray cluster is gone; what was committed stays, run the same command to go on$"
        ):
            watch(pulse)


@pytest.mark.usefixtures("on_ray")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("seed", [20, 21])
def test_a_plan_is_what_its_definition_says_when_the_cluster_reads_the_table(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "_SHARE_ROWS", 200)  # several tasks
    case = random_case(seed, images=400)
    table, wanted = write_table(case, tmp_path / "masks"), Wanted(case.fingerprints, LAKE)
    files = table.key_files(wanted)
    assert files
    found = planned(case, flow.done_digests(table.uri, wanted, files), tmp_path / "work")
    assert found == reference(case)
    assert found.plan.done_images + found.plan.retried_errors > 10


@pytest.mark.usefixtures("on_ray")
def test_a_file_that_cannot_be_read_ends_planning(tmp_path: Path) -> None:
    case = random_case(1)
    table, wanted = write_table(case, tmp_path), Wanted(FINGERPRINTS)
    files = table.key_files(wanted)
    assert files
    (tmp_path / files[-1].path).unlink()
    with pytest.raises(MasklakeError, match="the cluster ended the work"):
        planned(case, flow.done_digests(table.uri, wanted, files), tmp_path / "work")


@pytest.mark.usefixtures("on_ray")
def test_nothing_to_read_is_nothing(tmp_path: Path) -> None:
    assert list(flow.done_digests(str(tmp_path), Wanted(FINGERPRINTS), [])) == []


@pytest.mark.usefixtures("on_ray")
def test_figures_do_not_depend_on_ray_or_the_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = build(str(tmp_path / "masks"))
    export(table, tmp_path / "instances", "coco-instances", where="run_id = 'run-1'")
    export(table, tmp_path / "panoptic", "coco-panoptic", where="run_id = 'run-1'")
    kinds = ("instances", "panoptic")
    whole = {kind: evaluate(table, tmp_path / kind) for kind in kinds}
    monkeypatch.setattr("masklake.evaluation.pairs._ROWS_AT_ONCE", 1)
    assert {kind: evaluate(table, tmp_path / kind) for kind in kinds} == whole
    assert evaluate(table, tmp_path / "instances", ray_address="local") == whole["instances"]
    assert 0.2 < whole["panoptic"]["scores"]["pq"] < 1


class _BegunError(Exception):
    """Ends an execution before anything of it is started. Last in this file: Ray Data keeps its share of the CPUs for a minute."""


def _look() -> tuple[type[ExecutionCallback], list[float]]:
    """Looks at the limit that Ray Data reads when an execution begins: seconds without progress."""
    limits: list[float] = []

    class Look(ExecutionCallback):
        def before_execution_starts(self, executor: Any) -> None:
            limits.append(executor._no_progress_guard._timeout_s)
            raise _BegunError

    return Look, limits


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("minutes", [2.0, 30.0, 600.0])
def test_ray_datas_own_limit_is_later_than_the_runs(
    tmp_path: Path, on_ray: dict[str, float], monkeypatch: pytest.MonkeyPatch, minutes: float
) -> None:
    look, limits = _look()

    def begun(dataset: Any, rows: int) -> Iterator[Any]:
        dataset.context.custom_execution_callback_classes = [look]
        return iter(dataset.iter_batches(batch_size=rows))

    monkeypatch.setattr(flow, "packets", lambda dataset, rows: next(begun(dataset, rows)))
    config = RunConfig(input="a", output="b", stall_minutes=minutes)
    engine = OnRay(config, Session(None), print)
    resources = flow.choose_resources(config, there(on_ray["CPU"]), 32, 64)
    with pytest.raises(_BegunError), engine.flowing(a_work(tmp_path), resources):
        pass
    assert limits == [60 * minutes + 600]  # the run has ended, with a diagnosis, before Ray Data would say that there was no progress


@pytest.mark.usefixtures("on_ray")
def test_micro_batches_may_lie_there_for_as_long_as_the_training_validates(monkeypatch: pytest.MonkeyPatch) -> None:
    look, limits = _look()
    monkeypatch.setattr(training_flow, "_rests", lambda: [look])
    recipe: Any = SimpleNamespace(batch=1, micro=1)
    with pytest.raises(_BegunError):
        next(training_flow._feed(None, recipe, 1, lambda example: None, Team(), range(1)))  # type: ignore[arg-type, return-value]
    assert limits == [-1]  # none
