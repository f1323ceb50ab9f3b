"""What a compaction is asked for."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from masklake.config import Program, Shown
from masklake.upkeep.settings import KeepingConfig

_MEGABYTE = 1_000_000


class MergingConfig(BaseModel):
    """What is merged, and what is left out."""

    model_config = ConfigDict(frozen=True)

    target_mb: Annotated[float, Shown("MB")] = Field(
        128.0, ge=0.001, le=1024, description="size of a merged file, about; memory grows with it; larger files are left alone"
    )
    drop_superseded: bool = Field(
        False,
        description="leave out rows of an image and task of which there is a newer row (another etag, model or setting, or an error "
        "retried); a successful answer goes only for a newer successful one. A run with the older model or setting would do its images "
        "again",
    )


class CompactConfig(KeepingConfig, MergingConfig):
    """All settings of `masklake compact`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def target_bytes(self) -> int:
        """Size of a merged file, about."""
        return round(self.target_mb * _MEGABYTE)


PROGRAM = Program(
    "masklake compact",
    CompactConfig,
    {"the table": KeepingConfig, "the merging": MergingConfig},
    about="Merge the small files of a table of masks into large ones, and vacuum. It may run beside any number of segment runs.",
    examples={
        "masklake compact --table s3://lake/masks": "small files into files of about 128 MB, then vacuum",
        "masklake compact --table s3://lake/masks --drop-superseded --dry-run": (
            "how many rows newer ones have superseded, and which files would go"
        ),
        "masklake compact --table s3://lake/masks --target-mb 512 --vacuum-hours 24": "larger files, and one day of older versions",
    },
)
