"""The model's forward by OpenVINO, on a CPU in float32: converted once for each shape of a batch, and kept on disk for others.

What is kept is the compiled model as OpenVINO exports it, a file for each shape of each checkpoint. It is renamed into place, so that
actors may write the same one at once; who comes later neither traces nor converts.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import sys
import tempfile
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from masklake.errors import first_line
from masklake.inference.families import Answer, ClassMap, Family, Found, Queries

Answers = dict[str, Answer]

_log = logging.getLogger(__name__)
_VERSION = 1  # raise it when a family runs another forward on the same weights
_MOST = 8  # shapes in memory, each of which holds the weights once more
_LARGEST_DIFFERENCE = 1e-3  # from torch's answers to noise, of their mean: rounding is 1e-6, and masks that flip by it in attention more
_DIGEST_BYTES = 32


class Vino:
    """Runs a forward by OpenVINO, or eagerly where its shape cannot be converted; for one caller at a time, and others by `beside`.

    Attributes:
        failures: why shapes could not be converted; they run eagerly.
    """

    def __init__(self, module: Any, family: Family, checkpoint: str, folder: Path, callers: int = 1) -> None:
        """`checkpoint`: its digest; `folder`: where what is converted is kept, made where it is not there.

        `callers`: at the same time, each with as many threads as torch has.
        """
        self._module, self._family, self._checkpoint, self._folder, self._callers = module, family, checkpoint, folder, callers
        self._compiled: dict[Any, _Compiled | None] = {}
        self._opening = threading.Lock()
        self.failures: list[str] = []

    def beside(self, module: Any) -> Vino:
        """The same for a caller at the same time, whose module runs what is not converted."""
        other = copy.copy(self)
        other._module = module
        return other

    def __call__(self, values: torch.Tensor, tasks: Sequence[str]) -> Answers:
        """The answers to pixel values [N, 3, H, W] for tasks."""
        asked = tuple(tasks if self._family.forward_per_task else tasks[:1])
        key = (tuple(values.shape), asked if self._family.forward_per_task else ())
        with self._opening:
            if key not in self._compiled:
                self._compiled[key] = self._opened(key, values, asked)
        compiled = self._compiled[key]
        if compiled is None:
            return self._family.run(self._module, values, tasks)
        return _as_answers(compiled(values), tasks)

    def _opened(self, key: Any, values: torch.Tensor, asked: tuple[str, ...]) -> _Compiled | None:
        """What answers such batches: as it is kept, else made and kept; None where that cannot be."""
        if len(self._compiled) >= _MOST:
            if len(self._compiled) == _MOST:
                _log.warning("--forward openvino: %d shapes of batches are converted, all others run eagerly", _MOST)
            return None
        try:
            file = self._folder / f"{self._name(key)}.blob"
            return self._kept(file) or self._made(file, values, asked)
        except Exception as error:  # whatever the model does that OpenVINO cannot, or memory
            self.failures.append(_why(error))
        _log.warning("--forward openvino: %s is not converted, eager instead (%s)", "x".join(map(str, values.shape)), self.failures[-1])
        return None

    def _kept(self, file: Path) -> _Compiled | None:
        """The compiled model of a file; None where there is none, or it is damaged."""
        try:
            found = file.read_bytes()
        except OSError:
            return None
        digest, content = found[:_DIGEST_BYTES], found[_DIGEST_BYTES:]
        if hashlib.sha256(content).digest() != digest:
            return None
        try:
            return _Compiled(_core().import_model(content, "CPU", self._settings()))
        except RuntimeError:  # as of another OpenVINO of the same version
            return None

    def _made(self, file: Path, values: torch.Tensor, asked: tuple[str, ...]) -> _Compiled:
        """A compiled model that answers noise as torch does; it is kept in a file.

        Raises:
            ValueError: it does not.
        """
        model = _core().compile_model(converted(self._module, self._family, values, asked), "CPU", self._settings())
        compiled = _Compiled(model)
        noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(0))
        pairs = zip(compiled(noise), tensors(self._family.run(self._module, noise, asked)), strict=True)
        differences = [float((found - right).abs().mean() / right.abs().mean()) for found, right in pairs]
        if not all(each <= _LARGEST_DIFFERENCE for each in differences):  # nor is NaN
            raise ValueError(f"its answers differ from torch's by {', '.join(f'{each:.1%}' for each in differences)}")
        _keep(file, model.export_model().getvalue())
        return compiled

    def _name(self, key: Any) -> str:
        """Of all that a compiled model depends on; a folder may be shared by machines of several kinds."""
        packages = {name: version(name) for name in ("openvino", "torch", "transformers")}
        processor = [_core().get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
        facts = [_VERSION, self._checkpoint, key, packages, processor]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]

    def _settings(self) -> dict[str, Any]:
        """The callers' threads, where the system wants them: the processes of a machine would otherwise pin theirs to the same cores."""
        return {
            "INFERENCE_PRECISION_HINT": "f32",  # some CPUs would take bfloat16
            "INFERENCE_NUM_THREADS": self._callers * torch.get_num_threads(),
            "NUM_STREAMS": self._callers,
            "ENABLE_CPU_PINNING": False,
        }


class _Compiled:
    """A compiled model, and a request for each of its callers, which holds what is computed on the way."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._idle: list[Any] = []

    def __call__(self, values: torch.Tensor) -> list[torch.Tensor]:
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._model.create_infer_request()
        found = request.infer([values.contiguous().numpy()])
        self._idle.append(request)
        return [torch.from_numpy(found[index]) for index in range(len(self._model.outputs))]


def converted(module: Any, family: Family, values: torch.Tensor, asked: tuple[str, ...]) -> Any:
    """The forward for batches of the shape of `values`, traced by torch, as OpenVINO's model."""
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a trace holds for one shape alone, as is wanted
        example = values.clone(memory_format=torch.contiguous_format)
        traced = torch.jit.trace(_Tensors(module, family, asked), example, check_trace=False, strict=False)  # type: ignore[no-untyped-call]
        return package().convert_model(traced, example_input=example, input=[tuple(values.shape)])


class _Tensors(torch.nn.Module):
    """A model as a function from pixel values to the tensors that answers are made of."""

    def __init__(self, module: Any, family: Family, asked: tuple[str, ...]) -> None:
        super().__init__()
        self.module, self._run, self._asked = module, family.run, asked

    def forward(self, values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tensors(self._run(self.module, values, self._asked))


def tensors(answers: Answers) -> tuple[torch.Tensor, ...]:
    """Those of answers, one after the other; what tasks share, once."""
    found: list[torch.Tensor] = []
    for answer in {id(answer): answer for answer in answers.values()}.values():
        assert not isinstance(answer, Found), "prompted families are refused"
        found += [answer.logits] if isinstance(answer, ClassMap) else [answer.class_logits, answer.mask_logits]
    return tuple(found)


def _as_answers(given: Sequence[torch.Tensor], tasks: Sequence[str]) -> Answers:
    """The way back: class logits [N, Q, K + 1] come before their masks' [N, Q, h, w], a map of classes is alone."""
    rest, found = iter(given), list[Answer]()
    for first in rest:
        found.append(Queries(first, next(rest)) if first.ndim == 3 else ClassMap(first))
    return dict(zip(tasks, found, strict=True)) if len(found) > 1 else dict.fromkeys(tasks, found[0])


def _keep(file: Path, content: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent, prefix="partial-") as scratch:
            whole = Path(scratch, file.name)
            whole.write_bytes(hashlib.sha256(content).digest() + content)
            whole.replace(file)
    except OSError as error:
        _log.warning("--forward openvino: the converted model cannot be kept in %s (%s)", file.parent, first_line(error))


def _why(error: Exception) -> str:
    """In one line; OpenVINO begins with places in its own source, and ends with what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    is_openvinos = bool(lines) and lines[0].startswith(("Exception from ", "Check "))
    return f"{type(error).__name__}: {lines[-1] if is_openvinos else first_line(error)}"


@cache
def _core() -> Any:
    """OpenVINO's runtime: one for this process, for all of its time, whose CPU device is begun in a thread that ends with that.

    The thread in which a CPU device begins gets a stack for signal handlers that is unmapped when the device ends: of two that end in the
    order in which they began, the second gives the thread the first one's stack back. The next signal that is handled, as a stop, or the
    end of any child once torch's DataLoader had workers, then ends the process with SIGSEGV (`SigAltStackSetup` in OpenVINO's
    src/plugins/intel_cpu).
    """
    with ThreadPoolExecutor(1) as beside:
        return beside.submit(_begun).result()


def _begun() -> Any:
    core = package().Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")  # its device begins where it is first asked
    return core


def package() -> Any:
    """OpenVINO, without what tells its makers that it is used."""
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino

    return openvino
