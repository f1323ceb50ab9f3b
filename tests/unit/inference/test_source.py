"""A folder in a store is looked at before anything of it is copied."""

from __future__ import annotations

from pathlib import Path

import pytest

from masklake import storage
from masklake.errors import Refused
from masklake.inference import source
from tests.released import layouts


def test_a_prefix_without_config_is_refused_and_nothing_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything below it would be: a lake, where a slash too few was written."""
    monkeypatch.setenv("MASKLAKE_CACHE", str(tmp_path / "cache"))
    layouts.write("segformer", tmp_path / "lake" / "models" / "mine")

    def counted(*_: object) -> object:
        raise AssertionError("listed or copied")

    monkeypatch.setattr(storage, "list_files", counted)
    monkeypatch.setattr(storage, "cached_folder", counted)
    uri = f"file://{tmp_path}/lake"
    with pytest.raises(Refused) as caught:
        source.resolve(uri).fetch()
    assert str(caught.value) == f"--model {uri}: holds no checkpoint: there is no config.json directly in it"
    assert not (tmp_path / "cache").exists()


def test_a_store_that_gives_no_access_is_refused_with_the_setting() -> None:
    with pytest.raises(Refused, match=r"^--label-model ftp://host/model: no storage is known by ftp://"):
        source.resolve("ftp://host/model", "--label-model")


def test_of_a_folder_in_a_store_only_what_the_model_needs_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLAKE_CACHE", str(tmp_path / "cache"))
    folder = layouts.write("segformer", tmp_path / "store" / "model")
    (folder / "_training").mkdir()
    (folder / "_training" / "state.pt").write_bytes(b"large")
    (folder / "optimizer.pt").write_bytes(b"large")
    found = source.resolve(f"file://{folder}").fetch()
    assert {path.name for path in found.iterdir()} == {"config.json", "model.safetensors", "preprocessor_config.json"}


@pytest.mark.slow
def test_pickles_in_a_store_are_converted_and_named_as_the_user_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLAKE_CACHE", str(tmp_path / "cache"))
    folder = layouts.write("segformer", tmp_path / "store" / "model")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"garbage")
    with pytest.raises(Refused, match=rf"^file://{folder}: its pickled weights \(pytorch_model.bin\) cannot be used"):
        source.resolve(f"file://{folder}").fetch()
