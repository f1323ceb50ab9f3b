"""What a model in bfloat16 or float16 must not compute in it, and where transformers' way costs half of the time.

Casting a whole module rounds coordinates, too: those of the deformable attention's points and of the sine position embeddings. Here their
arithmetic stays float32, as under autocast. The decoders' attention masks are made from the four pixels that bilinear resizing by a whole
factor looks at, instead of by torch's `interpolate`, whose kernel is slow where maps are many and small. What no checkpoint holds, since it
is computed when a model is made (the frequencies of rotary embeddings, the places that SAM 3 turns by them), stays as it was computed.

In float32 on a CPU, the deformable attention is computed in our way as well, the same but for the order of its sums, and the position
embeddings of a shape are remembered.

Modules are found by what their classes in transformers are called: Mask2Former's and OneFormer's pixel decoders and decoders, and the
position embeddings of these, MaskFormer and DETR.
"""

from __future__ import annotations

import functools
from types import MethodType
from typing import Any

import torch

from masklake.inference import deformable

_SHAPES_REMEMBERED = 64
_ATTENTION, _POSITIONS = "PixelDecoderEncoderMultiscaleDeformableAttention", "SinePositionEmbedding"


def cast(module: Any, dtype: torch.dtype) -> None:
    """Turn a module in float32 into one in `dtype`, in place; in bfloat16 and float16, what must be float32 stays so."""
    computed = [(part, name, part._buffers[name]) for part in module.modules() for name in part._non_persistent_buffers_set]
    module.to(dtype=dtype)
    if dtype not in (torch.bfloat16, torch.float16):
        return
    for part, name, value in computed:
        if value is not None and value.is_floating_point():
            setattr(part, name, value)
    for part in module.modules():
        name = type(part).__name__
        if name.endswith(_ATTENTION):
            part.forward = MethodType(_attend, part)
        elif name.endswith(_POSITIONS):
            part.forward = _positions(part.forward)
        elif name == "Mask2FormerMaskPredictor":
            part.forward = MethodType(_predict_masks, part)
        elif name == "OneFormerTransformerDecoder":
            part.forward_prediction_heads = MethodType(_predict_all, part)


def quicken(module: Any) -> None:
    """Let a module in float32, on a CPU, attend and remember positions in our way, in place."""
    for part in module.modules():
        if type(part).__name__.endswith(_ATTENTION):
            part.forward = MethodType(_attend_untraced, part)
        elif type(part).__name__.endswith(_POSITIONS):
            part.forward = _positions(part.forward)


def restore(module: Any) -> None:
    """Let a module in float32 compute all as transformers does again, in place."""
    for part in module.modules():
        vars(part).pop("forward", None)


def _attend(self: Any, hidden_states: torch.Tensor, **given: Any) -> tuple[torch.Tensor, None]:
    """Of `*PixelDecoderEncoderMultiscaleDeformableAttention`: no pixel is padding there, and every token is its own reference point."""
    listed = given.get("spatial_shapes_list")
    if listed is None:  # OneFormer's until transformers 5.17: on the device alone, which must be waited for
        listed = given["spatial_shapes"].tolist()
    shapes = [(int(height), int(width)) for height, width in listed]
    values = self.value_proj(given["encoder_hidden_states"])
    if given.get("position_embeddings") is not None:
        hidden_states = hidden_states + given["position_embeddings"]
    count, tokens, _ = hidden_states.shape
    found = deformable.attend(
        values.view(count, tokens, self.n_heads, -1),
        self.sampling_offsets(hidden_states).view(count, tokens, self.n_heads, self.n_levels, self.n_points, 2),
        self.attention_weights(hidden_states).view(count, tokens, self.n_heads, self.n_levels * self.n_points),
        shapes,
    )
    return self.output_proj(found), None


def _attend_untraced(self: Any, hidden_states: torch.Tensor, **given: Any) -> Any:
    """As `_attend`; what is traced is transformers' own."""
    if torch.jit.is_tracing() or torch.compiler.is_compiling():  # type: ignore[attr-defined, no-untyped-call]
        return type(self).forward(self, hidden_states, **given)
    return _attend(self, hidden_states, **given)


def _positions(own: Any) -> Any:
    """The forward of a sine position embedding, in float32, cast at the end; without padding, of a few shapes it is remembered."""

    @functools.lru_cache(maxsize=_SHAPES_REMEMBERED)
    def remembered(shape: torch.Size, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        found: torch.Tensor = own(shape, device, torch.float32).to(dtype)
        return found

    def forward(shape: torch.Size, device: torch.device, dtype: torch.dtype, mask: torch.Tensor | None = None) -> torch.Tensor:
        one = torch.Size((1, *shape[1:]))
        if mask is not None:
            padded: torch.Tensor = own(shape, device, torch.float32, mask).to(dtype)
            return padded
        if torch.compiler.is_compiling() or (device.type == "cuda" and torch.cuda.is_current_stream_capturing()):
            found = remembered.__wrapped__(one, device, dtype)  # a captured graph must own what it reads
        else:
            found = remembered(one, device, dtype)
        return found.expand(shape[0], -1, -1, -1)

    return forward


def _predict_masks(self: Any, outputs: torch.Tensor, pixel_embeddings: torch.Tensor, attention_mask_target_size: Any) -> Any:
    """Of Mask2FormerMaskPredictor: mask logits [N, Q, h, w], and where each query's attention must not look."""
    masks = torch.einsum("bqc,bchw->bqhw", self.mask_embedder(outputs.transpose(0, 1)), pixel_embeddings)
    return masks, outside(masks, tuple(attention_mask_target_size), self.num_heads)


def _predict_all(self: Any, output: torch.Tensor, mask_features: torch.Tensor, attention_mask_target_size: Any) -> Any:
    """Of OneFormerTransformerDecoder: class logits, mask logits, and where each query's attention must not look."""
    decoded = self.decoder_norm(output).transpose(0, 1)
    masks = torch.einsum("bqc,bchw->bqhw", self.mask_embed(decoded), mask_features)
    return self.class_embed(decoded), masks, outside(masks, tuple(attention_mask_target_size), self.num_heads)


def outside(masks: torch.Tensor, size: tuple[int, int], heads: int) -> torch.Tensor:
    """Where the masks' logits [N, Q, h, w], resized to `size`, are below zero: bool [N * heads, Q, area]."""
    resized = _resized(masks, size)
    flat = (resized < 0).flatten(2)[:, None]
    return flat.expand(-1, heads, -1, -1).flatten(0, 1)


def _resized(masks: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Bilinear, without antialiasing; by an even whole factor, the mean of the four pixels in the middle, but for its division by four."""
    height, width = masks.shape[-2:]
    factor = height // size[0]
    if factor < 2 or factor % 2 or (height, width) != (size[0] * factor, size[1] * factor):
        return torch.nn.functional.interpolate(masks.float(), size=size, mode="bilinear", align_corners=False)
    before, after = factor // 2 - 1, factor // 2
    upper, lower = masks[..., before::factor, :], masks[..., after::factor, :]
    return upper[..., before::factor].float() + upper[..., after::factor] + lower[..., before::factor] + lower[..., after::factor]
