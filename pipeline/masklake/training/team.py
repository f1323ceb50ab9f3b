"""The processes that train together: one alone, or those of a torch.distributed group. Each sums its part of a step's gradient."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Team:
    """`Team()` is one process alone; `Team(rank, size)` is a member of the default process group."""

    rank: int = 0
    size: int = 1

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace each gradient by the sum over all members, in one exchange. What has no gradient here counts as zeros."""
        if self.size == 1:
            return
        learned = list(parameters)
        used = torch.tensor([parameter.grad is not None for parameter in learned], dtype=torch.int32, device=learned[0].device)
        dist.all_reduce(used)
        wanted = [parameter for parameter, count in zip(learned, used.tolist(), strict=True) if count]
        flat = torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in wanted])
        dist.all_reduce(flat)
        for parameter, summed in zip(wanted, torch.split(flat, [p.numel() for p in wanted]), strict=True):
            parameter.grad = summed.view_as(parameter)

    def sum(self, number: float, device: torch.device) -> float:
        """The sum of a number over all members."""
        if self.size == 1:
            return number
        total = torch.tensor(number, dtype=torch.float64, device=device)
        dist.all_reduce(total)
        return float(total)

    def gather(self, thing: Any) -> list[Any]:
        """What every member gives, in the order of their ranks."""
        if self.size == 1:
            return [thing]
        things: list[Any] = [None] * self.size
        dist.all_gather_object(things, thing)
        return things

    def share_buffers(self, module: torch.nn.Module) -> None:
        """Give all members the first one's buffers: the running means of batch normalisation, which each takes of its own images."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)
