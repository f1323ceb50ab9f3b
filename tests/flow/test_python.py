"""The job and the model from Python: the same answers, to the bit."""

from __future__ import annotations

import logging
import signal
from pathlib import Path

import pytest

import masklake
from masklake.demo.lake import broken_files
from masklake.segment.machine import cores
from masklake.storage import normalise
from tests.lakes import MODEL, scene

TASKS = ("panoptic", "instance", "semantic")
OF_THE_RUN = ("run_id", "run_order", "processed_at", "image_etag", "image_bytes", "image_modified")


@pytest.mark.slow
def test_what_a_loaded_model_answers_is_what_the_job_writes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for index in range(3):
        (folder / f"{index}.jpg").write_bytes(scene(index))
    for name, data in broken_files().items():
        (folder / name).write_bytes(data)
    before = signal.getsignal(signal.SIGINT)
    caplog.set_level(logging.INFO, "masklake")
    summary = masklake.segment(input=folder, output=tmp_path / "masks", model=MODEL, tasks=list(TASKS), device="cpu", max_error_rate=1)
    assert (summary["outcome"], summary["images"], summary["errors"]) == ("done", 7, 4)
    assert signal.getsignal(signal.SIGINT) is before
    assert any("report and gallery" in line for line in caplog.messages)
    written = {(row["image_uri"], row["task"]): row for row in masklake.open_table(str(tmp_path / "masks")).newest()}
    assert len(written) == 21
    model = masklake.load(MODEL, device="cpu", threads=max(1, cores() // 2))  # as a model of the job has
    for task in TASKS:
        for result in model(sorted(folder.iterdir()), task=task):
            row = written.pop((result.name, task))
            assert {**result.row, **{name: row[name] for name in OF_THE_RUN}} == row
    assert not written


def test_a_wrong_setting_is_refused_by_name() -> None:
    with pytest.raises(masklake.Refused, match=r"'inptu' is not a setting of masklake.segment: did you mean 'input'"):
        masklake.segment(inptu="x", output="y", model=MODEL)
    with pytest.raises(masklake.Refused, match="--output is missing"):
        masklake.segment(input="x", model=MODEL)
    with pytest.raises(masklake.Refused, match="--device cpu and --gpus-per-actor 1 contradict each other: it is for --device cuda"):
        masklake.segment(input="x", output="y", model=MODEL, device="cpu", gpus_per_actor=1)


def test_no_gpu_is_said_before_an_image_is_read(tmp_path: Path) -> None:
    from masklake.segment.flow import choose_resources, room_for_actors
    from masklake.segment.patience import Cluster
    from masklake.segment.placement import Node
    from masklake.segment.settings import Config

    def there(cpus: float, gpus: float = 0) -> Cluster:
        return Cluster([Node("one", cpus, gpus)], None, grows=False)

    config = Config(input=normalise(str(tmp_path)), output="out", model=str(MODEL), device="cuda")
    with (
        pytest.raises(masklake.Refused, match="--device cuda: the cluster has no GPU"),
        room_for_actors(config, lambda: there(4), print, 32, 64),
    ):
        pass
    on_a_mac = choose_resources(config.model_copy(update={"device": "mps"}), there(8, 1), 32, 64)
    assert (on_a_mac.actors, on_a_mac.gpus_per_actor) == (1, 0)
    assert choose_resources(config.model_copy(update={"device": "cpu"}), there(8, 2), 32, 64).gpus_per_actor == 0
