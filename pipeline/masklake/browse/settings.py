"""What `masklake browse` is asked for: every setting once, as a flag, an environment variable and a YAML key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from masklake.config import Positional, Program, Shown, Uri
from masklake.table.settings import folder
from masklake.truth.settings import TruthConfig

if TYPE_CHECKING:
    OptionalTruth = TruthConfig
else:
    OptionalTruth = create_model(
        "OptionalTruth",
        __base__=TruthConfig,
        truth=(Uri | None, Field(None, description="ground truth to show beside the answers, as `masklake evaluate` reads it")),
    )


class PageConfig(BaseModel):
    """The table, and where its page is."""

    model_config = ConfigDict(frozen=True)

    table: Annotated[Uri, Positional(), Shown("TABLE")] = Field(description="the table's folder (s3://, file://, a path)")
    port: Annotated[int, Shown("PORT")] = Field(0, ge=0, le=65535, description="of this machine, for the page (default: a free one)")
    open: bool = Field(False, description="open the page in this machine's browser")
    cache_mb: Annotated[int, Shown("MB")] = Field(128, ge=8, description="memory for pictures that were shown before")


class BrowseConfig(PageConfig, OptionalTruth):
    """All settings of `masklake browse`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def table_uri(self) -> str:
        """The table's folder in canonical form."""
        return folder(self.table)

    @model_validator(mode="after")
    def _of_a_truth(self) -> BrowseConfig:
        if not self.truth:
            for name in sorted(self.model_fields_set & (TruthConfig.model_fields.keys() - {"truth"})):
                raise ValueError(f"--{name.replace('_', '-')}: is for ground truth, and --truth names none")
        return self


PROGRAM = Program(
    "masklake browse",
    BrowseConfig,
    {"the page": PageConfig, "ground truth": OptionalTruth},
    about="Look at a table of masks: a page on this machine alone, with filters, pictures, ground truth beside the answers, and lists of "
    "images for `export`, `erase` and `finetune`. It reads the table and the images, and changes nothing.",
    examples={
        "masklake browse s3://lake/masks": "prints the page's address",
        "masklake browse masks --open": "opens it",
        "masklake browse masks --truth truth/panoptic.json": "with ground truth, and where the answers differ from it",
        "masklake browse s3://lake/masks --port 8765": "on another machine; `ssh -L 8765:127.0.0.1:8765 MACHINE` brings it here",
    },
    rules="""\
The address holds a token: without it nothing is shown. The page answers on 127.0.0.1 only, ends with Ctrl-C, and shows the table as
it was when the command began. Of each image and task, the newest row of those that fit is shown, as `export` takes it.
""",
    exit_codes="0 ended by Ctrl-C or SIGTERM, 1 failed, 2 refused (nothing was started)",
    needs=("browse",),
)
"""The command line of `masklake browse`."""
