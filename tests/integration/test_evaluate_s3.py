"""An evaluation whose table, truth, mapping and output are on a real S3 server."""

from __future__ import annotations

import json

import pytest

from masklake import storage
from tests.evaluations import evaluate
from tests.exports import build, export


@pytest.mark.parametrize(("wanted", "task", "main"), [("coco-panoptic", "panoptic", "pq"), ("label-maps", "semantic", "miou")])
def test_everything_may_lie_on_s3(bucket: str, wanted: str, task: str, main: str) -> None:
    table = build(f"s3://{bucket}/masks")
    export(table, f"s3://{bucket}/truth/{wanted}", wanted)
    storage.write_bytes(f"s3://{bucket}/map.yaml", b"person: person\n")
    mapping, output = f"s3://{bucket}/map.yaml", f"s3://{bucket}/out"
    found = evaluate(table, f"s3://{bucket}/truth/{wanted}", task=task, categories=mapping, output=output, worst=1)
    assert (found["images"]["scored"], found["scores"][main]) == (5, 1)
    assert json.loads(storage.read_bytes(f"s3://{bucket}/out/evaluation.json"))["scores"][main] == 1
    assert storage.read_bytes(f"s3://{bucket}/out/evaluation.html").startswith(b"<!doctype html>")
