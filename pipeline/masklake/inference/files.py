"""The files of a checkpoint folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from masklake.errors import Refused

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack", "*.h5")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up the checkpoint.

    Raises:
        Refused: there are none, or a shard is missing.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        shards = sorted({folder / name for name in read_json(index, "")["weight_map"].values()})
        missing = [shard.name for shard in shards if not shard.is_file()]
        if missing:
            raise Refused(f"{folder}: {index.name} names {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not there")
        return [*shards, index]
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise Refused(pickle_message(str(folder), pickles[0]))
    raise Refused(f"{folder} has no weights: model.safetensors, or model.safetensors.index.json with its shards, must be there")


def pickle_message(where: str, name: str) -> str:
    """Why a checkpoint of pickles is refused, and the way out."""
    return (
        f"{where} has only pickled weights ({name}), which can run code when they are opened. Where you trust them, convert them once: "
        "load the checkpoint with its class in transformers and write it with save_pretrained(<new folder>), which makes "
        "model.safetensors; copy preprocessor_config.json beside it and give that folder as the model"
    )


def read_json(path: Path, absent: str) -> dict[str, Any]:
    """A JSON object; refused with `absent` where there is no such file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refused(absent) from None
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise Refused(f"{path} must hold a JSON object")
    return content
