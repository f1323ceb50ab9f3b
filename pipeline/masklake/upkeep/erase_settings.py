"""What an erasure is asked for."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from masklake.config import File, Folder, Positional, Program, Shown, Texts
from masklake.table.settings import LISTS
from masklake.upkeep.settings import VACUUM_HOURS, KeepingConfig, VacuumHours


class ImagesConfig(BaseModel):
    """Which images."""

    model_config = ConfigDict(frozen=True)

    uri: Annotated[Texts, Positional(), Shown("URI")] = Field((), description="images, as the table's image_uri names them")
    uris: File | None = Field(None, description=f"more images: a list of them, {LISTS}")
    must_exist: bool = Field(False, description="erase nothing where the table has no row of one of the named images")
    input: Folder | None = Field(None, description="instead: show images below this folder that the table knows and the lake has no more")
    delete_missing: bool = Field(False, description="erase what --input shows")


class ForgettingConfig(KeepingConfig):
    """The table, and how soon nothing is left of them."""

    vacuum_hours: VacuumHours = Field(0, description=VACUUM_HOURS)


class EraseConfig(ForgettingConfig, ImagesConfig):
    """All settings of `masklake erase`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def changes_nothing(self) -> bool:
        """Whether only what would be done is said."""
        return self.dry_run or bool(self.input and not self.delete_missing)

    @model_validator(mode="after")
    def _one_way_to_say_which(self) -> EraseConfig:
        if bool(self.input) == bool(self.uri or self.uris):
            raise ValueError("say which images: URIs, --uris FILE, or --input FOLDER for those that are missing there")
        if self.delete_missing and not self.input:
            raise ValueError("--delete-missing needs --input, the folder in which images are looked for")
        if self.must_exist and self.input:
            raise ValueError("--must-exist is for images that are named; what --input shows has rows")
        return self


PROGRAM = Program(
    "masklake erase",
    EraseConfig,
    {"the images": ImagesConfig, "the table": ForgettingConfig},
    about="Erase images from a table of masks: their rows, the pictures and lines of theirs in galleries and reports, and the files of "
    "old versions.",
    examples={
        "masklake erase --table s3://lake/masks s3://lake/images/dt=2026-11-22/a.jpg": "one image",
        "masklake erase --table s3://lake/masks --uris requests.txt --dry-run": "how many rows the images of a file have",
        "masklake erase --table s3://lake/masks --input s3://lake/images/": "show what the lake has no more",
        "masklake erase --table s3://lake/masks --input s3://lake/images/ --delete-missing": "and erase it",
    },
)
