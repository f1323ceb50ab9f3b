"""OneFormer's texts as token ids, by the checkpoint's own CLIP tokenizer.

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

_CLIP = 49_408  # entries of CLIP's vocabulary, and transformers' default
_NEEDED = "tokenizer.json, or vocab.json and merges.txt"


def check_files(folder: Path, config: Mapping[str, Any], name: str) -> None:
    """See whether the tokenizer's files are there, with as many entries as the text encoder was made for; loads no library.

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
        raise Refused(f"{name} has no tokenizer for OneFormer's task texts: {_NEEDED} must be beside its weights")
    _check_size(len(tokens), config.get("text_encoder_vocab_size") or _CLIP, name)


def _check_size(found: int, expected: Any, name: str) -> None:
    if found != expected:
        raise Refused(
            f"{name}: its tokenizer has {found:,} entries and its text encoder {expected:,} (text_encoder_vocab_size in config.json): "
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
            raise Refused(f"{name} has no tokenizer for OneFormer's texts: {_NEEDED} must be there")
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # of somebody else's files, transformers raises whatever it meets
            raise Refused(f"{name}: its tokenizer cannot be read: {' '.join(str(error).split())}") from None
        _check_size(len(self._tokenizer), vocabulary, name)

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
        raise Refused(f"{name}: its tokenizer makes the same of {', '.join(tasks)}: it is not the one that it was trained with")
    return ids
