"""The model families: what each can do, and how a batch runs through it. A new family is an entry in `FAMILIES`, or a short class.

A family turns pixel values [N, 3, H, W] into one of three answers: queries with class and mask logits (mask classification), a map of
class logits (per-pixel models), or what is found of a concept (`sam3`). Nothing here imports torch or transformers until a model runs.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from masklake.errors import Refused
from masklake.inference import tokens
from masklake.inference.family import ALL_TASKS, INSTANCE, PANOPTIC, SEMANTIC, Answer, ClassMap, Family, Found, Queries
from masklake.inference.sam3 import Sam3

if TYPE_CHECKING:
    import torch

    from masklake.inference.segments import Settings

__all__ = [
    "ALL_TASKS",
    "FAMILIES",
    "INSTANCE",
    "PANOPTIC",
    "PROCESSORS",
    "SEMANTIC",
    "Answer",
    "ClassMap",
    "Family",
    "Found",
    "Queries",
    "model_class",
]


class MaskClassifier(Family):
    """Mask2Former, MaskFormer, and EoMT on whole images: one forward serves every task."""

    def run(self, module: Any, pixel_values: torch.Tensor, tasks: Sequence[str]) -> dict[str, Answer]:
        """Answer a batch for each of `tasks`."""
        outputs = module(pixel_values=pixel_values)
        return dict.fromkeys(tasks, Queries(outputs.class_queries_logits, outputs.masks_queries_logits))


class OneFormer(Family):
    """The task is a token of text; backbone and pixel decoder do not see it and run once for all tasks."""

    def prepare(self, module: Any, folder: Path, name: str, settings: Settings | None = None) -> None:
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
    "Sam3": {**_ALWAYS, **_HALF, "resample": _BILINEAR, "size": {"height": 1008, "width": 1008}},
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
        "MaskFormerForInstanceSegmentation",
        "MaskFormer",
        ALL_TASKS,
        "class_predictor",
        divisor=32,
        operations=4_500.0,
        config_changes=_QUIET,
    ),
    "oneformer": OneFormer(
        "OneFormerForUniversalSegmentation",
        "OneFormer",
        ALL_TASKS,
        "model.transformer_module.decoder.class_embed",
        divisor=32,
        forward_per_task=True,
        object_thresholds={"ADE20K": 0.5},
        extra_files=tokens.FILES,
        vocabulary=("text_encoder_vocab_size",),
        config_changes={"is_training": False},
    ),
    "eomt": Eomt("EomtForUniversalSegmentation", "Eomt", ALL_TASKS, "class_predictor", fixed_input="pad"),
    "eomt_dinov3": Eomt("EomtDinov3ForUniversalSegmentation", "Eomt", ALL_TASKS, "class_predictor", fixed_input="pad"),
    "detr": Detr("DetrForSegmentation", "Detr", ALL_TASKS, "detr.class_labels_classifier", object_threshold=0.85, operations=22_000.0),
    "sam3": Sam3(
        "Sam3Model",
        "Sam3",
        (INSTANCE,),
        fixed_input="exact",
        forward_per_task=True,
        score_threshold=0.5,
        extra_files=tokens.FILES,
        vocabulary=("text_config", "vocab_size"),
        prompted=True,
    ),
    "segformer": Family("SegformerForSemanticSegmentation", "Segformer", operations=10_000.0),
    "upernet": Family("UperNetForSemanticSegmentation", "Segformer", divisor=32),
    "beit": Family("BeitForSemanticSegmentation", "Beit", fixed_input="exact"),
    "data2vec-vision": Family("Data2VecVisionForSemanticSegmentation", "Beit", fixed_input="exact"),
    "dpt": Family("DPTForSemanticSegmentation", "DPT", head="head.head.4", fixed_input="exact", operations=5_000.0),
    "mobilenet_v2": Family(
        "MobileNetV2ForSemanticSegmentation", "MobileNetV2", head="segmentation_head.classifier.convolution", operations=20_000.0
    ),
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
