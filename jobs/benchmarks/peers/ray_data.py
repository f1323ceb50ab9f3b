"""Peer: Ray Data's documented pattern, `read_images`, one `map_batches` actor, `write_parquet`.

python -m jobs.benchmarks.peers.ray_data s3://lake/images/ s3://lake/peer-ray pipeline/masklake/demo/model
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
import s3fs
from PIL import Image
from ray.data import ActorPoolStrategy

_BATCH = 8


class Segment:
    """The actor of the documented pattern; it notes when its first batch was done."""

    def __init__(self, model: str, mark: str) -> None:
        from jobs.benchmarks.peers.transformers_answer import TransformersAnswer

        self.answer = TransformersAnswer(model)
        self.mark = Path(mark)

    def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
        segments = self.answer([Image.fromarray(image) for image in batch["image"]])
        if not self.mark.exists():
            self.mark.write_text(repr(time.time()))
        return {"path": batch["path"], "segments": np.array([json.dumps(found, default=_text) for found in segments])}


def _text(value: object) -> object:
    return value.decode() if isinstance(value, bytes) else float(value)  # type: ignore[arg-type]


def main(source: str, target: str, model: str) -> None:
    started = time.time()
    store = s3fs.S3FileSystem()
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        mark = Path(folder, "first-batch")
        images = ray.data.read_images(
            source.removeprefix("s3://"), filesystem=store, include_paths=True, mode="RGB", file_extensions=["jpg"]
        )
        masks = images.map_batches(
            Segment,
            fn_constructor_args=(str(Path(model).resolve()), str(mark)),
            batch_size=_BATCH,
            compute=ActorPoolStrategy(size=1),
            num_cpus=1,
        )
        masks.write_parquet(target.removeprefix("s3://"), filesystem=store)
        ended, first = time.time(), float(mark.read_text())
    count = sum(1 for path in store.find(source) if path.endswith(".jpg"))
    print(json.dumps({"images": count, "seconds": ended - started, "steady_images_per_second": (count - _BATCH) / (ended - first)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
