"""What a demonstration is asked for."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from masklake.config import Folder, Program, Shown


class DemoConfig(BaseModel):
    """All settings of `masklake demo`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: Folder = Field("demo-out", description="local folder for the pictures, the evaluation, the report and the table")
    scenes: Annotated[int, Shown("SCENES")] = Field(200, ge=1, description="generated scenes; ten more arrive later")


PROGRAM = Program(
    "masklake demo",
    DemoConfig,
    {"the demonstration": DemoConfig},
    about="The whole job on an embedded S3 server that goes with it: generated scenes in, masks out, run three times, judged against the "
    "ground truth. Needs no network and no GPU.",
    examples={
        "masklake demo": "200 scenes; the gallery is demo-out/gallery.html",
        "masklake demo --scenes 20": "fewer of them, where a minute must do",
        "masklake demo --output /tmp/demo": "into another folder",
    },
    interrupted="interrupted; the server is stopped, and its data are gone",
    needs=("run", "demo"),
)
