"""The settings that name a ground truth: the same for every job that reads one."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from masklake.config import File, Folder, Names, Numbers, Shown, Uri


class Format(StrEnum):
    """How ground truth is written down."""

    AUTO = "auto"
    PANOPTIC = "coco-panoptic"
    INSTANCES = "coco-instances"
    LABEL_MAPS = "label-maps"
    TABLE = "table"


class TruthConfig(BaseModel):
    """What is true, and how that is written down."""

    model_config = ConfigDict(frozen=True)

    truth: Uri = Field(description="ground truth: a file or a folder (s3://, file://, a path)")
    format: Format = Field(Format.AUTO, description=f"how it is written: {', '.join(Format)}; auto finds out, and says what it found")
    images: Folder | None = Field(None, description="folder of its images (default: where the truth itself says)")
    masks: Folder | None = Field(None, description="coco-panoptic: folder of the PNGs (default: named as the JSON without .json)")
    labels: File | None = Field(
        None, description="label maps: file that names their values (default: labels.json, .csv or .txt beside them)"
    )
    ignore_index: Numbers = Field(
        (), description="label maps: values that mean nothing (default: what the labels say, else 255 where they do not name it)"
    )
    thing_labels: Annotated[Names, Shown("LABEL")] = Field((), description="label maps: labels that are things (default: none)")
    crowds: Literal["regions", "objects"] = Field(
        "regions", description="coco: what iscrowd marks; objects: single objects all the same, as in CVAT's exports of brush masks"
    )
    categories: File | None = Field(
        None, description="YAML file of lines `name in the truth: label`, or `name: null` for what does not count"
    )
