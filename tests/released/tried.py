"""Try every kind of `masklake models`: small checkpoints of the released layouts, under released names, from a hub on loopback.

`python -m tests.released.tried` answers a picture with each, for every task that the table says, and writes what was so tried into
`pipeline/masklake/commands/tried.json`, which `masklake models` shows. No released weights are reached from here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from masklake.commands import catalogue
from masklake.inference.released import NAMED, RELEASED, Released
from tests import hub
from tests.released import layouts

WRITTEN = Path(catalogue.__file__).with_name("tried.json")
_LAYOUTS = {"EoMT, DINOv3": "eomt-dinov3", "DeepLabV3": "deeplab", "SAM 3": ""}  # of kinds that are called otherwise than their layouts
_STARS = {"mask2former-swin": "swin-tiny", "mask2former-resnet": "resnet-50", "maskformer-resnet": "50"}  # what a star stands for
_NAMES = {number: f"class {number}" for number in range(5)}
_BACKBONES = ("swin", "resnet", "convnext")
_ANSWER = """
import json, sys
import masklake
for name, concepts in json.loads(sys.argv[1]).items():
    model = masklake.load(name, **({"concepts": concepts} if concepts else {"thing_labels": ["class 1"]}))
    found = {task: model(sys.argv[2], task=task).failure for task in model.tasks}
    print("answered", json.dumps([name, found]))
"""


def families(released: Released) -> list[str]:
    """The layouts of a kind that its pattern admits."""
    kind = _LAYOUTS.get(released.kind, released.kind.lower())
    found = [
        name
        for name in layouts.FAMILIES
        if kind and (name == kind or name.rpartition("-")[0].startswith(kind)) and "dinov3" not in name.removeprefix(kind)
    ]
    named = [backbone for backbone in _BACKBONES if backbone in released.repositories]
    return [name for name in found if all(backbone in name for backbone in named)]


def repository(released: Released, family: str) -> str:
    """A name of this pattern."""
    return released.repositories.replace("*", _STARS.get(family, family.rpartition("-")[2] if "resnet-" in family else "tiny"))


def made(chosen: Iterable[Released], root: Path) -> dict[str, Path]:
    """Checkpoints by the names under which they are served."""
    from tests.unit.inference import tiny_sam3

    found = {
        repository(each, family): layouts.write(family, root / each.repositories.replace("*", "x") / family, labels=_NAMES)
        for each in chosen
        for family in families(each)
    }
    sam = {each.repositories: tiny_sam3.write(root / "sam3") for each in chosen if each.dataset == NAMED}
    return {**found, **sam}


def answered(chosen: Iterable[Released]) -> dict[str, list[str]]:
    """Repository -> the tasks that a checkpoint of its layout, fetched under this name, answered.

    Raises:
        RuntimeError: one was refused, or could not answer.
    """
    from masklake.demo.scenes import HELD_OUT, jpeg, photograph

    with tempfile.TemporaryDirectory() as scratch:
        models = made(chosen, Path(scratch))
        picture = Path(scratch, "picture.jpg")
        picture.write_bytes(jpeg(photograph(HELD_OUT[0])))
        with hub.running({**models}) as served:
            places = {"HF_ENDPOINT": served.endpoint, "HF_HOME": scratch, "MASKLAKE_CACHE": f"{scratch}/cache"}
            concepts = json.dumps({name: ["ball"] if name.endswith("sam3") else [] for name in models})
            command = [sys.executable, "-c", _ANSWER, concepts, str(picture)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **places})
    if done.returncode:
        raise RuntimeError(done.stderr)
    lines = [json.loads(line.removeprefix("answered ")) for line in done.stdout.splitlines() if line.startswith("answered ")]
    return {name: [task for task, failure in found.items() if failure is None] for name, found in lines}


def told(released: Released, tasks: Mapping[str, list[str]]) -> dict[str, Any]:
    """What is written of a kind.

    Raises:
        RuntimeError: it answered other tasks than the table says.
    """
    names = {family: repository(released, family) for family in families(released)} or {"": released.repositories}
    for name in names.values():
        if sorted(tasks[name]) != sorted(released.tasks):
            raise RuntimeError(f"{name} answers {tasks[name]}, and the table says {released.tasks}")
    return {"layouts": {family: layouts.layout(family)["transformers"] for family in names if family}, "as": [*names.values()]}


def main() -> None:
    """Try all, and write the file."""
    tasks = answered(RELEASED)
    lines = [f" {json.dumps(each.repositories)}: {json.dumps(told(each, tasks))}" for each in RELEASED]
    WRITTEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
