"""--decode fast in a run: new work, rows that tell of the original."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from masklake.images import decode
from masklake.inference import checkpoint
from masklake.inference.options import Options
from masklake.segment import stages
from masklake.segment.model import facts, fingerprint
from masklake.segment.settings import SegmentConfig
from masklake.segment.stages import Work
from tests.lakes import MODEL
from tests.unit.segment.test_stages import work as work  # noqa: PLC0414 - a fixture


def test_it_is_part_of_the_fingerprint_and_exact_is_as_before() -> None:
    description = checkpoint.describe(MODEL, Options(tasks=("panoptic",)))

    def print_of(**settings: str) -> str:
        return fingerprint(SegmentConfig(model=str(MODEL), precision="float32", **settings), description, "panoptic")

    assert print_of() == print_of(decode="exact") != print_of(decode="fast")


def test_formats_that_are_installed_are_part_of_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra `formats`, an image that was `unsupported` is new work; without it, fingerprints are as they always were."""
    description = checkpoint.describe(MODEL, Options(tasks=("panoptic",)))
    prints = []
    for installed in ((), ("HEIF",), ("HEIF", "JXL")):
        monkeypatch.setattr(decode, "MORE_FORMATS", installed)
        config = SegmentConfig(model=str(MODEL), precision="float32")
        assert facts(config, description, "panoptic")["decode"].get("formats", ()) == installed
        prints.append(fingerprint(config, description, "panoptic"))
    assert len({*prints}) == 3


@pytest.mark.slow
def test_a_large_photograph_keeps_its_size_in_the_row_and_gets_the_models_input(work: Work) -> None:
    with Image.open(io.BytesIO(Path(work.plan_uri).parent.joinpath("images", "scene-0.jpg").read_bytes())) as scene:
        large = scene.resize((1601, 1203), Image.Resampling.LANCZOS)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn: 1601 is its height
    large.save(Path(work.plan_uri).parent / "images" / "scene-0.jpg", quality=92, exif=exif)
    work = replace(work, plan_uri=_planned(work), fast_decode=True)
    (table, *_) = stages.load_group(work, 0)
    (row,) = (row for row in table.to_pylist() if row["image_uri"].endswith("scene-0.jpg"))
    assert (row["height"], row["width"], row["format"]) == (1601, 1203, "JPEG")
    assert (row["pixels_height"], row["pixels_width"]) == work.description.resize.target(1601, 1203)


def _planned(work: Work) -> str:
    from masklake.images.discover import discover
    from masklake.images.source import Input
    from masklake.segment.plan import WorkList, make_plan

    folder = Path(work.plan_uri).parent
    make_plan(discover(Input(str(folder / "images"))), None, work.stamp.fingerprints, work_list=WorkList(str(folder / "again"), 99))
    return str(folder / "again")
