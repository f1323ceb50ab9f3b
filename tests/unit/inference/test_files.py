"""Damaged and incomplete weights are refused in one sentence, by what their headers say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from masklake.errors import Refused
from masklake.inference.files import Stored, needed, pickles, stored_tensors

WEIGHTS = {"a": torch.ones(2, 3), "b": torch.ones(4, dtype=torch.int64)}


def refusal(folder: Path) -> str:
    with pytest.raises(Refused) as caught:
        stored_tensors(folder, "team/model")
    message = str(caught.value)
    assert message.startswith("team/model")
    assert "\n" not in message
    return message


def test_names_types_and_shapes_are_read_from_the_header(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert stored_tensors(tmp_path, "m") == {"a": Stored("F32", (2, 3)), "b": Stored("I64", (4,))}


def header(entries: object) -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "model.safetensors is not a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "model.safetensors is not a safetensors file"),
        (b"<html>404</html>" * 9, "model.safetensors is not a safetensors file"),
        ((1 << 62).to_bytes(8, "little") + b"{}", "model.safetensors is not a safetensors file"),
        (header([1]), "its header cannot be read"),
        (header({"a": {"dtype": "F32"}}), "its header cannot be read"),
        (header({"a": {"dtype": "F32", "shape": "3", "data_offsets": ["x", 1]}}), "its header cannot be read"),
        ((9).to_bytes(8, "little") + b"\xff" * 9, "its header cannot be read"),
        (header({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}), "model.safetensors ends too early"),
        (
            header({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4]}}) + bytes(4),
            "what its header says of a contradicts itself",
        ),
        (header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}) + bytes(4), "what its header says of a contradicts itself"),
    ],
)
def test_garbage_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    assert message in refusal(tmp_path)


def test_a_truncated_file_is_refused_with_its_sizes(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file(WEIGHTS, file)
    whole = file.read_bytes()
    file.write_bytes(whole[:-8])
    assert f"model.safetensors ends too early: {len(whole) - 8:,} bytes of {len(whole):,} are there" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"a": "model-1.safetensors", "b": "model-2.safetensors"}, "names model-2.safetensors, which is not there"),
        ({"a": "model-1.safetensors", "lost": "model-1.safetensors"}, "names 1 weight that its shards do not hold (lost)"),
        ({"a": "../model-1.safetensors"}, "must name, in weight_map, the .safetensors file beside it"),
        ({"a": "pytorch_model.bin"}, "must name, in weight_map, the .safetensors file beside it"),
        ({"a": 7}, "must name, in weight_map, the .safetensors file beside it"),
        ({}, "must name, in weight_map, the .safetensors file beside it"),
        (None, "must name, in weight_map, the .safetensors file beside it"),
    ],
)
def test_an_index_must_name_shards_that_hold_what_it_says(tmp_path: Path, weight_map: object, message: str) -> None:
    save_file(WEIGHTS, tmp_path / "model-1.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert message in refusal(tmp_path)


def test_of_a_repository_only_what_a_model_needs_is_taken() -> None:
    texts = ["README.md", "config.json", "merges.txt", "vocab.json"]
    others = [
        "modeling_x.py",
        "tf_model.h5",
        "flax_model.msgpack",
        "training_args.bin",
        "onnx/model.onnx",
        "onnx/config.json",
        "optimizer.pt",
    ]
    assert needed([*texts, *others, "model.safetensors", "pytorch_model.bin"]) == [*texts, "model.safetensors"]
    assert needed([*texts, *others, "pytorch_model.bin"]) == [*texts, "pytorch_model.bin"]
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = "model.safetensors.index.json"
    assert needed([*texts, *others, index, *shards]) == sorted([*texts, index]) + shards
    assert pickles([*texts, *others, "pytorch_model.bin"]) == ["pytorch_model.bin"]
    assert pickles([*texts, *others, *shards, index, "pytorch_model.bin"]) == []
    assert pickles([*texts, *others]) == []
