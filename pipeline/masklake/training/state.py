"""The state of a run in its output folder, local or in object storage: from it, the same command goes on as if nothing had happened.

    _training/latest.json            names the two others; replaced in one piece, so that it always names a whole state; stays in the end
    _training/state-00000400.pt      weights, optimizer, history
    _training/best-00000300.safetensors

Random numbers, rates and the order of the images are functions of the step, so the step is all that is kept of them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from masklake import storage
from masklake.errors import Refused

FOLDER = "_training"


@dataclass
class State:
    """A run after `step` steps."""

    step: int = 0
    model: Mapping[str, torch.Tensor] = field(default_factory=dict)
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    """What was logged: losses and scores, by step."""
    losses: list[float] = field(default_factory=list)
    """Of the steps since the last line of the log."""
    best: dict[str, Any] | None = None
    """The scores of the best validation, with its `step`."""
    unjudged: bool = False
    """Whether a stop ended the validation that is due after this step."""


class Store:
    """Where a run keeps its state. `asked` is what the run was asked for: a state of something else is not taken up."""

    def __init__(self, output: str, asked: Mapping[str, Any]) -> None:
        self.output = storage.normalise(output).rstrip("/")
        self._asked = dict(asked)
        self._root = f"{self.output}/{FOLDER}"

    def load(self) -> State | None:
        """The last state, or none where the run is new.

        Raises:
            Refused: the folder holds the state of a run with other settings, or cannot be read.
        """
        pointer = self._pointer()
        if pointer is None:
            return None
        with tempfile.TemporaryDirectory(prefix="masklake-state-") as scratch:
            path = Path(scratch) / "state.pt"
            path.write_bytes(storage.read_bytes(f"{self._root}/{pointer['state']}"))
            return State(**torch.load(path, map_location="cpu", weights_only=True))

    def check(self) -> int:
        """The step that a state is of, 0 where there is none; see `load`."""
        pointer = self._pointer()
        return 0 if pointer is None else int(pointer["step"])

    def save(self, state: State) -> None:
        """Keep this state in place of the one before; whole or not at all."""
        name = f"state-{state.step:08d}.pt"
        with tempfile.TemporaryDirectory(prefix="masklake-state-") as scratch:
            path = Path(scratch) / name
            torch.save(vars(state), path)
            storage.upload_file(path, f"{self._root}/{name}")
        best = None if state.best is None else _best_name(state.best["step"])
        pointer = {"step": state.step, "state": name, "best": best, "asked": self._asked}
        storage.write_bytes(f"{self._root}/latest.json", json.dumps(pointer, indent=1).encode())
        self._delete_but("latest.json", name, *([] if best is None else [best]))

    def save_best(self, step: int, weights: Mapping[str, torch.Tensor]) -> None:
        """Keep the weights of the best validation; the next `save` makes them count."""
        with tempfile.TemporaryDirectory(prefix="masklake-state-") as scratch:
            path = Path(scratch) / "best"
            save_file({name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}, path)
            storage.upload_file(path, f"{self._root}/{_best_name(step)}")

    def load_best(self, step: int) -> dict[str, torch.Tensor]:
        """The weights that `save_best` kept."""
        with tempfile.TemporaryDirectory(prefix="masklake-state-") as scratch:
            path = Path(scratch) / "best"
            path.write_bytes(storage.read_bytes(f"{self._root}/{_best_name(step)}"))
            found: dict[str, torch.Tensor] = load_file(path)
            return found

    def clear(self) -> None:
        """Delete the weights that are kept, once the checkpoint is published: who takes its folder as a model would download them as well.
        The pointer stays, and tells that this run is finished.
        """
        self._delete_but("latest.json")

    def _delete_but(self, *kept: str) -> None:
        storage.delete_files([f"{self._root}/{name}" for name in storage.list_names(self._root) if name not in kept])

    def _pointer(self) -> dict[str, Any] | None:
        try:
            content = storage.read_bytes(f"{self._root}/latest.json")
        except storage.StorageError as error:
            if not storage.exists(f"{self._root}/latest.json"):
                return None
            raise Refused(f"--output {self.output}: {error}") from None
        pointer: dict[str, Any] = json.loads(content)
        now, then = self._asked, pointer["asked"]
        other = sorted(name for name in now | then if json.loads(json.dumps(now.get(name))) != then.get(name))
        if other:
            told = ", ".join(f"{name} (then {then.get(name)!r}, now {now.get(name)!r})" for name in other)
            raise Refused(f"--output {self.output}: holds a run with other settings: {told}; give this run a folder of its own")
        return pointer


def _best_name(step: int) -> str:
    return f"best-{step:08d}.safetensors"
