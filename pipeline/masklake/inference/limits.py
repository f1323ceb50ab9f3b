"""How many images go through the model together, and what an exception of the device's means."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from masklake.inference.preprocess import Size

_CPU_PIXELS_PER_BATCH = 2**18  # beyond, a batch on a CPU gains nothing over single images and costs memory
_CPU_LARGEST = 8
_CUDA_LARGEST = 32
_CUDA_BYTES_PER_PIXEL = 4096  # of activations: above what Swin-L needs in bfloat16
_CUDA_SHARE = 0.6  # of the memory that is to be had; the rest is for post-processing
_GROW_AFTER = 16  # batches that went well before a larger one is tried again
_NO_MEMORY = ("out of memory", "alloc_failed", "can't allocate memory", "not enough memory")
_ACCELERATOR_ERROR: type[BaseException] | None = getattr(torch, "AcceleratorError", None)


class OutOfMemory(Exception):
    """The device's memory was too small for a batch."""


@dataclass
class Limit:
    """How many images of one shape go together; halved when memory runs out, grown back when it goes well."""

    most: int
    now: int = 0
    went_well: int = 0

    def __post_init__(self) -> None:
        self.now = self.now or self.most

    def halve(self, failed: int) -> None:
        """After a batch of `failed` images did not fit."""
        self.now, self.went_well = max(1, failed // 2), 0

    def succeed(self, count: int) -> None:
        """After a batch of `count` images did."""
        if self.now < self.most and count >= self.now:
            self.went_well += 1
            if self.went_well >= _GROW_AFTER:
                self.now, self.went_well = min(self.most, self.now * 2), 0


def default_batch(device: torch.device, padded: Size) -> int:
    """Images of the model's input size `padded` in a batch: a power of two."""
    area = padded[0] * padded[1]
    if device.type == "cuda":
        fitting = int(to_be_had(device) * _CUDA_SHARE / (area * _CUDA_BYTES_PER_PIXEL))
        return max(1, min(_CUDA_LARGEST, 1 << max(0, fitting.bit_length() - 1)))
    return max(1, min(_CPU_LARGEST, _CPU_PIXELS_PER_BATCH // area))


def to_be_had(device: torch.device) -> int:
    """Bytes of a GPU's memory that are free, or that torch holds without using them."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, in whichever class that is said.

    torch's allocator has a class for it; pinning memory, creating a stream and loading a kernel raise AcceleratorError, cuBLAS, cuDNN and
    the CPU's allocator RuntimeError.
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _NO_MEMORY)


def is_lost(error: BaseException) -> bool:
    """Whether the device's context is broken: every call fails from now on."""
    return _ACCELERATOR_ERROR is not None and isinstance(error, _ACCELERATOR_ERROR) and not is_out_of_memory(error)
