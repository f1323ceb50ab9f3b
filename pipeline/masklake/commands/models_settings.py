"""What `masklake models` is asked for."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from masklake.config import Also, OneTask, Program, Shown


class ModelsConfig(BaseModel):
    """All settings of `masklake models`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: OneTask | None = Field(None, description="checkpoints that answer this task: panoptic, instance or semantic")
    dataset: Annotated[str | None, Shown("DATASET")] = Field(
        None, min_length=1, description="checkpoints with the classes of this dataset, such as COCO, ADE20K, Cityscapes"
    )
    only_json: Annotated[bool, Also("json")] = Field(False, description="only the JSON line, with every size and the source of each figure")


PROGRAM = Program(
    "masklake models",
    ModelsConfig,
    {"which": ModelsConfig},
    about="List the released checkpoints of the Hugging Face hub that work: what each was trained for, on which classes, how good it "
    "is by its authors, its licence, size and input, and images a second where these were measured. A star stands for sizes and backbones.",
    examples={
        "masklake models": "all of them",
        "masklake models --task instance --dataset coco": "those that find COCO's objects",
        "masklake models --dataset cityscapes --json": "those for streets, for a program",
    },
    exit_codes="0 listed, 2 refused (nothing is such a checkpoint)",
)
