"""Reads one file of pickled weights and writes its tensors as safetensors: a program of its own, which `pickles` starts.

    python -P unpickle.py SOURCE TARGET

Prints one JSON object: the names of the tensors, or what is wrong. Knows nothing of masklake.
"""

from __future__ import annotations

import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

_KINDS = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_SPARE = 1 << 20


class Unusable(Exception):
    """Why a file is not converted, in words."""


def convert(source: Path, target: Path) -> list[str]:
    """Write the tensors of `source` into `target`; returns their names.

    Raises:
        Unusable: it holds something else, or cannot be read.
    """
    size = source.stat().st_size
    zipped = zipfile.is_zipfile(source)
    if zipped:  # torch stores without compression; a compressed file may unfold into any size
        with zipfile.ZipFile(source) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise Unusable("it is compressed, as torch never writes it")
    import torch
    from safetensors.torch import save_file

    try:
        found = torch.load(source, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # of somebody else's file, torch raises whatever it meets
        raise Unusable(_reason(str(error) or type(error).__name__)) from None
    _check(found, size)
    save_file({name: value.detach().clone().contiguous() for name, value in found.items()}, target, metadata={"format": "pt"})
    return sorted(found)


def _check(found: Any, size: int) -> None:
    """See that it is a model's weights by their names, plain tensors, no larger than the file of `size` bytes explains."""
    import torch

    if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found):
        raise Unusable("it does not hold a model's weights by their names")
    for name, value in found.items():
        if not isinstance(value, torch.Tensor):
            raise Unusable(f"it holds more than tensors: {name} is a {type(value).__name__}")
        if value.layout != torch.strided or value.is_meta or value.is_quantized or str(value.dtype).removeprefix("torch.") not in _KINDS:
            raise Unusable(f"{name} is not a plain tensor")
    if sum(value.numel() * value.element_size() for value in found.values()) > 2 * size + _SPARE:
        raise Unusable("its tensors claim more than the file holds")


def _bound(size: int) -> None:
    """No core dump, no file larger than the weights explain, no endless memory."""
    import resource  # which Windows has not

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for kind, most in ((resource.RLIMIT_FSIZE, 2 * size + (64 << 20)), (resource.RLIMIT_DATA, 4 * size + (8 << 30))):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _reason(text: str) -> str:
    """torch's refusal in short: what it would have had to run, or its first line."""
    name = re.search(r"GLOBAL ([\w.]+)", text) or re.search(r"\b(?:Trying to call|Unsupported class|Unsupported operand) ([\w.]+)", text)
    if name:
        return f"it holds more than tensors ({name[1]})"
    return " ".join(text.split())[:200]


def main(source: Path, target: Path) -> dict[str, Any]:
    """What is printed."""
    _bound(source.stat().st_size)
    try:
        return {"names": convert(source, target)}
    except Unusable as unusable:
        return {"error": str(unusable)}
    except MemoryError:
        return {"error": "it asks for more memory than its size explains"}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
