"""What an evaluation is asked for: every setting once, as a flag, an environment variable and a YAML key."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from masklake.config import OneTask, Program, Shown, Uri
from masklake.quality import MAX_DETECTIONS
from masklake.table.settings import ChoiceConfig, folder
from masklake.truth.settings import TruthConfig, in_lines

_ABOUT = f"""\
Score what is stored in a table of masks against ground truth. The newest row with status ok of each image is taken.

ground truth (--truth):
{in_lines()}
What `masklake export` writes is read as well; give its folder. The same settings name what `masklake finetune` learns from.
"""
_RULES = """\
names of classes:
  The ground truth's name and the table's label are one class where they are the same, whatever their case. --categories names a YAML
  file for the rest, a line for each name of the ground truth; several may have one label:
      couch: sofa
      truck: car
      book: null           # not judged: void
      "*": background      # every name that is not in the file; equal names are then not matched either
  Of coco-instances, pixels that no instance covers are judged by --task semantic only where the file names them (background: background).
  What does not match is listed, and counts: a class of the ground truth that is no segment's label is missed wherever it occurs. Segments
  with a label that the ground truth does not have are removed: they are not false positives, and what they cover is missed.

images:
  The ground truth's file_name is the end of the image's URI; or, where there is one of each, the file name alone. Label maps are named as
  the image, with .png for its ending or after it. An image of the ground truth without a row, with an error, or of another size counts as
  missed with everything in it. Images of the table without ground truth are not scored.

label maps, colours, instance ids:
  Values are named by --labels, else by labels.json, .csv, .txt or .yaml, class_dict.csv, label_colors.txt or labelmap.txt in the folder or
  above it: {"0": "sky"}, a list of names, objects or rows with name and id, color (or r, g, b) or both, lines like "0 sky",
  "64 128 64 tree" or "tree:64,128,64::". Pixels of --ignore-index mean nothing.
  Maps may have something behind the image's name (a_mask.png: --mask-suffix).

figures:
  PQ is that of panopticapi, AP that of pycocotools; both count every class of the ground truth that occurs. As there, 100
  detections of an image and class count (--max-detections); where that cuts, the job says so. The figures do not depend on how the images
  are divided among tasks. More than 1,000 images, or any with --ray-address, are scored on Ray.

--output gets evaluation.json (all figures, names and the confusion matrix) and evaluation.html (the same to look at, and the worst images).
"""


class RowsConfig(ChoiceConfig):
    """What is judged."""

    task: OneTask | None = Field(
        None, description="whose rows: panoptic, instance or semantic (default: the first that the ground truth can judge)"
    )


class ResultConfig(BaseModel):
    """Where, and what comes of it."""

    model_config = ConfigDict(frozen=True)

    output: Uri | None = Field(None, description="folder for evaluation.json and evaluation.html, which are replaced")
    max_detections: Annotated[int, Shown("N")] = Field(
        MAX_DETECTIONS, ge=1, description="of --task instance: detections counted for each image and class, by descending score"
    )
    worst: Annotated[int, Shown("IMAGES")] = Field(12, ge=0, description="how many of the lowest-scoring images the page shows")
    ray_address: Annotated[str | None, Shown("ADDRESS")] = Field(
        None, min_length=1, description="score on this Ray cluster; `local` starts one here"
    )


class EvaluateConfig(RowsConfig, TruthConfig, ResultConfig):
    """All settings of `masklake evaluate`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @property
    def output_uri(self) -> str | None:
        """The output in canonical form."""
        return None if self.output is None else folder(self.output)

    @model_validator(mode="after")
    def _output_apart(self) -> EvaluateConfig:
        if f"{self.output_uri}/".startswith(f"{self.table_uri}/"):
            raise ValueError(f"--output {self.output}: overlaps the table's folder: choose a separate folder for the evaluation")
        return self


PROGRAM = Program(
    "masklake evaluate",
    EvaluateConfig,
    {"what is judged": RowsConfig, "the ground truth": TruthConfig, "the result": ResultConfig},
    about=_ABOUT,
    examples={
        "masklake evaluate --table s3://lake/masks --truth s3://lake/truth/panoptic.json --output s3://lake/evaluation": (
            "PQ against COCO panoptic, with a page to look at"
        ),
        "masklake evaluate --table masks --truth label-maps/ --labels names.txt --ignore-index 0,255": "mIoU against label maps",
        "masklake evaluate --table s3://lake/masks --truth instances.json --categories names.yaml --where \"dt >= '2026-11-01'\"": (
            "AP of this month's images, where ground truth and model call some classes differently"
        ),
    },
    rules=_RULES,
    interrupted="interrupted; nothing was changed",
)
