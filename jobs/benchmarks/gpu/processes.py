"""Processes beside the one with the model: some that decode for it, as in a job but without Ray, and a second one with the model."""

from __future__ import annotations

import functools
import io
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jobs.benchmarks import models
from jobs.benchmarks.gpu import part
from jobs.benchmarks.gpu.part import Asked
from jobs.benchmarks.models import PRESETS, Patchwork, Pixels
from masklake.inference import checkpoint
from masklake.inference.options import Options
from masklake.inference.preprocess import ResizePlan, Size, resize
from masklake.inference.segmenter import ModelInput, Segmenter

_MODEL = "mask2former-swin-tiny-384"
_TASKS = ("panoptic",)
_KEPT = 25


def decoding(asked: Asked) -> dict[str, Any]:
    """Milliseconds an image of everything, from a JPEG's bytes to run lengths, with other processes that decode and resize."""
    workers = 1 if asked.small else max(1, (os.cpu_count() or 2) - 2)
    found: dict[str, Any] = {"processes": workers}
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for size in ((48, 64),) if asked.small else ((480, 640), (1080, 1920)):
            pictures = _pictures(size)
            segmenter, batch = _taught(asked, pictures)
            files = [_encoded(one.image) for one in pictures]
            decode = functools.partial(_decoded, plan=segmenter.description.resize)
            list(pool.map(decode, files * workers))  # they have started
            count = batch * (2 if asked.small else 40)
            started = time.perf_counter()
            arriving = pool.map(decode, (files[index % len(files)] for index in range(count)), chunksize=1 if asked.small else 8)
            answered = sum(len(segmenter.segment(inputs)) for inputs in _chunks(arriving, 4 * batch))
            found[f"{size[1]}x{size[0]}, ms an image"] = round((time.perf_counter() - started) * 1000 / answered, 3)
    return found


def _pictures(size: Size) -> list[Patchwork]:
    return [models.patchwork(size, _KEPT, seed) for seed in range(4)]


def _taught(asked: Asked, pictures: list[Patchwork]) -> tuple[Segmenter, int]:
    """The model with heads that see the pictures, and how many images it takes at a time."""
    folder = asked.scratch / f"{_MODEL}-processes"
    if not folder.exists():
        models.write(models.shrunk(PRESETS[_MODEL]) if asked.small else PRESETS[_MODEL], folder, asked.device)
    batch = 2 if asked.small else 32
    description = checkpoint.describe(folder, Options(tasks=_TASKS))
    segmenter = Segmenter.load(folder, description, asked.device, "auto", batch, forward="auto")
    models.teach(segmenter, pictures)
    segmenter.compact = asked.device == "cuda"  # as an actor's is: strings are made where files are written
    return segmenter, batch


def _encoded(image: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=90)
    return file.getvalue()


def _decoded(data: bytes, plan: ResizePlan) -> ModelInput:
    picture = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    return ModelInput(resize(picture, plan), (picture.shape[0], picture.shape[1]), _TASKS)


def _chunks(arriving: Iterable[ModelInput], count: int) -> Iterator[list[ModelInput]]:
    chunk: list[ModelInput] = []
    for item in arriving:
        chunk.append(item)
        if len(chunk) == count:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def sharing(asked: Asked) -> dict[str, Any]:
    """Images a second of one process, and of two that share the device, from resized pixels to run lengths."""
    _taught(asked, _pictures((48, 64)))  # its folder is there before two want to make it
    found: dict[str, Any] = {}
    for count in (2,) if asked.small else (1, 2):
        go = asked.scratch / f"go-{count}"
        order = json.dumps({"device": asked.device, "small": asked.small, "scratch": str(asked.scratch), "go": str(go)})
        command = [sys.executable, "-c", f"from jobs.benchmarks.gpu import processes; processes.one({order!r})"]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
        for process in running:
            assert process.stdout is not None
            process.stdout.readline()  # it is warm
        go.touch()
        rates = [float(process.communicate()[0].split()[-1]) for process in running]
        found[f"{count} process{'es' if count > 1 else ''}, images a second"] = round(sum(rates), 1)
    return found


def one(order: str) -> None:
    """A process of `sharing`: gets warm, says so, waits for the sign, and prints how many images it answers a second."""
    told = json.loads(order)
    asked = Asked(told["device"], told["small"], Path(told["scratch"]))
    size = (48, 64) if asked.small else (480, 640)
    pictures = _pictures(size)
    segmenter, batch = _taught(asked, pictures)
    pixels = [resize(each.image, segmenter.description.resize) for each in pictures]
    inputs = [ModelInput(pixels[index % len(pixels)], size, _TASKS) for index in range(4 * batch)]
    segmenter.segment(inputs)
    print("ready", flush=True)
    while not Path(told["go"]).exists():
        time.sleep(0.01)
    started, answered = time.perf_counter(), 0
    while not answered or time.perf_counter() - started < (0.3 if asked.small else 4):
        answered += len(segmenter.segment(inputs))
    print(answered / (time.perf_counter() - started), flush=True)


MEASUREMENTS = {"processes that decode": decoding, "processes that share the device": sharing}

if __name__ == "__main__":
    sys.exit(part.run(MEASUREMENTS))
