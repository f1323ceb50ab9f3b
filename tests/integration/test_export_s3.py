"""Exports to a real S3 server."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from pycocotools.coco import COCO

from masklake import reading, storage
from masklake.demo.seaweedfs import SeaweedFS
from masklake.errors import Refused
from masklake.storage import s3 as s3_module
from tests.exports import build, export, newest


def test_every_format_goes_to_and_comes_from_s3(bucket: str, tmp_path: Path) -> None:
    table = build(f"s3://{bucket}/masks")
    for wanted in ("coco-instances", "coco-panoptic", "label-maps", "segments"):
        export(table, f"s3://{bucket}/out/{wanted}", wanted)
    storage.download_folder(f"s3://{bucket}/out", tmp_path)
    coco = COCO(str(tmp_path / "coco-instances" / "instances.json"))
    rows = newest(table, "instance")
    for image in coco.imgs.values():
        found = [coco.annToMask(annotation) for annotation in coco.imgToAnns[image["id"]]]
        assert {mask.tobytes() for mask in found} == {mask.astype(np.uint8).tobytes() for mask in reading.masks(rows[image["file_name"]])}
    ids = np.asarray(Image.open(tmp_path / "coco-panoptic/panoptic/dt=2026-11-22/d.png"))[..., 0]
    assert np.array_equal(ids, reading.id_map(newest(table, "panoptic")["dt=2026-11-22/d"])[0])
    assert (tmp_path / "label-maps/label-maps/dt=2026-11-22/d.png").exists()
    assert pl.read_parquet(tmp_path / "segments/segments-*.parquet")["image_uri"].n_unique() == 5
    with pytest.raises(Refused, match="--overwrite"):
        export(table, f"s3://{bucket}/out/segments", "segments")
    export(table, f"s3://{bucket}/out/segments", "segments", overwrite=True)


def test_a_large_file_goes_up_in_parts(s3: SeaweedFS, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_module, "_PART_BYTES", 5 << 20)
    data = os.urandom((12 << 20) + 1)
    (tmp_path / "large").write_bytes(data)
    storage.upload_file(tmp_path / "large", f"s3://{bucket}/a large file")
    assert storage.read_bytes(f"s3://{bucket}/a large file") == data
    assert s3.client.head_object(Bucket=bucket, Key="a large file")["ETag"].endswith('-3"')


def test_parts_that_do_not_become_a_file_are_given_up(s3: SeaweedFS, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_module, "_PART_BYTES", 5 << 20)
    (tmp_path / "large").write_bytes(bytes(11 << 20))
    # The store gets parts that it must refuse to put together: all but the last have to be of 5 MB or more, and must exist.
    upload = s3_module.S3Store._upload_parts

    def with_a_part_too_many(*arguments: object) -> list[dict[str, object]]:
        return [*upload(*arguments), {"PartNumber": 99, "ETag": '"0"'}]  # type: ignore[arg-type]

    monkeypatch.setattr(s3_module.S3Store, "_upload_parts", with_a_part_too_many)
    with pytest.raises(storage.StorageError):
        storage.upload_file(tmp_path / "large", f"s3://{bucket}/large")
    assert not storage.exists(f"s3://{bucket}/large")
    assert not s3.client.list_multipart_uploads(Bucket=bucket).get("Uploads")
