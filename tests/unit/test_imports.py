"""What must start quickly, or travel light, imports little."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("masklake", ["torch", "ray", "numpy", "pyarrow", "pydantic"]),
        ("masklake.reading", ["torch", "transformers", "ray"]),
        ("masklake.segment.run", ["torch", "transformers", "ray", "botocore.session", "aiohttp", "s3fs", "jinja2"]),
        ("masklake.segment.stages", ["torch", "transformers", "ray"]),
        ("masklake.training.batches, masklake.truth, masklake.training.messages", ["torch", "transformers", "ray"]),
        ("masklake.inference.segmenter", ["pyarrow", "pydantic", "ray", "fsspec", "s3fs", "duckdb", "deltalake"]),
    ],
)
def test_a_module_does_not_bring_what_it_must_not(module: str, absent: list[str]) -> None:
    code = f"import sys, {module}; print([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_pyarrow_brings_pandas_only_where_it_is_asked_for() -> None:
    code = """
import sys
from masklake import pandas_later
pandas_later.answer_pyarrow()
import pyarrow as pa
pa.array(["a"])
print("pandas" in sys.modules)
print(list(pa.table({"a": [1]}).to_pandas()["a"]))
pandas_later.answer_pyarrow()
pandas_later.let_pyarrow_know()
import pandas
print(pa.array(pandas.Categorical(["b"])).type)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False", "[1]", "dictionary<values=large_string, indices=int8, ordered=0>"]


def test_everything_that_masklake_offers_is_there() -> None:
    import masklake

    assert {name for name in masklake.__all__ if getattr(masklake, name) is not None} == set(masklake.__all__)
    assert set(masklake.__all__) <= set(dir(masklake))
    with pytest.raises(AttributeError, match="module 'masklake' has no attribute 'lod'"):
        masklake.lod  # noqa: B018
