"""Batches answered by Triton's kernels, under its interpreter, give the bytes that images answered one by one with torch do."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")

# numpy, which interprets, has another exponential than torch on a CPU; on a GPU both are CUDA's
_COMPARE = """
import json, numpy, torch
torch.Tensor.exp_ = lambda self: self.copy_(torch.from_numpy(numpy.exp(self.numpy())))
torch.Tensor.sigmoid_ = lambda self: self.copy_(1 / (1 + torch.from_numpy(numpy.exp(-self.numpy()))))
from jobs.benchmarks import gpu_exactness
gpu_exactness.LONGEST = 40
print(json.dumps(gpu_exactness.check("cpu", 6)))
"""

_COMPILE = """
import json, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from masklake.inference import kernels
pointers = {"maps": "*fp32", "cost": "*fp32", "row_weight": "*fp32", "column_weight": "*fp32", "out": "*fp32", "codes": "*u8"}
pointers |= dict.fromkeys(("table", "own", "sums", "row_index", "column_index"), "*i64") | {"threshold": "fp32", "words": "*i32"}
constants = {"ROW_TAPS": 2, "COLUMN_TAPS": 3, "BLOCK": 512}
compiled = {}
for name in ("panoptic_codes", "leading_codes", "instance_bits", "resized_sigmoid"):
    kernel = getattr(kernels, name)
    signature = {each: "constexpr" if each in constants else pointers.get(each, "i32") for each in kernel.arg_names}
    source = ASTSource(kernel, signature, constexprs=constants)
    compiled[name] = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": False}).asm["ptx"]
print(json.dumps(compiled))
"""


def _run(program: str, interpret: str) -> dict[str, object]:
    environment = {**os.environ, "TRITON_INTERPRET": interpret, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@pytest.mark.slow
def test_the_kernels_give_the_bytes_of_torch() -> None:
    found = _run(_COMPARE, "1")
    for task in ("panoptic", "instance", "semantic"):
        counts = found[task]
        assert isinstance(counts, dict)
        assert counts["segments"] > 10
        assert counts["not_together"] == counts["differing_segments"] == counts["differing_bytes"] == 0, task
        assert counts["largest_score_difference"] == 0


def test_they_compile_for_a_gpu_and_round_every_product() -> None:
    for name, assembly in _run(_COMPILE, "0").items():
        assert isinstance(assembly, str)
        assert "mul.f32" in assembly or "mul.rn.f32" in assembly, name
        assert "fma.rn.f32" not in assembly, name  # the exponential's own are fma.rn.ftz.f32
