"""config.json as a model is built from it: checked, within bounds, and nothing but what the configuration's class declares.

A configuration can name much that transformers would act on: kernels and quantisers to import, weights and code elsewhere, backbones to
fetch from the hub. None of that reaches it from here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from masklake.errors import Refused
from masklake.inference import timm_resnet
from masklake.inference.families import FAMILIES, SEMANTIC, Family
from masklake.inference.files import Stored, read_json

_NUMBER_MOST = 1 << 24  # of any whole number in it: the largest real one is a vocabulary of 49,408
_PARTS_MOST = 1000  # of layers, blocks and stages, and of entries in a list
_OF_PARTS = ("layer", "depth", "block", "stage")
_DEPTH_MOST = 8  # of objects in objects


def read(folder: Path, name: str) -> dict[str, Any]:
    """The configuration of the checkpoint in `folder`, of a family that is known here, with a backbone that can be built here.

    Raises:
        Refused: it is missing or wrong; the message calls the checkpoint `name`.
    """
    return checked(read_json(folder / "config.json", f"{name} holds no checkpoint: it has no config.json", name), name)


def checked(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """See `read`."""
    config = _image_part(config)
    model_type = config.get("model_type")
    if model_type is None:
        raise Refused(f"{name}: its config.json names no model_type, so it was not written by transformers")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise Refused(f"{name}: model_type {model_type!r} is not one of the known families {', '.join(sorted(FAMILIES))}")
    _check_class(config, FAMILIES[model_type], name)
    for key, value in _entries(config, name):
        _check_bounds(key, value, name)
    return _with_known_backbone(dict(config), name)


def _image_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of SAM 3, which is released with its video tracker: the image model's configuration, with its input size where others have it."""
    if config.get("model_type") == "sam3_video" and isinstance(detector := config.get("detector_config"), dict):
        config = {**detector, "model_type": "sam3", "architectures": [FAMILIES["sam3"].model_class]}
    if config.get("model_type") != "sam3":
        return config
    backbone: Any = config
    for key in ("vision_config", "backbone_config"):
        backbone = backbone.get(key) if isinstance(backbone, dict) else None
    side = backbone.get("image_size") if isinstance(backbone, dict) else None
    return {**config, "image_size": 1008 if side is None else side}


def _check_class(config: Mapping[str, Any], family: Family, name: str) -> None:
    """A backbone or a detector may share `model_type` with a segmenter."""
    architectures = config.get("architectures") or [family.model_class]
    if not isinstance(architectures, list) or not all(isinstance(each, str) for each in architectures):
        raise Refused(f"{name}: architectures in config.json must be a list of names, not {_shown(architectures)}")
    if family.model_class not in architectures:
        found = ", ".join(architectures)
        raise Refused(f"{name} is a {found}, which makes no masks; the segmentation model of its family is {family.model_class}")


def _entries(value: Mapping[str, Any], name: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """All entries, of objects in it as well; those of labels are not the model's shape."""
    if depth > _DEPTH_MOST:
        raise Refused(f"{name}: config.json holds objects in objects, more than {_DEPTH_MOST} deep")
    for key, entry in value.items():
        if isinstance(entry, dict) and key not in ("id2label", "label2id"):
            yield from _entries(entry, name, depth + 1)
        else:
            yield key, entry


def _check_bounds(key: str, value: Any, name: str) -> None:
    """Sizes that no model has would keep the machine busy, or take its memory, before anything is found wrong with them."""
    values = value if isinstance(value, list) else [value]
    most = _PARTS_MOST if any(part in key for part in _OF_PARTS) else _NUMBER_MOST
    numbers = [each for each in values if isinstance(each, int | float) and not isinstance(each, bool)]
    if len(values) > _PARTS_MOST or any(not -most <= each <= most for each in numbers):  # NaN is in no bounds
        raise Refused(f"{name}: {key} in config.json is {_shown(value)}, larger than any model that could be run")


def _with_known_backbone(config: dict[str, Any], name: str) -> dict[str, Any]:
    """The configuration with a backbone that transformers itself has; DETR's ResNets of timm become its own.

    Raises:
        Refused: the backbone needs a package that is not installed, or is not described but named, to be fetched.
    """
    backbone = config.get("backbone_config")
    if backbone is not None and not isinstance(backbone, dict):
        raise Refused(f"{name}: backbone_config in config.json must be an object, not {_shown(backbone)}")
    kind = (backbone or {}).get("model_type")
    if config["model_type"] == "detr":
        config["backbone_config"] = timm_resnet.own_backbone(config, name)
    elif kind == "timm_backbone" or (backbone is None and config.get("use_timm_backbone")):
        raise Refused(timm_resnet.refusal((backbone or config).get("backbone"), name))
    elif kind == "dinat" and not _has_natten():
        raise Refused(
            f"{name}: its backbone is DiNAT, which needs the package natten below 0.20, and that no longer fits today's torch; "
            "take the checkpoint of the same kind with a Swin backbone, such as shi-labs/oneformer_coco_swin_large"
        )
    elif backbone is None and config.get("backbone") is not None:
        raise Refused(
            f"{name}: its config.json names the backbone {_shown(config['backbone'])} instead of describing it (backbone_config), and "
            "nothing is fetched for it; load the model where that is reachable, and save it again with save_pretrained"
        )
    return config


def _has_natten() -> bool:
    if importlib.util.find_spec("natten") is None:
        return False
    try:
        from natten.functional import natten2dav, natten2dqkrpb  # type: ignore[import-not-found]  # noqa: F401
    except Exception:  # too new a natten, or one that was built for another torch
        return False
    return True


def classes(config: Mapping[str, Any], stored: Mapping[str, Stored]) -> int:
    """How many classes the model tells apart, "no object" aside: the rows of its class head, or, without one, what `config` says."""
    family = FAMILIES[str(config["model_type"])]
    head = stored.get(f"{family.head}.weight")
    if head is not None and head.shape:
        return head.shape[0] - (family.tasks != (SEMANTIC,))
    labels = config.get("id2label")
    return len(labels) if isinstance(labels, dict) and labels else int(config.get("num_labels") or 2)


def build(config: Mapping[str, Any], classes: int, name: str) -> Any:
    """The configuration object of transformers for a model of `classes` classes (without "no object").

    Raises:
        Refused: transformers cannot use it.
    """
    try:
        made = _class_of(str(config["model_type"]))(**_declared(config), id2label={index: f"LABEL_{index}" for index in range(classes)})
    except Exception as error:  # of somebody else's file, transformers raises whatever it meets
        raise Refused(f"{name}: transformers cannot use this configuration: {' '.join(str(error).split())}") from None
    return made


def _class_of(model_type: str) -> Any:
    from transformers import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        raise ValueError(f"model_type {model_type!r} is unknown")
    return CONFIG_MAPPING[model_type]


def _declared(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that the configuration's class declares itself; parts of a model likewise."""
    from transformers import PreTrainedConfig

    cls = _class_of(str(config["model_type"]))
    own = set(cls.__dataclass_fields__) - set(PreTrainedConfig.__dataclass_fields__)
    aliases = {alias for alias, field in cls.attribute_map.items() if field in own and field not in config}
    kept = {key: value for key, value in config.items() if key in own | aliases | {"out_features", "out_indices"}}
    parts = {key: _part(cls, key, value) for key, value in kept.items() if key.endswith("_config") and isinstance(value, dict)}
    return kept | parts


def _part(cls: Any, key: str, value: Mapping[str, Any]) -> dict[str, Any]:
    model_type = value.get("model_type") or cls.sub_configs_defaults[key].model_type
    return {**_declared({**value, "model_type": model_type}), "model_type": model_type}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
