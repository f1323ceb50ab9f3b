"""A checkpoint with one label: a semantic answer of it is not that label at every pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from masklake.errors import Refused
from masklake.inference import checkpoint
from masklake.inference.options import Options
from masklake.inference.segmenter import ModelInput, Segmenter
from tests.unit.inference import tiny_checkpoints

SEMANTIC = Options(tasks=("semantic",))


def single(family: str, folder: Path) -> Path:
    config = tiny_checkpoints.CONFIGS[family]()
    config.id2label, config.label2id = {0: "lesion"}, {"lesion": 0}
    return tiny_checkpoints.write(family, folder, thing_ids=None, config=config)


def test_a_segformer_answers_where_its_sigmoid_is_one_half_or_more(tmp_path: Path) -> None:
    folder = single("segformer", tmp_path)
    description = checkpoint.describe(folder, SEMANTIC)
    segmenter = Segmenter.load(folder, description)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with torch.no_grad():
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (description.resize.mean, description.resize.std))
        values = (torch.from_numpy(pixels).permute(2, 0, 1) / 255 - mean) / std
        bias = segmenter.module.decode_head.classifier.bias
        logits = segmenter.module(pixel_values=values[None].float()).logits
        bias -= logits.median()  # half of the pixels are of the label
        resized = torch.nn.functional.interpolate(segmenter.module(pixel_values=values[None].float()).logits, (64, 64), mode="bilinear")[
            0, 0
        ]
    (answer,) = segmenter.segment([ModelInput(pixels, (64, 64), ("semantic",))])
    found = answer["semantic"]
    assert isinstance(found, list)
    (segment,) = found
    mask = coco_mask.decode({"size": [64, 64], "counts": segment.counts}).astype(bool)
    sure = abs(resized.numpy()) > 1e-3
    assert (mask == (torch.sigmoid(resized).numpy() >= 0.5))[sure].all()
    assert 0.2 < mask.mean() < 0.8
    assert description.answer_settings("semantic")["single_label"] == "sigmoid at 0.5"


def test_others_and_transformers_own_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"has 'lesion' as its only label, .* at every pixel: leave semantic out of --tasks"):
        checkpoint.describe(single("upernet", tmp_path), SEMANTIC)
    with pytest.raises(Refused, match="at every pixel: leave out --postprocess hf"):
        checkpoint.describe(single("segformer", tmp_path), Options(tasks=("semantic",), postprocess="hf"))
