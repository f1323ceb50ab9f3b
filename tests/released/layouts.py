"""Released checkpoints rebuilt small: names, shapes and configurations as transformers of the time wrote them, weights from a formula."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from tests.released.values import weight
from tests.released.vocabulary import tokenizer_files

FOLDER = Path(__file__).parent / "layouts"
FAMILIES = sorted(path.stem for path in FOLDER.glob("*.json") if path.stem != "processors")

_PREPROCESSORS: dict[str, dict[str, Any]] = {
    "mask2former": {"image_processor_type": "Mask2FormerImageProcessor", "size": {"height": 64, "width": 64}, "size_divisor": 32},
    "maskformer": {"feature_extractor_type": "MaskFormerFeatureExtractor", "size": 64, "max_size": 96, "size_divisibility": 32},
    "oneformer": {
        "image_processor_type": "OneFormerImageProcessor",
        "size": {"shortest_edge": 64, "longest_edge": 96},
        "repo_path": "shi-labs/oneformer_demo",
        "class_info_file": "coco_panoptic.json",
    },
    "detr": {"feature_extractor_type": "DetrFeatureExtractor", "format": "coco_panoptic", "size": 64, "max_size": 96},
    "segformer": {"feature_extractor_type": "SegformerFeatureExtractor", "size": 64, "reduce_labels": True},
    "upernet": {"image_processor_type": "SegformerImageProcessor", "size": {"height": 64, "width": 64}, "do_reduce_labels": True},
    "beit": {"feature_extractor_type": "BeitFeatureExtractor", "size": 64, "do_center_crop": False, "crop_size": 64, "reduce_labels": True},
    "dpt": {"feature_extractor_type": "DPTFeatureExtractor", "size": 64, "ensure_multiple_of": 1, "keep_aspect_ratio": False},
    "deeplab": {
        "feature_extractor_type": "MobileNetV2FeatureExtractor",
        "image_processor_type": "MobileNetV2FeatureExtractor",
        "size": {"shortest_edge": 65},
        "crop_size": {"height": 65, "width": 65},
        "do_center_crop": True,
    },
    "eomt": {"image_processor_type": "EomtImageProcessorFast", "size": {"shortest_edge": 64, "longest_edge": 64}, "do_pad": True},
}


def layout(family: str) -> dict[str, Any]:
    """`transformers`, `config`, `side`, `weights` (name -> dtype and shape) and `answers` of a family (a key of `FAMILIES`)."""
    found: dict[str, Any] = json.loads((FOLDER / f"{family}.json").read_text())
    return found


def state(family: str) -> dict[str, torch.Tensor]:
    """Its weights; counts of batches, which nothing reads, are 0."""
    found, written = {}, layout(family)
    for name, entry in written["weights"].items():
        dtype, _, sides = entry.partition(" ")
        shape = tuple(int(side) for side in sides.split("x")) if sides else ()
        if dtype.startswith("float"):
            values: Any = weight(name, shape)
        else:
            values = np.array(written["whole_numbers"].get(name, "0").split(), np.int64).reshape(shape)
        found[name] = torch.from_numpy(np.asarray(values)).to(getattr(torch, dtype))
    return found


def write(family: str, folder: Path, pickled: bool = False, labels: dict[int, str] | None = None) -> Path:
    """A checkpoint in `folder`, as released: with `pytorch_model.bin` alone where `pickled`; `labels` (5 of them) in place of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    config = layout(family)["config"]
    if labels is not None:
        config |= {"id2label": labels, "label2id": {label: index for index, label in labels.items()}}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    preprocessor = {"do_resize": True, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor | _PREPROCESSORS[family.partition("-")[0]], indent=2))
    if pickled:
        torch.save(state(family), folder / "pytorch_model.bin")
    else:
        save_file(state(family), folder / "model.safetensors", metadata={"format": "pt"})
    if family == "oneformer-swin":
        for name, text in tokenizer_files(config["text_encoder_vocab_size"]).items():
            (folder / name).write_text(text, encoding="utf-8")
    return folder


def hollow(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """A safetensors file with the header of `tensors` and a hole in place of them: as large, and empty."""
    names = {torch.float32: "F32", torch.int64: "I64"}
    header, end = {}, 0
    for name, value in tensors.items():
        size = value.numel() * value.element_size()
        header[name] = {"dtype": names[value.dtype], "shape": list(value.shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
