"""OneFormer's tokenizer is the one it was trained with, or the model is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from masklake.errors import Refused
from masklake.inference import checkpoint, tokens, weights
from masklake.inference.families import ALL_TASKS
from masklake.inference.options import Options
from tests.released import layouts
from tests.shared import shared_folder

OPTIONS = Options(tasks=("semantic",))


@pytest.mark.parametrize("lost", ["vocab.json", "merges.txt"])
def test_without_its_files_a_oneformer_is_refused_before_it_is_loaded(tmp_path: Path, lost: str) -> None:
    """transformers would make an empty tokenizer, for which all tasks' texts are the same."""
    folder = layouts.write("oneformer-swin", tmp_path)
    checkpoint.describe(folder, OPTIONS)
    (folder / lost).unlink()
    with pytest.raises(Refused, match=r"^team/one has no tokenizer .* tokenizer.json, or vocab.json and merges.txt must be beside its"):
        checkpoint.describe(folder, OPTIONS, "team/one")


def test_a_vocabulary_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = layouts.write("oneformer-swin", tmp_path)
    vocabulary = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(dict(list(vocabulary.items())[:-1])))
    with pytest.raises(Refused, match=r"^team/one: its tokenizer has 599 entries and its text encoder 600"):
        checkpoint.describe(folder, OPTIONS, "team/one")


def test_a_tokenizer_that_makes_the_same_of_all_tasks_is_refused(tmp_path: Path) -> None:
    """Without merges and without letters, every word is unknown."""
    folder = layouts.write("oneformer-swin", tmp_path)
    words = {f"<filler{index}>": index for index in range(598)} | {"<|startoftext|>": 598, "<|endoftext|>": 599}
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(Refused, match="gives the same tokens for panoptic, instance, semantic"):
        weights.load(folder, name="team/one")


def test_the_texts_differ_and_are_padded_with_zeros(tmp_path: Path) -> None:
    folder = layouts.write("oneformer-swin", tmp_path)
    config = type("Config", (), {"text_encoder_vocab_size": 600, "task_seq_len": 77})
    ids = tokens.of_tasks(folder, config, ALL_TASKS, "team/one")
    assert ids.shape == (3, 77)
    assert ids[:, 0].tolist() == [598] * 3
    assert (ids[:, 10:] == 0).all()


def test_the_whole_vocabulary_of_a_released_one_is_read(tmp_path: Path) -> None:
    folder = shared_folder("models", "hub-layouts", "shi-labs--oneformer_ade20k_swin_tiny")
    tokens.check_files(folder, json.loads((folder / "config.json").read_text()), "m")
    assert len(set(map(tuple, tokens.Tokenizer(folder, 49_408, "m").ids(ALL_TASKS, 77).tolist()))) == 3
