"""What an evaluation is asked for, checked before any work."""

from __future__ import annotations

from dataclasses import dataclass

from masklake import storage
from masklake.errors import Refused
from masklake.schema import Task
from masklake.table.selection import Choice
from masklake.truth.formats import Format


@dataclass(frozen=True)
class Settings:
    """One evaluation. `table` and `output` are folders in canonical form.

    Raises:
        Refused: a setting is out of range, or the output would lie in the table.
    """

    table: str
    truth: str
    output: str | None = None
    """Gets `evaluation.json` and `evaluation.html`; None: nothing is written."""
    truth_format: Format | None = None
    """None: found out."""
    task: Task | None = None
    """Whose rows; None: the first that the truth can judge."""
    categories: str | None = None
    """A mapping from truth's names to the table's labels."""
    labels: str | None = None
    """Of label maps, the file that names their values."""
    ignore_index: int | None = None
    """Of label maps, the value that is not judged."""
    where: str | None = None
    model: str | None = None
    fingerprint: str | None = None
    worst: int = 12
    """So many images of the lowest scores are shown."""
    ray_address: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", storage.normalise(self.table).rstrip("/"))
        if self.worst < 0:
            raise Refused(f"--worst {self.worst}: must be 0 or more")
        if self.ignore_index is not None and self.ignore_index < 0:
            raise Refused(f"--ignore-index {self.ignore_index}: must be 0 or more, as pixels are")
        if self.output is not None:
            object.__setattr__(self, "output", storage.normalise(self.output).rstrip("/"))
            if f"{self.output}/".startswith(f"{self.table}/"):
                raise Refused(f"--output {self.output}: lies in the table's folder: give the evaluation a folder of its own")

    def choice(self, task: Task) -> Choice:
        """Which rows are meant."""
        return Choice(task, self.where, self.model, self.fingerprint)
