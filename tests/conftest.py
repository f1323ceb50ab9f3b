"""Fixtures that more than one folder of tests needs: a real S3 server, and a fresh bucket on it."""

from __future__ import annotations

import gc
import os
import uuid
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import pytest

# Read when torch and numpy are imported. Several tests run at once, on tiny models: with threads for every core they wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MASKLAKE_LOG_FORMAT"] = "text"  # tests have no terminal, and most read the sentences; `test_lines.py` is about the others

from masklake.demo.seaweedfs import SeaweedFS
from tests import crashes

if TYPE_CHECKING:
    from tests.order import LongFirst


@pytest.hookimpl(optionalhook=True)  # xdist's
def pytest_xdist_make_scheduler(config: pytest.Config) -> LongFirst | None:
    """Whole files, the long ones first, where `--dist loadfile` is asked for."""
    from tests.order import LongFirst

    return LongFirst(config) if config.getvalue("dist") == "loadfile" else None


def pytest_configure(config: pytest.Config) -> None:
    """A process that dies is said with what its threads were at."""
    crashes.pytest_configure(config)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Nothing of what tests import is rubbish: looking for some takes a fifth of the time, and some of it afterwards."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    """Libraries in C++ tell of all that lives on at the end."""
    gc.unfreeze()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are named by their argument: compressed ones can hold the time, and then each worker would have a test of another name."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def s3() -> Iterator[SeaweedFS]:
    """A running S3 server; the environment points S3 clients at it, and is as before when the session ends."""
    with SeaweedFS() as server, pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith("AWS_") and name != "AWS_CA_BUNDLE"]:
            environment.delenv(name)
        for name, value in server.env().items():
            environment.setenv(name, value)
        yield server


@pytest.fixture
def bucket(s3: SeaweedFS) -> str:
    """The name of a fresh, empty bucket on the S3 server."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(name)
    return name
