"""Measure the bare forward on a CPU in other forms than torch's eager one: batch norms folded into convolutions, and OpenVINO.

    python -m jobs.benchmarks.forwards --models pipeline/masklake/demo/model FOLDER

OpenVINO is none of this project's packages: install `openvino` beside them. One thread, one image; CPU time, each form in turn.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openvino
import torch
from torch.nn.utils.fusion import fuse_conv_bn_eval

from masklake.inference import checkpoint
from masklake.inference.options import Options

RESULT = Path(__file__).parent / "results" / "forwards.json"
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
    with torch.inference_mode():
        models = {folder.name: _measured(folder, arguments.rounds) for folder in arguments.models}
    result = {"openvino": openvino.__version__, "torch": torch.__version__, "models": models}
    arguments.result.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return 0


def _measured(folder: Path, rounds: int) -> dict[str, Any]:
    description = checkpoint.describe(folder, Options(tasks=("semantic",)))
    eager = _Tensors(checkpoint.load(description, folder, "cpu", "float32"))
    values = torch.randn(1, 3, *description.frame.padded(description.resize.target(480, 640)))
    started = time.process_time()
    compiled = _openvino(eager, values)
    compiling = round(time.process_time() - started, 1)
    forms: dict[str, Form] = {"eager": eager, "folded": _folded(eager), "openvino": compiled}
    truth = eager(values)
    taken = {name: list[float]() for name in forms}
    found: dict[str, Any] = {"input": list(values.shape[2:]), "compiling_cpu_seconds": compiling}
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


def _folded(module: _Tensors) -> _Tensors:
    """The same with each batch norm that follows a convolution folded into it."""
    folded = copy.deepcopy(module)
    for part in folded.modules():
        children = list(part._modules.items())
        for (first, convolution), (second, norm) in itertools.pairwise(children):
            if isinstance(convolution, torch.nn.Conv2d) and isinstance(norm, torch.nn.BatchNorm2d):
                part._modules[first], part._modules[second] = fuse_conv_bn_eval(convolution, norm), torch.nn.Identity()
    return folded


def _openvino(module: _Tensors, values: torch.Tensor) -> Form:
    with torch.no_grad():
        traced = torch.jit.trace(copy.deepcopy(module), values, check_trace=False, strict=False)  # type: ignore[no-untyped-call]
        model = openvino.convert_model(traced, example_input=values)
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"})
    return lambda values: [torch.from_numpy(found) for found in compiled(values.numpy()).values()]


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
