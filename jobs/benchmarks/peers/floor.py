"""The least that answers take: a script that loads the model and answers a folder of images, without a table or a report.

python -m jobs.benchmarks.peers.floor FOLDER MODEL [sparing]

It imports transformers as any script does; with `sparing`, as little of it as masklake's runs do.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from masklake.images.decode import Decoded, decode
from masklake.inference import checkpoint, sparing
from masklake.inference.options import Options
from masklake.inference.preprocess import resize
from masklake.inference.segmenter import ModelInput, Segmenter

_MAX_PIXELS = 100_000_000


def main(folder: str, model: str, *how: str) -> None:
    """Answer each image of a folder; prints how many there are."""
    if how == ("sparing",):
        sparing.allow("eager")
    description = checkpoint.describe(Path(model), Options(tasks=("panoptic",)))
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    segmenter = Segmenter.load(Path(model), description, device="cpu")
    inputs = []
    for path in sorted(Path(folder).iterdir()):
        image = decode(path.read_bytes(), _MAX_PIXELS)
        assert isinstance(image, Decoded), image
        inputs.append(ModelInput(resize(image.pixels, description.resize), image.size, ("panoptic",)))
    answers = segmenter.segment(inputs)
    print(json.dumps({"images": len(answers)}), flush=True)
    os._exit(0)  # as the job does: torch's own end is no part of the work


if __name__ == "__main__":
    main(*sys.argv[1:])
