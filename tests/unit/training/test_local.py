"""Training in this process: what its loading processes and its device do to it. That weights are the same: tests/flow/test_finetune.py."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from masklake import stopping
from masklake.errors import MasklakeError, Refused
from masklake.training import batches, finetune, local
from masklake.training.batches import MicroBatch
from masklake.training.examples import BadExample, Example, Reader, Sample
from masklake.training.finetune import Prepared
from masklake.training.team import Team
from tests import trainings


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("local")
    scenes, model = trainings.scenes(folder / "scenes"), trainings.model("segformer", folder)
    return finetune.prepare(trainings.settings(scenes, folder / "out", model, steps=2))


class Dying(Reader):
    """Does what a machine without memory does to a process that loads."""

    def load(self, example: Example) -> Sample:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


@pytest.mark.slow
def test_micro_batches_are_those_of_this_process_and_an_example_that_cannot_be_read_arrives_as_what_it_is(
    prepared: Prepared, tmp_path: Path
) -> None:
    recipe, examples = prepared.recipe, list(prepared.training.examples)
    broken = batches.examples_at(len(examples), recipe, batches.places(recipe, 1, 1))[0]
    examples[broken] = Example(f"file://{tmp_path}/none.jpg", examples[broken].truth)
    changed = replace(prepared, training=replace(prepared.training, examples=tuple(examples)))
    with local._Loaders(changed, 1) as loading:
        feed = loading.feed(1)
        made = next(feed)
        with pytest.raises(BadExample, match=r"none\.jpg: .*; mend it, or give --bad-examples skip$"):
            next(feed)
    positions = batches.places(recipe, 1, 0)
    chosen = [examples[each] for each in batches.examples_at(len(examples), recipe, positions)]
    expected = batches.make(recipe, positions, chosen, prepared.training.reader.load)
    assert made.images == expected.images
    assert (made.pixel_values == expected.pixel_values).all()
    assert all((one == two).all() for one, two in zip(made.masks, expected.masks, strict=True))


@pytest.mark.slow
def test_a_loading_process_that_dies_twice_ends_the_run_with_the_images_at_which(prepared: Prepared) -> None:
    reader = prepared.training.reader
    changed = replace(prepared, training=replace(prepared.training, reader=Dying(reader.coding, reader.meaning, reader.by_class)))
    with (
        local._Loaders(changed, 1) as loading,
        pytest.raises(MasklakeError, match=r"^the process that loads examples ended twice at file://.*\.jpg, file://.*\.jpg: there may"),
    ):
        next(loading.feed(0))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU")
def test_a_gpu_that_is_not_there_is_refused_and_one_that_is_declined_is_not_used() -> None:
    def device(**more: Any) -> torch.device:
        return local._device(trainings.settings(Path("a"), Path("b"), Path("c"), **more))

    with pytest.raises(Refused, match=r"^--gpus-per-worker 1: torch finds no GPU on this machine"):
        device(gpus_per_worker=1)
    assert device(gpus_per_worker=0) == device() == torch.device("cpu")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            "memory does not hold a forward pass of 2 images of 64x64",
        ),
        (torch.AcceleratorError("CUDA error: unspecified launch failure"), "the GPU is lost (CUDA error: unspecified launch failure); run"),
    ],
)
def test_what_a_gpu_cannot_is_a_sentence(error: RuntimeError, sentence: str, prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("masklake.training.loop.Training.run", fail)
    with pytest.raises(MasklakeError) as raised:
        local.run(prepared, lambda line: None)
    assert str(raised.value).startswith(sentence)


@pytest.mark.parametrize(("micro_batch", "steps"), [(0, 0), (1, 1), (2, 2)], ids=["before the first step", "in it", "in the second"])
def test_a_stop_ends_at_once_where_nothing_is_learned_yet_and_else_after_its_step(
    micro_batch: int, steps: int, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = prepared.settings.model_copy(update={"output": str(tmp_path / "out"), "steps": 3, "save_every": 3, "validate_every": 3})
    run = replace(prepared, settings=given)

    def feed(loaders: local._Loaders, first: int) -> Iterator[MicroBatch]:
        for number, made in enumerate(trainings.feed(run, Team(), first)):
            if number == micro_batch:
                stopping._take(signal.SIGTERM, None)  # as Python would: another test's Ray may take a signal itself
            yield made

    monkeypatch.setattr(local._Loaders, "feed", feed)
    with pytest.raises(stopping.Stopped) as stopped:
        local.run(run, lambda line: None)
    stopping.forget()
    assert (stopped.value.exit_code, finetune.step_of(run)) == (143, steps)
