"""Resizing and normalising must give transformers' own pixel values, bit for bit."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from masklake.inference.families import PROCESSORS
from masklake.inference.preprocess import Frame, ResizePlan, normalise, plan_from_processor, resize

ODD_SIZES = [(1, 1), (37, 53), (53, 37), (64, 64), (1, 40), (61, 7), (120, 121), (333, 500)]

SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("Mask2Former", {"size": {"height": 48, "width": 48}}),
    ("Mask2Former", {"size": {"shortest_edge": 50, "longest_edge": 83}, "size_divisor": 0}),
    ("Mask2Former", {"size": {"shortest_edge": 50, "longest_edge": 83}}),
    ("MaskFormer", {"size": {"shortest_edge": 51, "longest_edge": 70}, "size_divisor": 32, "resample": 3}),
    ("MaskFormer", {"size": 50, "max_size": 83, "size_divisor": 0}),
    ("OneFormer", {"size": {"shortest_edge": 50, "longest_edge": 83}}),
    ("Detr", {"size": {"shortest_edge": 50, "longest_edge": 83}}),
    ("Detr", {"size": {"max_height": 50, "max_width": 60}}),
    ("Eomt", {"size": {"shortest_edge": 64, "longest_edge": 64}}),
    ("EomtDinov3", {"size": {"shortest_edge": 64, "longest_edge": 64}}),
    ("Segformer", {"size": {"height": 48, "width": 64}}),
    ("Segformer", {"size": 48}),
    ("Segformer", {"size": {"height": 48, "width": 64}, "do_resize": False}),
    ("Beit", {"size": {"height": 48, "width": 48}, "rescale_factor": 1 / 127.5}),
    ("DPT", {"size": {"height": 48, "width": 48}}),
    ("DPT", {"size": {"height": 48, "width": 48}, "keep_aspect_ratio": True, "ensure_multiple_of": 16}),
    ("Sam3", {"size": {"height": 48, "width": 48}}),
    ("MobileNetV2", {"size": {"shortest_edge": 65}, "do_center_crop": False}),
    ("MobileNetV2", {"size": {"shortest_edge": 65}, "do_center_crop": False, "do_normalize": False}),
]


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def theirs(name: str, settings: dict[str, Any], image: NDArray[np.uint8]) -> NDArray[np.float32]:
    if name == "Sam3":  # its own needs torchvision: SegFormer's, with the mean and deviation of SAM 3, does the same
        name, settings = "Segformer", {**settings, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    name = name.removesuffix("Dinov3")  # whose processor is that of the first EoMT
    folder = {"DPT": "dpt", "MobileNetV2": "mobilenet_v2"}.get(name, name.lower())
    module = importlib.import_module(f"transformers.models.{folder}.image_processing_pil_{folder}")
    processor = getattr(module, f"{name}ImageProcessorPil")(**settings)
    extra = {"task_inputs": ["semantic"]} if name == "OneFormer" else {}
    values: NDArray[np.float32] = processor(images=Image.fromarray(image), return_tensors="np", **extra)["pixel_values"][0]
    return values


@pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=[f"{name}-{index}" for index, (name, _) in enumerate(SETTINGS)])
def test_pixel_values_equal_those_of_transformers_pil_processors(name: str, settings: dict[str, Any]) -> None:
    plan = plan_from_processor(PROCESSORS[name] | settings)
    for height, width in ODD_SIZES:
        image = noise(height, width)
        if min(plan.target(height, width)) == 1:
            continue  # theirs fails where a side would become 0
        expected = theirs(name, settings, image)
        assert np.array_equal(normalise(resize(image, plan), plan), expected), f"{height} x {width}"


def test_every_known_processor_is_compared() -> None:
    assert {name for name, _ in SETTINGS} == set(PROCESSORS)


def test_no_side_ever_becomes_zero() -> None:
    plan = ResizePlan("edges", (50, 80))
    assert plan.target(1, 1000) == (1, 80)
    assert resize(noise(1, 1000), plan).shape == (1, 80, 3)


@pytest.mark.parametrize(
    ("plan", "original", "expected"),
    [
        (ResizePlan("exact", (384, 384)), (480, 640), (384, 384)),
        (ResizePlan("edges", (800, 1333)), (480, 640), (800, 1066)),  # 800 x 640 / 480
        (ResizePlan("edges", (800, 1333)), (480, 1000), (640, 1333)),  # 1333 x 480 / 1000 = 639.84, rounded
        (ResizePlan("edges", (512, 0)), (100, 1000), (512, 5120)),
        (ResizePlan("within", (513, 513)), (480, 640), (384, 513)),
        (ResizePlan("keep"), (480, 640), (480, 640)),
    ],
)
def test_target_sizes_worked_out_by_hand(plan: ResizePlan, original: tuple[int, int], expected: tuple[int, int]) -> None:
    assert plan.target(*original) == expected


def test_padding_goes_to_the_next_multiple_or_to_the_square() -> None:
    assert Frame(divisor=32).padded((33, 64)) == (64, 64)
    assert Frame(square=640).padded((640, 427)) == (640, 640)
    assert Frame(square=512, windows=True).padded((512, 700)) == (512, 700)


def test_the_driver_side_imports_neither_torch_nor_transformers() -> None:
    names = "preprocess", "options", "checkpoint", "families", "splits", "hub", "segments"
    code = (
        f"import sys; from masklake.inference import {', '.join(names)}; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
