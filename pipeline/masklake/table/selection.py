"""Which rows of a table a job takes: of each image the newest answer that fits, and whose answers these are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa

from masklake.errors import Refused, one_line
from masklake.schema import Status, Task
from masklake.sql import shown
from masklake.table.keys import sql_text
from masklake.table.read import MaskTable, condition


@dataclass(frozen=True)
class Choice:
    """`task` None means all tasks; `where` is an SQL condition on the table's columns."""

    task: Task | None = None
    where: str | None = None
    model: str | None = None
    fingerprint: str | None = None

    def condition(self, status: Status = Status.OK) -> str:
        """All but the task as one SQL condition, for rows of this status."""
        conditions = [f"status = {sql_text(status)}"]
        if self.model is not None:
            conditions.append(f"model = {sql_text(self.model)}")
        if self.fingerprint is not None:
            conditions.append(f"fingerprint = {sql_text(self.fingerprint)}")
        if self.where is not None:
            conditions.append(condition(self.where))
        return " AND ".join(conditions)


@dataclass(frozen=True)
class Answers:
    """Whose answers a task's rows are, and how many."""

    task: str
    model: str
    model_revision: str
    fingerprint: str
    rows: int


def check_condition(table: MaskTable, where: str | None) -> None:
    """Raises Refused where `where` is not an SQL condition on the columns of the table."""
    if where is None:
        return
    predicate = f"{condition(where)} AND 1 = 0"
    try:
        pa.RecordBatchReader.from_stream(table.delta.scan(columns=["task"], predicate=predicate)).read_all()
    except Exception as error:
        raise Refused(f"--where {shown(where)}: is not a condition on the table's columns: {one_line(error)}") from None


def mixtures(answers: Sequence[Answers]) -> Iterator[str]:
    """A sentence for each task whose rows are not all of one model and its settings."""
    for task, of_task in groupby(answers, lambda each: each.task):
        several = list(of_task)
        if len(several) > 1:
            listed = "; ".join(
                f"{each.rows} of {each.model} at {each.model_revision}, --fingerprint {each.fingerprint}" for each in several
            )
            yield f"the newest rows of task {task} are of {len(several)} models or settings, choose by --model or --fingerprint: {listed}"
