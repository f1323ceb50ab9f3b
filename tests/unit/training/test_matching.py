"""Objects are assigned to queries as transformers' own matchers do it, for a whole batch with one wait for the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from masklake.training import matching, models
from masklake.training.oneformer import TextInputs
from tests import trainings

LABELS = {0: "box", 1: "river", 2: "sky"}
CPU = torch.device("cpu")
COUNTS = (3, 0, 1, 5)  # objects of each image; of one there are none


def matcher(family: str, tmp_path: Path) -> tuple[Any, Any]:
    """transformers' own, and ours of the same model."""
    learner = models.build(models.start(trainings.model(family, tmp_path), None, None, None), LABELS, frozenset({0}), seed=5)
    ours = next(part for part in learner.module.modules() if type(part).__name__.endswith("HungarianMatcher"))
    return (lambda *given: type(ours).forward(ours, *given)), ours


def batch(queries: int, objects: tuple[int, ...] = COUNTS) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
    """Mask and class logits, objects and their labels."""
    generator = torch.Generator().manual_seed(1)
    masks = [(torch.rand(count, 40, 56, generator=generator) > 0.6).float() for count in objects]
    labels = [torch.randint(len(LABELS), (count,), generator=generator) for count in objects]
    logits = torch.randn(len(objects), queries, 10, 14, generator=generator) * 3
    return logits, torch.randn(len(objects), queries, len(LABELS) + 1, generator=generator), masks, labels


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mask2former", "maskformer", "oneformer"])
def test_the_assignments_are_those_of_transformers(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = matcher(family, tmp_path)
    waits: list[torch.Tensor] = []
    real = torch.Tensor.cpu

    def cpu(tensor: torch.Tensor) -> torch.Tensor:
        waits.append(tensor)
        return real(tensor)

    monkeypatch.setattr(torch.Tensor, "cpu", cpu)
    for queries in (7, 4):  # fewer than objects of one image
        given = batch(queries)
        torch.manual_seed(3)
        expected = theirs(*given)
        del waits[:]
        torch.manual_seed(3)
        found = ours(*given)
        assert len(waits) == 1
        assert [(one.tolist(), other.tolist()) for one, other in found] == [(one.tolist(), other.tolist()) for one, other in expected]
    monkeypatch.setattr(matching, "_VALUES_AT_ONCE", 1)  # image by image, and still one wait
    del waits[:]
    torch.manual_seed(3)
    assert [(one.tolist(), other.tolist()) for one, other in ours(*given)] == [(a.tolist(), b.tolist()) for a, b in expected]
    assert len(waits) == 1


def test_what_is_not_finite_is_matched_last(tmp_path: Path) -> None:
    theirs, ours = matcher("mask2former", tmp_path)
    logits, classes, masks, labels = batch(7)
    logits[0, 2] = float("nan")
    torch.manual_seed(3)
    expected = theirs(logits, classes, masks, labels)
    torch.manual_seed(3)
    found = ours(logits, classes, masks, labels)
    assert torch.equal(found[0][0], expected[0][0])
    assert 2 not in found[0][0].tolist()


@pytest.mark.slow
def test_a_batch_without_objects_is_matched_with_nothing(tmp_path: Path) -> None:
    _, ours = matcher("maskformer", tmp_path)
    assert [(len(one), len(other)) for one, other in ours(*batch(7, (0, 0)))] == [(0, 0), (0, 0)]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mask2former", "maskformer", "oneformer"])
def test_a_step_learns_the_same(family: str, tmp_path: Path) -> None:
    """The loss and its gradient with transformers' matcher are those with ours."""
    begin = models.start(trainings.model(family, tmp_path), None, None, None)
    learner = models.build(begin, LABELS, frozenset({0}), seed=5)
    _, _, masks, labels = batch(7, (3, 1))
    masks = [torch.nn.functional.interpolate(mask[None], size=(64, 64))[0].bool() for mask in masks]
    more = {}
    if family == "oneformer":
        assert begin.tokenizer is not None
        more = TextInputs(begin.tokenizer, learner.module.config, LABELS, "")(["panoptic"] * 2, [label.numpy() for label in labels], CPU)
    found = []
    for own in (True, False):
        if not own:
            for part in learner.module.modules():
                if type(part).__name__.endswith("HungarianMatcher"):
                    del part.forward
        torch.manual_seed(7)
        learner.module.zero_grad()
        loss = models.loss(learner, torch.ones(2, 3, 64, 64), masks, labels, **more)
        loss.backward()  # type: ignore[no-untyped-call]
        head = dict(learner.module.named_parameters())[models.PARTS[family].head + ".weight"]
        assert head.grad is not None
        found.append((float(loss.detach()), head.grad.clone()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-5, atol=1e-7)
