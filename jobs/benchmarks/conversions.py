"""See which families' forwards OpenVINO takes: a small checkpoint of each, converted as `masklake segment --forward openvino` does.

    python -m jobs.benchmarks.conversions

A family's largest difference is that of its logits from torch's, relative to the largest of these; where it is not converted, why.
Seconds are of CPU, to a first answer: eager, converted anew, and from what was kept on disk, on one thread.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from masklake.errors import Refused
from masklake.inference import checkpoint, forwards
from masklake.inference.families import FAMILIES
from masklake.inference.options import Options
from masklake.inference.vino import Vino, package, tensors
from tests.unit.inference import tiny_checkpoints

RESULT = Path(__file__).parent / "results" / "conversions.json"


def main(argv: list[str] | None = None) -> int:
    """Try all families, print the result and write it."""
    parser = argparse.ArgumentParser(prog="python -m jobs.benchmarks.conversions", description=__doc__.partition("\n")[0])
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES), help="which ones (default: all)")
    parser.add_argument("--result", type=Path, default=RESULT, help="where the result goes (default: %(default)s)")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    package()  # its import is no family's
    found = {}
    for name in arguments.families:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = tried(name, Path(folder))
        print(name, found[name], file=sys.stderr, flush=True)
    result = {"openvino": version("openvino"), "torch": torch.__version__, "families": found}
    arguments.result.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return 0


def tried(name: str, folder: Path) -> dict[str, Any]:
    """What comes of a family: whether it `converts`, and `why` not, or its `largest_relative_difference` and seconds."""
    family = FAMILIES[name]
    try:
        forwards.check("openvino", "cpu", "float32", family.prompted)
    except Refused as error:
        return {"converts": False, "why": str(error)}
    written = tiny_checkpoints.write(name, folder)
    description = checkpoint.describe(written, Options(tasks=("semantic",)))
    module = checkpoint.load(description, written, "cpu", "float32")
    shape = (1, 3, *description.frame.padded(description.resize.target(480, 640)))
    values, tasks = torch.randn(shape, generator=torch.Generator().manual_seed(7)), description.tasks
    with torch.inference_mode():
        eager, eager_seconds = _timed(lambda: tensors(family.run(module, values, tasks)))
        first, again = (Vino(module, family, description.digest, folder / "kept") for _ in range(2))
        answers, converting = _timed(lambda: tensors(first(values, tasks)))
        kept, opening = _timed(lambda: tensors(again(values, tasks)))
    if first.failures or again.failures:
        return {"converts": False, "why": (first.failures + again.failures)[0]}
    assert all(map(torch.equal, answers, kept)), "what was kept answers otherwise"
    return {
        "converts": True,
        "largest_relative_difference": max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(eager, answers, strict=True)),
        "seconds": {"eager": eager_seconds, "converted": converting, "kept": opening},
    }


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()
    return call(), round(time.process_time() - started, 2)


if __name__ == "__main__":
    sys.exit(main())
