"""The labels that an export met, as COCO's categories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from masklake.errors import Refused
from masklake.export.format import Written


def category_id(label_id: int) -> int:
    """COCO's categories begin at 1, since 0 means none to many tools."""
    return label_id + 1


class Categories:
    """Collects the labels of segments, and counts the segments."""

    def __init__(self) -> None:
        self._segments = 0
        self._by_id: dict[int, tuple[str, bool]] = {}

    def note(self, segment: Mapping[str, Any], image_uri: str) -> None:
        """Take notice of a segment.

        Raises:
            Refused: its label id meant something else in another row: they are of models that do not agree.
        """
        self._segments += 1
        label_id, meaning = segment["label_id"], (segment["label"], segment["isthing"])
        known = self._by_id.setdefault(label_id, meaning)
        if known != meaning:
            raise Refused(
                f"{image_uri}: label id {label_id} is {_in_words(meaning)} here and {_in_words(known)} in another row: "
                "the rows are of different models; choose one by --model or --fingerprint"
            )

    @property
    def labels(self) -> dict[int, str]:
        """The labels met, by label id."""
        return {label_id: label for label_id, (label, _) in sorted(self._by_id.items())}

    def written(self, iou: Mapping[str, Mapping[str, float]] | None = None, remarks: tuple[str, ...] = ()) -> Written:
        """What was noted, in numbers and names."""
        return Written(self._segments, frozenset(self.labels.values()), iou or {}, remarks)

    def coco(self) -> list[dict[str, Any]]:
        """COCO's categories: `id, name, isthing, supercategory`, by id."""
        return [
            {"id": category_id(label_id), "name": label, "isthing": int(isthing), "supercategory": "thing" if isthing else "stuff"}
            for label_id, (label, isthing) in sorted(self._by_id.items())
        ]


def _in_words(meaning: tuple[str, bool]) -> str:
    label, isthing = meaning
    return f"{label!r} ({'thing' if isthing else 'stuff'})"
