"""One evaluation, from settings to report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial, reduce
from operator import add
from typing import Any

import duckdb
import pyarrow as pa
from deltalake.exceptions import DeltaError

from masklake import reading, storage, variables
from masklake.errors import MasklakeError, Refused
from masklake.evaluation import pictures, report
from masklake.evaluation.page import render_page
from masklake.evaluation.pairs import Pair, groups, pair
from masklake.evaluation.scoring import Scoring, Tally, score_group
from masklake.evaluation.settings import EvaluateConfig
from masklake.named import chosen
from masklake.schema import Task
from masklake.spelling import plural
from masklake.table.place import check_outside_tables
from masklake.table.read import MaskTable
from masklake.table.selection import check_condition, mixtures
from masklake.truth.classes import classes_for, read_mapping
from masklake.truth.formats import Truth
from masklake.truth.open import found_in_words, open_truth

IN_PROCESS = 1000
"""So many images of truth are scored without starting Ray, unless a cluster is named."""

JSON, PAGE = "evaluation.json", "evaluation.html"


def evaluate(settings: EvaluateConfig, say: Callable[[str], None], show: Callable[[str], None] = lambda text: None) -> report.Report:
    """Score what is stored in a table; returns the report, which is also written as JSON and as a page where an output is named.

    Args:
        settings: what to score, against what.
        say: told what the user should know, a sentence at a time.
        show: told of progress.

    Raises:
        Refused: a setting, credential, bucket or file of truth is wrong, or nothing fits.
        MasklakeError: the evaluation failed.
    """
    with variables.prepared(settings.ray_address):
        return _evaluated(settings, say, show)


def _evaluated(settings: EvaluateConfig, say: Callable[[str], None], show: Callable[[str], None]) -> report.Report:
    storage.check_input(settings.table, "--table")
    if settings.output_uri is not None:
        storage.check_output(settings.output_uri)
        check_outside_tables(settings.output_uri)
    truth = open_truth(settings)
    say(found_in_words(truth))
    for what, count in truth.left_out.items():
        say(f"left out of the ground truth: {what} ({count:,})")
    task = _task(settings, truth)
    mapping = read_mapping(settings.categories) if settings.categories else {}
    scoring = Scoring(task, truth.coding, classes_for(truth, task, mapping), settings.worst, settings.max_detections)
    try:
        return _evaluate(settings, truth, scoring, say, show)
    except (DeltaError, duckdb.Error, pa.ArrowException, OSError) as error:  # a file of the table is gone, the disk is full, ...
        raise MasklakeError(f"the evaluation failed: {' '.join(str(error).split())}; mend that and run it again") from error


def _evaluate(
    settings: EvaluateConfig, truth: Truth, scoring: Scoring, say: Callable[[str], None], show: Callable[[str], None]
) -> report.Report:
    table, unknown = chosen(reading.open_table(settings.table_uri), settings.uris, say)
    choice = settings.choice(scoring.task)
    check_condition(table, settings.where)
    pairing = pair(table, choice, truth)
    of_truth = f"{plural(len(truth.images), 'image')} of ground truth ({truth.format})"
    say(f"{of_truth}, {len(pairing.answered)} of them with an answer in {settings.table_uri}")
    for line in mixtures(pairing.answers):
        say(line)
    tally = _tally(groups(table, choice, pairing), scoring, len(truth.images), settings.ray_address, show)
    found = report.report(settings, truth, scoring, pairing, tally) | {"table_version": table.delta.version()}
    found |= {"unknown": unknown} if settings.uris else {}
    for line in report.remarks(found):
        say(line)
    if settings.output_uri is not None:
        uris = {judged.uri: judged for judged in tally.worst}
        page = render_page(found, pictures.worst(_rows(table, settings, scoring.task, list(uris)), uris, truth, scoring, tally.label_ids))
        for name, text in ((PAGE, page), (JSON, report.as_json(found))):  # programs look at the second
            storage.write_bytes(f"{settings.output_uri}/{name}", text.encode())
    return found


def _task(settings: EvaluateConfig, truth: Truth) -> Task:
    allowed = truth.coding.tasks
    task = settings.task or allowed[0]
    if task not in allowed:
        raise Refused(f"--task {task}: ground truth in {truth.format} judges --task {' or '.join(allowed)}")
    return task


def _tally(groups_of_pairs: Iterator[list[Pair]], scoring: Scoring, images: int, address: str | None, show: Callable[[str], None]) -> Tally:
    def shown() -> Iterator[list[Pair]]:
        done = 0
        for group in groups_of_pairs:
            yield group
            done += len(group)
            show(f"{done:,} of {plural(images, 'image')}")

    if address is None and images <= IN_PROCESS:
        tally: Tally = reduce(add, (score_group(scoring, group) for group in shown()))
        return tally
    from masklake import cluster  # Ray takes seconds to be imported

    merged: Tally = cluster.map_reduce(partial(score_group, scoring), shown(), add, address)
    return merged


def _rows(table: MaskTable, settings: EvaluateConfig, task: Task, uris: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of these images, once more."""
    if uris:
        columns = ["image_uri", "task", "width", "height", "segments"]
        yield from table.of_images(uris).newest(task, columns, settings.choice(task).condition())
