"""Peer: a plain loop over S3 keys with transformers, eight images at a time, and one Parquet file at the end.

python -m jobs.benchmarks.peers.plain_loop s3://lake/images/ s3://lake/peer-loop pipeline/masklake/demo/model
"""

from __future__ import annotations

import io
import json
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import s3fs
from PIL import Image

from jobs.benchmarks.peers.transformers_answer import TransformersAnswer

_BATCH = 8


def main(source: str, target: str, model: str) -> None:
    started = time.monotonic()
    store = s3fs.S3FileSystem()
    paths = [path for path in store.find(source) if path.endswith(".jpg")]
    answer = TransformersAnswer(model)
    uris: list[str] = []
    segments = []
    first = 0.0
    for index in range(0, len(paths), _BATCH):
        batch = paths[index : index + _BATCH]
        images = [Image.open(io.BytesIO(data)).convert("RGB") for data in store.cat(batch).values()]
        uris += batch
        segments += answer(images)
        first = first or time.monotonic()
    with store.open(f"{target}/masks.parquet", "wb") as file:
        pq.write_table(pa.table({"uri": uris, "segments": segments}), file)
    ended = time.monotonic()
    steady = (len(paths) - _BATCH) / (ended - first)
    print(json.dumps({"images": len(paths), "seconds": ended - started, "steady_images_per_second": steady}))


if __name__ == "__main__":
    main(*sys.argv[1:])
