"""Every setting, once: a flag, an environment variable and a YAML key from one validated schema.

`SegmentConfig` changes answers and is part of the fingerprint; `RunConfig` says where and how the work is done and is not.
Precedence: flag, then environment variable (`MASKLAKE_...`), then YAML key, then default.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from masklake.errors import Refused
from masklake.schema import PARTITIONABLE, SEGMENT, TABLE, Task

ENV_PREFIX = "MASKLAKE_"


def _split(value: object) -> object:
    """Accept `a,b` wherever a list is meant."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(value) if isinstance(value, list) else value


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("names something twice")
    return names


def _at_least_one(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise ValueError("names nothing")
    return names


def _known_resolution(value: str) -> str:
    if not re.fullmatch(r"checkpoint|reference|[1-9]\d*x[1-9]\d*|[1-9]\d*/[1-9]\d*", value):
        raise ValueError("must be 'checkpoint', 'reference', HEIGHTxWIDTH such as 384x384, or SHORT/LONG such as 800/1333")
    return value


def _column_name(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name in TABLE.names and name not in PARTITIONABLE:
            raise ValueError(f"cannot partition by the column {name!r}; of the table's own columns, use {', '.join(sorted(PARTITIONABLE))}")
        if not re.fullmatch(r"\w+", name):
            raise ValueError(f"{name!r} is not a column name: use letters, digits and '_'")
    return names


def _carried_name(names: tuple[str, ...]) -> tuple[str, ...]:
    if len({name.lower() for name in names}) < len(names):
        raise ValueError("names something twice, but for upper and lower case")
    for name in names:
        if name.lower() in (*TABLE.names, *(field.name for field in SEGMENT)):
            raise ValueError(f"{name!r} is a column of the table, or of its segments, already: give the input's another name")
        if not re.fullmatch(r"\w+", name):
            raise ValueError(f"{name!r} is not a column name: use letters, digits and '_'")
    return names


_COLUMN = r"^[^&=]+$"  # it becomes part of image URIs
_AGO = re.compile(r"(\d+)([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def time_of(text: str, now: datetime) -> datetime:
    """The time that `--since` names, in UTC where it names no zone.

    Raises:
        ValueError: it names none.
    """
    ago = _AGO.fullmatch(text)
    if ago:
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _known_time(text: str | None) -> str | None:
    if text is not None:
        try:
            time_of(text, datetime.now(UTC))
        except (ValueError, OverflowError):
            raise ValueError("must be a time such as 2026-11-22 or 2026-11-22T10:00:00Z, or a span such as 30m, 24h or 7d") from None
    return text


Names = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_distinct)]
Tasks = Annotated[tuple[Task, ...], BeforeValidator(_split), AfterValidator(_at_least_one), AfterValidator(_distinct)]
Share = Annotated[float, Field(ge=0, le=1)]


class SegmentConfig(BaseModel):
    """What is asked of which model: everything here changes answers."""

    model_config = ConfigDict(frozen=True)

    model: str = Field(
        min_length=1, description="hub id with optional @revision, or a folder (local or in object storage) with a checkpoint"
    )
    tasks: Tasks = Field((Task.PANOPTIC,), description="one or more of panoptic, instance, semantic, separated by commas")
    resolution: Annotated[str, AfterValidator(_known_resolution)] = Field(
        "checkpoint", description="model input size: checkpoint, reference (the published test size), HEIGHTxWIDTH or SHORT/LONG"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="arithmetic of the forward pass; post-processing is always float32. auto: bfloat16 on GPUs, float32 without"
    )
    postprocess: Literal["exact", "hf"] = Field("exact", description="exact: the original algorithms; hf: transformers' own, to compare")
    object_threshold: Share | None = Field(None, description="panoptic: keep queries that score above this (default: the original's)")
    overlap_threshold: Share | None = Field(
        None, description="panoptic: drop segments of which less than this stays visible (default: the original's)"
    )
    score_threshold: Share | None = Field(None, description="instance: drop objects that score below this (default: keep all)")
    max_instances: int = Field(100, ge=1, description="instance: keep at most so many objects an image")
    thing_labels: Names | None = Field(None, description="labels that are things, where the checkpoint's are not known")
    max_pixels: int = Field(100_000_000, ge=1, description="refuse images with more pixels, before they are decoded")
    max_image_bytes: int = Field(268_435_456, ge=1, description="refuse larger files, before they are read")


class RunConfig(BaseModel):
    """Where the work is, and how it is done: nothing here changes an answer."""

    model_config = ConfigDict(frozen=True)

    input: str = Field(
        min_length=1,
        description="images: a prefix, a glob, tar shards, a Parquet manifest with a `uri` column, an S3 Inventory's manifest.json, or, "
        "with --bytes-column, Parquet files or a Delta table (s3://, file://, a path)",
    )
    bytes_column: str | None = Field(None, pattern=_COLUMN, description="the input is a table with the images' bytes in this column")
    key_column: str | None = Field(None, pattern=_COLUMN, description="with --bytes-column: names the rows (default: they are numbered)")
    since: Annotated[str | None, AfterValidator(_known_time)] = Field(
        None, description="only objects modified at or after this time (2026-11-22, 2026-11-22T10:00Z), or so long ago (30m, 24h, 7d)"
    )
    where: str | None = Field(
        None,
        min_length=1,
        description="only images of which this SQL condition is true: on image_uri, image_bytes, image_modified and the hive-style keys",
    )
    output: str = Field(min_length=1, description="the table's folder (s3://, file://, a path); made on the first run")
    partition_by: Annotated[Names, AfterValidator(_column_name)] = Field(
        ("task",), description="columns that partition the table, among them hive-style keys of the input path, such as dt"
    )
    carry: Annotated[Names, AfterValidator(_carried_name)] = Field(
        (),
        description="columns of a manifest or a table of images, or hive-style keys of the path, that go along into the table: text, "
        "64-bit whole or floating-point numbers, booleans, dates, times (microseconds, UTC), as they are; keys of the path are text",
    )
    on_overlap: Literal["takeover", "wait", "skip"] = Field(
        "takeover",
        description="where another run on the same or overlapping input is alive: take over from it, wait until it is over, or do nothing",
    )
    lease_seconds: float = Field(
        30.0, ge=10, description="wait, skip: another run is dead when it has shown no sign of life for so long; it gives one every 3 s"
    )
    limit: int | None = Field(None, ge=1, description="process at most so many images in this run")
    dry_run: bool = Field(False, description="print the plan and start nothing")
    retry_errors: bool = Field(False, description="process images again whose rows are errors")
    max_error_rate: Share = Field(0.5, description="exit with code 3 where more than this share of the run's images failed")
    batch_size: int | None = Field(None, ge=1, description="images per forward pass (default: chosen by device and input size)")
    compile: bool = Field(
        False, description="compile the model with torch.compile: a faster forward after a slow start, for long runs at few input sizes"
    )
    actors: int | None = Field(None, ge=1, description="model actors (default: one per GPU; without GPUs, one per CPU)")
    gpus_per_actor: float | None = Field(None, ge=0, description="GPUs of an actor (default: 1 where the cluster has GPUs, else 0)")
    cpus_per_actor: float | None = Field(None, gt=0, description="CPUs, and so threads, of an actor (default: 1; 0.5 without GPUs)")
    rows_per_file: int | None = Field(
        None, ge=1, description="rows per Parquet file before partitioning (default: 64 to 1024 by the size of the run)"
    )
    commit_seconds: float = Field(5.0, gt=0, description="commit what is finished this often")
    gallery_images: int = Field(24, ge=0, description="images sampled into the HTML gallery")
    ray_address: str | None = Field(None, description="Ray cluster (default: the submitted job's own, else a local Ray)")


class Config(SegmentConfig, RunConfig):
    """All settings of `masklake segment`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="after")
    def _key_of_a_table(self) -> Config:
        if self.key_column == "row":
            raise ValueError("--key-column row: rows without a key are called so by their number; give the column another name")
        if self.key_column is not None and self.bytes_column is None:
            raise ValueError(f"--key-column {self.key_column} names the rows of a table of images: say --bytes-column as well")
        return self

    @model_validator(mode="after")
    def _carried_once(self) -> Config:
        partitions = {name.lower() for name in self.partition_by}
        if twice := [name for name in self.carry if name.lower() in partitions]:
            raise ValueError(f"--carry {twice[0]}: it is in --partition-by, and so a column of the table already: leave it out of one")
        return self

    @model_validator(mode="after")
    def _table_apart_from_images(self) -> Config:
        if self.output.rstrip("/") == self.input.rstrip("/"):
            raise ValueError("input and output are the same folder: give the table a folder of its own")
        return self


@dataclass(frozen=True)
class Program:
    """A job's command line: its settings, in titled groups, and what `--help` says around them."""

    name: str
    settings: type[BaseModel]
    groups: Mapping[str, type[BaseModel]]
    """Title -> the model whose fields are the group's flags."""
    description: str
    epilog: str
    laid_out: bool = False
    """Whether description and epilog are lines as they shall be shown, and not paragraphs."""


def load(argv: Sequence[str], prog: str) -> Config:
    """Resolve the settings of one run of `masklake segment`; see `resolve`."""
    config = resolve(argv, replace(_SEGMENT, name=prog))
    assert isinstance(config, Config)
    return config


def resolve(argv: Sequence[str], program: Program) -> BaseModel:
    """The settings of one run, as an instance of `program.settings`: flags, then environment, then YAML, then defaults.

    Raises:
        Refused: a setting is missing or wrong; the message names it, its value, where it came from and what would be right.
        SystemExit: `--help` was asked for (code 0), or a flag is unknown (code 2).
    """
    fields = program.settings.model_fields
    flags = vars(_parser(program).parse_args(argv))
    file = flags.pop("config", None)
    return checked(program, {f"in {file}": _read_yaml(file), "in the environment": _environment(fields), "on the command line": flags})


def checked(program: Program, sources: Mapping[str, Mapping[str, Any]]) -> BaseModel:
    """The settings of one run from what each source says, a later one before an earlier one; the sources' names are what messages say.

    Raises:
        Refused: as `resolve`.
    """
    merged = {name: value for source in sources.values() for name, value in source.items()}
    try:
        return program.settings(**merged)
    except ValidationError as error:
        raise Refused("\n".join(_explain(item, sources, program.settings.model_fields) for item in error.errors())) from None


def _environment(fields: Mapping[str, FieldInfo]) -> dict[str, str]:
    values = {name: os.environ.get(ENV_PREFIX + name.upper()) for name in fields}
    return {name: value for name, value in values.items() if value}


def _read_yaml(file: str | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise Refused(f"--config {file}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refused(f"--config {file}: is not YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise Refused(f"--config {file}: must hold settings as `name: value` lines, not a {type(content).__name__}")
    return {str(name).replace("-", "_"): value for name, value in content.items()}


def _explain(item: ErrorDetails, sources: Mapping[str, Mapping[str, Any]], fields: Mapping[str, FieldInfo]) -> str:
    """One sentence: the setting, its value, where that came from, and what would be right."""
    message = item["msg"].removeprefix("Value error, ")
    if not item["loc"]:
        return message
    name = str(item["loc"][0])
    flag = "--" + name.replace("_", "-")
    where = next((place for place in reversed(list(sources)) if name in sources[place]), "")
    if item["type"] == "missing":
        return f"{flag} is missing: {fields[name].description}"
    if item["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, fields, 1)
        return f"{name!r} {where} is not a setting" + (f": did you mean {close[0]!r}?" if close else "; `--help` lists them")
    given = sources[where][name] if where else item["input"]
    return f"{flag} {given} ({where}): {message[0].lower()}{message[1:]}"


def _parser(program: Program) -> argparse.ArgumentParser:
    """The schema as command-line flags; values stay text, validation is the schema's."""
    parser = argparse.ArgumentParser(
        prog=program.name,
        description=program.description,
        epilog=program.epilog,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter if program.laid_out else argparse.HelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file of settings; flags and environment variables override it")
    for title, model in program.groups.items():
        group = parser.add_argument_group(title)
        for name, field in model.model_fields.items():
            _add_flag(group, name, field)
    return parser


def _add_flag(group: argparse._ArgumentGroup, name: str, field: FieldInfo) -> None:
    flag, text = "--" + name.replace("_", "-"), field.description or ""
    if field.annotation is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
        return
    if field.is_required():
        text += " (required)"
    elif field.default not in (None, ()):
        default = field.default
        text += f" (default: {','.join(str(each) for each in default) if isinstance(default, tuple) else default})"
    choices = [value for value in get_args(field.annotation) if isinstance(value, str)]
    metavar = "|".join(choices) if choices else name.rsplit("_", maxsplit=1)[-1].upper()
    group.add_argument(flag, metavar=metavar, help=text.replace("%", "%%"))


_SEGMENT = Program(
    "masklake segment",
    Config,
    {"the run": RunConfig, "the answer (part of the fingerprint: a change is new work)": SegmentConfig},
    "Turn a lake of images into a table of segmentation masks. Run it again to process only what is missing.",
    f"Every setting is also a YAML key (--config) and an environment variable ({ENV_PREFIX}INPUT, {ENV_PREFIX}BATCH_SIZE, ...). "
    "Exit codes: 0 done, 1 failed, 2 refused (nothing was started), 3 too many failed images, 4 a newer run took over.",
)
