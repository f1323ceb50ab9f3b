"""Pickled weights become safetensors, and nothing in a pickle is ever run."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from masklake.errors import Refused
from masklake.inference import checkpoint, pickles, unpickle
from masklake.inference.options import Options
from tests.released import layouts

WEIGHTS = {"w": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(3)}


def folder_with(tmp_path: Path, write: Callable[[Path], Any]) -> Path:
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "segformer"}')
    write(folder / "pytorch_model.bin")
    return folder


def refusal(folder: Path, cache: Path) -> str:
    with pytest.raises(Refused) as caught:
        pickles.as_safetensors(folder, cache, "team/model")
    message = str(caught.value)
    assert message.startswith("team/model: its pickled weights")
    assert "\n" not in message
    return message


def test_pickles_of_torch_before_1_6_are_read_as_well(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "file", _use_new_zipfile_serialization=False)
    assert unpickle.convert(tmp_path / "file", tmp_path / "model.safetensors") == ["count", "w"]
    assert torch.equal(load_file(tmp_path / "model.safetensors")["w"], WEIGHTS["w"])


@pytest.mark.slow
def test_a_pickle_becomes_safetensors_once_with_everything_beside_it(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, lambda path: torch.save(WEIGHTS, path))
    (folder / "README.md").write_text("card")
    (folder / "vocab.json").write_text("{}")
    (folder / "tokenizer.py").write_text("raise SystemExit")
    said: list[str] = []
    made = pickles.as_safetensors(folder, tmp_path / "cache", "team/model", said.append)
    assert {path.name for path in made.iterdir()} == {"README.md", "config.json", "model.safetensors", "vocab.json"}
    found = load_file(made / "model.safetensors")
    assert set(found) == set(WEIGHTS)
    assert all(torch.equal(found[name], WEIGHTS[name]) for name in WEIGHTS)
    assert len(said) == 1
    assert pickles.as_safetensors(folder, tmp_path / "cache", "team/model", said.append) == made
    assert len(said) == 1


@pytest.mark.slow
def test_shards_stay_shards_and_a_missing_one_is_named(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, lambda path: None)
    names = [f"pytorch_model-0000{part}-of-00002.bin" for part in (1, 2)]
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"w": names[0], "count": names[1]}}))
    torch.save({"w": WEIGHTS["w"]}, folder / names[0])
    with pytest.raises(
        Refused, match=r"team/model: pytorch_model.bin.index.json names pytorch_model-00002-of-00002.bin, which is not there"
    ):
        pickles.as_safetensors(folder, tmp_path / "cache", "team/model")
    torch.save({"count": WEIGHTS["count"]}, folder / names[1])
    made = pickles.as_safetensors(folder, tmp_path / "cache", "team/model")
    index = json.loads((made / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {"w": "model-00001-of-00002.safetensors", "count": "model-00002-of-00002.safetensors"}
    assert torch.equal(load_file(made / "model-00001-of-00002.safetensors")["w"], WEIGHTS["w"])


def test_weights_that_share_memory_are_written_twice(tmp_path: Path) -> None:
    tied = torch.ones(2, 2)
    torch.save({"a": tied, "b": tied, "row": tied[1]}, tmp_path / "file")
    unpickle.convert(tmp_path / "file", tmp_path / "model.safetensors")
    found = load_file(tmp_path / "model.safetensors")
    assert [tuple(found[name].shape) for name in ("a", "b", "row")] == [(2, 2), (2, 2), (2,)]


@pytest.mark.slow
def test_a_released_checkpoint_of_pickles_loads(tmp_path: Path) -> None:
    folder = layouts.write("oneformer-swin", tmp_path / "model", pickled=True)
    made = pickles.as_safetensors(folder, tmp_path / "cache", "team/model")
    description = checkpoint.describe(made, Options(tasks=("semantic",)), "team/model")
    checkpoint.verify(description, made)
    assert description.name == "team/model"


class Runs:
    """What runs a command, or code, where it is unpickled."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call, self.arguments


def hostile(mark: Path) -> dict[str, Any]:
    """Objects that leave `mark` behind where they are unpickled without care."""
    touch = f"open({str(mark)!r}, 'w').close()"
    return {
        "a command": Runs(os.system, f"touch {mark}"),
        "eval": Runs(eval, touch),
        "exec": Runs(exec, touch),
        "a file": Runs(open, str(mark), "w"),
        "an import": Runs(__import__, "antigravity"),
        "a torch function": Runs(torch.hub.download_url_to_file, "http://127.0.0.1:9/x", str(mark)),
        "torch.load of another": Runs(torch.load, str(mark)),
        "getattr": Runs(getattr, torch.Tensor, "__reduce_ex__"),
        "an ordered dict with state": Runs(OrderedDict, [("w", Runs(os.system, f"touch {mark}"))]),
    }


@pytest.mark.parametrize("kind", list(hostile(Path())))
@pytest.mark.parametrize("place", ["a weight", "the whole", "bare pickle"])
def test_nothing_in_a_hostile_pickle_is_run(tmp_path: Path, kind: str, place: str) -> None:
    """In this very process, without the one that guards it."""
    mark, file = tmp_path / "ran", tmp_path / "pytorch_model.bin"
    thing = hostile(mark)[kind]
    everything = thing if place == "the whole" else {"w": torch.ones(2), "x": thing}
    if place == "bare pickle":
        file.write_bytes(pickle.dumps(everything, protocol=2))
    else:
        torch.save(everything, file)
    with pytest.raises(unpickle.Unusable, match=r"it holds more than tensors|Weights only load failed"):
        unpickle.convert(file, tmp_path / "model.safetensors")
    assert {path.name for path in tmp_path.iterdir()} == {"pytorch_model.bin"}


@pytest.mark.slow
def test_a_hostile_pickle_is_refused_in_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    folder = folder_with(tmp_path, lambda path: torch.save({"w": Runs(os.system, f"touch {mark}")}, path))
    assert refusal(folder, tmp_path / "cache") == (
        "team/model: its pickled weights (pytorch_model.bin) cannot be used, and nothing in them was run: it holds more than tensors "
        "(posix.system)"
    )
    assert not mark.exists()
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_the_hostile_pickles_do_run_where_they_are_unpickled_without_care(tmp_path: Path) -> None:
    """Or the test above would show nothing."""
    mark = tmp_path / "ran"
    for kind in ("a command", "eval", "exec", "a file"):
        pickle.loads(pickle.dumps(hostile(mark)[kind]))
        assert mark.exists(), kind
        mark.unlink()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(2)], "it does not hold a model's weights by their names"),
        ({}, "it does not hold a model's weights by their names"),
        ({3: torch.ones(2)}, "it does not hold a model's weights by their names"),
        ({"state_dict": {"w": torch.ones(2)}}, "it holds more than tensors: state_dict is a dict"),
        ({"w": torch.ones(2), "epoch": 7}, "it holds more than tensors: epoch is a int"),
        ({"w": torch.ones(2).to_sparse()}, "w is not a plain tensor"),
        ({"w": torch.ones(2, dtype=torch.complex64)}, "w is not a plain tensor"),
        ({"w": torch.ones(1).expand(10**10)}, "its tensors claim more than the file holds"),
    ],
)
def test_what_is_no_models_weights_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(unpickle.Unusable, match=re.escape(message)):
        unpickle.convert(tmp_path / "pytorch_model.bin", tmp_path / "model.safetensors")


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    """It may unfold into any size; torch stores without compression."""

    torch.save({"w": torch.zeros(1_000_000)}, tmp_path / "plain")
    with zipfile.ZipFile(tmp_path / "plain") as plain, zipfile.ZipFile(tmp_path / "packed", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(unpickle.Unusable, match="it is compressed"):
        unpickle.convert(tmp_path / "packed", tmp_path / "model.safetensors")


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 and no more", b"\x80\x02."])
def test_what_is_no_pickle_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(unpickle.Unusable):
        unpickle.convert(tmp_path / "file", tmp_path / "model.safetensors")


def test_a_process_that_ends_before_its_answer_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpickle, "__file__", str(tmp_path / "absent.py"))
    folder = folder_with(tmp_path, lambda path: torch.save(WEIGHTS, path))
    assert "reading it failed" in refusal(folder, tmp_path / "cache")


def test_a_torch_that_reads_pickles_unsafely_is_refused_before_any_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_with(tmp_path, lambda path: torch.save(WEIGHTS, path))
    for installed in ("2.9.1+cu128", "1.13.0", "2.8.0a0"):
        monkeypatch.setattr(pickles, "version", lambda _package, installed=installed: installed)
        with pytest.raises(Refused, match=r"install torch 2\.10 or newer"):
            pickles.as_safetensors(folder, tmp_path / "cache", "team/model")
    for installed in ("2.10.0", "2.13.0+cpu", "3.0"):
        monkeypatch.setattr(pickles, "version", lambda _package, installed=installed: installed)
        pickles._check_torch("team/model")


def test_the_process_that_reads_a_pickle_is_given_no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: dict[str, Any] = {}
    folder = folder_with(tmp_path, lambda path: torch.save(WEIGHTS, path))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("HF_TOKEN", "secret")

    def spied(_command: list[str], **options: Any) -> Any:
        given.update(options)
        return subprocess.CompletedProcess([], 0, '{"error": "never started"}', "")

    monkeypatch.setattr(subprocess, "run", spied)
    refusal(folder, tmp_path / "cache")
    assert not [name for name, value in given["env"].items() if value == "secret" or name.startswith(("AWS", "HF_"))]
