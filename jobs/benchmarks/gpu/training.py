"""One step of fine-tuning, beside its forward and backward alone."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jobs.benchmarks import models as benchmark_models
from jobs.benchmarks.gpu import part
from jobs.benchmarks.gpu.part import Asked
from jobs.benchmarks.models import PRESETS
from masklake.demo import MODEL as DEMO
from masklake.training import models

_REPEATS = 4


def swin_tiny(asked: Asked) -> Any:
    """Mask2Former Swin-T at 384x384, batch 8, in bfloat16, with 8 objects an image."""
    name = "mask2former-swin-tiny-384"
    preset = benchmark_models.shrunk(PRESETS[name]) if asked.small else PRESETS[name]
    folder = benchmark_models.write(preset, asked.scratch / f"{name}-trained", asked.device)
    return _step(asked, folder / "config.json", 2 if asked.small else 8, (64, 64) if asked.small else (384, 384))


def demo(asked: Asked) -> Any:
    """The demo model's recipe, by batch size."""
    return {str(batch): _step(asked, DEMO / "config.json", batch, (128, 128)) for batch in ((2,) if asked.small else (8, 64))}


def _step(asked: Asked, config: Path, batch: int, size: tuple[int, int]) -> dict[str, float]:
    begin = models.start(None, config, None, None)
    count = len(begin.config["id2label"])
    learner = models.build(begin, {index: f"class {index}" for index in range(count)}, frozenset(range(count // 2)), 0)
    learner.module.to(asked.device).train()
    optimizer = torch.optim.AdamW(learner.module.parameters(), lr=1e-4, fused=True)
    rng = np.random.default_rng(0)
    pixels = torch.randn(batch, 3, *size, device=asked.device)
    masks = [torch.from_numpy(rng.random((8, *size)) > 0.7).to(asked.device) for _ in range(batch)]
    ids = [torch.from_numpy(rng.integers(0, count, 8)).to(asked.device) for _ in range(batch)]
    spent = dict.fromkeys(("forward alone", "forward and loss", "backward", "optimizer"), 0.0)
    for repeat in range(_REPEATS + 1):
        marks = [_now(asked.device)]
        with torch.autocast(asked.device, torch.bfloat16):
            learner.module(pixels)
            marks.append(_now(asked.device))
            loss = models.loss(learner, pixels, masks, ids)
        marks.append(_now(asked.device))
        loss.backward()  # type: ignore[no-untyped-call]
        marks.append(_now(asked.device))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        marks.append(_now(asked.device))
        if repeat:
            for name, begun, ended in zip(spent, marks, marks[1:], strict=False):
                spent[name] += ended - begun
    return {f"{name}, ms": round(seconds / _REPEATS * 1000, 1) for name, seconds in spent.items()}


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


MEASUREMENTS = {"swin-tiny, batch 8": swin_tiny, "demo": demo}

if __name__ == "__main__":
    sys.exit(part.run(MEASUREMENTS))
