"""The settings that every command has which keeps a table."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from masklake.config import Shown, Uri

_MOST_HOURS = 720  # the log, which says what was part of the table when, is kept for 30 days
VacuumHours = Annotated[int, Field(ge=0, le=_MOST_HOURS), Shown("HOURS")]
VACUUM_HOURS = (
    "then delete data files that have not been part of the table for this long, and those that no run will ever commit; a reader or run "
    "that opened the table before that time may fail; 0: only the present version can be read afterwards"
)


class KeepingConfig(BaseModel):
    """The table, and what becomes of its past."""

    model_config = ConfigDict(frozen=True)

    table: Uri = Field(description="the table's folder (s3://, file://, a path)")
    dry_run: bool = Field(False, description="print what would be done, and do nothing")
    vacuum_hours: VacuumHours = Field(168, description=VACUUM_HOURS)
    lease_seconds: Annotated[float, Shown("SECONDS")] = Field(
        30.0,
        ge=10,
        le=86_400,
        description="an unfinished run counts as dead when it has not responded for this long: it is fenced, and its files may go",
    )

    @property
    def changes_nothing(self) -> bool:
        """Whether only what would be done is said."""
        return self.dry_run
