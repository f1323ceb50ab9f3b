"""The logits of a batch to the segments of its images; what is wrong with an image stays with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from masklake.errors import ErrorCode, ImageFailure, first_line
from masklake.inference import batched, postprocess
from masklake.inference.checkpoint import ModelDescription
from masklake.inference.families import Answer, ClassMap, Found, Queries
from masklake.inference.limits import is_lost, is_out_of_memory
from masklake.inference.model_input import ModelInput
from masklake.inference.postprocess import Geometry
from masklake.inference.segments import NotFinite, Segment

Answers = dict[str, list[Segment] | ImageFailure]
"""Task -> its segments, or why there are none."""

_BY_TASK: dict[str, Callable[..., list[Segment]]] = {
    "panoptic": postprocess.panoptic,
    "instance": postprocess.instance,
    "semantic": postprocess.semantic,
}


@dataclass(frozen=True)
class Answering:
    """Makes segments of what a model says, on the model's `device`."""

    description: ModelDescription
    device: torch.device

    def __call__(self, answers: dict[str, Answer], items: Sequence[ModelInput]) -> list[Answers]:
        """Each image's answers to its tasks; `answers`: of the batch, by task."""
        together = self._together(answers, items)
        return [
            {task: together[row, task] if (row, task) in together else self._answer(answers, row, item, task) for task in item.tasks}
            for row, item in enumerate(items)
        ]

    def _together(self, answers: dict[str, Answer], items: Sequence[ModelInput]) -> dict[tuple[int, str], list[Segment]]:
        """What can be answered for all images of a batch at once, by row and task; `_answer` says what is wrong with the others."""
        if self.device.type != "cuda" or self.description.postprocess == "hf":
            return {}
        found = {}
        known: dict[tuple[int, ...], batched.Logits] = {}  # tasks that share an answer share what is made of it
        for task, answer in answers.items():
            rows = [row for row, item in enumerate(items) if task in item.tasks]
            if not isinstance(answer, Queries) or not rows:
                continue
            if (key := (id(answer), *rows)) not in known:
                part = slice(len(rows)) if len(rows) == rows[-1] + 1 else rows
                geometries = [self._geometry(items[row]) for row in rows]
                known[key] = batched.Logits(answer.class_logits[part], answer.mask_logits[part], geometries)
            segments = batched.answered_together(task, known[key], self.description.settings) or []
            found.update({(row, task): those for row, those in zip(rows, segments, strict=False) if isinstance(those, list)})
        return found

    def _geometry(self, item: ModelInput) -> Geometry:
        resized = (item.pixels.shape[0], item.pixels.shape[1])
        return Geometry(self.description.frame.padded(resized), resized, item.size)

    def _answer(self, answers: dict[str, Answer], row: int, item: ModelInput, task: str) -> list[Segment] | ImageFailure:
        try:
            try:
                return self._segments(answers, row, item, task)
            except RuntimeError as error:
                if self.device.type == "cpu" or not is_out_of_memory(error):
                    raise
            torch.cuda.empty_cache()  # and out of the handler, whose traceback keeps memory
            one = slice(row, row + 1)
            return self._segments({asked: on_host(answers[asked], one) for asked in self.description.asked_of(item)}, 0, item, task)
        except NotFinite as error:
            return ImageFailure(ErrorCode.NOT_FINITE, str(error) or "the model answered NaN or infinity")
        except Exception as error:  # a row says so, its batch-mates go on
            if is_lost(error):
                raise
            if is_out_of_memory(error):
                return ImageFailure(ErrorCode.OUT_OF_MEMORY, f"post-processing: {first_line(error)}")
            return ImageFailure(ErrorCode.MODEL_FAILED, f"post-processing: {type(error).__name__}: {first_line(error)}")

    def _segments(self, answers: dict[str, Answer], row: int, item: ModelInput, task: str) -> list[Segment]:
        if self.description.concepts:
            return self._of_concepts(answers, row, item)
        answer = answers[task]
        if self.description.postprocess == "hf":
            from masklake.inference import hf_postprocess

            return hf_postprocess.segments(self.description, answer, row, task, item.size)
        geometry = self._geometry(item)
        settings = self.description.settings
        if isinstance(answer, ClassMap):
            return postprocess.semantic_from_map(answer.logits[row], geometry, settings)
        assert isinstance(answer, Queries)
        class_logits, mask_logits = answer.class_logits[row], answer.mask_logits[row]
        return _BY_TASK[task](class_logits, mask_logits, geometry, settings)

    def _of_concepts(self, answers: dict[str, Answer], row: int, item: ModelInput) -> list[Segment]:
        found = {}
        for label_id, concept in self.description.labels.items():
            if concept in self.description.asked_of(item):
                answer = answers[concept]
                assert isinstance(answer, Found)
                found[label_id] = answer.of(slice(row, row + 1))
        return postprocess.concepts(found, self._geometry(item), self.description.settings)


def on_host(answer: Answer, rows: slice) -> Answer:
    """The logits of some images on the CPU."""
    if isinstance(answer, ClassMap):
        return ClassMap(answer.logits[rows].cpu())
    if isinstance(answer, Found):
        some = answer.of(rows)
        return replace(some, mask_logits=some.mask_logits.cpu())
    return Queries(answer.class_logits[rows].cpu(), answer.mask_logits[rows].cpu())
