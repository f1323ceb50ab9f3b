"""What a conversion is asked for."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from masklake.config import Folder, Positional, Program, Shown, Texts


class ConvertConfig(BaseModel):
    """The checkpoint, and where it goes."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: Annotated[Texts, Positional(), Shown("MODEL")] = Field(
        (), description="hub id with optional @revision, or a folder (local or in object storage) with a checkpoint"
    )
    output: Folder = Field(description="folder of the new checkpoint, empty or not there yet (s3://, file://, a path)")

    @property
    def source(self) -> str:
        """The one model."""
        return self.model[0]

    @model_validator(mode="after")
    def _one_model(self) -> ConvertConfig:
        if len(self.model) != 1:
            raise ValueError("name one model: a hub id such as shi-labs/oneformer_coco_swin_large, or a folder")
        return self


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
    interrupted="interrupted; a folder without config.json is no checkpoint yet, delete it and run the same command again",
    needs=("run",),
)
