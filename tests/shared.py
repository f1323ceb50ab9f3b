"""Where the shared test material lies: photographs, awkward files and weights that are not part of the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def shared_folder(*parts: str) -> Path:
    """A folder of the shared material; skips the test, saying why, where it is absent."""
    root = Path(os.environ.get("MASKLAKE_SHARED", Path(__file__).parents[2] / "shared"))
    folder = root.joinpath(*parts)
    if not folder.exists():
        pytest.skip(f"needs the shared test material: {folder} is absent (set MASKLAKE_SHARED)")
    return folder
