"""Ground truth beside an answer: which images have some, what is true there, and what the answer misses or gets wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from masklake.browse.index import Index
from masklake.browse.pictures import as_values
from masklake.errors import MasklakeError, Refused
from masklake.evaluation.pairs import Pair
from masklake.evaluation.pictures import class_ids, compared
from masklake.evaluation.scoring import Scoring, score_image
from masklake.pages.cards import reduced_size
from masklake.spelling import plural
from masklake.table.keys import sql_text
from masklake.tasks import Task
from masklake.truth.classes import classes_for, read_mapping
from masklake.truth.formats import TruthImage
from masklake.truth.match import match
from masklake.truth.open import found_in_words, open_truth
from masklake.truth.pictures import fetched
from masklake.truth.regions import size_of
from masklake.truth.settings import TruthConfig


@dataclass(frozen=True)
class _Judge:
    scoring: Scoring
    images: Mapping[str, TruthImage]


class Truths:
    """What `--truth` names, for the tasks that it can judge. May be used by several threads."""

    def __init__(self, settings: TruthConfig, index: Index, say: Callable[[str], None]) -> None:
        """Find the truth's images among the table's.

        Raises:
            Refused: it cannot be read, or has none of the table's images.
        """
        truth = open_truth(settings)
        say(found_in_words(truth))
        mapping = read_mapping(settings.categories) if settings.categories else {}
        self._index, self._lock = index, threading.Lock()
        self._judges: dict[str, _Judge] = {}
        for task in truth.coding.tasks:
            uris = {row["image_uri"] for row in index.rows(f"SELECT DISTINCT image_uri FROM rows WHERE task = {sql_text(task)}")}  # noqa: S608
            images = match(truth.images, uris).images if uris else {}
            if images:
                self._judges[task] = _Judge(Scoring(task, truth.coding, classes_for(truth, Task(task), mapping), worst=1), images)
                self._note(task, list(images))
        if not self._judges:
            raise Refused(
                f"--truth {truth.uri}: no image of it is in the table, in an answer to {' or '.join(truth.coding.tasks)}; it has "
                f"{truth.images[0].name!r}, for example"
                if truth.images
                else f"--truth {truth.uri}: has no images"
            )
        say(", ".join(f"{plural(len(judge.images), 'image')} with {task} answers and ground truth" for task, judge in self._judges.items()))

    def _note(self, task: str, uris: list[str]) -> None:
        database = self._index.database
        database.register("incoming", pa.table({"image_uri": uris, "task": [task] * len(uris)}))
        database.execute("INSERT INTO truthful SELECT image_uri, task FROM incoming")
        database.unregister("incoming")

    @property
    def tasks(self) -> list[str]:
        """Those that can be judged here."""
        return list(self._judges)

    def has(self, row: Mapping[str, Any]) -> bool:
        """Whether there is truth for a row's image and task."""
        judge = self._judges.get(row["task"])
        return judge is not None and row["image_uri"] in judge.images

    def beside(self, row: Mapping[str, Any], side: int) -> dict[str, Any]:
        """What is true, what was answered in the truth's classes, and the difference; shares of the picture, and the image's score.

        Args:
            row: a whole row with status ok, for which there is truth.
            side: of the photograph that they are painted over.

        Raises:
            MasklakeError: the truth's file is wrong, or of an image of another size.
        """
        judge = self._judges[row["task"]]
        (image,) = fetched([judge.images[row["image_uri"]]])
        size = row["height"], row["width"]
        if (there := size_of(judge.scoring.coding.read(image))) != size:
            raise MasklakeError(f"its ground truth is of {there[1]} x {there[0]} pixels, and the image of {size[1]} x {size[0]}")
        found = compared(row, image, judge.scoring, class_ids(judge.scoring.classes, self._label_ids()), reduced_size(size, side))
        judged = score_image(replace(judge.scoring, worst=1), Pair(image, row)).worst
        return {
            "truth": as_values(found.truth),
            "answer": as_values(found.prediction),
            "difference": as_values(found.difference),
            "missed": found.missed,
            "wrong": found.wrong,
            "score": judged[0].score if judged else None,
            "measure": _MEASURES[Task(row["task"])],
        }

    def _label_ids(self) -> dict[str, int]:
        found = self._index.rows("SELECT label, min(label_id) AS label_id FROM kinds GROUP BY label")
        return {row["label"]: row["label_id"] for row in found}


_MEASURES = {Task.PANOPTIC: "PQ", Task.SEMANTIC: "mIoU", Task.INSTANCE: "best F1"}
