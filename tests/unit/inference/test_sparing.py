"""What a model is loaded without changes nothing of its answers, and nothing is missing to who asks for it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch

from masklake.inference import checkpoint, sparing
from masklake.inference.families import FAMILIES
from masklake.inference.forwards import Forward
from masklake.inference.options import Options

SPARED = ("torch._dynamo", "sympy", "scipy.optimize", "torch.distributed.tensor", "torch.nn.attention.flex_attention")

ANSWERS = """
import json, sys
from pathlib import Path
from masklake.inference import sparing
from tests.unit.inference.test_sparing import SPARED, logits_of
sparing.allow("auto")
for folder in json.loads(sys.argv[1]):
    print(json.dumps([logits_of(Path(folder)), [name for name in SPARED if name in sys.modules]]))
"""

IN_EARNEST = """
import sys, torch
from masklake.inference import sparing
sparing.allow("auto")
own = torch.nn.init.normal_, torch.distributed.is_available
with sparing.loading():
    from scipy.optimize import linear_sum_assignment
    from torch._dynamo import allow_in_graph, is_compiling
    from torch.nn.attention.flex_attention import BlockMask
    def annotated(mask: BlockMask | torch.Tensor | None) -> None: ...
    assert "torch._dynamo.eval_frame" not in sys.modules and "scipy.optimize._lsap" not in sys.modules
    assert not isinstance(1, BlockMask) and not torch.distributed.is_available()
    assert allow_in_graph(annotated) is annotated
    assert torch.nn.init.normal_(torch.zeros(100)).any()
    assert is_compiling() is False and "torch._dynamo.eval_frame" in sys.modules
assert (torch.nn.init.normal_, torch.distributed.is_available) == own
assert [list(each) for each in linear_sum_assignment([[1.0, 0.0], [0.0, 1.0]])] == [[0, 1], [1, 0]]
import scipy.optimize
import torch.nn.attention.flex_attention as flex
assert scipy.optimize.minimize and torch._dynamo.config is sys.modules["torch._dynamo.config"]
assert isinstance(flex.create_block_mask(lambda b, h, q, k: q >= k, 1, 1, 128, 128, device="cpu"), BlockMask)
"""

WITHIN = """
import sys
from masklake.inference import sparing
sparing.allow("auto")
with sparing.loading():
    import torch._dynamo
    import torch._dynamo.config
    import scipy.optimize._zeros_py
assert torch._dynamo.config.cache_size_limit and torch._dynamo is sys.modules["torch._dynamo"] and torch._dynamo.explain
assert scipy.optimize._zeros_py.brentq is scipy.optimize.brentq
"""


def logits_of(folder: Path) -> str:
    """A digest of what the model in `folder` says of an image of noise."""
    torch.set_num_threads(1)
    family = json.loads((folder / "config.json").read_text())["model_type"]
    description = checkpoint.describe(folder, Options(tasks=FAMILIES[family].tasks))
    module = checkpoint.load(description, folder)
    noise = torch.randn(1, 3, *description.frame.padded((64, 64)), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        answers = FAMILIES[family].run(module, noise, description.tasks)
    tensors = [tensor for answer in answers.values() for tensor in vars(answer).values()]
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()


@pytest.mark.slow
def test_every_family_answers_the_same_to_the_bit_and_brings_none_of_it(tmp_path: Path) -> None:
    from tests.unit.inference.tiny_checkpoints import FAMILY_NAMES, write  # transformers, which the other process has to import itself

    folders = [write(family, tmp_path) for family in sorted(FAMILY_NAMES, key=lambda family: family != "detr")]
    done = _run(ANSWERS, json.dumps([str(folder) for folder in folders]))
    found, brought = zip(*(json.loads(line) for line in done.splitlines()), strict=True)
    assert list(found) == [logits_of(folder) for folder in folders]
    assert brought[0] == []
    assert brought[-1] == ["sympy"]  # to build Swin


@pytest.mark.slow
@pytest.mark.parametrize("program", [IN_EARNEST, WITHIN], ids=["names", "modules"])
def test_what_is_used_in_earnest_is_the_module_itself(program: str) -> None:
    _run(program)


def test_only_a_process_that_is_ours_alone_and_traces_no_forward_goes_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    monkeypatch.setattr(sparing._Process, "is_ours", False)  # a command that another test ran here may have allowed it
    assert _imports_everything()
    for forward in get_args(Forward):
        sparing.allow(forward)
        assert _imports_everything() is (forward in {"compiled", "openvino"})


def test_what_cannot_be_loaded_so_is_loaded_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    monkeypatch.setattr(sparing._Process, "is_ours", True)
    available, seen = torch.distributed.is_available, []

    def load() -> str:
        seen.append(torch.distributed.is_available is available)
        if not seen[-1]:
            raise ImportError("cannot import name 'something new'")
        return "a model"

    assert sparing.tried(load) == "a model"
    assert seen == [False, True]
    with pytest.raises(ZeroDivisionError):
        sparing.tried(lambda: 1 // 0)


def test_a_version_without_what_is_replaced_is_loaded_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers.utils

    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    monkeypatch.setattr(sparing._Process, "is_ours", True)
    monkeypatch.delitem(vars(transformers.utils), "torch_compilable_check")
    with sparing.loading() as is_spared:
        assert is_spared
        assert "torch_compilable_check" not in vars(transformers.utils)
    assert "torch_compilable_check" not in vars(transformers.utils)


def _imports_everything() -> bool:
    available = torch.distributed.is_available
    with sparing.loading():
        return torch.distributed.is_available is available


def _run(program: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", program, *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
