"""What a model in bfloat16 must not compute in it: checked against transformers' own formulas, and against the model in float32."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from masklake.demo import MODEL
from masklake.demo.scenes import render, sample_scene
from masklake.inference import deformable, half_precision, weights
from masklake.inference.families import FAMILIES, Queries
from tests.unit.inference import tiny_checkpoints, tiny_sam3

_SHAPES = [(2, 3), (5, 4), (9, 7)]
_TOKENS = sum(height * width for height, width in _SHAPES)


def _given(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    values, logits = torch.randn(2, _TOKENS, 4, 16), torch.randn(2, _TOKENS, 4, 12)
    offsets = torch.randn(2, _TOKENS, 4, 3, 4, 2) * 3  # in pixels: many points lie beyond the edge
    return values.to(dtype), offsets.to(dtype), logits.to(dtype)


def test_the_attention_is_that_of_transformers_in_float32() -> None:
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerPixelDecoderEncoderOnly, multi_scale_deformable_attention

    values, offsets, logits = _given(torch.float32)
    own = Mask2FormerPixelDecoderEncoderOnly.get_reference_points(_SHAPES, torch.ones(2, 3, 2), "cpu")
    sides = torch.tensor([[width, height] for height, width in _SHAPES])
    places = own[:, :, None, :, None, :] + offsets / sides[None, None, None, :, None, :]
    theirs = multi_scale_deformable_attention(values, _SHAPES, places, logits.softmax(-1).view(2, _TOKENS, 4, 3, 4))
    assert (deformable.attend(values, offsets, logits, _SHAPES) - theirs).abs().max() < 1e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Converting a tensor")
def test_in_float32_a_cpu_attends_our_way_and_what_is_traced_is_transformers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    module, attend, asked = weights.load(MODEL), deformable.attend, []

    def counted(*given: Any) -> torch.Tensor:
        asked.append(given)
        return attend(*given)

    monkeypatch.setattr(deformable, "attend", counted)
    pixels = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = module(pixels)
        assert len(asked) == module.config.encoder_layers
        torch.jit.trace(lambda values: module(values).masks_queries_logits, pixels, check_trace=False)  # type: ignore[no-untyped-call]
        assert len(asked) == module.config.encoder_layers
        half_precision.restore(module)
        theirs = module(pixels)
    assert len(asked) == module.config.encoder_layers
    for name in ("class_queries_logits", "masks_queries_logits"):
        assert (ours[name] - theirs[name]).abs().max() < 1e-5 * theirs[name].abs().max()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_kernel_is_the_same_attention(dtype: str) -> None:
    program = f"""
        import torch
        from masklake.inference import deformable
        torch.manual_seed(0)
        shapes = [(2, 3), (3, 2), (5, 3)]
        tokens = sum(height * width for height, width in shapes)
        given = [
            torch.randn(size).to(torch.{dtype}) * scale
            for size, scale in (((2, tokens, 2, 8), 1), ((2, tokens, 2, 3, 4, 2), 2), ((2, tokens, 2, 12), 1))
        ]
        kernel = deformable.by_triton(*given, shapes)
        assert kernel.dtype == torch.{dtype}
        exact = deformable.by_torch(*(each.float() for each in given), shapes)
        print(float((kernel.float() - exact).abs().max()))
    """
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    rounding = {"float32": 1e-5, "bfloat16": 2**-8}[dtype]  # of the answer alone: values below 2 are rounded by half of 2^-7 at most
    assert float(done.stdout) <= rounding


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_the_kernel_compiles_for_a_gpu() -> None:
    """The compiler refuses what the interpreter takes; it needs no GPU."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = {"HEADS": 8, "LEVELS": 3, "POINTS": 4, "PADDED": 16, "DIM": 32, "BLOCK": 32}
    signature = dict.fromkeys(("values", "offsets", "logits", "out"), "*bf16")
    signature |= dict.fromkeys(("tokens", "h0", "w0", "h1", "w1", "h2", "w2", "h3", "w3"), "i32") | dict.fromkeys(constants, "constexpr")
    source = ASTSource(fn=deformable._kernel(), signature=signature, constexprs=constants)
    assert triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]


@pytest.mark.parametrize("size", [(12, 16), (6, 8), (3, 4), (24, 32), (5, 7)])
def test_attention_masks_are_those_of_transformers(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    masks = torch.randn(2, 5, 24, 32)
    resized = torch.nn.functional.interpolate(masks, size=size, mode="bilinear", align_corners=False)
    theirs = (resized.sigmoid().flatten(2).unsqueeze(1).repeat(1, 8, 1, 1).flatten(0, 1) < 0.5).bool()
    assert torch.equal(half_precision.outside(masks, size, 8), theirs)


@pytest.mark.slow
def test_bfloat16_answers_as_float32_does_at_sizes_where_rounded_coordinates_would_not() -> None:
    """By casting alone, the answer was not finite on a CPU, and points were off by a third of a pixel of a coarse map."""
    image = render(sample_scene(900_000), 384, 384).image
    pixels = (torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None] / 255 - 0.45) / 0.22
    logits = []
    for dtype in ("float32", "bfloat16"):
        module = weights.load(MODEL, "cpu", dtype)
        with torch.inference_mode():
            logits.append(module(pixels.to(module.dtype)).masks_queries_logits.float())
    assert torch.isfinite(logits[1]).all()
    assert ((logits[0] > 0) != (logits[1] > 0)).float().mean() < 0.003


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mask2former", "maskformer", "oneformer", "detr", "eomt_dinov3", "sam3"])
def test_positions_are_rounded_once_in_every_family_that_computes_them(family: str, tmp_path: Path) -> None:
    folder = tiny_sam3.write(tmp_path) if family == "sam3" else tiny_checkpoints.write(family, tmp_path)
    exact, half = weights.load(folder, "cpu", "float32"), weights.load(folder, "cpu", "bfloat16")
    constants = dict(exact.named_buffers())
    for name in constants.keys() - exact.state_dict().keys():
        if constants[name].is_floating_point() and not name.startswith("masklake_"):  # of weights, which are rounded
            assert torch.equal(half.get_buffer(name), constants[name]), name
    found: dict[str, list[torch.Tensor]] = {}
    for module in (exact, half):
        for name, part in module.named_modules():
            if type(part).__name__.endswith(("PositionEmbedding", "RotaryEmbedding")):
                part.register_forward_hook(lambda _, __, given, name=name: found.setdefault(name, []).extend(_tensors(given)))
        side = 56 if family == "sam3" else 64
        with torch.inference_mode():
            FAMILIES[family].run(module, torch.zeros(1, 3, side, side, dtype=module.dtype), FAMILIES[family].tasks[:1] * (family != "sam3"))
    assert found
    for name, values in found.items():
        whole, rounded = values[: len(values) // 2], values[len(values) // 2 :]
        assert all(torch.equal(one.to(other.dtype), other) for one, other in zip(whole, rounded, strict=True)), name


def test_shapes_that_come_on_the_device_alone_are_read_from_there(tmp_path: Path) -> None:
    """As transformers 5.17 gives them to OneFormer's attention; later versions add a list."""
    module = weights.load(tiny_checkpoints.write("oneformer", tmp_path), "cpu", "bfloat16")
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).to(module.dtype)
    with torch.inference_mode():
        expected = FAMILIES["oneformer"].run(module, pixels, ("panoptic",))["panoptic"]
        parts = [part for part in module.modules() if type(part).__name__.endswith("PixelDecoderEncoderMultiscaleDeformableAttention")]
        for part in parts:
            part.forward = functools.partial(_without_list, part.forward)
        found = FAMILIES["oneformer"].run(module, pixels, ("panoptic",))["panoptic"]
    assert parts
    assert isinstance(expected, Queries)
    assert isinstance(found, Queries)
    assert torch.equal(found.mask_logits, expected.mask_logits)


def _without_list(forward: Callable[..., Any], *given: Any, spatial_shapes_list: object = None, **named: Any) -> Any:
    return forward(*given, **named)


def _tensors(given: torch.Tensor | tuple[torch.Tensor, ...]) -> Sequence[torch.Tensor]:
    return given if isinstance(given, tuple) else (given,)
