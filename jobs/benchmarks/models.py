"""What the benchmark measures: checkpoints of known architectures with random weights, and pictures to put through them.

A model's time does not depend on its weights. The time after it does, on how many queries are kept and on what their masks look like:
random heads keep no query, and their masks are all the same, so `teach` fits the heads to pictures of patches.
"""

from __future__ import annotations

import colorsys
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from masklake.demo.scenes import HELD_OUT, render, sample_scene
from masklake.inference.families import FAMILIES, Queries, model_class
from masklake.inference.preprocess import Size, resize
from masklake.inference.segmenter import Segmenter

Pixels = NDArray[np.uint8]


_CLASSES, _THINGS = 133, 80  # as many as COCO's
_STAGES = ["stage1", "stage2", "stage3", "stage4"]
_SWIN_TINY = {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7}
_SWIN_LARGE = {"embed_dim": 192, "depths": [2, 2, 18, 2], "num_heads": [6, 12, 24, 48], "window_size": 12, "image_size": 384}
_VIT_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 640, "patch_size": 16}
_SWIN_SHRUNK = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 3}
_VIT_SHRUNK = {"hidden_size": 32, "num_hidden_layers": 5, "num_attention_heads": 2, "image_size": 64, "patch_size": 16}
_SQUARE_384 = {"height": 384, "width": 384}
_SHORT_800 = {"shortest_edge": 800, "longest_edge": 1333}
_SURE = 8.0  # a logit of classes and masks
_CERTAINTY = 40.0  # spread of the sharpened class logits, in which nearly every query is sure of its class
_CLASS_HEADS = {"mask2former": "class_predictor", "maskformer": "class_predictor", "oneformer": "class_embed", "eomt": "class_predictor"}


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
    "eomt-large-640": Preset("eomt", _VIT_LARGE, {"shortest_edge": 640, "longest_edge": 640}, queries=200),
}


def write(preset: Preset, folder: Path, device: str = "cpu") -> Path:
    """Write a checkpoint with random weights (always the same on one `device`) into `folder`, as transformers writes it."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    with torch.device(device):  # a large model's random weights take a CPU half a minute
        model = model_class(FAMILIES[preset.family])(_config(preset))
    model.save_pretrained(folder)
    processor: dict[str, Any] = {"image_processor_type": f"{FAMILIES[preset.family].processor}ImageProcessor", "size": dict(preset.size)}
    if preset.family == "eomt":
        processor["do_pad"] = True
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    if preset.family == "oneformer":
        _write_tokenizer(folder)
    return folder


def _config(preset: Preset) -> Any:
    import transformers

    labels = {index: f"class {index}" for index in range(_CLASSES)}
    named = {"id2label": labels, "label2id": {label: index for index, label in labels.items()}}
    if preset.family == "eomt":
        make: Callable[..., Any] = transformers.EomtConfig
        config = make(**preset.backbone, num_queries=preset.queries, **named, **preset.settings)
    else:
        more: dict[str, Any] = {"drop_path_rate": 0.0, "out_features": _STAGES}
        backbone = transformers.SwinConfig(**preset.backbone, **more)
        kind = {"mask2former": "Mask2FormerConfig", "oneformer": "OneFormerConfig"}[preset.family]
        config = getattr(transformers, kind)(backbone_config=backbone, num_queries=preset.queries, **named, **preset.settings)
    config.thing_ids = list(range(_THINGS))
    if preset.family == "oneformer":
        config.text_encoder_vocab_size = len(_VOCABULARY)
    return config


def shrunk(preset: Preset) -> Preset:
    """A tiny model of the same family, for inputs of 64 pixels: to try a benchmark itself."""
    size = dict.fromkeys(preset.size, 64)
    if preset.family == "eomt":
        return replace(preset, backbone=_VIT_SHRUNK, size=size, queries=30)
    return replace(preset, backbone=_SWIN_SHRUNK, size=size, queries=30, settings={"encoder_layers": 1, "decoder_layers": 2})


def scenes(size: Size, count: int) -> list[Pixels]:
    """Generated pictures uint8 [H, W, 3] of `size` (height, width), always the same: for trained weights."""
    return [render(sample_scene(seed, size[1] / size[0]), *size).image for seed in HELD_OUT[:count]]


@dataclass(frozen=True)
class Patchwork:
    """A picture uint8 [H, W, 3] of patches, each of a colour of its own, and which of them every pixel is in [H, W]."""

    image: Pixels
    patch: NDArray[np.intp]


def patchwork(size: Size, patches: int, seed: int) -> Patchwork:
    """Draw a picture of `size` (height, width): patches around the points of a shaken grid; always the same for a seed."""
    rng = np.random.default_rng(seed)
    columns = int(np.ceil(np.sqrt(patches)))
    at = np.stack(np.divmod(np.arange(patches), columns), axis=1) + 0.5 + rng.uniform(-0.35, 0.35, (patches, 2))
    at *= np.array(size) / (-(-patches // columns), columns)
    distance = [np.hypot(np.arange(size[0])[:, None] - y, np.arange(size[1]) - x) for y, x in at]
    patch = np.argmin(distance, axis=0)
    shades = [(index * 0.618 % 1, (0.4, 0.7, 1.0)[index % 3], (0.35, 0.55, 0.75, 1.0)[index % 4]) for index in range(patches)]
    colours = [colorsys.hsv_to_rgb(*shade) for shade in shades]
    noise = rng.normal(0, 4, (*size, 1))
    return Patchwork((np.array(colours)[patch] * 255 + noise).clip(0, 255).astype(np.uint8), patch)


def teach(segmenter: Segmenter, pictures: Sequence[Patchwork]) -> None:
    """Change the random weights in place so that queries find the patches of `pictures`: as many are kept, most become a segment.

    The heads are fitted by least squares to the random features; for queries not to depend on the picture, the decoder's layers
    add little to them. The work of a forward pass stays the same. OneFormer's queries come from the picture: its class head alone
    is given opinions.
    """
    patches = int(pictures[0].patch.max()) + 1
    if segmenter.description.family != "mask2former":
        return sharpen(segmenter, [picture.image for picture in pictures], patches)
    module = segmenter.module
    _calm(module.model.transformer_module)
    readout = _readout(segmenter, pictures, patches)
    head = module.model.transformer_module.decoder.mask_predictor.mask_embedder
    last = [layer for layer in head.modules() if isinstance(layer, torch.nn.Linear)][-1]
    embeddings, queries = _inputs(segmenter, (last, module.class_predictor), pictures[0].image)
    kept = torch.arange(patches) * len(queries) // patches
    masks = readout[torch.arange(len(queries)) % patches] * 0.5
    masks[kept] = readout
    _fit(last, embeddings, masks)
    classes = torch.zeros(len(queries), module.class_predictor.out_features, dtype=torch.float64)
    classes[:, -1] = _SURE
    classes[kept] = 0
    classes[kept, torch.arange(patches) * 5 % _CLASSES] = _SURE
    return _fit(module.class_predictor, queries, classes)


def sharpen(segmenter: Segmenter, pictures: Sequence[Pixels], kept: int) -> None:
    """Give a random class head opinions, in place: over the `pictures`, `kept` queries of an image on average are sure of a class."""
    name = _CLASS_HEADS[segmenter.description.family]
    head = next(part for path, part in segmenter.module.named_modules() if path.endswith(name))
    features = [_inputs(segmenter, (head,), picture)[0] for picture in pictures]
    weight = torch.randn(head.out_features, head.in_features, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight = _without(weight, torch.stack([one.mean(dim=0) for one in features]))
    logits = torch.cat(features) @ weight.T
    scale = _CERTAINTY / logits.std(dim=0)
    weight, bias = weight * scale[:, None], -logits.mean(dim=0) * scale
    logits = logits * scale + bias
    bias[-1] += _void_bias(logits, kept * len(pictures))
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)


def answer(segmenter: Segmenter, picture: Pixels) -> Any:
    """The model's answer to one picture for its first task."""
    plan, frame = segmenter.description.resize, segmenter.description.frame
    resized = resize(picture, plan)
    with torch.inference_mode():
        values = segmenter.pixel_values([resized], frame.padded((resized.shape[0], resized.shape[1])))
        task = segmenter.description.tasks[0]
        return segmenter.family.run(segmenter.module, values, (task,))[task]


def kept_queries(segmenter: Segmenter, pictures: Sequence[Pixels]) -> float | None:
    """How many queries of a picture are kept on average, by the panoptic rule; none for a per-pixel model."""
    from masklake.inference.panoptic import kept_queries as kept

    answers = [answer(segmenter, picture) for picture in pictures]
    if not all(isinstance(one, Queries) for one in answers):
        return None
    logits = [one.class_logits[0].double().cpu().numpy() for one in answers]
    return float(np.mean([kept(one, segmenter.description.settings).query.size for one in logits]))


def _inputs(segmenter: Segmenter, layers: Sequence[torch.nn.Module], picture: Pixels) -> list[torch.Tensor]:
    """What the `layers` get for a picture, float64 [queries, features]; heads also run after earlier layers: the last run counts."""
    seen: dict[torch.nn.Module, torch.Tensor] = {}

    def remember(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...], _: torch.Tensor) -> None:
        seen[module] = arguments[0].reshape(-1, arguments[0].shape[-1]).double().cpu()

    watches = [layer.register_forward_hook(remember) for layer in layers]
    answer(segmenter, picture)
    for watch in watches:
        watch.remove()
    return [seen[layer] for layer in layers]


def _calm(decoder: torch.nn.Module) -> None:
    """Let the queries of a Mask2Former decoder differ from the start, and its layers add little to them."""
    with torch.no_grad():
        features = decoder.get_parameter("queries_features.weight")
        features.copy_(torch.randn(features.shape, generator=torch.Generator().manual_seed(1)))
        for name, parameter in decoder.named_parameters():
            if ".layers." in name and ("out_proj." in name or ".fc2." in name):
                parameter.mul_(0.01)


def _readout(segmenter: Segmenter, pictures: Sequence[Patchwork], patches: int) -> torch.Tensor:
    """Mask embeddings float64 [patches, features] whose logits are about `_SURE` inside a patch and as much below zero outside."""
    found, wanted = [], []
    for picture in pictures:
        pixels = resize(picture.image, segmenter.description.resize)
        padded = segmenter.description.frame.padded((pixels.shape[0], pixels.shape[1]))
        with torch.inference_mode():
            values = segmenter.pixel_values([pixels], padded)
            features = segmenter.module.model.pixel_level_module(values).decoder_last_hidden_state[0].double().cpu()
        inside = [side * features.shape[axis + 1] // padded[axis] for axis, side in enumerate(pixels.shape[:2])]
        rows, columns = (
            ((np.arange(count) + 0.5) * side / count).astype(int) for count, side in zip(inside, picture.patch.shape, strict=True)
        )
        found.append(features[:, : inside[0], : inside[1]].flatten(1))
        wanted.append(torch.from_numpy(picture.patch[rows[:, None], columns].reshape(-1)))
    all_features = torch.cat(found, dim=1)
    target = (torch.nn.functional.one_hot(torch.cat(wanted), patches).double() * 2 - 1) * _SURE
    square = all_features @ all_features.T
    square += torch.eye(len(square)) * square.trace() * 1e-7
    solution: torch.Tensor = torch.linalg.solve(square, all_features @ target)
    return solution.T


def _fit(layer: torch.nn.Linear, inputs: torch.Tensor, outputs: torch.Tensor) -> None:
    """The weights with which a layer gives about `outputs` [n, K] for `inputs` [n, d], the smallest of many."""
    extended = torch.cat((inputs, torch.ones(len(inputs), 1, dtype=torch.float64)), dim=1)
    products = extended @ extended.T
    products += torch.eye(len(products)) * products.trace() * 1e-7
    solution = extended.T @ torch.linalg.solve(products, outputs)
    with torch.no_grad():
        layer.weight.copy_(solution[:-1].T)
        layer.bias.copy_(solution[-1])


def _without(weight: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    """`weight` [K, d] blind to the directions in which the rows of `means` [n, d] differ: queries of random weights depend on the
    picture more than on the query, and one picture would have all the kept ones."""
    directions = torch.linalg.qr((means - means.mean(dim=0))[:-1].T).Q
    seeing: torch.Tensor = weight @ directions @ directions.T
    return weight - seeing


def _void_bias(logits: torch.Tensor, kept: int) -> float:
    """What to add to the logit of "no object" (the last of [n, K + 1]) for `kept` rows to have another class with more than 0.8."""
    best, second = logits[:, :-1].topk(2).values.T
    certain = (best - second).sigmoid() > 0.8
    margin = (best - logits[:, -1])[certain].sort(descending=True).values
    return float(margin[min(kept, len(margin) - 1)]) - 1.4  # a sigmoid of 1.4 is 0.8


_LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
_VOCABULARY = ["<|startoftext|>", "<|endoftext|>", *_LETTERS, *[f"{letter}</w>" for letter in _LETTERS]]


def _write_tokenizer(folder: Path) -> None:
    """A CLIP tokenizer of single letters: what text it makes of a task's name does not matter to random weights."""
    from transformers import CLIPTokenizer

    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(_VOCABULARY)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    make: Callable[..., Any] = CLIPTokenizer
    make(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
