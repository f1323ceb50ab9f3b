"""A checkpoint's image processor: its settings, with what transformers takes where they are silent, and the resize that they mean."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from masklake.errors import Refused
from masklake.inference.families import PROCESSORS, Family
from masklake.inference.files import read_json
from masklake.inference.preprocess import ResizePlan, plan_from_processor

_PICTURE_STEPS = ("do_resize", "do_rescale", "do_normalize", "do_pad", "do_split_image", "do_center_crop", "do_convert_rgb")
_TRUTH_STEPS = ("do_reduce_labels", "do_convert_annotations")
_STEPS = (*_PICTURE_STEPS, *_TRUTH_STEPS)
_SIDE_MOST = 1 << 14  # pixels of a model's input


def settings(folder: Path, config: Mapping[str, Any], family: Family, name: str) -> tuple[dict[str, Any], list[str]]:
    """The image processor's settings with transformers' defaults filled in, and what to tell the user.

    Raises:
        Refused: the processor is of an unknown kind, or would do something that is not done here.
    """
    file = next((file for file in ("preprocessor_config.json", "processor_config.json") if (folder / file).is_file()), None)
    written: Any = read_json(folder / file, "", name) if file else {}
    if file == "processor_config.json":
        written = written.get("image_processor") or {}
    if not isinstance(written, dict):
        raise Refused(f"{name}: image_processor in {file} must be an object")
    if not written:
        return _processor_by_family(config, family)
    kind = str(written.get("image_processor_type") or written.get("feature_extractor_type") or family.processor)
    stem = re.sub(r"(ImageProcessor|FeatureExtractor)(Fast|Pil)?$", "", kind)
    if stem not in PROCESSORS:
        known = ", ".join(f"{stem}ImageProcessor" for stem in PROCESSORS)
        raise Refused(f"{name}: image processor {kind} is not known here; known are {known}")
    unknown = [key for key, value in written.items() if key.startswith("do_") and value and key not in _STEPS]
    if unknown:
        raise Refused(f"{name}: {file} asks for {', '.join(unknown)}, which is not done here: answers would be those to another picture")
    found = PROCESSORS[stem] | {key: value for key, value in written.items() if value is not None}
    notes = []
    if found.get("do_center_crop"):
        notes.append("the checkpoint's centre crop is left out: it would leave parts of an image without an answer")
    return found, notes


def _processor_by_family(config: Mapping[str, Any], family: Family) -> tuple[dict[str, Any], list[str]]:
    """Without preprocessor settings: the family's defaults, at the input size that config.json names."""
    settings = dict(PROCESSORS[family.processor])
    side = config.get("image_size")
    if isinstance(side, int) and family.fixed_input != "pad":
        # DeepLab resizes the longer side to its input size and keeps the aspect (`resize_ratio` of its demo); the others take squares
        settings["size"] = {"max_height": side, "max_width": side} if family.processor == "MobileNetV2" else {"height": side, "width": side}
    note = f"the checkpoint has no preprocessor_config.json: its family's defaults are used ({plan_from_processor(settings).describe()})"
    return settings, [note]


def plan(settings: dict[str, Any], name: str) -> ResizePlan:
    """The resize that the settings mean.

    Raises:
        Refused: a setting is of the wrong kind, or beyond any model's input.
    """
    try:
        found = plan_from_processor(settings)
        numbers = (*found.mean, *found.std, found.rescale)
        usable = len(found.mean) == len(found.std) == 3 and all(map(math.isfinite, numbers)) and all(found.std)
        usable = usable and all(0 <= side <= _SIDE_MOST for side in found.size) and 1 <= found.multiple <= _SIDE_MOST
        if not usable or found.resample not in range(6):
            raise ValueError(f"of size {settings['size']}, mean, deviation, filter and scale one is out of bounds")
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as error:
        raise Refused(f"{name}: its preprocessor settings cannot be used: {error}") from None
    return found
