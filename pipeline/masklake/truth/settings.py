"""The settings that name a ground truth: the same for every job that reads one."""

from __future__ import annotations

from collections.abc import Mapping
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
    LABEL_COLOURS = "label-colours"
    INSTANCE_IDS = "instance-ids"
    CITYSCAPES = "cityscapes"
    ADE20K = "ade20k"
    VOC = "voc"
    VISTAS = "vistas"
    YOLO = "yolo"
    TABLE = "table"


FORMATS: Mapping[Format, tuple[str, str]] = {
    Format.PANOPTIC: ("a JSON, and PNGs in the folder beside it that has its name (--masks)", "PQ; AP of things; mIoU"),
    Format.INSTANCES: ("a JSON of polygons, run lengths, crowds; as Label Studio and CVAT export", "AP; mIoU"),
    Format.LABEL_MAPS: ("a folder of pictures of label ids: 8 or 16 bits, 1 bit, palettes", "mIoU"),
    Format.LABEL_COLOURS: ("a folder of pictures whose colours are classes, by a table of colours", "mIoU"),
    Format.INSTANCE_IDS: ("a folder of pictures: R is the class and G the object, or class * 1000 + object", "PQ; AP; mIoU"),
    Format.CITYSCAPES: ("gtFine, a split or a city of it, as downloaded", "PQ; AP; mIoU"),
    Format.ADE20K: ("ADEChallengeData2016: annotations, or annotations_instance", "mIoU; PQ, AP"),
    Format.VOC: ("VOC2012, or ImageSets/Segmentation/val.txt in it; CVAT's segmentation masks", "mIoU; AP; PQ"),
    Format.VISTAS: ("Mapillary Vistas 1 or 2, or training or validation in it", "PQ; AP; mIoU"),
    Format.YOLO: ("text files of polygons: labels/, data.yaml, or the folder of both", "AP; mIoU"),
}
"""What each format is, and what it can judge, the default first."""


def in_lines() -> str:
    """The formats as lines of `--help`."""
    return "\n".join(f"  {name:<15} {what}; scores {judges.replace(';', ',')}" for name, (what, judges) in FORMATS.items())


class TruthConfig(BaseModel):
    """What is true, and how that is written down."""

    model_config = ConfigDict(frozen=True)

    truth: Uri = Field(description="ground truth: a file or a folder (s3://, file://, a path)")
    format: Format = Field(Format.AUTO, description=f"how it is written: {', '.join(Format)}; auto finds out, and says what it found")
    images: Folder | None = Field(None, description="folder of its images (default: as the ground truth says)")
    masks: Folder | None = Field(None, description="coco-panoptic: folder of the PNGs (default: named as the JSON without .json)")
    labels: File | None = Field(
        None, description="label maps, yolo: file that names the values or colours (default: found beside them, such as labels.json)"
    )
    mask_suffix: Annotated[str | None, Shown("SUFFIX")] = Field(
        None, description="label maps: what a map has behind its image's name, such as _mask (default: found out)"
    )
    label_divisor: Annotated[int, Shown("DIVISOR")] = Field(
        1000, ge=2, description="instance-ids of one channel: a pixel is class * N + object"
    )
    ignore_index: Numbers = Field(
        (), description="label maps: values that mean nothing (default: what the labels say, else 255 where they do not name it)"
    )
    thing_labels: Annotated[Names, Shown("LABEL")] = Field((), description="label maps: labels that are things (default: none)")
    crowds: Literal["regions", "objects"] = Field(
        "regions", description="coco: what iscrowd marks; objects: single objects all the same, as in CVAT's exports of brush masks"
    )
    categories: File | None = Field(
        None, description="YAML file of lines `name in the ground truth: label`, or `name: null` for a class that does not count"
    )
