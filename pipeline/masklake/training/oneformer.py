"""OneFormer's texts: the task that an image is trained for, and what is on it (Jain et al., arXiv:2211.06220, section 3.2).

The texts are tokenised by the checkpoint's own files; class names are the data's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from masklake.errors import Refused
from masklake.inference.tokens import Tokenizer

_EMPTY = {"panoptic": "a panoptic photo", "instance": "an instance photo", "semantic": "a semantic photo"}


def texts(label_ids: Sequence[int], labels: Mapping[int, str], task: str, count: int) -> list[str]:
    """The text list of one image: "a photo with a {class}" for each of its segments, in the order of the classes, filled up to `count`."""
    named = [f"a photo with a {labels[label]}" for label in sorted(label_ids)][:count]
    return named + [_EMPTY[task]] * (count - len(named))


class TextInputs:
    """Makes a model's text inputs; `count` texts an image, which its learned context completes to the number of queries."""

    def __init__(self, folder: Path, config: Any, labels: Mapping[int, str], name: str) -> None:
        self._tokenizer = Tokenizer(folder, config.text_encoder_vocab_size, name)
        self._labels = labels
        self._count = config.num_queries - config.text_encoder_n_ctx
        self._lengths = (config.task_seq_len, config.text_encoder_context_length)
        if self._count < 1:
            raise Refused(f"OneFormer needs more queries than text_encoder_n_ctx: {config.num_queries} and {config.text_encoder_n_ctx}")
        if config.text_encoder_n_ctx and config.text_encoder_width != config.hidden_dim:
            raise Refused(f"OneFormer's text_encoder_width must be its hidden_dim: {config.text_encoder_width} and {config.hidden_dim}")

    def __call__(self, tasks: Sequence[str], label_ids: Sequence[NDArray[Any]], device: torch.device) -> dict[str, torch.Tensor]:
        """`task_inputs` int64 [N, task length] and `text_inputs` int64 [N, count, text length]; padding is 0, as published."""
        task_inputs = self._tokenizer.ids([f"the task is {task}" for task in tasks], self._lengths[0])
        listed = [texts(ids.tolist(), self._labels, task, self._count) for ids, task in zip(label_ids, tasks, strict=True)]
        text_inputs = torch.stack([self._tokenizer.ids(each, self._lengths[1]) for each in listed])
        return {"task_inputs": task_inputs.to(device), "text_inputs": text_inputs.to(device)}
