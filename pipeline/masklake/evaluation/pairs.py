"""Which row of the table is which image's of truth. Memory grows with the truth, not with the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from masklake.errors import Refused
from masklake.schema import Status
from masklake.table.read import MaskTable
from masklake.table.selection import Answers, Choice
from masklake.truth.formats import Truth, TruthImage
from masklake.truth.match import file_names, match

_ROWS_AT_ONCE = 16  # rows with masks that are Python values, and go to one task
_ORIGIN = ("task", "model", "model_revision", "fingerprint")


@dataclass(frozen=True)
class Pair:
    """An image of truth and its row, or why there is none."""

    image: TruthImage
    row: Mapping[str, Any] | None = None
    miss: str | None = None


@dataclass(frozen=True)
class Pairing:
    """`answered` gives each URI its truth, `misses` are the images without an answer; `without_truth` counts the table's other images."""

    answered: Mapping[str, TruthImage]
    misses: tuple[Pair, ...]
    without_truth: int
    by_name_alone: int
    answers: tuple[Answers, ...]


def pair(table: MaskTable, choice: Choice, truth: Truth) -> Pairing:
    """Match the newest answers that are chosen with the images of truth.

    Raises:
        Refused: no answer is chosen, none is of an image of truth, or it cannot be said which.
    """
    wanted = file_names(truth.images)
    answered: set[str] = set()
    origins: Counter[tuple[str, str, str, str]] = Counter()
    total = 0
    example = ""
    for batch in table.newest_arrow(choice.task, ["image_uri", *_ORIGIN], choice.condition()):
        total += batch.num_rows
        for row in _of_truth(batch, wanted):
            answered.add(row["image_uri"])
            origins[row["task"], row["model"], row["model_revision"], row["fingerprint"]] += 1
        example = example or batch["image_uri"][0].as_py()
    if not total:
        raise Refused(
            f"there is nothing to score: no row with status ok fits --task {choice.task}, --where, --uris, --model and --fingerprint"
        )
    errors = {
        row["image_uri"]: f"{row['error_code']}: {row['error_message']}"
        for batch in table.newest_arrow(choice.task, ["image_uri", "error_code", "error_message"], choice.condition(Status.ERROR))
        for row in _of_truth(batch, wanted)
    }
    matched = match(truth.images, answered | errors.keys())
    if not matched.images:
        raise Refused(
            f"no image of the ground truth is in the table: it has {truth.images[0].name!r}, for example, and the table {example}"
            if truth.images
            else f"--truth {truth.uri}: has no images"
        )
    failed = [Pair(image, miss=errors[uri]) for uri, image in matched.images.items() if uri not in answered]
    missing = [Pair(image, miss="the table has no row of it") for image in matched.missing]
    scored = {uri: image for uri, image in matched.images.items() if uri in answered}
    return Pairing(
        scored,
        tuple(sorted([*failed, *missing], key=lambda each: each.image.order)),
        total - len(scored),
        matched.by_name_alone,
        tuple(Answers(*origin, rows) for origin, rows in sorted(origins.items(), key=lambda item: (-item[1], item[0]))),
    )


def groups(table: MaskTable, choice: Choice, pairing: Pairing) -> Iterator[list[Pair]]:
    """All images of truth in groups that are scored together, their rows read from the table as they are asked for."""
    uris = pa.array(list(pairing.answered), pa.string())
    for batch in table.newest_arrow(choice.task, ["image_uri", "width", "height", "segments"], choice.condition()):
        chosen = batch.filter(pc.is_in(batch["image_uri"], value_set=uris))
        for first in range(0, chosen.num_rows, _ROWS_AT_ONCE):
            yield [Pair(pairing.answered[row["image_uri"]], row) for row in chosen.slice(first, _ROWS_AT_ONCE).to_pylist()]
    for first in range(0, len(pairing.misses), _ROWS_AT_ONCE):
        yield list(pairing.misses[first : first + _ROWS_AT_ONCE])


def _of_truth(batch: pa.RecordBatch, names: Collection[str]) -> Iterator[dict[str, Any]]:
    """Rows of which a name, with its ending or without, is one of truth's."""
    uris = batch["image_uri"]
    name = pc.replace_substring_regex(uris, r"^(?s:.*)/", "")
    wanted = pa.array(list(names), pa.string())
    kept = pc.or_(pc.is_in(name, value_set=wanted), pc.is_in(pc.replace_substring_regex(name, r"\.[^.]*$", ""), value_set=wanted))
    yield from batch.filter(kept).to_pylist()
