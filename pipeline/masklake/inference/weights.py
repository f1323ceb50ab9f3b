"""Loading a checkpoint's weights: safetensors only, and nothing is missing without being said."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from masklake.errors import Refused
from masklake.inference.families import FAMILIES, model_class
from masklake.inference.files import weight_files

_TRAINING_ONLY = ("criterion.", "matcher.")  # the loss's buffers: not every checkpoint carries them, no answer needs them


def load(family_name: str, folder: Path, device: str = "cpu", dtype: str = "float32") -> Any:
    """The model as a torch module in evaluation mode on `device`, weights in `dtype` (a name such as float32 or bfloat16).

    Raises:
        Refused: weights are missing or of another shape (transformers would warn and make them up), or a package is missing.
    """
    family = FAMILIES[family_name]
    weight_files(folder)
    with quiet():
        module, info = _from_pretrained(model_class(family), folder)
    _refuse_holes(folder, module, info)
    for name, value in family.config_changes.items():
        setattr(module.config, name, value)
    module.eval().requires_grad_(False)
    module.to(device=torch.device(device), dtype=getattr(torch, dtype), memory_format=torch.channels_last)
    with quiet():
        family.prepare(module, folder)
    return module.to(torch.device(device))


def verify(family_name: str, folder: Path) -> None:
    """Check names and shapes of all weights against the safetensors headers, without reading weights.

    Where names differ, which transformers may translate for older checkpoints, the weights are loaded once to know.

    Raises:
        Refused: as `load`.
    """
    from safetensors import safe_open
    from transformers import AutoConfig

    cls = model_class(FAMILIES[family_name])
    found: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                found |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a mapping
    with quiet(), torch.device("meta"):
        expected = cls(AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False))
    state = {name: tuple(value.shape) for name, value in expected.state_dict().items()}
    needed = needed_weights(expected, state)
    if any(found.get(name) != state[name] for name in needed):
        with quiet():
            module, info = _from_pretrained(cls, folder)
        _refuse_holes(folder, module, info)


def needed_weights(module: Any, names: Iterable[str]) -> set[str]:
    """Of `names` of the module's state, those that an answer needs: not the loss's buffers, nor what a part of the model declares unused.

    A composed model's backbone may carry layers that its class says (`_keys_to_ignore_on_load_missing`) a checkpoint need not have, such
    as the last norm of Swin, which released Mask2Former and OneFormer files lack: transformers does not hand that on to the whole.
    """
    ignorable = [
        (f"{prefix}." if prefix else "", re.compile(pattern))
        for prefix, part in module.named_modules()
        for pattern in getattr(type(part), "_keys_to_ignore_on_load_missing", None) or ()
    ]

    def is_ignorable(name: str) -> bool:
        return any(name.startswith(prefix) and pattern.search(name.removeprefix(prefix)) for prefix, pattern in ignorable)

    return {name for name in names if not name.startswith(_TRAINING_ONLY) and not is_ignorable(name)}


def _from_pretrained(cls: Any, folder: Path) -> tuple[Any, dict[str, Any]]:
    try:
        result: tuple[Any, dict[str, Any]] = cls.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # to name them ourselves
            output_loading_info=True,
            dtype=torch.float32,
        )
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Refused(f"{folder}: transformers cannot load this checkpoint: {first}") from error
    return result


def _refuse_holes(folder: Path, module: Any, info: dict[str, Any]) -> None:
    missing, mismatched = needed_weights(module, info["missing_keys"]), {name for name, *_ in info["mismatched_keys"]}
    problems = [
        f"{len(names)} {what} ({', '.join(sorted(names)[:5])}{', ...' if len(names) > 5 else ''})"
        for names, what in ((missing, "weights are missing"), (mismatched, "weights have another shape than config.json says"))
        if names
    ]
    if problems:
        raise Refused(f"{folder}: {'; '.join(problems)}: the checkpoint does not fit its config.json")


@contextmanager
def quiet() -> Iterator[None]:
    """transformers' warnings and progress bars kept from the user; what matters is raised."""
    from transformers.utils import logging as hf_logging

    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(logging.CRITICAL)
    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
