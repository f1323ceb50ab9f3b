"""The forward by torch.compile beside the eager one, in a process of its own: compiling takes longer than all that is measured."""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import Literal

from jobs.benchmarks import models
from jobs.benchmarks.gpu import part
from jobs.benchmarks.gpu.part import Asked
from jobs.benchmarks.gpu.speed import forward, inputs_of, timed
from jobs.benchmarks.models import PRESETS
from masklake.inference import checkpoint
from masklake.inference.options import Options
from masklake.inference.segmenter import Segmenter

_MODEL = "mask2former-swin-tiny-384"


def eager(asked: Asked) -> dict[str, float]:
    """Of Mask2Former Swin-T at 384x384, in batches of 32."""
    return _measured(asked, "eager")


def compiled(asked: Asked) -> dict[str, float]:
    """The same."""
    return _measured(asked, "compiled")


def _measured(asked: Asked, way: Literal["eager", "compiled"]) -> dict[str, float]:
    """Seconds until the model is loaded, compiled if it is to be, and milliseconds an image of its forward."""
    folder, batch = asked.scratch / f"{_MODEL}-compiled", 2 if asked.small else 32
    if not folder.exists():
        models.write(models.shrunk(PRESETS[_MODEL]) if asked.small else PRESETS[_MODEL], folder, asked.device)
    description = checkpoint.describe(folder, Options(tasks=("panoptic",)))
    started = time.perf_counter()
    segmenter = Segmenter.load(folder, description, asked.device, "auto", batch, forward=way)
    loaded = time.perf_counter() - started
    values = inputs_of(segmenter, (480, 640), batch)
    seconds = timed(partial(forward, segmenter, values), asked.device)
    return {"loaded, seconds": round(loaded, 1), "forward, ms an image": round(seconds * 1000 / batch, 3)}


if __name__ == "__main__":
    sys.exit(part.run({"eager": eager, "compiled": compiled}))
