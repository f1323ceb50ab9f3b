"""Loading a checkpoint's weights: safetensors only, and nothing is missing without being said."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from masklake.errors import Refused
from masklake.inference import half_precision, model_config, timm_resnet
from masklake.inference.families import FAMILIES, Family, model_class
from masklake.inference.files import Stored, stored_tensors, weight_files
from masklake.inference.segments import Settings
from masklake.spelling import plural

_TRAINING_ONLY = ("criterion.", "matcher.")  # the loss's buffers: not every checkpoint carries them, no answer needs them
_SPARE = 1 << 20  # weights that a model may have beyond its files' before it is taken for a mistake


def load(folder: Path, device: str = "cpu", dtype: str = "float32", name: str = "", settings: Settings | None = None) -> Any:
    """The model as a torch module in evaluation mode on `device`, weights in `dtype` (a name such as float32 or bfloat16).

    Refusals call the checkpoint `name`, or its folder. `settings` are those by which it answers; some families need them.

    Raises:
        Refused: weights are missing or of another shape (transformers would warn and make them up), or a package is missing.
    """
    name = name or str(folder)
    family, config, stored = _opened(folder, name)
    _check_size(family, config, stored, name)
    with slices(folder, name) as found:
        module, info = from_pretrained(model_class(family), config, found, name)
    _refuse_holes(module, info, name)
    for key, value in family.config_changes.items():
        setattr(module.config, key, value)
    module.eval().requires_grad_(False)
    half_precision.cast(module, getattr(torch, dtype))
    if dtype == "float32" and torch.device(device).type == "cpu":
        half_precision.quicken(module)
    module.to(device=torch.device(device), memory_format=torch.channels_last)
    with quiet():
        family.prepare(module, folder, name, settings)
    return module.to(torch.device(device))


def verify(folder: Path, name: str = "") -> None:
    """Check names and shapes of all weights against the safetensors headers, without reading weights.

    What transformers renames and converts in older checkpoints is so here as well: it is given tensors of the same shapes, without memory.

    Raises:
        Refused: as `load`.
    """
    name = name or str(folder)
    family, config, stored = _opened(folder, name)
    expected = _check_size(family, config, stored, name)
    shapes = {key: tuple(value.shape) for key, value in expected.state_dict().items()}
    if all(key in stored and stored[key].shape == shapes[key] for key in needed_weights(expected, shapes)):
        return
    stand_ins = {key: torch.zeros(()).expand(value.shape) for key, value in stored.items()}
    module, info = from_pretrained(model_class(family), config, stand_ins, name)
    _refuse_holes(module, info, name)


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


def _opened(folder: Path, name: str) -> tuple[Family, Any, dict[str, Stored]]:
    """The family, transformers' configuration, and what the files hold."""
    written, stored = model_config.read(folder, name), stored_tensors(folder, name)
    family = FAMILIES[str(written["model_type"])]
    with quiet():
        return family, model_config.build(written, model_config.classes(written, stored), name), stored


def _check_size(family: Family, config: Any, stored: Mapping[str, Stored], name: str) -> Any:
    """The model without memory (on the meta device); refused where it is far larger than its files.

    What is missing would be made up at its full size before it is found missing.
    """
    with torch.device("meta"):
        module = construct(model_class(family), config, name)
    needed = sum(value.numel() for value in module.state_dict().values())
    there = sum(math.prod(value.shape) for value in stored.values())
    if needed > 2 * there + _SPARE:
        raise Refused(f"{name}: the model of its config.json has {needed:,} weights, its files hold {there:,}: they do not belong together")
    return module


def construct(cls: Any, config: Any, name: str) -> Any:
    """The module of transformers' class `cls`, with new weights.

    Raises:
        Refused: the configuration contradicts itself.
    """
    try:
        with quiet():
            return cls(config)
    except Exception as error:  # of somebody else's configuration, transformers raises whatever it meets
        raise Refused(f"{name}: transformers cannot build a model of this configuration: {' '.join(str(error).split())}") from None


@contextmanager
def slices(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """The weights of a checkpoint by their names in its files, read where they are used, as long as the context lasts.

    Raises:
        Refused: there are none, or a file is damaged.
    """
    stored_tensors(folder, name)
    with ExitStack() as files:
        found: dict[str, Any] = {}
        for path in weight_files(folder, name):
            file = files.enter_context(safe_open(path, framework="pt"))
            found |= {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        yield found


def from_pretrained(cls: Any, config: Any, state: Mapping[str, Any], name: str) -> tuple[Any, dict[str, Any]]:
    """The module of transformers' class `cls` with `state` (tensors, or slices of files), and its report of what was missing.

    Names and layouts of older versions are translated, as transformers does it.

    Raises:
        Refused: transformers cannot load it.
    """
    try:
        with quiet():
            result: tuple[Any, dict[str, Any]] = cls.from_pretrained(
                None,
                config=config,
                state_dict={timm_resnet.own_name(key): value for key, value in state.items()},
                ignore_mismatched_sizes=True,  # to name them ourselves
                output_loading_info=True,
                dtype=torch.float32,
            )
    except Refused:
        raise
    except Exception as error:
        raise Refused(f"{name}: transformers cannot load this checkpoint: {' '.join(str(error).split())}") from error
    return result


_MISSING = ("weight is missing", "weights are missing")
_MISSHAPEN = ("weight has another shape than config.json says", "weights have another shape than config.json says")


def _refuse_holes(module: Any, info: Mapping[str, Any], name: str) -> None:
    missing, mismatched = needed_weights(module, info["missing_keys"]), {key for key, *_ in info["mismatched_keys"]}
    problems = [
        f"{plural(len(keys), *what)} ({', '.join(sorted(keys)[:5])}{', ...' if len(keys) > 5 else ''})"
        for keys, what in ((missing, _MISSING), (mismatched, _MISSHAPEN))
        if keys
    ]
    if problems:
        raise Refused(f"{name}: {'; '.join(problems)}: the checkpoint does not fit its config.json")


@contextmanager
def quiet() -> Iterator[None]:
    """transformers' warnings and progress bars kept from the user; what matters is raised."""
    from transformers.utils import logging as hf_logging

    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(logging.CRITICAL)
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()
