"""The settings that choose rows of a table: the same for every command that reads some."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from masklake.config import Condition, File, Model, OneTask, Shown, Uri
from masklake.tasks import Task

if TYPE_CHECKING:
    from masklake.table.selection import Choice


LISTS = "text with one a line, CSV, JSON lines or Parquet, as --input of segment takes it"
"""What lists of images may be."""


class ChoiceConfig(BaseModel):
    """Whose rows."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    table: Uri = Field(description="the table's folder (s3://, file://, a path)")
    task: OneTask | None = Field(None, description="whose rows: panoptic, instance or semantic")
    where: Condition | None = Field(
        None, description="rows that fit this SQL condition on the table's columns, such as \"dt = '2026-11-22'\""
    )
    uris: File | None = Field(None, description=f"rows of the images in this list alone: {LISTS}")
    model: Model | None = Field(None, description="rows of this model, as the table's column `model` names it")
    fingerprint: Annotated[str | None, Shown("FINGERPRINT")] = Field(
        None, min_length=1, description="rows of this fingerprint: one model and its settings"
    )

    @property
    def table_uri(self) -> str:
        """The table's folder in canonical form."""
        return folder(self.table)

    def choice(self, task: Task | None) -> Choice:
        """Which rows are meant, of this task."""
        from masklake.table.selection import Choice  # DuckDB, which --help does without

        return Choice(task, self.where, self.model, self.fingerprint)


def folder(uri: str) -> str:
    """A folder in canonical form, without a slash at its end.

    Raises:
        Refused: it is none, or names credentials.
    """
    from masklake import storage  # its clients take a second to be imported

    return storage.normalise(uri).rstrip("/")
