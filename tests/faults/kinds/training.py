"""A training that is killed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from tests.faults.job import Job
from tests.faults.trial import Trial

WEIGHTS = "model.safetensors"


def finetune(trial: Trial) -> None:
    """kill -9 of a training at one of its writes; the same command goes on, and its weights are those of a training without a break."""
    lake = trial.lake

    def start(environment: Mapping[str, str] | None = None) -> Job:
        return lake.train("trained", environment)

    trial.killed_at_request(start, lambda request: request.writes and "/trained" in request.path, 6, start)
    trial.ends(start(), 0)
    trial.recovery = None
    names = {key.removeprefix("trained/") for key in lake.objects("trained/")}
    if missing := {"config.json", "README.md", WEIGHTS} - names:
        trial.lost.append(f"the trained model is without {sorted(missing)}")
        return
    digests = {folder: hashlib.sha256(lake.read(f"{folder}/{WEIGHTS}")).hexdigest() for folder in ("trained", "reference")}
    if len(set(digests.values())) > 1:
        trial.lost.append("the weights are others than those of a training without a break")
