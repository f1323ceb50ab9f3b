"""The demo model: a small Mask2Former (ResNet, 128 x 128) trained from nothing on generated scenes.

Training is seeded throughout; scenes are drawn from seeds that the held-out scenes never use.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig

from pipeline.training.scenes import FIRST_TRAINING_SEED, LABELS, THING_LABEL_IDS, render, sample_scene

SIDE = 128  # the model's input, pixels
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Sample = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def build_model(seed: int = 0) -> Mask2FormerForUniversalSegmentation:
    """A randomly initialised Mask2Former of about 2 million parameters for the scenes' labels."""
    torch.manual_seed(seed)
    backbone = ResNetConfig(
        embedding_size=32,
        hidden_sizes=[32, 64, 128, 192],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        out_features=["stage1", "stage2", "stage3", "stage4"],  # type: ignore[call-arg]
    )
    config = Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=64,
        mask_feature_size=64,
        hidden_dim=64,
        encoder_feedforward_dim=128,
        encoder_layers=2,
        decoder_layers=5,  # the library counts the layer before the first: 4 attention layers
        dim_feedforward=256,
        num_attention_heads=4,
        num_queries=20,
        train_num_points=1024,
        id2label=LABELS,
        label2id={label: label_id for label_id, label in LABELS.items()},
    )
    return Mask2FormerForUniversalSegmentation(config)


def train(
    model: Mask2FormerForUniversalSegmentation,
    steps: int,
    batch: int = 8,
    peak_rate: float = 1e-3,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Train in place for `steps` of `batch` fresh scenes each, AdamW with a one-cycle rate; `on_step(step, loss)` follows each."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_rate, total_steps=steps, pct_start=0.1)
    loader = DataLoader(_Scenes(steps * batch), batch_size=batch, num_workers=1, collate_fn=list, prefetch_factor=8)
    for step, samples in enumerate(loader, 1):
        pixels, masks, labels = zip(*samples, strict=True)
        outputs = model(pixel_values=torch.stack(pixels), mask_labels=list(masks), class_labels=list(labels))
        optimizer.zero_grad(set_to_none=True)
        outputs.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        on_step(step, outputs.loss.item())
    model.eval()  # type: ignore[no-untyped-call]


def save_checkpoint(model: Mask2FormerForUniversalSegmentation, folder: Path) -> None:
    """Write a checkpoint folder that `transformers` and masklake load: safetensors, config, preprocessor settings, thing ids."""
    model.config.thing_ids = list(THING_LABEL_IDS)
    model.save_pretrained(folder)
    preprocessor: dict[str, Any] = {
        "image_processor_type": "Mask2FormerImageProcessor",
        "do_resize": True,
        "size": {"height": SIDE, "width": SIDE},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": _MEAN,
        "image_std": _STD,
        "ignore_index": 255,
        "num_labels": len(LABELS),
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n")


class _Scenes(IterableDataset[Sample]):
    """`count` training samples: pixel values float32 [3, S, S], masks float32 [n, S, S], label ids int64 [n]."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[Sample]:
        torch.set_num_threads(1)
        for index in range(self.count):
            yield _sample(FIRST_TRAINING_SEED + index)


def _sample(seed: int) -> Sample:
    rendered = render(sample_scene(seed), SIDE, SIDE)
    pixels = (rendered.image.astype(np.float32) / 255 - np.asarray(_MEAN, np.float32)) / np.asarray(_STD, np.float32)
    masks = rendered.ids[None] == np.arange(1, len(rendered.label_ids) + 1)[:, None, None]
    return (
        torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
        torch.from_numpy(masks.astype(np.float32)),
        torch.tensor(rendered.label_ids),
    )
