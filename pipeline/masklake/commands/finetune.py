"""Fine-tune a segmentation model, or train one from scratch."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from masklake import storage, variables
from masklake.commands import lines
from masklake.commands.lines import say
from masklake.spelling import plural
from masklake.training import finetune, trackers
from masklake.training.choice import Choice, choose
from masklake.training.finetune import Prepared
from masklake.training.loop import Tell
from masklake.training.settings import FinetuneConfig


def work(settings: FinetuneConfig) -> dict[str, Any]:
    """Train, or say what would be trained; returns the summary."""
    with variables.prepared(settings.ray_address):
        return _work(settings)


def _work(settings: FinetuneConfig) -> dict[str, Any]:
    prepared = finetune.prepare(settings, say)
    _tell_data(prepared)
    if settings.dry_run:
        return finetune.plan(prepared)
    output = storage.normalise(settings.output).rstrip("/")
    if finetune.finished(prepared):
        return {"outcome": "nothing to do", "output": output}
    chosen = choose(settings, torch.cuda.device_count())
    say(chosen.words)
    run = _by(chosen)
    stdout, pace = sys.stdout, Pace(prepared.settings.batch_size)  # stdout is another one while a cluster is used
    with trackers.tracking(prepared.settings, prepared.asked, finetune.step_of(prepared), say) as track:

        def tell(line: dict[str, Any]) -> None:
            about = lines.made("progress") if lines.are_json() else {}
            print(json.dumps({**about, **line, **pace.of(line)}), file=stdout, flush=True)
            track(line)

        end = run(prepared, tell)
    return {"outcome": "trained", "output": output, "steps": settings.steps, "best": end.get("best")}


def _by(chosen: Choice) -> Callable[[Prepared, Tell], dict[str, Any]]:
    """What trains, imported only now: a dry run does without Ray, and a training here as well."""
    if chosen.local:
        from masklake.training.local import run

        return run
    from masklake.training.flow import run as run_on_ray

    return run_on_ray


class Pace:
    """How fast a training goes, validations and all, since the first line of progress or since it went on from a saved state."""

    def __init__(self, batch_size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._batch_size, self._clock = batch_size, clock
        self._first: tuple[int, float] | None = None

    def of(self, line: dict[str, Any]) -> dict[str, float]:
        """`images_per_second` and `eta_seconds`, of a line with a loss; nothing for the first of them."""
        if line.get("event") == "resumed":
            self._first = None
        if "loss" not in line:
            return {}
        now = self._clock()
        if self._first is None:
            self._first = line["step"], now
            return {}
        steps, seconds = line["step"] - self._first[0], now - self._first[1]
        each = seconds / steps
        return {"images_per_second": round(self._batch_size / each, 2), "eta_seconds": round(each * (line["steps"] - line["step"]))}


def _tell_data(prepared: Prepared) -> None:
    """What is learned from, and what of it is left out."""
    training, held_out = prepared.training, prepared.held_out
    say(training.read_as)
    say(
        f"{plural(len(training.examples), 'example')} of {plural(len(training.labels), 'class', 'classes')} to learn from, "
        f"{len(held_out.examples):,} held out"
    )
    for what, count in finetune.left_out(prepared).items():
        say(f"left out: {what} ({count:,})")
    for line in finetune.remarks(prepared):
        say(line)
    if not held_out.examples:
        say("no validation data: keeping the final weights without measuring them")
