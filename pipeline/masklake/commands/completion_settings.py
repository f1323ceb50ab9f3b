"""What a completion is asked for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from masklake.config import Positional, Program


class CompletionConfig(BaseModel):
    """All settings of `masklake completion`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shell: Annotated[Literal["bash", "zsh"], Positional()] = Field(description="which shell's script to print")


PROGRAM = Program(
    "masklake completion",
    CompletionConfig,
    {"the shell": CompletionConfig},
    about="Print a script that completes masklake's commands, flags and values in a shell.",
    examples={
        "source <(masklake completion bash)": "in this bash; in ~/.bashrc, in every one",
        "masklake completion bash > ~/.local/share/bash-completion/completions/masklake": "in every bash that has bash-completion",
        "masklake completion zsh > ~/.zfunc/_masklake": "in every zsh that has ~/.zfunc in its fpath before compinit is called",
    },
    exit_codes="0 printed, 2 refused",
    prints_summary=False,
)
