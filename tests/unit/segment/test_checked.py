"""A checkpoint is checked once for its bytes and for what reads them."""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from masklake.errors import Refused
from masklake.inference import checkpoint
from masklake.inference.checkpoint import ModelDescription
from masklake.inference.options import Options
from masklake.segment.checked import check_weights
from tests.lakes import MODEL


@pytest.fixture
def model() -> ModelDescription:
    return checkpoint.describe(MODEL, Options(tasks=("panoptic",)))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The digests of the checkpoints that were looked into."""
    monkeypatch.setenv("MASKLAKE_CACHE", str(tmp_path / "cache"))
    found: list[str] = []
    monkeypatch.setattr(checkpoint, "verify", lambda model, folder: found.append(model.digest))
    return found


def test_the_same_bytes_are_checked_once(asked: list[str], model: ModelDescription, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(model, digest="0" * 64)
    for each in (model, model, other, model):
        check_weights(each, MODEL)
    assert asked == [model.digest, other.digest]
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda package: "99.0" if package == "transformers" else version(package))
    check_weights(model, MODEL)
    assert asked == [model.digest, other.digest, model.digest]


def test_what_is_refused_is_refused_again(asked: list[str], model: ModelDescription, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: ModelDescription, folder: Path) -> None:
        asked.append(model.digest)
        raise Refused("weights are missing")

    monkeypatch.setattr(checkpoint, "verify", refuse)
    for _ in range(2):
        with pytest.raises(Refused, match="weights are missing"):
            check_weights(model, MODEL)
    assert len(asked) == 2


def test_a_cache_that_cannot_be_written_costs_time_alone(asked: list[str], model: ModelDescription, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file is in the way")
    check_weights(model, MODEL)
    check_weights(model, MODEL)
    assert len(asked) == 2
