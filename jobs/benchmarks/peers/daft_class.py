"""Peer: Daft's documented pattern for a model, `from_glob_path`, `download`, `decode_image`, a class with a batch method, `write_parquet`.

python -m jobs.benchmarks.peers.daft_class s3://lake/images/ s3://lake/peer-daft pipeline/masklake/demo/model 2

The last argument is how many instances of the class there are: one with all cores, or one a core. It runs in an environment in which Daft
is beside this project's packages, see the README.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import daft
import torch
from daft import DataType, Series, col
from daft.functions import decode_image, download
from daft.io import IOConfig, S3Config
from PIL import Image

_BATCH = 8


class Segment:
    """The class of the documented pattern; it notes when its first batch was done."""

    def __init__(self, model: str, mark: str, threads: int) -> None:
        torch.set_num_threads(threads)
        from jobs.benchmarks.peers.transformers_answer import TransformersAnswer

        self.answer = TransformersAnswer(model)
        self.mark = Path(mark)

    @daft.method.batch(return_dtype=DataType.string(), batch_size=_BATCH)  # type: ignore[untyped-decorator, unused-ignore]
    def segments(self, images: Series) -> list[str]:
        """The segments of some images, as JSON."""
        found = self.answer([Image.fromarray(image) for image in images.to_pylist()])
        if not self.mark.exists():
            self.mark.write_text(repr(time.time()))
        return [json.dumps(segments, default=_text) for segments in found]


def _text(value: object) -> object:
    return value.decode() if isinstance(value, bytes) else float(value)  # type: ignore[arg-type]


def _store() -> IOConfig:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    keys: dict[str, Any] = {"key_id": os.environ["AWS_ACCESS_KEY_ID"], "access_key": os.environ["AWS_SECRET_ACCESS_KEY"]}
    return IOConfig(s3=S3Config(endpoint_url=endpoint, region_name=os.environ.get("AWS_REGION", "us-east-1"), **keys))


def main(source: str, target: str, model: str, instances: str = "1") -> None:
    started = time.time()
    store = _store()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        mark, number = Path(folder, "first-batch"), int(instances)
        segment = daft.cls(Segment, max_concurrency=number, use_process=number > 1)
        answer = segment(str(Path(model).resolve()), str(mark), max(1, cores // number))
        files = daft.from_glob_path(f"{source}**/*.jpg", io_config=store)
        images = files.with_column("image", decode_image(download(col("path"), io_config=store), mode="RGB"))
        masks = images.with_column("segments", answer.segments(col("image"))).select("path", "segments")
        masks.write_parquet(target, io_config=store)
        ended, first = time.time(), float(mark.read_text())
    count = daft.read_parquet(f"{target}/*.parquet", io_config=store).count_rows()
    print(json.dumps({"images": count, "seconds": ended - started, "steady_images_per_second": (count - _BATCH) / (ended - first)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
