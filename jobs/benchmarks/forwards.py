"""Measure the bare forward on a CPU in other forms than the eager one: as transformers has it, batch norms folded, OpenVINO, ONNX Runtime.

    python -m jobs.benchmarks.forwards --models pipeline/masklake/demo/model FOLDER

OpenVINO is in the extra `openvino`. ONNX Runtime is measured where onnxruntime and onnxscript are installed, which nothing else here needs.
One thread, one image; CPU time, each form in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib
import importlib.util
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval

from masklake.inference import checkpoint, half_precision
from masklake.inference.checkpoint import ModelDescription
from masklake.inference.families import FAMILIES
from masklake.inference.options import Options
from masklake.inference.vino import Vino, package, tensors

RESULT = Path(__file__).parent / "results" / "forwards.json"
_TASKS = ("semantic",)
Form = Callable[[torch.Tensor], Any]


class _Tensors(torch.nn.Module):
    """A model as a function from an input to the tensors that answers are made of."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = self.module(pixel_values=values)
        logits = getattr(found, "logits", None)
        return (logits,) if logits is not None else (found.class_queries_logits, found.masks_queries_logits)


def main(argv: list[str] | None = None) -> int:
    """Measure all models, print the result and write it."""
    arguments = _parser().parse_args(argv)
    torch.set_num_threads(1)
    started = time.process_time()
    package()
    importing = round(time.process_time() - started, 1)
    models = {folder.name: _measured(folder, arguments.rounds) for folder in arguments.models}
    packages = {name: version(name) for name in ("openvino", "torch", "onnxruntime") if importlib.util.find_spec(name)}
    result = {**packages, "importing_cpu_seconds": importing, "models": models}
    arguments.result.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return 0


def _measured(folder: Path, rounds: int) -> dict[str, Any]:
    description = checkpoint.describe(folder, Options(tasks=("semantic",)))
    module = checkpoint.load(description, folder, "cpu", "float32")
    values = torch.randn(1, 3, *description.frame.padded(description.resize.target(480, 640)))
    with torch.inference_mode(), tempfile.TemporaryDirectory() as kept:
        eager = _Tensors(module)
        opened = [_opened(module, description, values, Path(kept)) for _ in ("converts", "takes what is kept")]
        forms: dict[str, Form] = {"eager": eager, "transformers": _theirs(eager), "folded": _folded(eager), "openvino": opened[1][0]}
        seconds = {"compiling_cpu_seconds": opened[0][1], "opening_cpu_seconds": opened[1][1]}
        if importlib.util.find_spec("onnxruntime") is not None:
            forms["onnxruntime"], seconds["exporting_cpu_seconds"] = _exported(eager, values, Path(kept, "model.onnx"))
        return {"input": list(values.shape[2:]), **seconds, **_compared(forms, values, rounds)}


def _opened(module: Any, description: ModelDescription, values: torch.Tensor, kept: Path) -> tuple[Form, float]:
    """The forward by OpenVINO, as `masklake segment` has it, and the seconds of CPU to its first answer."""
    started = time.process_time()
    run = Vino(module, FAMILIES[description.family], description.digest, kept)
    run(values, _TASKS)
    assert not run.failures, run.failures
    return lambda values: tensors(run(values, _TASKS)), round(time.process_time() - started, 1)


def _exported(module: _Tensors, values: torch.Tensor, file: Path) -> tuple[Form, float]:
    """The forward by ONNX Runtime, and the seconds of CPU to export it and to open what was exported."""
    onnxruntime = importlib.import_module("onnxruntime")  # not among the project's packages
    started = time.process_time()
    with torch.inference_mode(False), torch.no_grad(), contextlib.redirect_stdout(sys.stderr):
        torch.onnx.export(module, (values.clone(),), str(file), dynamo=True)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
    (name,) = (each.name for each in session.get_inputs())
    seconds = round(time.process_time() - started, 1)
    return lambda values: tuple(map(torch.from_numpy, session.run(None, {name: values.numpy()}))), seconds


def _compared(forms: dict[str, Form], values: torch.Tensor, rounds: int) -> dict[str, Any]:
    """How fast each form is beside the eager one, and how far its answers are from it."""
    truth = forms["eager"](values)
    taken = {name: list[float]() for name in forms}
    found: dict[str, Any] = {}
    for number in range(rounds + 1):  # the first one warms up
        for name, form in forms.items():
            started = time.process_time()
            answer = form(values)
            taken[name] += [time.process_time() - started] if number else []
            if not number:
                pairs = zip(truth, answer, strict=True)
                found[name] = {"largest_relative_difference": max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)}
    for name, times in taken.items():
        found[name] |= {"milliseconds": round(1000 * min(times)), "times_eager": round(min(taken["eager"]) / min(times), 2)}
    return found


def _theirs(module: _Tensors) -> _Tensors:
    """The same without what is computed otherwise than in transformers."""
    theirs = copy.deepcopy(module)
    half_precision.restore(theirs)
    return theirs


def _folded(module: _Tensors) -> _Tensors:
    """The same with each batch norm that follows a convolution folded into it."""
    folded = copy.deepcopy(module)
    for part in folded.modules():
        children = list(part._modules.items())
        for (first, convolution), (second, norm) in itertools.pairwise(children):
            if isinstance(convolution, torch.nn.Conv2d) and isinstance(norm, torch.nn.BatchNorm2d):
                part._modules[first], part._modules[second] = fuse_conv_bn_eval(convolution, norm), torch.nn.Identity()
    return folded


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks.forwards", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", type=Path, nargs="+", required=True, help="folders of checkpoints")
    parser.add_argument("--rounds", type=int, default=2, help="forwards of each form (default: %(default)s)")
    parser.add_argument("--result", type=Path, default=RESULT, help="where the result goes (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
