"""What of the package's extras is installed here, and the line that installs what a command lacks."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from masklake.errors import Refused

EXTRAS = {
    "run": ("ray", "safetensors", "scipy", "torch", "transformers"),
    "finetune": ("tensorboard",),
    "iceberg": ("pyiceberg", "sqlalchemy"),
    "demo": ("weed",),
}
"""Extra -> what it brings: packages by the names that are imported, or programs; pyproject.toml says which versions."""


def demand(extras: Iterable[str], command: str) -> None:
    """Go on only where these extras are installed.

    Raises:
        Refused: one is not; the message has the line that installs it.
    """
    for extra in extras:
        if missing := [name for name in EXTRAS[extra] if not _is_here(name)]:
            raise _lacking(command, missing, extra)


def in_words(error: ModuleNotFoundError, command: str) -> Refused | None:
    """An import that failed as a refusal, where an extra brings what is missing; None: no extra does."""
    missing = (error.name or "").partition(".")[0]
    return next((_lacking(command, [missing], extra) for extra, names in EXTRAS.items() if missing in names), None)


def _is_here(name: str) -> bool:
    return find_spec(name) is not None or Path(sys.executable).with_name(name).is_file() or shutil.which(name) is not None


def _lacking(command: str, missing: list[str], extra: str) -> Refused:
    verb = "is" if len(missing) == 1 else "are"
    return Refused(f"{command} needs {', '.join(missing)}, which {verb} not installed here: pip install 'masklake[{extra}]'")
