"""What TensorBoard and MLflow are told, read back by their own readers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from masklake.commands import cli, finetune
from masklake.errors import Refused
from masklake.training.settings import FinetuneConfig
from masklake.training.trackers import figures_of, tracking


def settings(tmp_path: Path, **more: Any) -> FinetuneConfig:
    return FinetuneConfig(format="coco-panoptic", truth="a.json", model="m", output=str(tmp_path / "out"), **more)


def line(step: int, loss: float) -> dict[str, Any]:
    return {"step": step, "loss": loss, "rate": 1e-3, "gradient_norm": 2.0, "steps": 9}


def test_tensorboard_shows_what_the_run_that_lasted_has_told(tmp_path: Path) -> None:
    """The first attempt dies after step 4 and its last state is that of step 2: step 4 is told again, and the second time counts."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    given = settings(tmp_path, tensorboard=str(tmp_path / "board"))
    said: list[str] = []
    with tracking(given, {}, 0, said.append) as tell:
        tell(line(2, 8.0))
        tell({"event": "saved", "step": 2})
        tell(line(4, 7.0))
    with tracking(given, {}, 2, said.append) as tell:
        tell({"event": "resumed", "step": 2})
        tell(line(4, 6.0))
        tell({"step": 4, "validation": {"pq": 0.25, "miou": float("nan")}, "steps": 9})
    board = EventAccumulator(str(tmp_path / "board"))
    board.Reload()
    assert [(each.step, each.value) for each in board.Scalars("loss")] == [(2, 8.0), (4, 6.0)]
    assert [(each.step, each.value) for each in board.Scalars("validation/pq")] == [(4, 0.25)]
    assert "validation/miou" not in board.Tags()["scalars"]
    assert not said


def test_events_have_no_figures() -> None:
    assert figures_of({"event": "saved", "step": 2}) == {}
    assert figures_of({"event": "finished", "step": 2, "best": {"pq": 0.1}}) == {}


def test_a_tracker_that_fails_is_given_up_and_one_that_cannot_begin_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(Refused, match=r"^--tensorboard .*file"),
        tracking(settings(tmp_path, tensorboard=str(tmp_path / "file")), {}, 0, print),
    ):
        pass
    said: list[str] = []
    with tracking(settings(tmp_path, tensorboard=str(tmp_path / "board")), {}, 0, said.append) as tell:
        tell({"step": "no number", "loss": 1.0})
        tell(line(2, 8.0))
    assert len(said) == 1
    assert "--tensorboard logging failed and is now off" in said[0]


def test_the_pace_is_that_since_the_run_began_or_went_on() -> None:
    clock = iter([10.0, 20.0, 100.0, 101.0])
    pace = finetune.Pace(batch_size=4, clock=lambda: next(clock))
    assert pace.of(line(2, 8.0)) == {}
    assert pace.of({"event": "saved", "step": 2}) == {}
    assert pace.of(line(4, 7.0)) == {"images_per_second": 0.8, "eta_seconds": 25}
    assert pace.of({"event": "resumed", "step": 2}) == {}
    assert pace.of(line(4, 7.0)) == {}
    assert pace.of(line(5, 7.0)) == {"images_per_second": 4.0, "eta_seconds": 4}


def test_a_package_that_is_not_installed_is_named_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("masklake.training.settings.find_spec", lambda name: None)
    arguments = ["--format", "coco-panoptic", "--truth", "a.json", "--model", "m", "--output", str(tmp_path), "--mlflow", "mine"]
    assert cli.main(["finetune", *arguments]) == 2
    written = capsys.readouterr()
    assert "--mlflow mine needs the package mlflow, which is not installed: pip install mlflow" in written.err
    assert json.loads(written.out.splitlines()[-1])["exit_code"] == 2


def test_mlflow_keeps_one_run_of_a_training_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = pytest.importorskip("mlflow", reason="mlflow is not among the development packages: it wants an older protobuf").MlflowClient
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    given = settings(tmp_path, mlflow="mine")
    said: list[str] = []

    def die(message: str) -> None:
        with tracking(given, {"rate": 1e-3}, 0, said.append) as tell:
            tell(line(2, 8.0))
            raise KeyboardInterrupt(message)

    with pytest.raises(KeyboardInterrupt):
        die("as by a user")
    with tracking(given, {"rate": 1e-3}, 2, said.append) as tell:
        tell(line(4, 6.0))
    (run,) = client().search_runs([client().get_experiment_by_name("mine").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params == {"rate": "0.001"}
    assert [(each.step, each.value) for each in client().get_metric_history(run.info.run_id, "loss")] == [(2, 8.0), (4, 6.0)]
    assert not said
