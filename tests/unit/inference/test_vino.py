"""The forward by OpenVINO: torch's logits but for rounding, converted once, and eager where it cannot be; and what it is not for."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import masklake
from masklake.errors import Refused
from masklake.inference import checkpoint, forwards, preprocess, vino
from masklake.inference.families import ALL_TASKS, FAMILIES, Answer, ClassMap, Queries
from masklake.inference.forwards import Forward
from masklake.inference.options import Options
from masklake.inference.segmenter import ModelInput, Segmenter
from masklake.inference.vino import Vino
from tests.lakes import ROOT
from tests.unit.inference import tiny_checkpoints

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
TASKS = {"mask2former": ALL_TASKS, "oneformer": ("panoptic", "semantic"), "segformer": ("semantic",)}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASKLAKE_CACHE", str(folder))
        yield folder / "openvino"


@pytest.fixture(scope="module", params=list(TASKS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoints.write(request.param, tmp_path_factory.mktemp("checkpoints"))


def opened(folder: Path, forward: Forward, **options: Any) -> Segmenter:
    return Segmenter.load(folder, checkpoint.describe(folder, Options(tasks=("semantic",))), device="cpu", forward=forward, **options)


def noise(segmenter: Segmenter, count: int, seed: int = 7) -> torch.Tensor:
    shape = segmenter.description.frame.padded(segmenter.description.resize.target(480, 640))
    return torch.randn(count, 3, *shape, generator=torch.Generator().manual_seed(seed))


def tensors(answer: Answer) -> list[torch.Tensor]:
    if isinstance(answer, ClassMap):
        return [answer.logits]
    assert isinstance(answer, Queries)
    return [answer.class_logits, answer.mask_logits]


def assert_close(found: dict[str, Answer], right: dict[str, Answer]) -> None:
    assert list(found) == list(right)
    for task, answer in right.items():
        assert type(found[task]) is type(answer)
        for one, other in zip(tensors(found[task]), tensors(answer), strict=True):
            assert one.dtype == other.dtype == torch.float32
            assert float((one - other).abs().max()) <= 1e-4 * float(other.abs().max())


@needs_openvino
@pytest.mark.slow
def test_logits_are_torchs_but_for_rounding_and_a_second_process_converts_nothing(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, eager = opened(folder, "openvino"), opened(folder, "eager")
    tasks, values = TASKS[first.description.family], noise(first, 1)
    with torch.inference_mode():
        found = first.run(values, tasks)
        assert_close(found, eager.run(values, tasks))
    assert first.vino.failures == []
    kept = sorted(cache.glob("*"))
    monkeypatch.setattr(vino, "converted", None)  # nothing calls it any more
    second = opened(folder, "openvino")
    with torch.inference_mode():
        again = second.run(values, tasks)
    assert second.vino.failures == []
    assert all(torch.equal(*pair) for task in tasks for pair in zip(tensors(again[task]), tensors(found[task]), strict=True))
    assert sorted(cache.glob("*")) == kept


@needs_openvino
@pytest.mark.slow
def test_two_beside_each_other_hold_one_compiled_model_and_answer_as_one(folder: Path) -> None:
    first = opened(folder, "openvino", models=2)
    second, tasks = first.beside(), TASKS[first.description.family]
    batches = [noise(first, 1, seed) for seed in range(8)]
    with torch.inference_mode():
        expected = [first.run(values, tasks) for values in batches]
    with ThreadPoolExecutor(2) as callers:
        under_way = [[callers.submit(each.run, values, tasks) for values in batches] for each in (first, second)]
    for answers in under_way:
        for one, other in zip((answer.result() for answer in answers), expected, strict=True):
            assert all(torch.equal(*pair) for task in tasks for pair in zip(tensors(one[task]), tensors(other[task]), strict=True))
    assert second.vino.failures == []
    assert second.vino._compiled is first.vino._compiled


class Brightness(torch.nn.Module):
    """A model of two classes, dark and bright."""

    def forward(self, pixel_values: torch.Tensor) -> Any:
        brightness = pixel_values.mean(dim=1) - 0.5
        return SimpleNamespace(logits=torch.stack([-brightness, brightness], dim=1))


class Forked(Brightness):
    """One that answers flat images in another way, by an `if` that a trace does not hold."""

    def forward(self, pixel_values: torch.Tensor) -> Any:
        return super().forward(pixel_values if pixel_values.std() > 0.5 else -pixel_values)


def by_openvino(module: torch.nn.Module, folder: Path) -> Vino:
    return Vino(module, FAMILIES["segformer"], "its digest", folder)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "masklake.inference.vino"]


@needs_openvino
def test_each_size_of_a_batch_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    real = vino.converted

    def counted(module: Any, family: Any, values: torch.Tensor, asked: Any) -> Any:
        shapes.append(tuple(values.shape))
        return real(module, family, values, asked)

    monkeypatch.setattr(vino, "converted", counted)
    for run in (by_openvino(Brightness(), tmp_path), by_openvino(Brightness(), tmp_path)):
        for count in (1, 2, 3, 2, 1):
            values = torch.rand(count, 3, 8, 6).to(memory_format=torch.channels_last)
            with torch.inference_mode():
                assert_close(run(values, ("semantic",)), {"semantic": ClassMap(Brightness()(values).logits)})
    assert shapes == [(1, 3, 8, 6), (2, 3, 8, 6), (3, 3, 8, 6)]
    assert len(list(tmp_path.iterdir())) == 3


@needs_openvino
def test_what_is_kept_is_of_one_checkpoint_and_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    values = torch.rand(1, 3, 8, 6)
    by_openvino(Brightness(), tmp_path)(values, ("semantic",))
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-40])
    assert_close(by_openvino(Brightness(), tmp_path)(values, ("semantic",)), {"semantic": ClassMap(Brightness()(values).logits)})
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert len(file.read_bytes()) == len(whole)
    Vino(Brightness(), FAMILIES["segformer"], "another digest", tmp_path)(values, ("semantic",))
    assert len(list(tmp_path.iterdir())) == 2


@needs_openvino
def test_a_cache_that_cannot_be_written_costs_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    values = torch.rand(1, 3, 8, 6)
    run = by_openvino(Brightness(), tmp_path / "file")
    assert_close(run(values, ("semantic",)), {"semantic": ClassMap(Brightness()(values).logits)})
    (line,) = lines(caplog)
    assert line.startswith(f"--forward openvino: the converted model cannot be kept in {tmp_path / 'file'}")
    assert run.failures == []


@needs_openvino
def test_a_trace_that_answers_noise_otherwise_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, values = by_openvino(Forked(), tmp_path), torch.full((1, 3, 8, 6), 0.75)
    for _ in range(2):
        assert torch.equal(tensors(run(values, ("semantic",))["semantic"])[0], Forked()(values).logits)
    (line,), (failure,) = lines(caplog), run.failures
    assert line == f"--forward openvino: 1x3x8x6 is not converted, eager instead ({failure})"
    assert failure.startswith("ValueError: its answers differ from torch's by ")
    assert not list(tmp_path.iterdir())


@needs_openvino
def test_beyond_a_number_of_shapes_all_others_are_eager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(vino, "_MOST", 1)
    run = by_openvino(Brightness(), tmp_path)
    for side in (4, 5, 6, 5):
        values = torch.rand(1, 3, side, 4)
        assert_close(run(values, ("semantic",)), {"semantic": ClassMap(Brightness()(values).logits)})
    assert lines(caplog) == ["--forward openvino: 1 shapes of batches are converted, all others run eagerly"]
    assert len(list(tmp_path.iterdir())) == 1


_SIGNALLED = """
import gc, pathlib, signal, sys, torch
from masklake.inference.families import FAMILIES
from masklake.inference.vino import Vino
from tests.unit.inference.test_vino import Brightness

def answered(name):
    run = Vino(Brightness(), FAMILIES["segformer"], name, pathlib.Path(sys.argv[1]))
    run(torch.rand(1, 3, 8, 6), ("semantic",))
    return run

first, second = answered("one"), answered("another")
del first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGTERM, lambda number, frame: print("heard"))
signal.raise_signal(signal.SIGTERM)
"""


@needs_openvino
@pytest.mark.slow
def test_signals_are_heard_after_models_have_come_and_gone(tmp_path: Path) -> None:
    """In a program of its own, which OpenVINO's own end of devices would let crash."""
    done = subprocess.run([sys.executable, "-c", _SIGNALLED, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr


@needs_openvino
def test_a_model_that_cannot_be_converted_is_refused_before_any_image(tmp_path: Path) -> None:
    description = checkpoint.describe(tiny_checkpoints.write("segformer", tmp_path), Options(tasks=("semantic",)))
    segmenter = Segmenter(Forked(), description, torch.device("cpu"), batch_size=2, forward="openvino")
    with pytest.raises(Refused, match="OpenVINO cannot run this model here, leave it out: "):
        segmenter.warm_up_openvino()


@pytest.mark.parametrize(
    ("device", "precision", "prompted", "reason"),
    [
        ("cuda", "float32", False, "it is for CPUs here, and the model runs on cuda: leave it out, or use --device cpu"),
        ("cpu", "bfloat16", False, "it answers in float32, and the precision is bfloat16: leave it out, or say --precision float32"),
        ("cpu", "float32", True, "a model that is told --concepts finds more or less in each image, which is not converted"),
    ],
)
def test_what_it_is_not_for(device: str, precision: str, prompted: bool, reason: str) -> None:
    with pytest.raises(Refused, match=f"--forward openvino: {reason}"):
        forwards.check("openvino", device, precision, prompted)
    forwards.check("eager", device, precision, prompted)


def test_without_the_package_it_names_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Refused, match=r"needs openvino, which is not installed here: pip install 'masklake\[openvino\]'"):
        forwards.check("openvino", "cpu", "float32", False)


def test_the_job_refuses_it_before_it_lists_images(tmp_path: Path) -> None:
    model = tiny_checkpoints.write("segformer", tmp_path)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.png")
    given: dict[str, Any] = {"model": str(model), "tasks": "semantic", "device": "cpu", "forward": "openvino", "precision": "bfloat16"}
    with pytest.raises(Refused, match="--forward openvino: it answers in float32, and the precision is bfloat16"):
        masklake.segment(input=str(tmp_path / "images"), output=str(tmp_path / "masks"), **given)
    assert not (tmp_path / "masks").exists()


@pytest.mark.slow
@needs_openvino
def test_images_get_segments_as_by_torch(tmp_path: Path) -> None:
    model = tiny_checkpoints.write("segformer", tmp_path)
    coarse = [np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8) for seed in range(5)]
    pictures = [np.asarray(Image.fromarray(each).resize((80, 60), Image.Resampling.BICUBIC)) for each in coarse]
    answers = []
    for forward in ("eager", "openvino"):
        segmenter = opened(model, forward, batch_size=2)
        inputs = [ModelInput(preprocess.resize(pixels, segmenter.description.resize), (60, 80), ("semantic",)) for pixels in pictures]
        answers.append([{s.label_id: s.area for s in answer["semantic"]} for answer in segmenter.segment(inputs)])  # type: ignore[union-attr]
    for right, found in zip(*answers, strict=True):
        assert sum(abs(right.get(label, 0) - found.get(label, 0)) for label in {*right, *found}) <= 10  # of 4,800 pixels
