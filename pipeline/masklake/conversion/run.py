"""One conversion: get the checkpoint with its weights as safetensors, check it, and write it with all that belongs to it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from masklake import storage
from masklake.errors import Refused, Say
from masklake.inference import released, source, weights
from masklake.inference.files import needed, read_json
from masklake.inference.source import ModelSource
from masklake.table.place import check_outside_tables


def convert(model: str, output: str, say: Say) -> dict[str, Any]:
    """Write the checkpoint `model` into the folder `output`, config.json last; returns what was written.

    config.json says where it comes from, since that is what tells what it was trained for.

    Raises:
        Refused: there is no such model, it is damaged, or the output holds something.
    """
    output = storage.normalise(output).rstrip("/")
    storage.check_output(output)
    check_outside_tables(output)
    if storage.list_names(output):
        raise Refused(f"--output {output}: holds something already: give the checkpoint a folder of its own")
    found = source.resolve(model, "MODEL", say)
    folder = found.fetch(say)
    weights.verify(folder, model)
    names = sorted(needed(path.name for path in folder.iterdir()), key=lambda name: name == "config.json")
    with tempfile.TemporaryDirectory(prefix="masklake-convert-") as scratch:
        config = Path(scratch) / "config.json"
        written = read_json(folder / "config.json", "", model)
        config.write_text(json.dumps({**written, released.SOURCE: written.get(released.SOURCE) or _origin(found)}, indent=2) + "\n")
        for name in names:
            storage.upload_file(config if name == "config.json" else folder / name, f"{output}/{name}")
    return {"outcome": "converted", "model": model, "output": output, "files": names}


def _origin(found: ModelSource) -> str:
    """The hub's name and commit, or the folder's own name without the path above it."""
    return f"{found.name}@{found.revision}" if found.kind == "hub" else found.name.rstrip("/").rpartition("/")[2]
