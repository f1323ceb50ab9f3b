"""Forwards that can be captured: nothing in them waits for the device; and what is replayed when."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from masklake.errors import Refused
from masklake.inference import checkpoint, constants, half_precision
from masklake.inference.families import ALL_TASKS, FAMILIES, Answer, ClassMap
from masklake.inference.graphs import Graphs
from masklake.inference.options import Options
from masklake.inference.segmenter import Segmenter
from tests.unit.inference import tiny_checkpoints

_MAKERS = (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor)
_ASKS = ("nonzero", "item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__")


class Waits(TorchFunctionMode):
    """Names what copies from the host to another device, or makes the host depend on values; run on `meta`, which computes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        selects = func is torch.where and len(args) == 1
        if (func in _MAKERS and not isinstance(args[0], torch.Tensor)) or selects or getattr(func, "__name__", "") in _ASKS:
            self.found.append(func.__name__)
        if selects:
            return (torch.zeros(0, dtype=torch.int64, device="meta"),) * args[0].dim()
        answer = func(*args, **kwargs)
        if func is torch.Tensor.to and args[0].device != answer.device:
            self.found.append("to")
        return answer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "dtype", "before"), [("mask2former", "bfloat16", 1), ("mask2former", "float32", 2), ("oneformer", "bfloat16", 3)]
)
def test_after_the_first_no_forward_waits_for_the_device(
    family: str, dtype: str, before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half_precision, "quicken", lambda module: None)  # which a device has not
    folder = tiny_checkpoints.write(family, tmp_path)
    module = checkpoint.load(checkpoint.describe(folder, Options(tasks=ALL_TASKS)), folder, "cpu", dtype).to("meta")
    values = torch.empty((2, 3, 64, 64), dtype=getattr(torch, dtype), device="meta")

    def waits() -> Any:
        with torch.inference_mode(), Waits() as watched:
            FAMILIES[family].run(module, values, ("panoptic",))
        return watched.found

    assert len(waits()) == before
    constants.make_once(module)
    waits()
    assert waits() == []


@pytest.mark.parametrize("family", ["mask2former", "oneformer"])
def test_constants_made_once_change_no_answer(family: str, tmp_path: Path) -> None:
    folder = tiny_checkpoints.write(family, tmp_path)
    module = checkpoint.load(checkpoint.describe(folder, Options(tasks=ALL_TASKS)), folder)
    values = torch.randn((1, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = FAMILIES[family].run(module, values, ("panoptic",))["panoptic"]
        constants.make_once(module)
        found = FAMILIES[family].run(module, values, ("panoptic",))["panoptic"]
    assert all(torch.equal(one, other) for one, other in zip(vars(found).values(), vars(expected).values(), strict=True))


class FakeRecorder:
    """In place of a CUDA graph: a repetition computes again and overwrites the answers."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, run: Callable[[], dict[str, Answer]]) -> tuple[Callable[[], None], dict[str, Answer]]:
        self.recorded += 1
        answers = run()

        def replay() -> None:
            self.replayed += 1
            for task, answer in run().items():
                vars(answers[task])["logits"].copy_(vars(answer)["logits"])

        return replay, answers


def double(values: torch.Tensor, tasks: Sequence[str]) -> dict[str, Answer]:
    return dict.fromkeys(tasks, ClassMap(values * 2))


def test_a_shape_that_comes_again_is_captured_and_answers_are_nobody_elses() -> None:
    record = FakeRecorder()
    graphs = Graphs(double, record)
    inputs = [torch.full((2, 3, 4, 4), float(index)) for index in range(6)]
    answers = [graphs(values, ("semantic",))["semantic"] for values in inputs]
    assert (record.recorded, record.replayed, len(graphs)) == (1, 4, 1)  # two were eager
    for values, answer in zip(inputs, answers, strict=True):
        assert isinstance(answer, ClassMap)
        assert torch.equal(answer.logits, values * 2)


def test_what_tasks_share_is_copied_once_and_graphs_are_a_handful() -> None:
    record = FakeRecorder()
    graphs = Graphs(double, record)
    for side in range(4, 24):
        for _ in range(4):
            shared = graphs(torch.zeros(1, 3, side, side), ("panoptic", "semantic"))
            assert shared["panoptic"] is shared["semantic"]
    assert len(graphs) == record.recorded == 16


def test_what_cannot_be_captured_runs_eagerly_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(run: Callable[[], dict[str, Answer]]) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might be ...")

    graphs = Graphs(double, refuse)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            answer = graphs(torch.ones(2, 3, 4, 4), ("semantic",))["semantic"]
            assert isinstance(answer, ClassMap)
            assert (answer.logits == 2).all()
    assert [record.getMessage() for record in caplog.records] == [
        "--forward graphs: no CUDA graph of 2x3x4x4, eager instead (RuntimeError: operation not permitted when stream is capturing)"
    ]


def test_graphs_without_a_gpu_are_refused(tmp_path: Path) -> None:
    folder = tiny_checkpoints.write("segformer", tmp_path)
    description = checkpoint.describe(folder, Options(tasks=("semantic",)))
    with pytest.raises(Refused, match="CUDA graphs are for NVIDIA's GPUs, and the model runs on cpu: leave it out"):
        Segmenter.load(folder, description, device="cpu", forward="graphs")
