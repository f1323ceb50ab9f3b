"""The real job on one GPU: photographs on local disk through `masklake segment` to a table."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from PIL import Image

from jobs.benchmarks import models
from jobs.benchmarks.gpu import part
from jobs.benchmarks.gpu.part import Asked
from jobs.benchmarks.models import PRESETS
from masklake.inference import checkpoint
from masklake.inference.options import Options
from masklake.inference.segmenter import Segmenter

_MODEL = "mask2former-swin-tiny-384"
_DISTINCT = 64


def small_photographs(asked: Asked) -> Any:
    """JPEGs of 640x480."""
    return _job(asked, *_small(asked))


def large_photographs(asked: Asked) -> Any:
    """JPEGs of 4000x3000."""
    return _job(asked, (96, 128) if asked.small else (3000, 4000), 4 if asked.small else asked.large_images)


def eager(asked: Asked) -> Any:
    """The small ones, without CUDA graphs."""
    if asked.device == "cpu":
        return {"skipped": "there are no CUDA graphs on a CPU"}
    return _job(asked, *_small(asked), "--forward", "eager")


def two_actors(asked: Asked) -> Any:
    """The small ones, with two processes that share the device."""
    if asked.device == "cpu":
        return {"skipped": "a CPU is shared anyway"}
    return _job(asked, *_small(asked), "--gpus-per-actor", "0.5")


def all_tasks(asked: Asked) -> Any:
    """A third of the small ones, with three answers each."""
    size, count = _small(asked)
    return _job(asked, size, count, "--limit", str(max(1, count // 3)), tasks="panoptic,instance,semantic")


def _small(asked: Asked) -> tuple[tuple[int, int], int]:
    return (48, 64) if asked.small else (480, 640), 12 if asked.small else asked.images


def _job(asked: Asked, size: tuple[int, int], count: int, *more: str, tasks: str = "panoptic") -> dict[str, Any]:
    model, images = _checkpoint(asked), asked.scratch / f"images-{size[1]}"
    if not images.exists():
        _write(images, size, count)
    output = asked.scratch / f"table-{len(list(asked.scratch.glob('table-*')))}"
    command = [sys.executable, "-m", "masklake", "segment", "--input", str(images), "--output", str(output), "--model", str(model)]
    command += ["--tasks", tasks, *more]
    busy = _Busy()
    started = time.monotonic()
    with (
        busy,
        subprocess.Popen(
            [*command, *([] if asked.small else ["--no-local"])], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as job,
    ):
        assert job.stderr is not None
        assert job.stdout is not None
        said = [f"{time.monotonic() - started:.1f} s: {line.rstrip()[:300]}" for line in job.stderr]
        lines = job.stdout.read().strip().splitlines()
    seconds = time.monotonic() - started
    told = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    return {
        "images": told.get("images"),
        "seconds": round(seconds, 1),
        "images a second, whole process": round(told.get("images", 0) / seconds, 1),
        "device busy, share of seconds with kernels, in tenths of the run": busy.tenths(),
        "exit": job.returncode,
        "told": told,
        "said": said[-60:],
    }


def _checkpoint(asked: Asked) -> Path:
    """The model with heads that see patches; made once."""
    folder = asked.scratch / f"{_MODEL}-taught"
    if not folder.exists():
        plain = models.write(
            models.shrunk(PRESETS[_MODEL]) if asked.small else PRESETS[_MODEL], asked.scratch / f"{_MODEL}-new", asked.device
        )
        segmenter = Segmenter.load(plain, checkpoint.describe(plain, Options(tasks=("panoptic",))), asked.device, "float32")
        models.teach(segmenter, [models.patchwork((480, 640), 25, seed) for seed in range(2 if asked.small else 8)])
        segmenter.module.cpu().save_pretrained(folder)
        for name in ("config.json", "preprocessor_config.json"):  # as written: the loaded model's names no labels
            shutil.copy(plain / name, folder / name)
    return folder


def _write(folder: Path, size: tuple[int, int], count: int) -> None:
    """JPEGs that all differ in their bytes: few pictures, each with another comment."""
    folder.mkdir()
    distinct = min(_DISTINCT if size[0] < 2000 else 8, count)
    shares = [(folder, size, seed, range(seed, count, distinct)) for seed in range(distinct)]
    if count < 100:  # sooner made than a process is started
        list(map(_write_one, shares))
        return
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        list(pool.map(_write_one, shares))


def _write_one(asked: tuple[Path, tuple[int, int], int, range]) -> None:
    folder, size, seed, numbers = asked
    coarser = 4 if size[0] > 2000 else 1  # a large one is drawn smaller, which takes less time and memory
    drawn = models.patchwork((size[0] // coarser, size[1] // coarser), 25, seed).image
    image = Image.fromarray(drawn).resize(size[::-1])
    for number in numbers:
        path = folder / f"{number:06}.jpg"
        if number == numbers.start:
            image.save(path, "JPEG", quality=90)
            encoded = path.read_bytes()
        else:
            comment = f"{number:06}".encode()
            path.write_bytes(encoded[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + encoded[2:])


class _Busy:
    """The share of time in which the device ran a kernel, asked of its driver every 0.2 seconds."""

    def __init__(self) -> None:
        self._seen: list[int] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        try:
            import pynvml
        except ImportError:
            return
        try:
            pynvml.nvmlInit()
            device = pynvml.nvmlDeviceGetHandleByIndex(0)
        except pynvml.NVMLError:
            return
        while not self._over.wait(0.2):
            self._seen.append(pynvml.nvmlDeviceGetUtilizationRates(device).gpu)

    def tenths(self) -> list[float]:
        """In each tenth of the run; empty without a GPU."""
        parts = [self._seen[len(self._seen) * tenth // 10 : len(self._seen) * (tenth + 1) // 10] for tenth in range(10)]
        return [round(sum(one) / len(one) / 100, 2) for one in parts if one]


MEASUREMENTS = {
    "photographs of 640x480": small_photographs,
    "photographs of 4000x3000": large_photographs,
    "without CUDA graphs": eager,
    "two actors on the device": two_actors,
    "all three tasks": all_tasks,
}

if __name__ == "__main__":
    sys.exit(part.run(MEASUREMENTS))
