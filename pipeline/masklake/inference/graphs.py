"""The model's forward as CUDA graphs: a thousand kernels started by one call, where starting them takes longer than they do.

A graph is of one shape and has memory of its own: one is captured for a shape that comes again, and a handful are kept.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from masklake.errors import first_line
from masklake.inference.families import Answer, ClassMap, Found, Queries

Answers = dict[str, Answer]
Run = Callable[[torch.Tensor, Sequence[str]], Answers]
"""Answers pixel values [N, 3, H, W] for tasks."""
Record = Callable[[Callable[[], Answers]], tuple[Callable[[], None], Answers]]
"""Runs a function and returns what repeats it, and its answers, which a repetition overwrites."""

_log = logging.getLogger(__name__)
_EAGER_FIRST = 2  # forwards of a shape before it is captured: they load kernels and make constants
_MOST = 16


@dataclass(frozen=True)
class _Graph:
    values: torch.Tensor
    replay: Callable[[], None]
    answers: Answers


class Graphs:
    """Runs a forward eagerly, or from a graph where there is one; for one caller at a time.

    Attributes:
        failures: why shapes could not be captured; they run eagerly.
    """

    def __init__(self, run: Run, record: Record | None = None) -> None:
        """`record`: in place of `Recorder`, for tests without a GPU."""
        self._run, self._record = run, record or Recorder()
        self._seen: Counter[Any] = Counter()
        self._graphs: dict[Any, _Graph] = {}
        self.failures: list[str] = []

    def __len__(self) -> int:
        """How many graphs there are."""
        return len(self._graphs)

    def __call__(self, values: torch.Tensor, tasks: Sequence[str]) -> Answers:
        """The answers, in memory of their own."""
        key = (tuple(values.shape), tuple(tasks))
        self._seen[key] += 1
        if self._seen[key] == _EAGER_FIRST + 1 and len(self) < _MOST:
            self._capture(key, values, tasks)
        graph = self._graphs.get(key)
        if graph is None:
            return self._run(values, tasks)
        graph.values.copy_(values)
        graph.replay()
        return _copies(graph.answers)

    def _capture(self, key: Any, values: torch.Tensor, tasks: Sequence[str]) -> None:
        static = values.clone()
        try:
            self._graphs[key] = _Graph(static, *self._record(lambda: self._run(static, tasks)))
            return
        except Exception as error:  # whatever the model does that a graph cannot hold, or memory
            self.failures.append(f"{type(error).__name__}: {first_line(error)}")
        _log.warning("--forward graphs: no CUDA graph of %s, eager instead (%s)", "x".join(map(str, values.shape)), self.failures[-1])
        if values.is_cuda:
            torch.cuda.synchronize(values.device)  # raises, where it was not the capture but the device


class Recorder:
    """Records CUDA graphs that share memory: they are replayed one after the other, and answers are copied before the next."""

    def __init__(self) -> None:
        """Without a GPU, too: what there is to allocate comes with the first graph."""
        self._pool: Any = None

    def __call__(self, run: Callable[[], Answers]) -> tuple[Callable[[], None], Answers]:
        """As `Record`."""
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            answers = run()
        return graph.replay, answers


def _copies(answers: Answers) -> Answers:
    """Answers that the next replay does not overwrite; what tasks share stays shared."""
    copies: dict[int, Answer] = {}
    for answer in answers.values():
        if id(answer) not in copies:
            copies[id(answer)] = _copy(answer)
    return {task: copies[id(answer)] for task, answer in answers.items()}


def _copy(answer: Answer) -> Answer:
    if isinstance(answer, ClassMap):
        return ClassMap(answer.logits.clone())
    assert not isinstance(answer, Found), "a forward that counts what it found waits for it, which no graph can"
    return Queries(answer.class_logits.clone(), answer.mask_logits.clone())
