"""Pickled weights (pytorch_model.bin) made into safetensors, once, in a process of its own that takes tensors and nothing else.

A pickle is a program. torch's restricted reader runs none of it, and a process without credentials, with bounds on memory, file size and
time, reads it here. Of older torch, that reader can be made to corrupt memory (CVE-2026-24747).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from masklake.errors import Refused, Say, unsaid
from masklake.inference import unpickle
from masklake.inference.files import PICKLE, PICKLE_INDEX, SAFETENSORS, SAFETENSORS_INDEX, needed, pickles, shard_names

_TORCH = (2, 10)
_SECONDS, _BYTES_PER_SECOND = 120, 10_000_000  # for the start of the process and its work
_PASSED_ON = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "OMP_NUM_THREADS", "VIRTUAL_ENV")


def as_safetensors(folder: Path, cache: Path, name: str, say: Say = unsaid) -> Path:
    """The folder itself where its weights are safetensors; else a copy below `cache` in which they are, made where it is not there yet.

    Raises:
        Refused: the pickles cannot be read, hold more than tensors, or torch is too old to read them safely.
    """
    here = [path.name for path in folder.iterdir() if path.is_file()]
    pickled = pickles(here)
    if not pickled:
        return folder
    if PICKLE_INDEX in here and PICKLE not in here:
        pickled = shard_names(folder / PICKLE_INDEX, ".bin", name)
        missing = sorted(set(pickled) - set(here))
        if missing:
            raise Refused(f"{name}: {PICKLE_INDEX} names {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not there")
    texts = [file for file in needed(here) if not file.endswith(".bin") and file != PICKLE_INDEX]
    target = cache / _digest(folder, [*texts, *pickled])
    with _alone(cache, target.name):
        if not target.is_dir():
            _check_torch(name)
            say(f"{name} has pickled weights ({', '.join(pickled[:2])}): they are converted to safetensors once, into {target}")
            _convert(folder, texts, pickled, target, name)
    return target


def _convert(folder: Path, texts: list[str], pickled: list[str], target: Path, name: str) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="partial-") as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        for text in texts:
            shutil.copyfile(folder / text, made / text)
        weight_map: dict[str, str] = {}
        for file in pickled:
            to = SAFETENSORS if pickled == [PICKLE] else file.removeprefix("pytorch_").replace(".bin", ".safetensors")
            weight_map |= dict.fromkeys(_convert_file(folder / file, made / to, Path(scratch), name), to)
        if pickled != [PICKLE]:
            (made / SAFETENSORS_INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}, indent=2, sort_keys=True))
        made.rename(target)


def _convert_file(source: Path, target: Path, scratch: Path, name: str) -> list[str]:
    """Convert one file in a process of its own; returns the names of its tensors."""
    size = source.stat().st_size
    environment = {key: os.environ[key] for key in _PASSED_ON if key in os.environ} | {"HOME": str(scratch), "TMPDIR": str(scratch)}
    command = [sys.executable, "-P", str(Path(unpickle.__file__)), str(source.resolve()), str(target)]
    limit = _SECONDS + size / _BYTES_PER_SECOND
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environment, cwd=scratch, check=False)
    except subprocess.TimeoutExpired:
        raise Refused(f"{name}: its pickled weights ({source.name}) could not be read within {limit:.0f} seconds") from None
    try:
        answer = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or [f"the process ended with code {done.returncode}"])[-1]
        answer = {"error": f"reading it failed: {last}"}
    if "error" in answer:
        raise Refused(f"{name}: its pickled weights ({source.name}) cannot be used, and nothing in them was run: {answer['error']}")
    return list(answer["names"])


def _check_torch(name: str) -> None:
    try:
        installed = version("torch")
    except PackageNotFoundError:
        installed = "0.0"
    numbers = tuple(int(part) for part in re.findall(r"\d+", installed)[:2])
    if numbers < _TORCH:
        raise Refused(
            f"{name}: its weights are pickled, and torch {installed} does not read such files safely (CVE-2026-24747): install torch "
            f"{_TORCH[0]}.{_TORCH[1]} or newer"
        )


def _digest(folder: Path, names: list[str]) -> str:
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(f"{name}\0{(folder / name).stat().st_size}\0".encode())
        with (folder / name).open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()[:32]


@contextmanager
def _alone(cache: Path, name: str) -> Iterator[None]:
    """Let one process of this machine at a time convert the same files."""
    import fcntl  # which Windows has not

    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
