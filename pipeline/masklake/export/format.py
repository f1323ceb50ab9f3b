"""What a format of export owes: its name, its help, the answers it can hold, the files it writes, and the writing of them.

A new format is one module in `masklake.export.formats` and its line in `FORMATS`. What these modules import at their top is little, so
that `--help` is quick; what writing needs they import when they write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masklake.tasks import Task

if TYPE_CHECKING:
    from masklake.export.official import Official
    from masklake.export.selection import Selection
    from masklake.export.settings import ExportConfig
    from masklake.table.read import MaskTable


@dataclass(frozen=True)
class Written:
    """What an export wrote: how many segments, and their labels."""

    segments: int
    labels: frozenset[str]
    iou: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Of each label, how well polygons stand for masks, where the format has polygons."""
    remarks: tuple[str, ...] = ()
    """What the user should know, a sentence each."""


@dataclass(frozen=True)
class Job:
    """What a format is given to write. `output` is a folder's URI that ends in a slash, `scratch` an empty folder of this machine."""

    selection: Selection
    table: MaskTable
    settings: ExportConfig
    output: str
    scratch: Path
    info: Mapping[str, Any]
    """What COCO's files say of where they come from."""
    official: Official | None = None
    """Whose ids are written, where not the table's own."""


@dataclass(frozen=True)
class Format:
    """One format of export."""

    name: str
    about: str
    """A line of `--help`: its files, and what is in them."""
    tasks: tuple[Task, ...]
    """Whose answers it can hold, the first by default; none: those of all tasks at once."""
    complete: tuple[str, ...]
    """Files that make an export look complete: written last, deleted first. Relative to the output."""
    files: str
    """A regular expression for the names of its other files."""
    write: Callable[[Job], Written]
    numbered: bool = True
    """Whether it needs numbers of the images."""
    named_files: bool = False
    """Whether it writes a file named after each image."""
    background: bool = True
    """Whether segments labelled "background" are written without being asked for: no object of anybody's is one."""
    polygons: bool = False
    """Whether masks become polygons, which --simplify is for."""
    copies: bool = False
    """Whether it has a place for the images themselves, which --copy-images is for."""
