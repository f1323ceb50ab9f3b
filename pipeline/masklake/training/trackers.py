"""Progress of a run for TensorBoard and MLflow, as asked for. What they cannot take is said once and does not end the training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from masklake.errors import Refused, first_line
from masklake.training.loop import Tell
from masklake.training.settings import FinetuneConfig

_TAG = "masklake.output"  # by which a run that goes on finds its MLflow run


class _Tracker(Protocol):
    """Somewhere that figures go to."""

    def log(self, figures: Mapping[str, float], step: int) -> None: ...

    def close(self, finished: bool) -> None: ...


@contextmanager
def tracking(settings: FinetuneConfig, asked: Mapping[str, Any], step: int, say: Callable[[str], None]) -> Iterator[Tell]:
    """What takes a run's lines and passes their figures on: `loss`, `rate`, `gradient_norm`, `validation/...`.

    Args:
        settings: `tensorboard` and `mlflow` say where to.
        asked: MLflow's parameters.
        step: from which the run goes on, 0 for a new one; figures after it are of an attempt that was lost, and are logged again.
        say: takes a sentence when a tracker is given up.

    Raises:
        Refused: a tracker cannot be begun.
    """
    trackers: dict[str, _Tracker] = {}
    if settings.tensorboard is not None:
        trackers["--tensorboard"] = _begun("--tensorboard", settings.tensorboard, lambda: _TensorBoard(str(settings.tensorboard), step))
    if settings.mlflow is not None:
        trackers["--mlflow"] = _begun("--mlflow", settings.mlflow, lambda: _MLflow(str(settings.mlflow), settings.output, asked, step))

    def attempt(name: str, work: Callable[[_Tracker], None]) -> None:
        try:
            work(trackers[name])
        except Exception as error:  # whatever a service does: the training is worth more than its log
            del trackers[name]
            say(f"{name} logging failed and is now off ({first_line(error) or type(error).__name__}); training continues")

    def tell(line: dict[str, Any]) -> None:
        for name in list(trackers):
            if figures := figures_of(line):
                attempt(name, lambda tracker: tracker.log(figures, line["step"]))

    finished = False
    try:
        yield tell
        finished = True
    finally:
        for name in list(trackers):
            attempt(name, lambda tracker: tracker.close(finished))


def figures_of(line: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a line, by the names under which they are logged; those that are not numbers are left out."""
    found = {name: line[name] for name in ("loss", "rate", "gradient_norm") if name in line}
    found |= {f"validation/{name}": value for name, value in line.get("validation", {}).items()}
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def _begun(setting: str, value: str, begin: Callable[[], _Tracker]) -> _Tracker:
    try:
        return begin()
    except Exception as error:  # the packages raise whatever they meet
        raise Refused(f"{setting} {value}: {first_line(error) or type(error).__name__}") from None


class _TensorBoard:
    def __init__(self, folder: str, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(folder, purge_step=step + 1 if step else None)

    def log(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, finished: bool) -> None:
        self._writer.close()


class _MLflow:
    """A run of an experiment at `MLFLOW_TRACKING_URI`; a training that goes on goes on with its run."""

    def __init__(self, experiment: str, output: str, asked: Mapping[str, Any], step: int) -> None:
        from mlflow import MlflowClient

        self._client: Any = MlflowClient()
        known = self._client.get_experiment_by_name(experiment)
        experiment_id = self._client.create_experiment(experiment) if known is None else known.experiment_id
        before = self._client.search_runs([experiment_id], f"tags.`{_TAG}` = '{output}'", max_results=1) if step else []
        if before:
            self._run = before[0].info.run_id
            self._client.set_terminated(self._run, "RUNNING")
            return
        self._run = self._client.create_run(experiment_id, tags={_TAG: output}, run_name=output.rsplit("/", 1)[-1]).info.run_id
        for name, value in asked.items():
            self._client.log_param(self._run, name, str(value)[:500])  # as much as every store takes

    def log(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._client.log_metric(self._run, name, value, step=step)

    def close(self, finished: bool) -> None:
        self._client.set_terminated(self._run, "FINISHED" if finished else "FAILED")
