"""Galleries to look at and to test: generated scenes with their truth as the answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from masklake.demo.scenes import LABELS, THING_LABEL_IDS, render, sample_scene
from masklake.pages import rendering
from masklake.pages.cards import Card, card_from
from masklake.segment.gallery import GalleryInput, render_gallery
from masklake.segment.report import RunFacts, RunTotals

SIZES = ((480, 640), (720, 1280), (640, 480), (512, 512), (600, 800), (1080, 1920))
FACTS = RunFacts(
    run_id="20261122-174301-3f9a",
    input_uri="s3://lake/images/",
    table_uri="s3://lake/masks",
    model="facebook/mask2former-swin-tiny-coco-panoptic",
    model_revision="a6b8f5e1c2d34f0b9a7e6d5c4b3a291807f6e5d4",
    tasks=("panoptic",),
    started_at=datetime(2026, 11, 22, 17, 43, 1, tzinfo=UTC),
    finished_at=datetime(2026, 11, 22, 17, 44, 20, tzinfo=UTC),
)
STAGE_SECONDS = {"discover": 0.4, "plan": 0.9, "fetch": 5.1, "decode": 14.2, "segment": 118.0, "write": 3.7, "commit": 1.1}
FAILURES = {
    "not_an_image": (
        (
            "s3://lake/images/dt=2026-11-21/notes.jpg",
            "the bytes are not an image format known to the decoder: they begin with 'Meeting notes'",
        ),
        ("s3://lake/images/dt=2026-11-22/thumbs.jpg", "the bytes are not an image format known to the decoder"),
    ),
    "truncated": (("s3://lake/images/dt=2026-11-22/camera-07/half.jpg", "the image ends before its pixels do: 118,042 of 236,084 bytes"),),
    "too_large": (
        (
            "s3://lake/images/dt=2026-11-22/"
            + "a-folder-with-a-long-name/" * 6
            + "panorama-without-any-break-in-its-very-long-file-name" * 3
            + ".png",
            "60,000 x 60,000 pixels are more than the 100,000,000 that --max-pixels allows",
        ),
    ),
}

_SHEET = (Path(rendering.__file__).parent / "templates" / "page.css").read_text(encoding="utf-8")
LIGHT, DARK = (dict(re.findall(r"--(\w+):(#[0-9a-f]{6})", rule)) for rule in re.findall(r":root{(.*?)}", _SHEET))
"""The colours of both schemes, as the style sheet names them."""


def page_of(gallery: GalleryInput) -> str:
    """The page as a browser gets it."""
    return render_gallery(gallery).html


def scene_row(seed: int, height: int, width: int, task: str = "panoptic") -> tuple[Any, dict[str, Any]]:
    """A generated image, uint8 [H, W, 3], and its true answer as a row of the table."""
    rendered = render(sample_scene(seed, width / height), height, width)
    random = np.random.default_rng(seed)
    segments = []
    for segment_id, label_id in enumerate(rendered.label_ids, 1):
        mask = rendered.ids == segment_id
        segments.append(
            {
                "segment_id": segment_id,
                "label_id": label_id,
                "label": LABELS[label_id],
                "isthing": label_id in THING_LABEL_IDS,
                "score": float(random.uniform(0.82, 0.999)),
                "area": int(mask.sum()),
                "bbox": [0, 0, width, height],
                "counts": coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"],
            }
        )
    uri = f"s3://lake/images/dt=2026-11-{20 + seed % 3}/scene-{seed:04d}.jpg"
    return rendered.image, {"image_uri": uri, "task": task, "height": height, "width": width, "segments": segments}


def scene_card(seed: int) -> Card:
    """A card of one generated scene."""
    return card_from(*scene_row(seed, *SIZES[seed % len(SIZES)]))


def gallery_of(cards: Sequence[Card], label_counts: dict[str, int] | None = None, failures: bool = True) -> GalleryInput:
    """A run of 203 images with these pictures, and with or without failures."""
    examples = FAILURES if failures else {}
    errors = {code: len(found) + (code == "not_an_image") * 2 for code, found in examples.items()}
    failed = sum(errors.values())
    counts = {"grass": 203, "sky": 203, "ball": 161, "cone": 148, "crate": 139, "water": 97} if label_counts is None else label_counts
    totals = RunTotals(
        planned_images=203 + failed,
        planned_rows=203 + failed,
        images=203 + failed,
        failed_images=failed,
        rows=203 + failed,
        ok=203,
        errors=errors,
        examples=examples,
        label_counts=counts,
        seconds=STAGE_SECONDS,
        wall_seconds=78.6,
    )
    return GalleryInput(FACTS, totals, cards)
