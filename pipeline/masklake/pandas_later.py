"""pandas, imported where it is asked for by name, and not by pyarrow at the first list it is given: that takes a third of a second of CPU.

pyarrow asks once whether pandas is there, by importing it, so as to know pandas' objects among what it is given. A command gives it none.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

import pyarrow as pa

_PANDAS = "pandas"


class _Memory:
    told = False


class _Absent(MetaPathFinder):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname == _PANDAS:
            raise ModuleNotFoundError(f"No module named {_PANDAS!r}", name=_PANDAS)
        return None


def answer_pyarrow() -> None:
    """Let pyarrow ask now, and find none; a conversion to pandas still imports it. To be called before there are other threads."""
    if _PANDAS in sys.modules:
        return
    absent = _Absent()
    sys.meta_path.insert(0, absent)
    try:
        pa.array([None])
        _Memory.told = True
    finally:
        sys.meta_path.remove(absent)


def let_pyarrow_know() -> None:
    """Undo that, if it was done, where others give pyarrow pandas' objects, as Ray Data may."""
    if _Memory.told:
        pa.table({}).to_pandas()
        _Memory.told = False
