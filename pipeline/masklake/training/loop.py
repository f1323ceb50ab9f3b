"""The training loop of one process, alone or in a team. It knows torch, and neither Ray nor where images come from.

Everything that is random is seeded by the step and the micro-batch, so that a run that was killed goes on exactly, and a team of any size
sums the same gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from masklake.errors import MasklakeError
from masklake.training import models, rates
from masklake.training.batches import POINTS, MicroBatch, random
from masklake.training.models import Learner
from masklake.training.oneformer import TextInputs
from masklake.training.settings import FinetuneConfig
from masklake.training.state import State, Store
from masklake.training.team import Team
from masklake.training.validate import better

Feed = Callable[[int], Iterator[MicroBatch]]
"""From a step on, this member's micro-batches: of each step those with index rank, rank + size, ..."""
Judge = Callable[[], dict[str, float] | None]
"""The scores of the model as it is, the same for every member; empty where nothing is held out, None where `stop` ended it."""
Tell = Callable[[dict[str, Any]], None]


@dataclass
class Training:
    """One run, as one member sees it."""

    learner: Learner
    settings: FinetuneConfig
    feed: Feed
    judge: Judge
    store: Store
    texts: TextInputs | None = None
    team: Team = field(default_factory=Team)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    best_by: str = "pq"
    tell: Tell = lambda line: None
    stop: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        given = self.settings
        self._norms = given.norm == "frozen"
        self.learner.module.to(self.device)
        self._train_mode()
        groups = models.parameter_groups(self.learner, given.rate, given.backbone_rate, given.weight_decay)
        self._parameters = [parameter for group in groups for parameter in group["params"]]
        self._optimizer = torch.optim.AdamW(groups, lr=given.rate, fused=True)
        self._state = State()
        self._saved = -1

    def run(self) -> State:
        """Train to the last step, from the last state where there is one; returns the state at the end, or where it was stopped.

        Raises:
            MasklakeError: the loss or the gradient is not finite, or an example is bad; the last saved state stays.
        """
        self._resume()
        if self._state.unjudged and self._validate():
            self._save()
        feed = self.feed(self._state.step) if self._state.step < self.settings.steps else iter(())
        while self._state.step < self.settings.steps and not self._state.unjudged:
            loss, norm = self._step(feed)
            self._state.step += 1
            self._after_step(loss, norm)
            if self._state.unjudged or self.team.sum(float(self.stop()), self.device):  # all members, or none
                self._save()
                break
        return self._state

    def _resume(self) -> None:
        found = self.store.load()
        if found is None:
            return
        self.learner.module.load_state_dict(found.model)
        self._optimizer.load_state_dict(dict(found.optimizer))
        self._state = found
        if self.team.rank == 0:
            self.tell({"event": "resumed", "step": found.step})

    def _step(self, feed: Iterator[MicroBatch]) -> tuple[float, float]:
        """One optimizer step; returns its loss and the gradient's norm before it was clipped."""
        step, given = self._state.step, self.settings
        share = rates.factor(step, given.steps, given.schedule, given.warmup_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * share
        self._optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for index in range(self.team.rank, given.micros, self.team.size):
            micro = next(feed)
            for reason in micro.skipped:
                self.tell({"event": "skipped", "step": step + 1, "reason": reason})
            if micro.images:
                torch.manual_seed(int(random(given.seed, POINTS, step, index).integers(2**62)))
                loss = self._loss(micro) / given.micros
                _check_finite(loss.item(), "the loss", step, micro.images)
                loss.backward()  # type: ignore[no-untyped-call]
                total += loss.item()
        self.team.sum_gradients(self._parameters)
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, given.clip))
        _check_finite(norm, "the gradient", step, ())
        self._optimizer.step()
        return self.team.sum(total, self.device), norm

    def _loss(self, micro: MicroBatch) -> torch.Tensor:
        pixel_values = torch.from_numpy(micro.pixel_values).to(self.device)
        masks = [torch.from_numpy(mask).to(self.device) for mask in micro.masks]
        label_ids = [torch.from_numpy(ids).to(self.device) for ids in micro.label_ids]
        texts = self.texts(micro.tasks, micro.label_ids, self.device) if self.texts else {}
        with self._arithmetic():
            return models.loss(self.learner, pixel_values, masks, label_ids, **texts)

    def _arithmetic(self) -> AbstractContextManager[Any]:
        low = self.settings.precision == "bfloat16" or (
            self.settings.precision == "auto" and self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        )
        return torch.autocast(self.device.type, torch.bfloat16) if low else nullcontext()

    def _after_step(self, loss: float, norm: float) -> None:
        state, given = self._state, self.settings
        last = state.step == given.steps
        state.losses.append(loss)
        if state.step % given.log_every == 0 or last:
            rate = max(group["lr"] for group in self._optimizer.param_groups)
            self._log({"step": state.step, "loss": sum(state.losses) / len(state.losses), "rate": rate, "gradient_norm": norm})
            state.losses.clear()
        if state.step % given.validate_every == 0 or last:
            self._validate()
        if state.step % given.save_every == 0 or last:
            self._save()

    def _save(self) -> None:
        state = self._state
        if self.team.rank == 0 and self._saved != state.step:
            state.model = {name: value.detach().cpu() for name, value in self.learner.module.state_dict().items()}
            state.optimizer = self._optimizer.state_dict()
            self.store.save(state)
            state.model = {}  # it was a copy
            self._saved = state.step
            self.tell({"event": "saved", "step": state.step})

    def _validate(self) -> bool:
        """Judge the model as it is after the last step; returns whether that was done, which a stop leaves to the next run."""
        self.team.share_buffers(self.learner.module)
        scores = self.judge()
        self._train_mode()
        self._state.unjudged = scores is None
        if not scores:
            return scores is not None
        self._log({"step": self._state.step, "validation": scores})
        if better(scores, self._state.best, self.best_by):
            self._state.best = {**scores, "step": self._state.step}
            if self.team.rank == 0:
                self.store.save_best(self._state.step, self.learner.module.state_dict())
        return True

    def _train_mode(self) -> None:
        self.learner.module.train()
        models.freeze(self.learner, self.settings.freeze_backbone, self._norms)

    def _log(self, line: dict[str, Any]) -> None:
        self._state.history.append(line)
        if self.team.rank == 0:
            self.tell({**line, "steps": self.settings.steps})


def _check_finite(value: float, what: str, step: int, images: list[str] | tuple[()]) -> None:
    if not math.isfinite(value):
        of = f" on {', '.join(images)}" if images else ""
        raise MasklakeError(
            f"{what} is {value} at step {step + 1}{of}: training cannot go on. Look at these images and their ground truth, or lower "
            "--rate or --clip and give another --output; the last saved state stays"
        )
