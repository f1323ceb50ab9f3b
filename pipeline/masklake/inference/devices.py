"""Where a model runs: which devices there are, and how many of the CPU's threads it takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from masklake.errors import Refused


def chosen_device(asked: str) -> str:
    """The device as torch calls it. `auto`: a GPU of NVIDIA's where there is one, else the CPU; Apple's GPU (`mps`) only where it is asked
    for, since it answers a little differently.

    Raises:
        Refused: this machine, or the torch on it, does not have it.
    """
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind = asked.partition(":")[0]
    if kind == "cuda" and not torch.cuda.is_available():
        raise Refused(f"--device {asked}: torch sees no GPU of NVIDIA's here: use --device cpu, or a torch that was built for CUDA")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise Refused(f"--device {asked}: torch sees no GPU of Apple's here: use --device cpu")
    return asked


def use_threads(count: int) -> None:
    """So many of the CPU's threads for each forward, from now on."""
    torch.set_num_threads(count)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many of the CPU's threads for torch, for as long as this takes: the rest of the program has its own number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
