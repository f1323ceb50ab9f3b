"""Resizing and normalising as transformers' PIL image processors do it, with numpy and Pillow alone.

An answer must not change with what else is installed: with torchvision present, transformers picks another resize. Ours decides.
Formulas: `get_size_with_aspect_ratio`, `get_image_size_for_max_height_width` of transformers/image_transforms.py and image_utils.py,
`get_resize_output_image_size` of transformers/models/dpt/image_processing_pil_dpt.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Size = tuple[int, int]
"""Height, width in pixels."""


@dataclass(frozen=True)
class ResizePlan:
    """How an image of any size becomes a model input, before padding."""

    rule: Literal["keep", "exact", "edges", "within"]
    """keep: as it is; exact: to `size` (height, width); edges: `size` is (shortest side, most of the longest; 0 is unbounded), aspect kept;
    within: as large as fits into `size` (height, width), aspect kept."""
    size: Size = (0, 0)
    multiple: int = 1
    """Sides are rounded to multiples of this, which may change the aspect a little."""
    rounding: Literal["up", "nearest"] = "up"
    keep_aspect: bool = False
    """For `exact`: scale both sides by the factor that is nearer to 1 (DPT's `keep_aspect_ratio`)."""
    resample: int = Image.Resampling.BILINEAR
    """Pillow's filter."""
    rescale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    def target(self, height: int, width: int) -> Size:
        """The size that an image of `height` x `width` is resized to; sides are at least 1."""
        new = self._scaled(height, width)
        if self.multiple > 1:
            new = tuple(_to_multiple(side, self.multiple, self.rounding) for side in new)  # type: ignore[assignment]
        return max(1, int(new[0])), max(1, int(new[1]))

    def describe(self) -> str:
        """The rule in words, for a log line."""
        first, second = self.size
        words = {
            "keep": "original size",
            "exact": f"{first}x{second}",
            "edges": f"shortest side {first}" + (f", longest at most {second}" if second else ""),
            "within": f"at most {first}x{second}",
        }[self.rule]
        return words + (f", sides multiples of {self.multiple}" if self.multiple > 1 and self.rule != "exact" else "")

    def _scaled(self, height: int, width: int) -> tuple[float, float]:
        if self.rule == "keep":
            return height, width
        if self.rule == "edges":
            return _edges(height, width, self.size[0], self.size[1])
        if self.rule == "within":
            scale = min(self.size[0] / height, self.size[1] / width)
            return int(height * scale), int(width * scale)
        if not self.keep_aspect:
            return self.size
        scale_height, scale_width = self.size[0] / height, self.size[1] / width
        scale = scale_width if abs(1 - scale_width) < abs(1 - scale_height) else scale_height
        return scale * height, scale * width


@dataclass(frozen=True)
class Frame:
    """How a resized image becomes the tensor that the model sees: padded at the bottom and right, never for another image's sake."""

    divisor: int = 1
    """Sides are padded to multiples of this."""
    square: int = 0
    """Or both to this, where the model takes one size only."""
    windows: bool = False
    """The model slides a `square` window over the longer side instead of padding."""
    black: bool = False
    """Padding is black pixels; else zeros after normalisation, which is the mean colour."""

    def padded(self, size: Size) -> Size:
        """The padded size of a resized image."""
        if self.windows:
            return size
        if self.square:
            return self.square, self.square
        return -(-size[0] // self.divisor) * self.divisor, -(-size[1] // self.divisor) * self.divisor


def resize(pixels: Pixels, plan: ResizePlan, size: Size | None = None, box: tuple[float, float, float, float] | None = None) -> Pixels:
    """Resize an image uint8 [H, W, 3] as `plan` says: uint8 [h, w, 3].

    Args:
        pixels: the image.
        plan: how.
        size: height and width of the original, where the pixels were reduced when they were decoded.
        box: then, what of the pixels the original covers: left, top, right, bottom.
    """
    new_height, new_width = plan.target(*(size or pixels.shape[:2]))
    if (new_height, new_width) == pixels.shape[:2] and box is None:
        return pixels
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((new_width, new_height), Image.Resampling(plan.resample), box))


def value_table(plan: ResizePlan) -> NDArray[np.float32]:
    """float32 [3, 256]: what a pixel of each channel and value becomes, by the arithmetic of transformers' `rescale` and `normalize`."""
    rescaled = (np.arange(256, dtype=np.float64) * plan.rescale).astype(np.float32)
    mean, std = np.asarray(plan.mean, np.float32)[:, None], np.asarray(plan.std, np.float32)[:, None]
    return (rescaled[None] - mean) / std


def normalise(pixels: Pixels, plan: ResizePlan) -> NDArray[np.float32]:
    """Pixel values float32 [3, h, w] of a resized image uint8 [h, w, 3]: bit for bit those of transformers' PIL processors."""
    table = value_table(plan)
    return np.stack([table[channel][pixels[..., channel]] for channel in range(3)])


def plan_from_processor(settings: dict[str, Any]) -> ResizePlan:
    """The plan of an image processor's settings, defaults filled in (transformers' names and meanings; a centre crop is not part of it:
    it would leave pixels without an answer).

    Raises:
        ValueError: `size` has none of the known forms.
    """
    common: dict[str, Any] = {
        "resample": int(settings["resample"]),
        "rescale": float(settings["rescale_factor"]) if settings["do_rescale"] else 1.0,
        "mean": _triple(settings["image_mean"]) if settings["do_normalize"] else (0.0, 0.0, 0.0),
        "std": _triple(settings["image_std"]) if settings["do_normalize"] else (1.0, 1.0, 1.0),
    }
    if not settings["do_resize"]:
        return ResizePlan("keep", **common)
    size = _size_dict(settings)
    if settings.get("ensure_multiple_of"):
        common |= {"multiple": int(settings["ensure_multiple_of"]), "rounding": "nearest"}
        common |= {"keep_aspect": bool(settings["keep_aspect_ratio"])}
    elif settings.get("size_divisor"):
        common |= {"multiple": int(settings["size_divisor"])}
    if size.get("shortest_edge"):
        return ResizePlan("edges", (size["shortest_edge"], size.get("longest_edge") or 0), **common)
    if size.get("max_height") and size.get("max_width"):
        return ResizePlan("within", (size["max_height"], size["max_width"]), **common)
    if size.get("height") and size.get("width"):
        return ResizePlan("exact", (size["height"], size["width"]), **common)
    raise ValueError(f"`size` is {settings['size']}, which names neither height and width nor a shortest edge")


def _size_dict(settings: dict[str, Any]) -> dict[str, int]:
    """`size` in today's form; older checkpoints write one number, with `max_size` beside it, or a pair."""
    size = settings["size"]
    if isinstance(size, dict):
        return size
    if isinstance(size, list | tuple):
        return {"height": size[0], "width": size[1]}
    if settings["default_to_square"]:
        return {"height": size, "width": size}
    return {"shortest_edge": size, "longest_edge": settings.get("max_size") or 0}


def _triple(value: float | list[float]) -> tuple[float, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,) * 3


def _edges(height: int, width: int, shortest: int, longest: int) -> Size:
    side, bound = shortest, None
    if longest and max(height, width) / min(height, width) * shortest > longest:
        bound = longest * float(min(height, width)) / float(max(height, width))
        side = round(bound)
    exact = side if bound is None else bound
    if (height <= width and height == side) or (width <= height and width == side):
        return height, width
    if width < height:
        return int(exact * height / width), side
    return side, int(exact * width / height)


def _to_multiple(side: float, multiple: int, rounding: str) -> int:
    return (math.ceil(side / multiple) if rounding == "up" else round(side / multiple)) * multiple
