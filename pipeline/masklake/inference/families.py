"""The model families: what each can do, and how a batch runs through it. A new family is an entry in `FAMILIES`, or a short class.

A family turns pixel values [N, 3, H, W] into one of two answers: queries with class and mask logits (mask classification), or a map of
class logits (per-pixel models). Nothing here imports torch or transformers until a model runs.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from masklake.errors import Refused
from masklake.inference import tokens

if TYPE_CHECKING:
    import torch

PANOPTIC, INSTANCE, SEMANTIC = "panoptic", "instance", "semantic"
ALL_TASKS = (PANOPTIC, INSTANCE, SEMANTIC)


@dataclass(frozen=True)
class Queries:
    """Mask classification: `class_logits` [N, Q, K + 1], the last column "no object"; `mask_logits` [N, Q, h, w]."""

    class_logits: torch.Tensor
    mask_logits: torch.Tensor


@dataclass(frozen=True)
class ClassMap:
    """Per-pixel classification: `logits` [N, K, h, w], covering the model's input."""

    logits: torch.Tensor


Answer = Queries | ClassMap


@dataclass(frozen=True)
class Family:
    """One `model_type`. The base class is a per-pixel model as behind transformers' AutoModelForSemanticSegmentation."""

    model_class: str
    """Its class in transformers."""
    processor: str
    """Name of the image processor whose defaults hold where the checkpoint is silent (a key of `PROCESSORS`)."""
    tasks: tuple[str, ...] = (SEMANTIC,)
    head: str = "decode_head.classifier"
    """The class head in the checkpoint's files, up to `.weight`; its rows are the classes and, in mask classification, "no object"."""
    divisor: int = 1
    """Sides of the model's input are padded to multiples of this (zeros after normalisation), as the original does."""
    fixed_input: Literal["", "exact", "pad"] = ""
    """Models that take `config.image_size` squares only: the resize must give it exactly, or padding completes it."""
    forward_per_task: bool = False
    object_threshold: float = 0.8
    overlap_threshold: float = 0.8
    object_thresholds: Mapping[str, float] = field(default_factory=dict)
    """Where the original's threshold differs for a dataset."""
    extra_files: tuple[str, ...] = ()
    """Files besides config, preprocessor and weights that answers depend on, where they exist."""
    config_changes: Mapping[str, Any] = field(default_factory=dict)
    """What inference does not need and training does; these change no answer."""

    def prepare(self, module: Any, folder: Path, name: str) -> None:
        """Make a loaded module ready beyond its weights; refusals call the checkpoint `name`."""

    def run(self, module: Any, pixel_values: torch.Tensor, tasks: Sequence[str]) -> dict[str, Answer]:
        """Answer a batch [N, 3, H, W] for each of `tasks`."""
        answer = ClassMap(module(pixel_values=pixel_values).logits)
        return dict.fromkeys(tasks, answer)

    def compiled_parts(self, module: Any) -> list[Any]:
        """The modules that `run` calls, for torch.compile."""
        return [module]

    def hf_outputs(self, answer: Answer, index: int) -> Any:
        """One image's answer in the shape that transformers' own post-processing takes."""
        if isinstance(answer, ClassMap):
            return SimpleNamespace(logits=answer.logits[index : index + 1].float())
        return SimpleNamespace(
            class_queries_logits=answer.class_logits[index : index + 1].float(),
            masks_queries_logits=answer.mask_logits[index : index + 1].float(),
            patch_offsets=None,
        )


class MaskClassifier(Family):
    """Mask2Former, MaskFormer, and EoMT on whole images: one forward serves every task."""

    def run(self, module: Any, pixel_values: torch.Tensor, tasks: Sequence[str]) -> dict[str, Answer]:
        """Answer a batch for each of `tasks`."""
        outputs = module(pixel_values=pixel_values)
        return dict.fromkeys(tasks, Queries(outputs.class_queries_logits, outputs.masks_queries_logits))


class OneFormer(Family):
    """The task is a token of text; backbone and pixel decoder do not see it and run once for all tasks."""

    def prepare(self, module: Any, folder: Path, name: str) -> None:
        """Tokenise the three task texts with the checkpoint's own tokenizer.

        Raises:
            Refused: the folder has no tokenizer, or another one than the model was trained with.
        """
        import torch

        ids = tokens.of_tasks(folder, module.config, ALL_TASKS, name)
        encoder = module.model.task_encoder.float().cpu()  # token ids up to 49407 do not fit half precision
        with torch.inference_mode(False), torch.no_grad():
            module.register_buffer("masklake_task_tokens", torch.cat([encoder(row[None].float()) for row in ids]), persistent=False)

    def run(self, module: Any, pixel_values: torch.Tensor, tasks: Sequence[str]) -> dict[str, Answer]:
        """Answer a batch for each of `tasks`: one pass of the task decoder each."""
        model = module.model
        features = model.pixel_level_module(pixel_values)
        answers: dict[str, Answer] = {}
        for task in tasks:
            token = module.masklake_task_tokens[ALL_TASKS.index(task)].to(pixel_values.dtype)
            decoded = model.transformer_module(
                multi_scale_features=list(features.decoder_features),
                mask_features=features.decoder_last_feature,
                task_token=token.expand(len(pixel_values), -1),
                output_attentions=False,
            )
            answers[task] = Queries(decoded.prediction_class, decoded.prediction_masks)
        return answers

    def compiled_parts(self, module: Any) -> list[Any]:
        """Those on both sides of the task's token."""
        return [module.model.pixel_level_module, module.model.transformer_module]


class Detr(Family):
    """DETR with its mask head; the masks' logits cover the model's input."""

    def run(self, module: Any, pixel_values: torch.Tensor, tasks: Sequence[str]) -> dict[str, Answer]:
        """Answer a batch for each of `tasks`."""
        outputs = module(pixel_values=pixel_values)
        return dict.fromkeys(tasks, Queries(outputs.logits, outputs.pred_masks))

    def hf_outputs(self, answer: Answer, index: int) -> Any:
        """DETR's processor has other names for the same tensors."""
        assert isinstance(answer, Queries)
        one = slice(index, index + 1)
        return SimpleNamespace(logits=answer.class_logits[one].float(), pred_masks=answer.mask_logits[one].float())


class Eomt(MaskClassifier):
    """EoMT sees squares of one size. Its semantic checkpoints slide that square over the longer side and average where squares overlap."""

    def run(self, module: Any, pixel_values: torch.Tensor, tasks: Sequence[str]) -> dict[str, Answer]:
        """Answer a batch for each of `tasks`: whole squares directly, longer images by windows (semantic only)."""
        side = module.config.image_size
        if pixel_values.shape[-2:] == (side, side):
            return super().run(module, pixel_values, tasks)
        return dict.fromkeys(tasks, ClassMap(_slide(module, pixel_values, side)))


def _slide(module: Any, pixel_values: torch.Tensor, side: int) -> torch.Tensor:
    """Class scores [N, K, H, W] averaged over windows along the longer side.

    As `_split_image` and `merge_image_patches` of transformers' EoMT image processor.
    """
    import torch

    count, _, height, width = pixel_values.shape
    axis, longer = (2, height) if height > width else (3, width)
    windows = math.ceil(longer / side)
    overlap = (windows * side - longer) / (windows - 1) if windows > 1 else 0
    starts = [int(index * (side - overlap)) for index in range(windows)]
    outputs = module(pixel_values=torch.cat([pixel_values.narrow(axis, start, side) for start in starts]))
    masks = torch.nn.functional.interpolate(outputs.masks_queries_logits.float(), size=(side, side), mode="bilinear").sigmoid()
    classes = outputs.class_queries_logits.float().softmax(dim=-1)[..., :-1]
    scores = torch.einsum("bqc, bqhw -> bchw", classes, masks)
    total = torch.zeros(count, classes.shape[-1], height, width, device=scores.device)
    seen = torch.zeros(1, 1, height, width, device=scores.device)
    for start, score in zip(starts, scores.chunk(windows), strict=True):
        total.narrow(axis, start, side).add_(score)
        seen.narrow(axis, start, side).add_(1)
    return total.div_(seen)


_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
_ALWAYS = {"do_resize": True, "do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255, "default_to_square": True}
_COCO_SIZE = {"shortest_edge": 800, "longest_edge": 1333}
_BILINEAR, _BICUBIC = 2, 3

_EOMT = {
    **_ALWAYS,
    **_IMAGENET,
    "resample": _BILINEAR,
    "size": {"shortest_edge": 640, "longest_edge": 640},
    "default_to_square": False,
}

PROCESSORS: dict[str, dict[str, Any]] = {
    "Mask2Former": {**_ALWAYS, **_IMAGENET, "resample": _BILINEAR, "size": _COCO_SIZE, "default_to_square": False, "size_divisor": 32},
    "MaskFormer": {**_ALWAYS, **_IMAGENET, "resample": _BILINEAR, "size": _COCO_SIZE, "default_to_square": False, "size_divisor": 32},
    "OneFormer": {**_ALWAYS, **_IMAGENET, "resample": _BILINEAR, "size": _COCO_SIZE, "default_to_square": False},
    "Detr": {**_ALWAYS, **_IMAGENET, "resample": _BILINEAR, "size": _COCO_SIZE, "default_to_square": False, "max_size": 1333},
    "Eomt": _EOMT,
    "EomtDinov3": _EOMT,
    "Segformer": {**_ALWAYS, **_IMAGENET, "resample": _BILINEAR, "size": {"height": 512, "width": 512}},
    "Beit": {**_ALWAYS, **_HALF, "resample": _BICUBIC, "size": {"height": 224, "width": 224}},
    "DPT": {
        **_ALWAYS,
        **_HALF,
        "resample": _BICUBIC,
        "size": {"height": 384, "width": 384},
        "ensure_multiple_of": 1,
        "keep_aspect_ratio": False,
    },
    "MobileNetV2": {**_ALWAYS, **_HALF, "resample": _BILINEAR, "size": {"shortest_edge": 256}, "default_to_square": False},
}
"""Defaults of transformers' image processors; `<name>ImageProcessor` in a checkpoint, with older and newer endings."""

_QUIET = {"use_auxiliary_loss": False, "output_auxiliary_logits": False}

FAMILIES: dict[str, Family] = {
    "mask2former": MaskClassifier(
        "Mask2FormerForUniversalSegmentation",
        "Mask2Former",
        ALL_TASKS,
        "class_predictor",
        divisor=32,
        config_changes={"use_auxiliary_loss": True},  # its forward fails without
    ),
    "maskformer": MaskClassifier(
        "MaskFormerForInstanceSegmentation", "MaskFormer", ALL_TASKS, "class_predictor", divisor=32, config_changes=_QUIET
    ),
    "oneformer": OneFormer(
        "OneFormerForUniversalSegmentation",
        "OneFormer",
        ALL_TASKS,
        "model.transformer_module.decoder.class_embed",
        divisor=32,
        forward_per_task=True,
        object_thresholds={"ADE20K": 0.5},
        extra_files=("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json"),
        config_changes={"is_training": False},
    ),
    "eomt": Eomt("EomtForUniversalSegmentation", "Eomt", ALL_TASKS, "class_predictor", fixed_input="pad"),
    "eomt_dinov3": Eomt("EomtDinov3ForUniversalSegmentation", "Eomt", ALL_TASKS, "class_predictor", fixed_input="pad"),
    "detr": Detr("DetrForSegmentation", "Detr", ALL_TASKS, "detr.class_labels_classifier", object_threshold=0.85),
    "segformer": Family("SegformerForSemanticSegmentation", "Segformer"),
    "upernet": Family("UperNetForSemanticSegmentation", "Segformer", divisor=32),
    "beit": Family("BeitForSemanticSegmentation", "Beit", fixed_input="exact"),
    "data2vec-vision": Family("Data2VecVisionForSemanticSegmentation", "Beit", fixed_input="exact"),
    "dpt": Family("DPTForSemanticSegmentation", "DPT", head="head.head.4", fixed_input="exact"),
    "mobilenet_v2": Family("MobileNetV2ForSemanticSegmentation", "MobileNetV2", head="segmentation_head.classifier.convolution"),
}


def model_class(family: Family) -> Any:
    """The family's class in transformers.

    Raises:
        Refused: the installed transformers does not have it.
    """
    import transformers

    found = getattr(transformers, family.model_class, None)
    if found is None:
        raise Refused(f"the installed transformers {transformers.__version__} has no {family.model_class}: install a newer one")
    if importlib.util.find_spec("scipy") is None:
        sys.modules[found.__module__].requires_backends = _scipy_is_for_training  # type: ignore[attr-defined]
    return found


def _scipy_is_for_training(thing: Any, backends: Sequence[str]) -> None:
    """In place of transformers' check: its mask classifiers make their loss, and that its scipy, even where they only answer."""
