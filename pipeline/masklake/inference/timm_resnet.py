"""DETR's backbone: published with the ResNets of the package timm, which are transformers' own by other names.

timm's resnet18, 34, 50, 101 and 152 are the networks of He et al. with the stride in the 3 x 3 convolution; so are transformers'.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from typing import Any

from masklake.errors import Refused

_BASIC: dict[str, Any] = {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512]}
_BOTTLENECK: dict[str, Any] = {"layer_type": "bottleneck", "hidden_sizes": [256, 512, 1024, 2048]}
_RESNETS: dict[str, dict[str, Any]] = {
    "resnet18": {**_BASIC, "depths": [2, 2, 2, 2]},
    "resnet34": {**_BASIC, "depths": [3, 4, 6, 3]},
    "resnet50": {**_BOTTLENECK, "depths": [3, 4, 6, 3]},
    "resnet101": {**_BOTTLENECK, "depths": [3, 4, 23, 3]},
    "resnet152": {**_BOTTLENECK, "depths": [3, 8, 36, 3]},
}
_STAGES = ["stage1", "stage2", "stage3", "stage4"]  # the mask head sees all of them
_TIMM = re.compile(r"(?P<above>.*\bbackbone\.(?:conv_encoder\.)?model\.)(?:_backbone\.)?(?P<part>conv1|bn1|layer\d.*)\.(?P<value>\w+)")
_NORM = re.compile(r"bn(\d)")


def own_backbone(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """`backbone_config` of a DETR for transformers' own ResNet; what is not timm's stays.

    A configuration of 2021 names the backbone alone, whose package was timm; the later default is the same.

    Raises:
        Refused: the backbone is another of timm's, or dilated, and timm is not installed.
    """
    given = config.get("backbone_config")
    if given is not None and given.get("model_type") != "timm_backbone":
        return {**given, "out_features": _STAGES} if given.get("model_type") == "resnet" else dict(given)
    named = (given or config).get("backbone") or "resnet50"
    dilated = bool(config.get("dilation")) or (given or {}).get("output_stride") not in (None, 32)
    if isinstance(named, str) and named in _RESNETS and not dilated:
        return {"model_type": "resnet", "embedding_size": 64, "hidden_act": "relu", "out_features": _STAGES, **_RESNETS[named]}
    if importlib.util.find_spec("timm") is None:
        raise Refused(refusal(f"{named}, dilated (DC5)" if dilated else named, name))
    default = {"backbone": named, "features_only": True, "use_pretrained_backbone": False, "out_indices": [1, 2, 3, 4]}
    stride = {"output_stride": 16} if dilated else {}
    return {"model_type": "timm_backbone", **default, **stride, **(given or {})}


def refusal(backbone: Any, name: str) -> str:
    """What to say of a backbone that is timm's and has no equal in transformers."""
    return (
        f"{name}: its backbone {backbone} comes from the package timm, which is not installed: pip install timm "
        f"(of DETR's, {', '.join(_RESNETS)} run without it)"
    )


def own_name(name: str) -> str:
    """The name that transformers' own ResNet has for a weight of timm's; any other name stays.

    `layer2.0.downsample.1.weight` of timm is `encoder.stages.1.layers.0.shortcut.normalization.weight`.
    """
    found = _TIMM.fullmatch(name)
    if not found:
        return name
    part = found["part"]
    if part in ("conv1", "bn1"):
        return f"{found['above']}embedder.embedder.{'convolution' if part == 'conv1' else 'normalization'}.{found['value']}"
    layer, block, kind = re.fullmatch(r"layer(\d)\.(\d+)\.(.+)", part).groups()  # type: ignore[union-attr]
    if kind.startswith("downsample"):
        inner = "shortcut.convolution" if kind.endswith("0") else "shortcut.normalization"
    else:
        norm = _NORM.fullmatch(kind)
        inner = f"layer.{int(kind[-1]) - 1}.{'normalization' if norm else 'convolution'}"
    return f"{found['above']}encoder.stages.{int(layer) - 1}.layers.{block}.{inner}.{found['value']}"
