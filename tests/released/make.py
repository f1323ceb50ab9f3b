"""Writes `layouts/`: what checkpoints of the hub's uploads hold (configs, names and shapes of weights) and what they answer.

To be run as a module in environments of its own, one for each version of transformers that wrote released checkpoints, beside
torch 2.13.0, numpy below 2, scipy and pillow, on Python 3.11:
    PYTHONPATH=. old/bin/python -m tests.released.make      # transformers 4.26.1, and timm 0.6.13 for DETR (without its dependencies,
                                                            # and with any module that answers to the name torchvision)
    PYTHONPATH=. later/bin/python -m tests.released.make    # transformers 4.57.1: EoMT, and Mask2Former on ResNet
    PYTHONPATH=. newest/bin/python -m tests.released.make   # transformers 5.3.0: EoMT on DINOv3
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.released.values import image, pixels, weight
from tests.released.vocabulary import tokenizer_files

transformers: Any = importlib.import_module("transformers")  # of another version than the one whose types are checked here
LAYOUTS = Path(__file__).parent / "layouts"
STAGES: dict[str, Any] = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
SWIN: dict[str, Any] = {"depths": [2, 1, 1, 2], "num_heads": [1, 1, 2, 2], "embed_dim": 8, "window_size": 3, **STAGES}
TASKS = ("panoptic", "instance", "semantic")


def swin() -> Any:
    return transformers.SwinConfig(**SWIN)


def resnet() -> Any:
    return transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 16, 32], depths=[2, 1, 1, 1], **STAGES)


def labels(count: int) -> dict[str, Any]:
    names = {index: f"class {index}" for index in range(count)}
    return {"id2label": names, "label2id": {name: index for index, name in names.items()}}


def mask2former(backbone: Any) -> Any:
    small = {"encoder_layers": 1, "decoder_layers": 3, "num_queries": 6, "hidden_dim": 32, "feature_size": 32, "mask_feature_size": 32}
    small |= {"dim_feedforward": 16, "encoder_feedforward_dim": 16, "num_attention_heads": 2}
    return transformers.Mask2FormerConfig(backbone_config=backbone, **small, **labels(5))


def maskformer(backbone: Any) -> Any:
    decoder = transformers.DetrConfig(decoder_layers=2, d_model=16, decoder_attention_heads=2, decoder_ffn_dim=16, num_queries=6)
    return transformers.MaskFormerConfig(
        backbone_config=backbone, decoder_config=decoder, fpn_feature_size=32, mask_feature_size=32, **labels(5)
    )


def oneformer() -> Any:
    small = {"num_queries": 20, "hidden_dim": 64, "conv_dim": 64, "mask_dim": 64, "encoder_layers": 1, "decoder_layers": 3}
    small |= {
        "num_attention_heads": 2,
        "text_encoder_width": 64,
        "text_encoder_num_layers": 1,
        "dim_feedforward": 16,
        "encoder_feedforward_dim": 16,
    }
    asked: dict[str, Any] = {
        "output_attentions": True,
        "output_hidden_states": True,
        "return_dict": True,
        "is_training": False,
        "use_auxiliary_loss": True,
    }
    asked |= {"output_auxiliary_logits": True, "task_seq_len": 77, "max_seq_len": 77, "text_encoder_vocab_size": 600}
    return transformers.OneFormerConfig(backbone_config=swin(), num_classes=5, **small, **asked, **labels(5))


def detr(backbone: str) -> Any:
    """As of 2021: the backbone is timm's, and the configuration does not say so."""
    small = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 128, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "num_queries": 6}
    return transformers.DetrConfig(backbone=backbone, use_timm_backbone=True, use_pretrained_backbone=False, **small, **labels(5))


VIT: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}
UPERNET: dict[str, Any] = {"hidden_size": 16, "pool_scales": [1, 2, 3], "use_auxiliary_head": True, "auxiliary_channels": 8}


def beit() -> Any:
    taken = {"image_size": 64, "use_relative_position_bias": True, "use_absolute_position_embeddings": False, "use_auxiliary_head": True}
    return transformers.BeitConfig(**taken, **VIT, layer_scale_init_value=0.1, vocab_size=10, out_indices=[1, 2, 3, 4], **labels(5))


def dpt() -> Any:
    taken = {"image_size": 64, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [8, 16, 16, 16], "fusion_hidden_size": 16}
    taken |= {"use_batch_norm_in_fusion_residual": True, "readout_type": "project", "use_auxiliary_head": True}
    return transformers.DPTConfig(**taken, **VIT, **labels(5))


def segformer() -> Any:
    return transformers.SegformerConfig(hidden_sizes=[8, 16, 16, 32], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=16, **labels(5))


def convnext() -> Any:
    return transformers.ConvNextConfig(hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], **STAGES)


def deeplab() -> Any:
    return transformers.MobileNetV2Config(image_size=65, depth_multiplier=0.35, output_stride=8, layer_norm_eps=0.001, **labels(5))


def eomt() -> Any:
    """As the conversion script writes it: `num_labels` and no names."""
    config = transformers.EomtConfig(image_size=64, patch_size=16, hidden_size=16, num_hidden_layers=3, num_attention_heads=2)
    config.num_blocks, config.num_queries, config.num_upscale_blocks, config.num_labels = 2, 6, 1, 5
    return config


def eomt_dinov3() -> Any:
    config = transformers.EomtDinov3Config(
        image_size=64,
        patch_size=16,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_register_tokens=2,
        num_labels=5,
    )
    config.num_blocks, config.num_queries, config.num_upscale_blocks = 2, 6, 1
    return config


OLD: dict[str, tuple[str, Callable[[], Any]]] = {
    "mask2former-swin": ("Mask2FormerForUniversalSegmentation", lambda: mask2former(swin())),
    "maskformer-swin": ("MaskFormerForInstanceSegmentation", lambda: maskformer(swin())),
    "maskformer-resnet": ("MaskFormerForInstanceSegmentation", lambda: maskformer(resnet())),
    "oneformer-swin": ("OneFormerForUniversalSegmentation", oneformer),
    "segformer": ("SegformerForSemanticSegmentation", segformer),
    "upernet-swin": (
        "UperNetForSemanticSegmentation",
        lambda: transformers.UperNetConfig(backbone_config=swin(), auxiliary_in_channels=32, **UPERNET, **labels(5)),
    ),
    "upernet-convnext": (
        "UperNetForSemanticSegmentation",
        lambda: transformers.UperNetConfig(backbone_config=convnext(), auxiliary_in_channels=16, **UPERNET, **labels(5)),
    ),
    "beit": ("BeitForSemanticSegmentation", beit),
    "dpt": ("DPTForSemanticSegmentation", dpt),
    "deeplab": ("MobileNetV2ForSemanticSegmentation", deeplab),
    "detr-resnet-50": ("DetrForSegmentation", lambda: detr("resnet50")),
    "detr-resnet-101": ("DetrForSegmentation", lambda: detr("resnet101")),
}
LATER: dict[str, tuple[str, Callable[[], Any]]] = {
    "mask2former-resnet": ("Mask2FormerForUniversalSegmentation", lambda: mask2former(resnet())),
    "eomt": ("EomtForUniversalSegmentation", eomt),
}
NEWEST: dict[str, tuple[str, Callable[[], Any]]] = {"eomt-dinov3": ("EomtDinov3ForUniversalSegmentation", eomt_dinov3)}
VERSIONS = {"4.26": OLD, "4.57": LATER, "5.3.": NEWEST}


def fill(model: Any) -> dict[str, str]:
    """Give every weight its value by the formula; returns what a checkpoint lists: name -> dtype and shape."""
    listed = {}
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.from_numpy(weight(name, tuple(value.shape))))
            kind = str(value.dtype).removeprefix("torch.")
            listed[name] = f"{kind} {'x'.join(map(str, value.shape))}"
    return listed


def answers(family: str, model: Any, side: int) -> dict[str, list[float]]:
    """Every so many-th value of what the model answers, by name of the output (and OneFormer's task)."""
    inputs = {"pixel_values": torch.from_numpy(pixels(side))}
    with torch.no_grad():
        if family != "oneformer-swin":
            return outputs(model(**inputs, return_dict=True))
        folder = Path("tokenizer")
        folder.mkdir(exist_ok=True)
        for name, text in tokenizer_files(600).items():
            (folder / name).write_text(text, encoding="utf-8")
        tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
        found: dict[str, list[float]] = {}
        for task in TASKS:
            tokens = tokenizer([f"the task is {task}"], padding="max_length", max_length=77, truncation=True, return_tensors="pt")
            ids = tokens["input_ids"] * tokens["attention_mask"]
            found |= {f"{name} {task}": values for name, values in outputs(model(**inputs, task_inputs=ids, return_dict=True)).items()}
        return found


def outputs(answer: Any) -> dict[str, list[float]]:
    names = ("class_queries_logits", "masks_queries_logits", "logits", "pred_masks")
    return {name: sampled(answer[name]) for name in names if answer.get(name) is not None}


def sampled(values: Any) -> list[float]:
    flat = values.reshape(-1)
    return [float(f"{value:.8g}") for value in flat[:: max(1, len(flat) // 64)].tolist()]


PROCESSORS: dict[str, dict[str, Any]] = {
    "Mask2FormerImageProcessor": {"size": {"height": 48, "width": 40}},
    "MaskFormerFeatureExtractor": {"size": 48, "max_size": 80, "size_divisibility": 32},
    "OneFormerImageProcessor": {"size": {"shortest_edge": 48, "longest_edge": 80}},
    "DetrFeatureExtractor": {"size": 48, "max_size": 80},
    "SegformerFeatureExtractor": {"size": 48},
    "SegformerImageProcessor": {"size": {"height": 48, "width": 40}},
    "BeitFeatureExtractor": {"size": 48, "do_center_crop": False, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2},
    "DPTFeatureExtractor": {"size": 48, "ensure_multiple_of": 1, "keep_aspect_ratio": False, "resample": 2},
    "MobileNetV2FeatureExtractor": {
        "size": {"shortest_edge": 49},
        "do_center_crop": False,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    },
}


def processed(kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    """What the preprocessor of the time makes of a picture: its settings as written, the shape and some values."""
    if kind == "OneFormerImageProcessor":  # which asks the hub for names of classes
        module: Any = sys.modules[transformers.OneFormerImageProcessor.__module__]
        module.prepare_metadata = lambda *_: {}
    processor = getattr(transformers, kind)(**settings)
    picture = Image.fromarray(image(50, 70))
    task = {"task_inputs": ["panoptic"]} if kind == "OneFormerImageProcessor" else {}
    made = np.asarray(processor([picture], **task)["pixel_values"])[0]
    return {"settings": settings, "shape": list(made.shape), "values": sampled(torch.from_numpy(made))}


def main() -> None:
    LAYOUTS.mkdir(exist_ok=True)
    wanted = sys.argv[1:]
    known = VERSIONS[transformers.__version__[:4]]
    for family, (class_name, configure) in known.items():
        if wanted and family not in wanted:
            continue
        torch.manual_seed(0)
        config: Any = configure()
        model = getattr(transformers, class_name)(config).eval()
        listed = fill(model)
        side = 65 if family == "deeplab" else 64
        model.config.architectures = [class_name]
        written = json.loads(model.config.to_json_string(use_diff=True))
        if family.startswith("detr"):
            del written["use_timm_backbone"]
        layout = {"transformers": transformers.__version__, "config": written, "side": side, "weights": listed}
        whole = {name: value.flatten().tolist() for name, value in model.state_dict().items() if value.dtype == torch.int64 and value.ndim}
        layout["whole_numbers"] = {name: " ".join(map(str, values)) for name, values in whole.items()}
        layout["answers"] = answers(family, model, side)
        (LAYOUTS / f"{family}.json").write_text(json.dumps(layout, indent=1) + "\n")
        print(family, len(listed), sum(value.numel() for value in model.state_dict().values()))
    if known is OLD and not wanted:
        made = {kind: processed(kind, settings) for kind, settings in PROCESSORS.items()}
        (LAYOUTS / "processors.json").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
