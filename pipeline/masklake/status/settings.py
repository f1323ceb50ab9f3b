"""What `masklake status` is asked for."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from masklake.config import Also, Positional, Program, Shown, Uri


class StatusConfig(BaseModel):
    """Which table, and what of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: Annotated[Uri, Positional(), Shown("TABLE")] = Field(description="the table's folder (s3://, file://, a path)")
    input: Uri | None = Field(
        None,
        description="images, as segment's --input: also tell what of them is to do, and since when; its last run's --include, --exclude, "
        "--where and columns count",
    )
    runs: Annotated[int, Shown("RUNS")] = Field(10, ge=0, description="how many of the last runs to show")
    lease_seconds: Annotated[float, Shown("SECONDS")] = Field(
        10.0, ge=4, description="an unfinished run counts as dead when it has not responded for this long (runs respond every 3 s)"
    )
    only_json: Annotated[bool, Also("json")] = Field(False, description="only the JSON line, which has everything")


PROGRAM = Program(
    "masklake status",
    StatusConfig,
    {"the table": StatusConfig},
    about="Show a table and its runs from outside: who is at work, what is done and what failed in each partition, classes that are found "
    "more or less often in a partition than in the others, and how far the table is behind the lake.",
    examples={
        "masklake status s3://lake/masks": "runs, partitions, classes that moved",
        "masklake status s3://lake/masks --input s3://lake/images/": "and what is to do, with the oldest image that waits",
        "masklake status s3://lake/masks --runs 30 --json": "for a program",
    },
    exit_codes="0 shown, 1 failed, 2 refused (there is no table), 130 or 143 stopped",
    interrupted="interrupted; nothing was changed",
)
