"""Texts as token ids, by the checkpoint's own CLIP tokenizer: OneFormer's tasks, and SAM 3's concepts.

The model takes the ids as they are: another tokenizer, or an empty one, which transformers makes where files are missing, gives answers
without a word. So the files must be there, whole, and the tasks' texts must differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masklake.errors import Refused
from masklake.inference.files import read_json

if TYPE_CHECKING:
    import torch

CLIP = 49_408  # entries of CLIP's vocabulary, and transformers' default
FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json")
"""The files of a tokenizer that answers depend on, where they exist."""

_NEEDED = "tokenizer.json, or vocab.json and merges.txt"


def check_files(folder: Path, config: Mapping[str, Any], name: str, keys: Sequence[str] = ("text_encoder_vocab_size",)) -> None:
    """See whether the tokenizer's files are there, with as many entries as the text encoder was made for; loads no library.

    `keys`, one within the other, are where `config` says how many those are.

    Raises:
        Refused: they are not.
    """
    whole, vocabulary = folder / "tokenizer.json", folder / "vocab.json"
    if whole.is_file():
        model = read_json(whole, "", name).get("model")
        entries, added = (model if isinstance(model, dict) else {}).get("vocab"), read_json(whole, "", name).get("added_tokens")
        tokens = set(entries if isinstance(entries, dict) else ()) | {
            str(each.get("content")) for each in added or () if isinstance(each, dict)
        }
    elif vocabulary.is_file() and (folder / "merges.txt").is_file():
        tokens = set(read_json(vocabulary, "", name))
    else:
        raise Refused(f"{name} has no tokenizer for its texts: {_NEEDED} must be beside its weights")
    expected: Any = config
    for key in keys:
        expected = expected.get(key) if isinstance(expected, Mapping) else None
    _check_size(len(tokens), expected or CLIP, name, keys[-1])


def _check_size(found: int, expected: Any, name: str, key: str = "text_encoder_vocab_size") -> None:
    if found != expected:
        raise Refused(
            f"{name}: its tokenizer has {found:,} entries and its text encoder {expected:,} ({key} in config.json): "
            "these are not the files that it was trained with"
        )


class Tokenizer:
    """The tokenizer in a checkpoint's folder."""

    def __init__(self, folder: Path, vocabulary: int, name: str) -> None:
        """`vocabulary`: the entries that it must have; refusals call the checkpoint `name`.

        Raises:
            Refused: it is not there, or another one.
        """
        from transformers import AutoTokenizer

        if not any((folder / file).is_file() for file in ("tokenizer.json", "vocab.json")):
            raise Refused(f"{name} has no tokenizer for its texts: {_NEEDED} must be there")
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # of somebody else's files, transformers raises whatever it meets
            raise Refused(f"{name}: its tokenizer cannot be read: {' '.join(str(error).split())}") from None
        _check_size(len(self._tokenizer), vocabulary, name)

    def whole(self, text: str) -> list[int]:
        """The tokens of a text, however many they are, with those of its beginning and end."""
        found: list[int] = self._tokenizer(text)["input_ids"]
        return found

    @property
    def padding(self) -> int:
        """The token that follows a shorter text."""
        return int(self._tokenizer.pad_token_id)

    def ids(self, texts: Sequence[str], length: int) -> torch.Tensor:
        """int64 [texts, length]; padding is 0, as published."""
        import torch

        found = self._tokenizer(list(texts), padding="max_length", max_length=length, truncation=True)
        return torch.tensor(found["input_ids"]) * torch.tensor(found["attention_mask"])


def of_tasks(folder: Path, config: Any, tasks: Sequence[str], name: str) -> torch.Tensor:
    """int64 [tasks, `config.task_seq_len`]: "the task is ..." for each of `tasks`.

    Raises:
        Refused: there is no tokenizer, or it makes the same of two tasks.
    """
    ids = Tokenizer(folder, config.text_encoder_vocab_size, name).ids([f"the task is {task}" for task in tasks], config.task_seq_len)
    if len({tuple(row) for row in ids.tolist()}) < len(tasks):
        raise Refused(f"{name}: its tokenizer gives the same tokens for {', '.join(tasks)}: it is not the one that it was trained with")
    return ids


def of_concept(tokenizer: Tokenizer, concept: str, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """int64 [1, `length`]: a concept's tokens, padded as transformers' Sam3Processor does; and which of them are its own, 1 or 0.

    Raises:
        Refused: it is longer than the model reads.
    """
    import torch

    found = tokenizer.whole(concept)
    if len(found) > length:
        raise Refused(f"--concepts {concept[:60]}...: that is {len(found)} tokens, and the model reads {length}: say it shorter")
    rest = length - len(found)
    return torch.tensor([[*found, *[tokenizer.padding] * rest]]), torch.tensor([[1] * len(found) + [0] * rest])
