"""What a conversion is asked for."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from masklake.config import Model, Positional, Program, Uri


class ConvertConfig(BaseModel):
    """The checkpoint, and where it goes."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: Annotated[Model, Positional()] = Field(
        description="hub id with optional @revision, or a folder (local or in object storage) with a checkpoint"
    )
    output: Uri = Field(description="folder of the new checkpoint, empty or not there yet (s3://, file://, a path)")


PROGRAM = Program(
    "masklake convert",
    ConvertConfig,
    {"the conversion": ConvertConfig},
    about="Make a checkpoint into a folder of its own, for clusters without internet and for models whose weights are pickled: "
    "safetensors, configuration, preprocessor settings, tokenizer and card. What `segment` does by itself is done for good.",
    examples={
        "masklake convert shi-labs/oneformer_coco_swin_large --output s3://lake/models/oneformer": "a model of the hub",
        "masklake convert ./downloaded --output ./converted": "a folder with pytorch_model.bin",
        "masklake convert s3://lake/models/old --output s3://lake/models/new": "a folder in object storage",
    },
    rules="Pickled weights are read by torch's restricted reader, in a process of its own: tensors are taken, nothing is run.",
    interrupted="interrupted; a folder without config.json is not a checkpoint yet, delete it and run the same command again",
    needs=("run",),
)
