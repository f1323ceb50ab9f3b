"""What an export is asked for: every setting once, as a flag, an environment variable and a YAML key."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from masklake.config import File, OneTask, Program, Share, Shown, Texts, Uri
from masklake.export.format import Format
from masklake.export.formats import FORMATS, format_named
from masklake.table.settings import ChoiceConfig, folder

if TYPE_CHECKING:
    FormatName = str
else:
    FormatName = StrEnum("FormatName", {each.name: each.name for each in FORMATS})  # of the modules that there are

_WIDTH = 2 + max(len(each.name) for each in FORMATS)
_ABOUT = "\n".join(
    [
        "Export a table of masks to files that other tools read. The newest row with status ok of each image and task is taken.\n",
        "formats:",
        *(f"  {each.name.ljust(_WIDTH)}{each.about}" for each in FORMATS),
    ]
)
_DEFAULTS = ", ".join(f"{each.tasks[0] if each.tasks else 'all'} for {each.name}" for each in FORMATS)
_RULES = """\
ids:
  A category's id is the table's label_id + 1; that is not COCO's own numbering. Label maps hold the label_id itself.
  --categories-of FILE, a COCO JSON, gives categories its ids by their names (or COCO's synonyms) and images its ids and file names, so that
  pycocotools and panopticapi take the export against that file; what the file does not have is left out and said.
  An image's id is its position, from 1 on, in the order of the exported URIs; it changes when images are added or left out, while
  file_name (the URI below what all exported URIs have in common) and coco_url (the URI) name the image itself.
  An annotation's id is its image's id times 100,000 plus its segment_id. In panoptic JSON a segment's id is its segment_id.
  A PNG is named as its image, with .png for the ending; where that would be one name for two images, .png is added to the whole name.

polygons:
  An outline runs along the edges of the mask's pixels, so that with --simplify 0 a polygon is its mask exactly: a pixel is in it where its
  centre is. Otherwise corners are left out while no part of it moves further than --simplify pixels. GeoJSON has parts and holes; YOLO and
  Label Studio have one closed line an object, in which parts and holes are strung together by cuts of no width. The job says how well
  polygons stand for masks, and _export.json has the IoU of each label. CVAT, FiftyOne, VOC and COCO get the masks themselves.
  Segments labelled "background" are left out of formats of objects (yolo-seg, geojson, label-studio, cvat, fiftyone, cutouts) unless
  --label asks for them.

An image of which no segment is left by --label and --min-score stays in the images, without annotations or all void. Annotations come in
no particular order. Memory is bounded; the temporary folder (TMPDIR) needs space for the JSON and, of millions of images, for sorting.
Files appear whole or not at all, and _export.json last: a folder without it holds no complete export.
"""


def _whole(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


class RowsConfig(ChoiceConfig):
    """What is exported."""

    task: OneTask | None = Field(
        None,
        description=f"whose rows (default: {_DEFAULTS}; where the table has none of these, the only ones that the format can hold)",
    )
    label: Annotated[Texts, Shown("LABEL")] = Field((), description="segments of this label only; may be given several times")
    least_certain: Annotated[int | None, Shown("IMAGES")] = Field(
        None, ge=1, description="only this many images: those the model is least certain about, spread over classes and partitions"
    )
    min_score: Annotated[Share | None, Shown("SCORE")] = Field(None, description="segments that score at least this")


class FilesConfig(BaseModel):
    """What is written."""

    model_config = ConfigDict(frozen=True)

    format: FormatName = Field(description="what to write, see above")
    output: Uri = Field(description="an empty folder for the export (s3://, file://, a path)")
    bits: Annotated[Literal[8, 16], BeforeValidator(_whole)] = Field(8, description="bits of a label map's pixel")
    void: Annotated[int | None, Shown("VALUE")] = Field(
        None, description="value of a label map's pixels without a label (default: 255, or 65535 with 16 bits)"
    )
    categories_of: File | None = Field(
        None, description="coco: a COCO JSON, such as panoptic_val2017.json, whose categories' and images' ids are written"
    )
    simplify: Annotated[float, Shown("PIXELS")] = Field(
        1.0, ge=0, le=100, description="polygons: leave out corners as long as no outline moves further than this; 0: exact"
    )
    copy_images: bool = Field(False, description="yolo-seg, voc, cvat, fiftyone: put copies of the images beside the labels")
    overwrite: bool = Field(False, description="replace an earlier export in the folder, complete or not")

    @property
    def output_uri(self) -> str:
        """The output in canonical form."""
        return folder(self.output)

    @property
    def void_value(self) -> int:
        """The value of pixels without a label."""
        return 2**self.bits - 1 if self.void is None else self.void


class ExportConfig(RowsConfig, FilesConfig):
    """All settings of `masklake export`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @property
    def chosen_format(self) -> Format:
        """What to write."""
        return format_named(self.format)

    @model_validator(mode="after")
    def _fits_the_format(self) -> ExportConfig:
        allowed = self.chosen_format.tasks
        if allowed and self.task is not None and self.task not in allowed:
            raise ValueError(
                f"--task {self.task}: masks of such an answer may overlap, and {self.format} holds one segment a pixel: "
                f"use --task {' or '.join(allowed)}"
            )
        if self.categories_of is not None and not self.format.startswith("coco-"):
            raise ValueError(f"--categories-of {self.categories_of}: is for COCO's formats, and not for {self.format}")
        if self.copy_images and not self.chosen_format.copies:
            raise ValueError(f"--copy-images: {self.format} has no place for images: leave it out")
        if "simplify" in self.model_fields_set and not self.chosen_format.polygons:
            raise ValueError(f"--simplify {self.simplify:g}: {self.format} has no polygons: leave it out")
        if not 0 <= self.void_value < 2**self.bits:
            raise ValueError(f"--void {self.void}: does not fit {self.bits} bits: use 0 to {2**self.bits - 1}")
        return self

    @model_validator(mode="after")
    def _output_apart(self) -> ExportConfig:
        table, output = self.table_uri + "/", self.output_uri + "/"
        if output.startswith(table) or table.startswith(output):
            raise ValueError(f"--output {self.output_uri}: overlaps the table's folder: choose a separate folder for the export")
        return self


PROGRAM = Program(
    "masklake export",
    ExportConfig,
    {"the rows": RowsConfig, "the files": FilesConfig},
    about=_ABOUT,
    examples={
        "masklake export --table s3://lake/masks --format coco-panoptic --output s3://lake/coco": "COCO panoptic, of the newest answers",
        "masklake export --table s3://lake/masks --format coco-instances --task panoptic --label person --label dog --min-score 0.5 "
        "--output persons": "confident persons and dogs of panoptic answers",
        "masklake export --table masks --format cvat --least-certain 200 --output to-correct": "the 200 images most worth correcting",
        "masklake export --table masks --format segments --where \"dt = '2026-11-22'\" --output segments": "one day, a row per segment",
    },
    rules=_RULES,
    interrupted="interrupted; the export is not complete, run the same command with --overwrite",
)
