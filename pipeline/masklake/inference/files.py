"""The files of a checkpoint folder, told and checked without reading weights: JSON, and the headers of safetensors files.

Refusals name the checkpoint as the user did, which callers pass as `name`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from masklake.errors import Refused
from masklake.spelling import plural

SAFETENSORS, SAFETENSORS_INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"

TEXTS = ("*.json", "merges.txt", "vocab.txt", "README.md", "LICENSE", "LICENSE.txt", "LICENSE.md")
"""What a model needs besides its weights, and its card."""

_JSON_MOST = 1 << 26  # bytes; the largest real ones, vocabularies, have 1 to 4 MB
_HEADER_MOST = 100_000_000  # bytes, as the format's own library bounds it
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True)
class Stored:
    """A tensor in a safetensors file."""

    dtype: str
    """In the format's own words: F32, BF16, I64, ..."""
    shape: tuple[int, ...]


def needed(names: Iterable[str]) -> list[str]:
    """Of the names in a checkpoint's folder, those that a model needs: texts, and weights as safetensors or, without them, as pickles.

    Never code, and no weights of other libraries or of training.
    """
    beside = sorted(name for name in names if "/" not in name)
    texts = [name for name in beside if any(fnmatchcase(name, pattern) for pattern in TEXTS)]
    for whole, index, shard in ((SAFETENSORS, SAFETENSORS_INDEX, r".*\.safetensors"), (PICKLE, PICKLE_INDEX, r"pytorch_model-.*\.bin")):
        if whole in beside:
            return [*texts, whole]
        if index in beside:
            return [*texts, *(name for name in beside if re.fullmatch(shard, name))]
    return texts


def pickles(names: Iterable[str]) -> list[str]:
    """The names of pickled weights, where these are all that there is; other formats are nothing."""
    found = needed(names)
    return [] if any(name.endswith(".safetensors") for name in found) else [name for name in found if name.endswith(".bin")]


def weight_files(folder: Path, name: str) -> list[Path]:
    """The safetensors files that make up the checkpoint, without the index.

    Raises:
        Refused: there are none, or a shard is missing.
    """
    single, index = folder / SAFETENSORS, folder / SAFETENSORS_INDEX
    if single.is_file():
        return [single]
    if not index.is_file():
        raise Refused(f"{name} has no weights: {SAFETENSORS}, or {SAFETENSORS_INDEX} with its shards, must be there")
    shards = [folder / file for file in shard_names(index, ".safetensors", name)]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise Refused(f"{name}: {index.name} names {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not there")
    return shards


def shard_names(index: Path, ending: str, name: str) -> list[str]:
    """The files that an index of shards names.

    Raises:
        Refused: it is none, or names something else than files beside it.
    """
    mapped = read_json(index, "", name).get("weight_map")
    files = set(mapped.values()) if isinstance(mapped, dict) and all(isinstance(file, str) for file in mapped.values()) else set()
    if not files or any(Path(file).name != file or not file.endswith(ending) for file in files):
        raise Refused(f"{name}: {index.name} must name, in weight_map, the {ending} file beside it that holds each weight")
    return sorted(files)


def stored_tensors(folder: Path, name: str) -> dict[str, Stored]:
    """Name, type and shape of all weights, from the headers.

    Raises:
        Refused: there are no weights, or a file is damaged or ends too early.
    """
    found: dict[str, Stored] = {}
    for path in weight_files(folder, name):
        found.update(_header(path, name))
    index = folder / SAFETENSORS_INDEX
    if not (folder / SAFETENSORS).is_file():
        absent = sorted(set(read_json(index, "", name)["weight_map"]) - set(found))
        if absent:
            raise Refused(
                f"{name}: {index.name} names {plural(len(absent), 'weight')} that its shards do not hold ({', '.join(absent[:3])})"
            )
    return found


def _header(path: Path, name: str) -> Iterator[tuple[str, Stored]]:
    """The entries of one file (https://huggingface.co/docs/safetensors: 8 bytes of length, JSON, then the data without holes)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(_HEADER_MOST, size - 8):
            raise Refused(f"{name}: {path.name} is not a safetensors file, or only the beginning of one: copy it again")
        try:
            header = json.loads(file.read(length))
            entries = {key: entry for key, entry in header.items() if key != "__metadata__"}
            stored = {key: Stored(str(entry["dtype"]), tuple(map(int, entry["shape"]))) for key, entry in entries.items()}
            spans = {key: (int(entry["data_offsets"][0]), int(entry["data_offsets"][1])) for key, entry in entries.items()}
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            raise Refused(f"{name}: {path.name} is not a safetensors file: its header cannot be read") from None
    end = max((end for _, end in spans.values()), default=0) + 8 + length
    if end > size:
        raise Refused(f"{name}: {path.name} ends too early: {size:,} bytes of {end:,} are there; copy it again")
    for key, (begin, last) in spans.items():
        each = _BYTES.get(stored[key].dtype)
        if begin < 0 or last < begin or (each is not None and last - begin != each * math.prod(stored[key].shape)):
            raise Refused(f"{name}: {path.name} is damaged: what its header says of {key} contradicts itself")
    yield from stored.items()


def read_json(path: Path, absent: str, name: str = "") -> dict[str, Any]:
    """A JSON object; refused with `absent` where there is no such file."""
    where = f"{name}: {path.name}" if name else str(path)
    try:
        if path.stat().st_size > _JSON_MOST:
            raise Refused(f"{where} has {path.stat().st_size:,} bytes, more than the {_JSON_MOST:,} that such a file may have")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refused(absent) from None
    except (OSError, ValueError, RecursionError) as error:
        raise Refused(f"{where} cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise Refused(f"{where} must hold a JSON object")
    return content
