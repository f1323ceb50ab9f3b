"""The settings that name a ground truth: the same for every job that reads one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from masklake.config import Names
from masklake.truth.formats import Format


def _numbers(value: object) -> object:
    """Accept `0,255` wherever whole numbers are meant."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return (value,) if isinstance(value, int) else value


Value = Annotated[int, Field(ge=0)]


class TruthConfig(BaseModel):
    """What is true, and how that is written down."""

    model_config = ConfigDict(frozen=True)

    truth: str = Field(min_length=1, description="ground truth: a file or a folder (s3://, file://, a path)")
    format: Format = Field(Format.AUTO, description=f"how it is written: {', '.join(Format)}; auto finds out, and says what it found")
    images: str | None = Field(None, min_length=1, description="folder of its images (default: where the truth itself says)")
    masks: str | None = Field(
        None, min_length=1, description="coco-panoptic: folder of the PNGs (default: named as the JSON without .json)"
    )
    labels: str | None = Field(
        None, min_length=1, description="label maps: file that names their values (default: labels.json, .csv or .txt beside them)"
    )
    ignore_index: Annotated[tuple[Value, ...], BeforeValidator(_numbers)] = Field(
        (), description="label maps: values that mean nothing (default: what the labels say, else 255 where they do not name it)"
    )
    thing_labels: Names = Field((), description="label maps: labels that are things (default: none)")
    crowds: Literal["regions", "objects"] = Field(
        "regions", description="coco: what iscrowd marks; objects: single objects all the same, as in CVAT's exports of brush masks"
    )
    categories: str | None = Field(
        None, min_length=1, description="YAML file of lines `name in the truth: label`, or `name: null` for what does not count"
    )
