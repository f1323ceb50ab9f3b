"""What the benchmark measures: checkpoints of known architectures with random weights, and pictures to put through them.

A model's time does not depend on its weights. The time after the model does, on how many queries are kept: random class heads keep none,
so `sharpen` gives them opinions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline.inference.families import FAMILIES, Queries, model_class
from pipeline.inference.preprocess import Size, resize
from pipeline.inference.segmenter import Segmenter
from pipeline.training.scenes import HELD_OUT, render, sample_scene

DEMO = Path(__file__).parents[1] / "infra" / "demo-model"

_CLASSES, _THINGS = 133, 80  # as many as COCO's
_STAGES = ["stage1", "stage2", "stage3", "stage4"]
_SWIN_TINY = {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7}
_SWIN_LARGE = {"embed_dim": 192, "depths": [2, 2, 18, 2], "num_heads": [6, 12, 24, 48], "window_size": 12, "image_size": 384}
_SQUARE_384 = {"height": 384, "width": 384}
_SHORT_800 = {"shortest_edge": 800, "longest_edge": 1333}
_CERTAINTY = 40.0  # spread of the sharpened class logits, in which nearly every query is sure of its class
_CLASS_HEADS = {"mask2former": "class_predictor", "maskformer": "class_predictor", "oneformer": "class_embed"}


@dataclass(frozen=True)
class Preset:
    """An architecture by the settings of its published COCO checkpoint, and the size at which it is used."""

    family: str
    backbone: Mapping[str, Any]
    size: Mapping[str, int]
    """`size` of the image processor."""
    queries: int = 100
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of its configuration, where they differ from the class's defaults."""


PRESETS: dict[str, Preset] = {
    "mask2former-swin-tiny-384": Preset("mask2former", _SWIN_TINY, _SQUARE_384),
    "mask2former-swin-large-800": Preset("mask2former", _SWIN_LARGE, _SHORT_800, queries=200),
    "oneformer-swin-large-800": Preset("oneformer", _SWIN_LARGE, _SHORT_800, queries=150),
}


def write(preset: Preset, folder: Path) -> Path:
    """Write a checkpoint with random weights (always the same) into `folder`, as transformers writes it."""
    import transformers

    names = {"mask2former": "Mask2FormerConfig", "oneformer": "OneFormerConfig"}
    labels = {index: f"class {index}" for index in range(_CLASSES)}
    backbone = transformers.SwinConfig(**preset.backbone, drop_path_rate=0.0, out_features=_STAGES)
    config = getattr(transformers, names[preset.family])(
        backbone_config=backbone,
        num_queries=preset.queries,
        id2label=labels,
        label2id={label: index for index, label in labels.items()},
        **preset.settings,
    )
    config.thing_ids = list(range(_THINGS))
    torch.manual_seed(0)
    model_class(FAMILIES[preset.family])(config).save_pretrained(folder)
    processor = {"image_processor_type": f"{FAMILIES[preset.family].processor}ImageProcessor", "size": dict(preset.size)}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    if preset.family == "oneformer":
        _write_tokenizer(folder)
    return folder


def scenes(size: Size, count: int) -> list[NDArray[np.uint8]]:
    """Generated pictures uint8 [H, W, 3] of `size` (height, width), always the same."""
    return [render(sample_scene(seed, size[1] / size[0]), *size).image for seed in HELD_OUT[:count]]


def sharpen(segmenter: Segmenter, pictures: list[NDArray[np.uint8]], kept: int) -> None:
    """Give a random class head opinions, in place: over the `pictures`, `kept` queries of an image on average are sure of a class."""
    head = segmenter.module.get_submodule(_class_head(segmenter))
    seen: list[torch.Tensor] = []

    def remember(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...], _: torch.Tensor) -> None:
        seen[-1:] = [arguments[0]]  # heads also run after earlier layers: the last run counts

    features = []
    watch = head.register_forward_hook(remember)
    for picture in pictures:
        seen.append(torch.empty(0))
        answer(segmenter, picture)
        features.append(seen[-1].float().reshape(-1, head.in_features).cpu())
    watch.remove()
    weight = torch.randn(head.out_features, head.in_features, generator=torch.Generator().manual_seed(1))
    logits = torch.cat(features) @ weight.T
    scale = _CERTAINTY / logits.std(dim=0, keepdim=True)
    weight, bias = weight * scale.T, (-logits.mean(dim=0) * scale)[0]
    logits = logits * scale + bias
    bias[-1] += _void_bias(logits, kept * len(pictures))
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)


def answer(segmenter: Segmenter, picture: NDArray[np.uint8]) -> Any:
    """The model's answer to one picture for its first task."""
    plan, frame = segmenter.description.resize, segmenter.description.frame
    resized = resize(picture, plan)
    with torch.inference_mode():
        values = segmenter.pixel_values([resized], frame.padded((resized.shape[0], resized.shape[1])))
        task = segmenter.description.tasks[0]
        return segmenter.family.run(segmenter.module, values, (task,))[task]


def kept_queries(segmenter: Segmenter, pictures: list[NDArray[np.uint8]]) -> float | None:
    """How many queries of a picture are kept on average, by the panoptic rule; none for a per-pixel model."""
    from pipeline.inference.panoptic import kept_queries as kept

    answers = [answer(segmenter, picture) for picture in pictures]
    if not all(isinstance(one, Queries) for one in answers):
        return None
    logits = [one.class_logits[0].double().cpu().numpy() for one in answers]
    return float(np.mean([kept(one, segmenter.description.settings).query.size for one in logits]))


def photographs(pictures: list[NDArray[np.uint8]]) -> list[Image.Image]:
    """The same as Pillow images."""
    return [Image.fromarray(picture) for picture in pictures]


def _class_head(segmenter: Segmenter) -> str:
    """The name of the linear layer that gives the class logits."""
    wanted = _CLASS_HEADS[segmenter.description.family]
    return next(name for name, _ in segmenter.module.named_modules() if name.split(".")[-1] == wanted)


def _void_bias(logits: torch.Tensor, kept: int) -> float:
    """What to add to the logit of "no object" (the last of [n, K + 1]) for `kept` rows to have another class with more than 0.8."""
    best, second = logits[:, :-1].topk(2).values.T
    certain = (best - second).sigmoid() > 0.8
    margin = torch.where(certain, best - logits[:, -1], -torch.inf).sort(descending=True).values
    return float(margin[min(kept, len(margin) - 1)]) - 1.4  # a sigmoid of 1.4 is 0.8


def _write_tokenizer(folder: Path) -> None:
    """A CLIP tokenizer of single letters: what text it makes of a task's name does not matter to random weights."""
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocabulary = ["<|startoftext|>", "<|endoftext|>", *letters, *[f"{letter}</w>" for letter in letters]]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    make: Callable[..., Any] = CLIPTokenizer
    make(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
