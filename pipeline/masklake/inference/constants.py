"""Forwards that do not wait for a GPU: what transformers makes anew from Python numbers in each is made once, on the device.

`torch.tensor` and `torch.as_tensor` with a device copy from memory that the device cannot read beside its work: the host waits for all
that it has asked for, and a CUDA graph cannot hold the copy. Each module's forward gets a `torch` of its own that remembers them.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

import torch

_MAKERS = {"tensor", "as_tensor"}
_SELECTS_ROWS = "OneFormerTransformerDecoderLayer"  # attention_mask[torch.where(full)] = False
_REMEMBERED = 256
_MOST_NUMBERS = 64


def make_once(module: Any) -> None:
    """Let the parts of a model of transformers make constants once, in place."""
    for part in module.modules():
        forward = part.forward
        function = getattr(forward, "__func__", None)
        if not isinstance(function, FunctionType) or not function.__module__.startswith("transformers."):
            continue
        selects = type(part).__name__ == _SELECTS_ROWS
        if selects or _MAKERS & set(function.__code__.co_names):
            own = _WithoutWaits(selects)
            seen = {**function.__globals__, "torch": own}
            copy = FunctionType(function.__code__, seen, function.__name__, function.__defaults__, function.__closure__)
            copy.__kwdefaults__ = function.__kwdefaults__
            part.forward = MethodType(copy, part)


class _WithoutWaits:
    """`torch`, but for a few functions."""

    def __init__(self, selects: bool) -> None:
        self._constants: dict[Any, torch.Tensor] = {}
        self.tensor, self.as_tensor = self._remembering(torch.tensor), self._remembering(torch.as_tensor)
        if selects:
            self.where = _where

    def __getattr__(self, name: str) -> Any:
        found = getattr(torch, name)
        setattr(self, name, found)
        return found

    def _remembering(self, make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def remembered(data: Any, *, dtype: Any = None, device: Any = None) -> torch.Tensor:
            numbers = _numbers(data)
            if numbers is None or device is None or torch.device(device).type == "cpu" or not torch.is_inference_mode_enabled():
                return make(data, dtype=dtype, device=device)
            key = (numbers, dtype, torch.device(device))
            if key not in self._constants:
                if len(self._constants) >= _REMEMBERED:
                    self._constants.pop(next(iter(self._constants)))
                self._constants[key] = make(data, dtype=dtype, device=device)
            return self._constants[key]

        return remembered


def _where(condition: torch.Tensor, *others: Any) -> Any:
    """With one argument: the condition itself, which selects the same as an index, and need not be counted for it."""
    return torch.where(condition, *others) if others else condition


def _numbers(data: Any) -> Any:
    """A list of integers, or of lists of them, as tuples; None for anything else."""
    if not isinstance(data, (list, tuple)) or len(data) > _MOST_NUMBERS:
        return None
    rows = [tuple(row) if isinstance(row, (list, tuple)) else (row,) for row in data]
    if not all(type(number) is int for row in rows for number in row):
        return None
    return tuple((isinstance(row, (list, tuple)), numbers) for row, numbers in zip(data, rows, strict=True))
