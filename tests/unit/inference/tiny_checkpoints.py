"""Small checkpoints of every family with random weights, written as transformers writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    BeitConfig,
    CLIPTokenizer,
    Data2VecVisionConfig,
    DetrConfig,
    DPTConfig,
    EomtConfig,
    EomtDinov3Config,
    Mask2FormerConfig,
    MaskFormerConfig,
    MobileNetV2Config,
    OneFormerConfig,
    ResNetConfig,
    SegformerConfig,
    SwinConfig,
    UperNetConfig,
)

from masklake.inference.families import FAMILIES

LABELS = {0: "sky", 1: "grass", 2: "ball", 3: "box", 4: "star"}
THING_IDS = [2, 3, 4]
_NAMED: dict[str, Any] = {"id2label": LABELS, "label2id": {label: label_id for label_id, label in LABELS.items()}}
_STAGES: dict[str, Any] = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}


def swin() -> SwinConfig:
    """A Swin backbone of two windows of 4 x 4."""
    return SwinConfig(
        image_size=64,
        patch_size=4,
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 2, 2],
        window_size=4,
        drop_path_rate=0.0,
        **_STAGES,
    )


def resnet() -> ResNetConfig:
    """A ResNet backbone."""
    return ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], layer_type="basic", **_STAGES)


def _mask2former(backbone: Any = None) -> Mask2FormerConfig:
    return Mask2FormerConfig(
        backbone_config=backbone or swin(),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        encoder_layers=1,
        decoder_layers=3,
        dim_feedforward=32,
        num_attention_heads=2,
        num_queries=10,
        **_NAMED,
    )


def _oneformer() -> OneFormerConfig:
    return OneFormerConfig(
        backbone_config=swin(),
        num_queries=10,
        hidden_dim=32,
        conv_dim=32,
        mask_dim=32,
        encoder_feedforward_dim=32,
        dim_feedforward=32,
        encoder_layers=1,
        decoder_layers=3,
        query_dec_layers=1,
        num_attention_heads=2,
        task_seq_len=77,
        text_encoder_width=32,
        text_encoder_context_length=77,
        text_encoder_num_layers=1,
        text_encoder_vocab_size=54,
        **_NAMED,
    )


def _maskformer() -> MaskFormerConfig:
    decoder = DetrConfig(
        backbone_config=resnet(),
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=10,
    )
    return MaskFormerConfig(
        backbone_config=swin(), decoder_config=decoder, fpn_feature_size=32, mask_feature_size=32, use_auxiliary_loss=True, **_NAMED
    )


def _detr() -> DetrConfig:
    return DetrConfig(
        backbone_config=resnet(),
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        encoder_attention_heads=8,
        decoder_attention_heads=2,
        num_queries=10,
        **_NAMED,
    )


def _eomt() -> EomtConfig:
    return EomtConfig(
        image_size=64,
        patch_size=8,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_blocks=2,
        num_queries=10,
        num_upscale_blocks=1,
        num_register_tokens=1,
        **_NAMED,
    )


def _eomt_dinov3() -> EomtDinov3Config:
    return EomtDinov3Config(
        image_size=64,
        patch_size=8,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_blocks=2,
        num_queries=10,
        num_upscale_blocks=1,
        num_register_tokens=1,
        **_NAMED,
    )


def _segformer() -> SegformerConfig:
    return SegformerConfig(
        hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=32, **_NAMED
    )


def _upernet() -> UperNetConfig:
    return UperNetConfig(backbone_config=resnet(), hidden_size=32, use_auxiliary_head=False, pool_scales=[1, 2], **_NAMED)


_VIT: dict[str, Any] = {
    "image_size": 64,
    "patch_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
_BEIT: dict[str, Any] = {**_VIT, "out_indices": [1, 2, 3, 4], "use_auxiliary_head": False, "use_relative_position_bias": True}


def _dpt() -> DPTConfig:
    return DPTConfig(
        **_VIT,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 16, 16, 32],
        fusion_hidden_size=16,
        use_auxiliary_head=False,
        **_NAMED,
    )


CONFIGS: dict[str, Callable[[], Any]] = {
    "mask2former": _mask2former,
    "oneformer": _oneformer,
    "maskformer": _maskformer,
    "detr": _detr,
    "eomt": _eomt,
    "eomt_dinov3": _eomt_dinov3,
    "segformer": _segformer,
    "upernet": _upernet,
    "beit": lambda: BeitConfig(**_BEIT, **_NAMED),
    "data2vec-vision": lambda: Data2VecVisionConfig(**_BEIT, **_NAMED),
    "dpt": _dpt,
    "mobilenet_v2": lambda: MobileNetV2Config(depth_multiplier=0.35, image_size=64, **_NAMED),
}

FAMILY_NAMES = tuple(CONFIGS)
MASK_FAMILIES = ("mask2former", "oneformer", "maskformer", "detr", "eomt", "eomt_dinov3")

SIZES: dict[str, dict[str, Any]] = {
    "mask2former": {"size": {"shortest_edge": 60, "longest_edge": 100}, "size_divisor": 0},
    "oneformer": {"size": {"shortest_edge": 60, "longest_edge": 100}},
    "maskformer": {"size": {"shortest_edge": 60, "longest_edge": 100}, "size_divisor": 0},
    "detr": {"size": {"shortest_edge": 60, "longest_edge": 100}},
    "eomt": {"size": {"shortest_edge": 64, "longest_edge": 64}, "do_pad": True},
    "eomt_dinov3": {"size": {"shortest_edge": 64, "longest_edge": 64}, "do_pad": True},
    "mobilenet_v2": {"size": {"shortest_edge": 65}, "do_center_crop": False},
}


def write(family: str, folder: Path, seed: int = 0, thing_ids: list[int] | None = THING_IDS, config: Any = None) -> Path:
    """Write a checkpoint of `family` below `folder`: config with thing ids, preprocessor settings, safetensors."""
    torch.manual_seed(seed)
    model = getattr(transformers, FAMILIES[family].model_class)(config or CONFIGS[family]()).eval()
    _sharpen(model)
    if thing_ids is not None and family in MASK_FAMILIES:
        model.config.thing_ids = thing_ids
    target = folder / f"tiny-{family}"
    model.save_pretrained(target)
    kind = f"{FAMILIES[family].processor}ImageProcessor"
    settings = {"image_processor_type": kind, **SIZES.get(family, {"size": {"height": 64, "width": 64}})}
    (target / "preprocessor_config.json").write_text(json.dumps(settings))
    if family == "oneformer":
        write_tokenizer(target)
    return target


def resnet_mask2former() -> Mask2FormerConfig:
    """Mask2Former on a ResNet."""
    return _mask2former(resnet())


def _sharpen(model: torch.nn.Module) -> None:
    """Give random weights opinions: larger class logits, so that some queries pass the thresholds."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "class_predictor" in name or "class_labels_classifier" in name or "class_embed" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * (3.0 if parameter.ndim == 1 else 1.5))


def write_tokenizer(folder: Path) -> None:
    """A CLIP tokenizer of single letters."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocabulary = ["<|startoftext|>", "<|endoftext|>", *letters, *[f"{letter}</w>" for letter in letters]]
    source = folder / "source"
    source.mkdir()
    (source / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(vocabulary)}))
    (source / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(source / "vocab.json"), str(source / "merges.txt")).save_pretrained(folder)
