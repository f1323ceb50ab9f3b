"""What a model family owes, and the kinds of answers that a model gives. A family turns pixel values [N, 3, H, W] into answers.

Nothing here imports torch or transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from masklake.inference.segments import Settings

if TYPE_CHECKING:
    import torch

PANOPTIC, INSTANCE, SEMANTIC = "panoptic", "instance", "semantic"
ALL_TASKS = (PANOPTIC, INSTANCE, SEMANTIC)


@dataclass(frozen=True)
class Queries:
    """Mask classification: `class_logits` [N, Q, K + 1], the last column "no object"; `mask_logits` [N, Q, h, w]."""

    class_logits: torch.Tensor
    mask_logits: torch.Tensor


@dataclass(frozen=True)
class ClassMap:
    """Per-pixel classification: `logits` [N, K, h, w], covering the model's input."""

    logits: torch.Tensor


@dataclass(frozen=True, eq=False)
class Found:
    """What was found of one concept in a batch of N images: k queries, image by image.

    `image` int64 [k], ascending, and `score` float64 [k], both on the host: whose it is, and its probability. `mask_logits` [k, h, w]
    cover the whole image. `finite` bool [N], on the host: whether the model answered numbers.
    """

    image: NDArray[np.int64]
    score: NDArray[np.float64]
    mask_logits: torch.Tensor
    finite: NDArray[np.bool_]

    def of(self, rows: slice) -> Found:
        """What was found in some of the images."""
        wanted = np.arange(len(self.finite))[rows]
        first, end = np.searchsorted(self.image, (wanted[0], wanted[-1] + 1)) if len(wanted) else (0, 0)
        part = slice(int(first), int(end))
        return Found(self.image[part] - (wanted[0] if len(wanted) else 0), self.score[part], self.mask_logits[part], self.finite[rows])


Answer = Queries | ClassMap | Found


@dataclass(frozen=True)
class Family:
    """One `model_type`. The base class is a per-pixel model as behind transformers' AutoModelForSemanticSegmentation."""

    model_class: str
    """Its class in transformers."""
    processor: str
    """Name of the image processor whose defaults hold where the checkpoint is silent (a key of `PROCESSORS`)."""
    tasks: tuple[str, ...] = (SEMANTIC,)
    head: str = "decode_head.classifier"
    """The class head in the checkpoint's files, up to `.weight`; its rows are the classes and, in mask classification, "no object"."""
    divisor: int = 1
    """Sides of the model's input are padded to multiples of this (zeros after normalisation), as the original does."""
    fixed_input: Literal["", "exact", "pad"] = ""
    """Models that take `config.image_size` squares only: the resize must give it exactly, or padding completes it."""
    forward_per_task: bool = False
    """Whether each task, or concept, is asked of the model by itself."""
    prompted: bool = False
    """Whether it looks for concepts that the user names, instead of classes of its own; `run` is asked for these in place of tasks."""
    object_threshold: float = 0.8
    overlap_threshold: float = 0.8
    score_threshold: float = 0.0
    object_thresholds: Mapping[str, float] = field(default_factory=dict)
    """Where the original's threshold differs for a dataset."""
    extra_files: tuple[str, ...] = ()
    """Files besides config, preprocessor and weights that answers depend on, where they exist."""
    vocabulary: tuple[str, ...] = ()
    """Where config.json says how many entries the tokenizer of a text encoder has; empty where there is none."""
    operations: float = 8_000.0
    """Of a forward on CPUs, about, for each weight and million pixels of its input, at 25e9 a second: what a run will take is told by it.
    More where weights are convolutions of fine maps, and those of small kernels or few channels, which wait for memory."""
    config_changes: Mapping[str, Any] = field(default_factory=dict)
    """What inference does not need and training does; these change no answer."""

    def prepare(self, module: Any, folder: Path, name: str, settings: Settings | None = None) -> None:
        """Make a loaded module ready beyond its weights, for answers by `settings`; refusals call the checkpoint `name`."""

    def run(self, module: Any, pixel_values: torch.Tensor, tasks: Sequence[str]) -> dict[str, Answer]:
        """Answer a batch [N, 3, H, W] for each of `tasks`."""
        answer = ClassMap(module(pixel_values=pixel_values).logits)
        return dict.fromkeys(tasks, answer)

    def compiled_parts(self, module: Any) -> list[Any]:
        """The modules that `run` calls, for torch.compile."""
        return [module]

    def hf_outputs(self, answer: Answer, index: int) -> Any:
        """One image's answer in the shape that transformers' own post-processing takes."""
        assert not isinstance(answer, Found), "concepts have no post-processing of transformers' here"
        if isinstance(answer, ClassMap):
            return SimpleNamespace(logits=answer.logits[index : index + 1].float())
        return SimpleNamespace(
            class_queries_logits=answer.class_logits[index : index + 1].float(),
            masks_queries_logits=answer.mask_logits[index : index + 1].float(),
            patch_offsets=None,
        )
