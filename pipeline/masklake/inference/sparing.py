"""A model is loaded without what its answers do not need: torch's compiler, its distributed tensors, scipy's optimisers.

transformers imports all of them with any model, for uses of its own, and they take longer than the model itself: two of six seconds before
a first answer. While a model is loaded here, stand-ins are imported in their place. A name of a stand-in is the module's own once it is
used, so that nothing is missing.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, TypeVar

from masklake.inference.forwards import Forward

_COMPILER = "torch._dynamo"
_STAND_INS = (_COMPILER, f"{_COMPILER}._trace_wrapped_higher_order_op", "torch.nn.attention.flex_attention", "scipy.optimize")
_MARKS = ("allow_in_graph", "assume_constant_result", "disable")  # what they return is the function, marked for the compiler
_INITIAL = (
    "constant_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "trunc_normal_",
    "uniform_",
    "xavier_uniform_",
    "zeros_",
)

Loaded = TypeVar("Loaded")


class _Process:
    is_ours = False
    loading = threading.RLock()


def allow(forward: Forward) -> None:
    """Let models be loaded so in this process, which does nothing but masklake's work: what transformers bound, it keeps.

    A `forward` that is traced gets transformers as it is.
    """
    _Process.is_ours = forward not in ("compiled", "openvino")


def tried(load: Callable[[], Loaded]) -> Loaded:
    """What `load` gives, which loads or checks a model. If it fails so, it does it again as transformers would.

    Raises:
        Exception: what `load` raised the second time.
    """
    with loading() as is_spared:
        try:
            return load()
        except Exception:
            if not is_spared:
                raise
    return load()  # versions of transformers to come may want more


@contextmanager
def loading() -> Iterator[bool]:
    """Import no more than answers need, as long as this lasts: where it is allowed, and the compiler is not there already."""
    import torch
    import torch.distributed
    import transformers.utils

    with _Process.loading:
        if not _Process.is_ours or _COMPILER in sys.modules:
            yield False
            return
        finder = _Finder()
        sys.meta_path.insert(0, finder)
        try:
            with (
                _replaced(torch.distributed, is_available=lambda: False),
                _replaced(torch.nn.init, **_initial(torch.nn.init)),
                _replaced(transformers.utils, torch_compilable_check=_check),
            ):
                yield True
        finally:
            finder.leave()


class _Finder(MetaPathFinder, Loader):
    """Finds the stand-ins; what lies within one is imported as it is, and so is the stand-in's module then."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname in _STAND_INS:
            return ModuleSpec(fullname, self, is_package=True)
        within = next((name for name in _STAND_INS if fullname.startswith(f"{name}.")), None)
        if within is None:
            return None
        self.leave()
        return PathFinder.find_spec(fullname, importlib.import_module(within).__path__)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name, self.leave)

    def exec_module(self, module: ModuleType) -> None:
        pass

    def leave(self) -> None:
        """Take the stand-ins away, so that their modules can be imported."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        for name in reversed(_STAND_INS):  # what lies within first
            if isinstance(sys.modules.get(name), _StandIn):
                del sys.modules[name]
                parent, _, own = name.rpartition(".")
                if isinstance(vars(sys.modules[parent]).get(own), _StandIn):
                    delattr(sys.modules[parent], own)


class _StandIn(ModuleType):
    def __init__(self, name: str, leave: Callable[[], None]) -> None:
        super().__init__(name)
        self._leave = leave

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.__name__ == _COMPILER and name in _MARKS:
            return _unmarked
        return _Name(self.__name__, name, self._leave)


def _unmarked(function: Any = None, *args: Any, **kwargs: Any) -> Any:
    return _unmarked if function is None else function


class _Name:
    """A name of a module that is imported when the name is used."""

    def __init__(self, module: str, name: str, leave: Callable[[], None]) -> None:
        self._module, self._own, self._leave = module, name, leave

    def _real(self) -> Any:
        self._leave()
        return getattr(importlib.import_module(self._module), self._own)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._real(), name)

    def __instancecheck__(self, instance: Any) -> bool:
        there = sys.modules.get(self._module)  # without the module, nothing is of its classes
        return there is not None and not isinstance(there, _StandIn) and isinstance(instance, getattr(there, self._own))

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._real(),)

    def __or__(self, other: Any) -> Any:
        return Any  # in an annotation

    __ror__ = __or__


@contextmanager
def _replaced(module: ModuleType, **others: Any) -> Iterator[None]:
    own = {name: vars(module)[name] for name in others if name in vars(module)}  # what another version lacks is not given to it
    vars(module).update({name: others[name] for name in own})
    try:
        yield
    finally:
        vars(module).update(own)


def _initial(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """torch's functions for first weights, which do nothing to those without memory: that they do through the compiler's code."""

    def sparing(name: str) -> Callable[..., Any]:
        own = getattr(module, name)
        return lambda tensor, *args, **kwargs: tensor if tensor.is_meta else own(tensor, *args, **kwargs)

    return {name: sparing(name) for name in _INITIAL}


def _check(condition: Any, message: str | Callable[[], str], error_type: type[Exception] = ValueError) -> None:
    """As transformers' checks within a forward, which import sympy for what a tracer might want to know of them."""
    found = condition() if callable(condition) else condition
    if not (found.all() if hasattr(found, "all") else found):
        raise error_type(message() if callable(message) else message)
