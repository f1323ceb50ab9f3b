"""A small SAM 3 with random weights, written as transformers writes it, and as the released one is: with its video tracker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import Sam3Config, Sam3Model, Sam3VideoConfig

from tests.unit.inference.tiny_checkpoints import write_tokenizer

SIDE = 56
_SMALL: dict[str, Any] = {"hidden_size": 32, "num_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def config() -> Sam3Config:
    """Patches of 7 x 7, windows of 4 x 4 patches, 12 queries, masks of 32 x 32."""
    image = {
        "model_type": "sam3_vit_model",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 7,
        "window_size": 4,
        "global_attn_indexes": [1],
        "pretrain_image_size": 28,
    }
    text = {
        "model_type": "clip_text_model",
        "vocab_size": 54,
        "hidden_size": 32,
        "intermediate_size": 32,
        "projection_dim": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    return Sam3Config(
        vision_config={
            "model_type": "sam3_vision_model",
            "backbone_config": image,
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        },
        text_config=text,
        geometry_encoder_config=_SMALL,
        detr_encoder_config=_SMALL,
        detr_decoder_config={**_SMALL, "num_queries": 12},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )


def write(folder: Path) -> Path:
    """Write the checkpoint below `folder`: configuration, preprocessor settings, tokenizer of single letters, safetensors."""
    torch.manual_seed(0)
    model = Sam3Model(config())
    _enliven(model)
    target = folder / "tiny-sam3"
    model.save_pretrained(target)
    settings = {"image_processor_type": "Sam3ImageProcessorFast", "size": {"height": SIDE, "width": SIDE}}
    (target / "preprocessor_config.json").write_text(json.dumps(settings))
    write_tokenizer(target)
    return target


def with_tracker(target: Path) -> None:
    """Rewrite the checkpoint as facebook/sam3 is: a video model's configuration and names of weights."""
    written = json.loads((target / "config.json").read_text())
    whole = Sam3VideoConfig(detector_config=written).to_dict()
    whole["detector_config"] = written
    (target / "config.json").write_text(json.dumps({**whole, "architectures": ["Sam3VideoModel"]}))
    weights = {f"detector_model.{name}": value for name, value in load_file(target / "model.safetensors").items()}
    save_file(weights | {"tracker_model.memory": torch.zeros(3)}, target / "model.safetensors", {"format": "pt"})


def _enliven(model: torch.nn.Module) -> None:
    """Give random weights opinions: signals keep their size from layer to layer, and some queries are surer than others."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                scale = 1.5 / parameter[0].numel() ** 0.5 if "embed" not in name else 1.0
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
