"""How every command is set: one schema, of which each setting is a flag, an environment variable and a YAML key.

Needs pydantic, and yaml where a file is named: `--help` and refusals must be quick. Knows nothing of any command; these call `resolve`.
"""

from masklake.config.kinds import (
    Also,
    Condition,
    Counts,
    File,
    Folder,
    Model,
    Names,
    Numbers,
    OneTask,
    Pairs,
    Positional,
    Share,
    Shown,
    Tasks,
    Texts,
    Time,
    Uri,
    Verbatim,
    time_of,
)
from masklake.config.program import Program
from masklake.config.resolve import checked, resolve
from masklake.config.sources import ENV_PREFIX

__all__ = [
    "ENV_PREFIX",
    "Also",
    "Condition",
    "Counts",
    "File",
    "Folder",
    "Model",
    "Names",
    "Numbers",
    "OneTask",
    "Pairs",
    "Positional",
    "Program",
    "Share",
    "Shown",
    "Tasks",
    "Texts",
    "Time",
    "Uri",
    "Verbatim",
    "checked",
    "resolve",
    "time_of",
]
