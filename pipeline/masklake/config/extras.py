"""What a command needs that is not here: an extra of the package, with the line that installs it, or another operating system."""

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
    "lineage": ("openlineage",),
    "demo": ("weed",),
    "browse": ("starlette", "uvicorn"),
    "openvino": ("openvino",),
}
"""Extra -> what it brings: packages by the names that are imported, or programs; pyproject.toml says which versions."""

_PROGRAMS = {"weed"}
_POSIX = {"fcntl", "grp", "pwd", "resource", "termios"}  # of the standard library, and not on Windows


def demand(extras: Iterable[str], command: str) -> None:
    """Go on only where these extras are installed.

    Raises:
        Refused: some are not; the message has the line that installs them.
    """
    missing = {extra: absent for extra in extras if (absent := [name for name in EXTRAS[extra] if not _is_here(name)])}
    if missing:
        raise _lacking(command, [name for names in missing.values() for name in names], ",".join(missing))


def in_words(error: ModuleNotFoundError, command: str) -> Refused | None:
    """An import that failed as a refusal, where an extra brings what is missing, or another system; None: neither does."""
    missing = (error.name or "").partition(".")[0]
    if missing in _POSIX:
        return Refused(f"{command} runs on Linux and macOS; on Windows, use WSL (Python has no module {missing} here)")
    return next((_lacking(command, [missing], extra) for extra, names in EXTRAS.items() if missing in names), None)


def _is_here(name: str) -> bool:
    if name not in _PROGRAMS:  # a program of a package's name, as `ray`, may be another environment's
        return find_spec(name) is not None
    return Path(sys.executable).with_name(name).is_file() or shutil.which(name) is not None


def install(extra: str) -> str:
    """The line that installs an extra, or several with commas between them."""
    return f"pip install 'masklake[{extra}]'"


def _lacking(command: str, missing: list[str], extra: str) -> Refused:
    verb = "is" if len(missing) == 1 else "are"
    return Refused(f"{command} needs {', '.join(missing)}, which {verb} not installed here: {install(extra)}")
