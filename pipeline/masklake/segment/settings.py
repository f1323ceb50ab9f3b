"""What a run is asked for: every setting once, as a flag, an environment variable and a YAML key.

`SegmentConfig` changes answers and is part of the fingerprint; `RunConfig` says where and how the work is done and is not.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from masklake.config import Condition, Counts, Model, Names, Program, Share, Shown, Tasks, Time, Uri
from masklake.inference.forwards import Forward
from masklake.tasks import Task


def _unless_auto(value: object) -> object:
    return None if value == "auto" else value


def _known_resolution(value: str) -> str:
    if not re.fullmatch(r"checkpoint|reference|[1-9]\d*x[1-9]\d*|[1-9]\d*/[1-9]\d*", value):
        raise ValueError("must be 'checkpoint', 'reference', HEIGHTxWIDTH such as 384x384, or SHORT/LONG such as 800/1333")
    return value


def _column_name(names: tuple[str, ...]) -> tuple[str, ...]:
    from masklake.schema import PARTITIONABLE, TABLE  # Arrow, which --help does without

    for name in names:
        if name in TABLE.names and name not in PARTITIONABLE:
            raise ValueError(f"cannot partition by the column {name!r}; of the table's own columns, use {', '.join(sorted(PARTITIONABLE))}")
        if not re.fullmatch(r"\w+", name):
            raise ValueError(f"{name!r} is not a column name: use letters, digits and '_'")
    return names


def _carried_name(names: tuple[str, ...]) -> tuple[str, ...]:
    from masklake.schema import SEGMENT, TABLE

    if len({name.lower() for name in names}) < len(names):
        raise ValueError("lists a name twice (upper and lower case count as the same)")
    for name in names:
        if name.lower() in (*TABLE.names, *(field.name for field in SEGMENT)):
            raise ValueError(f"{name!r} is a column of the table, or of its segments, already: give the input's another name")
        if not re.fullmatch(r"\w+", name):
            raise ValueError(f"{name!r} is not a column name: use letters, digits and '_'")
    return names


def _patterns(value: object) -> object:
    """Accept several patterns with commas between them, but for commas in braces."""
    if not isinstance(value, str):
        return tuple(value) if isinstance(value, list) else value
    parts, depth = [""], 0
    for letter in value:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return tuple(part.strip() for part in parts if part.strip())


def _told_apart(names: tuple[str, ...]) -> tuple[str, ...]:
    """In one spelling of spaces; a text encoder of SAM 3's kind does not see upper and lower case."""
    tidy = tuple(" ".join(name.split()) for name in names)
    for name in tidy:
        if [other.lower() for other in tidy].count(name.lower()) > 1:
            raise ValueError(f"{name!r} is listed twice (upper and lower case count as the same)")
    return tidy


Concepts = Annotated[Names, AfterValidator(_told_apart)]

Patterns = Annotated[tuple[str, ...], BeforeValidator(_patterns)]

Device = Literal["auto", "cpu", "cuda", "mps"]
"""Where a model runs."""

PLACES = ("input", "output", "model")
Profile = Annotated[str, Field(min_length=1), Shown("PROFILE")]
Endpoint = Annotated[str, Field(pattern=r"^https?://[^@/\s]+/?$"), Shown("URL")]
_COLUMN = r"^[^&=]+$"  # it becomes part of image URIs


class SegmentConfig(BaseModel):
    """What is asked of which model: everything here changes answers."""

    model_config = ConfigDict(frozen=True)

    model: Model = Field(description="hub id with optional @revision, or a folder (local or in object storage) with a checkpoint")
    tasks: Tasks = Field((Task.PANOPTIC,), description="one or more of panoptic, instance, semantic, separated by commas")
    resolution: Annotated[str, AfterValidator(_known_resolution), Shown("SIZE")] = Field(
        "checkpoint", description="model input size: checkpoint, reference (the published test size), HEIGHTxWIDTH or SHORT/LONG"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="arithmetic of the forward pass; post-processing is always float32. auto: bfloat16 on GPUs, float32 without"
    )
    postprocess: Literal["exact", "hf"] = Field("exact", description="exact: the original algorithms; hf: transformers' own, to compare")
    decode: Literal["exact", "fast"] = Field(
        "exact",
        description="fast: a JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that is still twice the model's input on each side",
    )
    object_threshold: Annotated[Share | None, Shown("SCORE")] = Field(
        None, description="panoptic: keep queries that score above this (default: the original's)"
    )
    overlap_threshold: Share | None = Field(
        None, description="panoptic: drop segments of which less than this stays visible (default: the original's)"
    )
    score_threshold: Annotated[Share | None, Shown("SCORE")] = Field(
        None, description="instance: drop objects that score below this (default: keep all)"
    )
    max_instances: Annotated[int, Shown("OBJECTS")] = Field(100, ge=1, description="instance: keep at most this many objects per image")
    thing_labels: Annotated[Names | None, Shown("LABEL")] = Field(
        None, description="labels that are things, where the checkpoint's are not known"
    )
    concepts: Annotated[Concepts | None, Shown("CONCEPT")] = Field(
        None, description="what to look for, where the model must be told (facebook/sam3): short noun phrases, separated by commas"
    )
    labels: Annotated[str | None, Shown("FILE")] = Field(
        None, min_length=1, description="id and name of each class (JSON, YAML, CSV, text), where the checkpoint names none"
    )
    max_pixels: Annotated[int, Shown("PIXELS")] = Field(
        100_000_000, ge=1, description="refuse images with more pixels, before they are decoded"
    )
    max_image_bytes: Annotated[int, Shown("BYTES")] = Field(268_435_456, ge=1, description="refuse larger files, before they are read")


class RunConfig(BaseModel):
    """Where the work is, and how it is done: nothing here changes an answer."""

    model_config = ConfigDict(frozen=True)

    input: Uri = Field(
        description="images: a prefix, a glob, tar shards, lists of images (Parquet, CSV, JSON lines, text), an S3 Inventory's "
        "manifest.json, or, with --bytes-column, Parquet files or a Delta table (s3://, file://, a path)",
    )
    bytes_column: Annotated[str | None, Shown("COLUMN")] = Field(
        None, pattern=_COLUMN, description="the input is a table with the images' bytes in this column"
    )
    key_column: Annotated[str | None, Shown("COLUMN")] = Field(
        None, pattern=_COLUMN, description="with --bytes-column: names the rows (default: they are numbered)"
    )
    uri_column: Annotated[str | None, Shown("COLUMN")] = Field(
        None,
        min_length=1,
        description="the input is a list, or lists, in which this column names the images (default: uri, url, path, ...)",
    )
    allow_location: Annotated[Names, Shown("PREFIX")] = Field(
        (),
        description="what a list, an inventory or a Delta table may name beside its own bucket, or a local one's own folder: "
        "prefixes such as s3://other/images, separated by commas",
    )
    since: Time | None = Field(
        None, description="only objects modified at or after this time (2026-11-22, 2026-11-22T10:00Z), or so long ago (30m, 24h, 7d)"
    )
    include: Annotated[Patterns, Shown("PATTERN")] = Field(
        (), description="only images of these names ('*.jpg'), or in these folders ('raw/*.{jpg,png}', 'raw/': all below any folder raw)"
    )
    exclude: Annotated[Patterns, Shown("PATTERN")] = Field((), description="all but images of these names, or in these folders")
    allow_empty: bool = Field(False, description="an input without any image is nothing to do; without this it is refused, as a mistake")
    where: Condition | None = Field(
        None,
        description="only images of which this SQL condition is true: on image_uri, image_bytes, image_modified and the hive-style keys",
    )
    output: Annotated[str, Shown("URI")] = Field(
        description="the table's folder (s3://, file://, a path); made on the first run; --preview does without"
    )
    partition_by: Annotated[Names, AfterValidator(_column_name), Shown("COLUMN")] = Field(
        ("task",), description="columns that partition the table, among them hive-style keys of the input path, such as dt"
    )
    carry: Annotated[Names, AfterValidator(_carried_name), Shown("COLUMN")] = Field(
        (),
        description="columns of a list or a table of images, or hive-style keys of the path, that go along into the table: text, "
        "64-bit whole or floating-point numbers, booleans, dates, times (microseconds, UTC), as they are; keys of the path are text",
    )
    on_overlap: Literal["takeover", "wait", "skip"] = Field(
        "takeover",
        description="where another run on the same or overlapping input is alive: take over from it, wait until it is over, or do nothing",
    )
    lease_seconds: Annotated[float, Shown("SECONDS")] = Field(
        30.0, ge=10, description="wait, skip: another run counts as dead when it has not responded for this long (runs respond every 3 s)"
    )
    limit: Annotated[int | None, Shown("IMAGES")] = Field(None, ge=1, description="process at most this many images in this run")
    dry_run: bool = Field(False, description="print the plan and start nothing")
    preview: Annotated[int | None, Shown("IMAGES")] = Field(
        None,
        ge=1,
        le=100,
        description="answer so many images, picked over the whole input, in this process and into no table: a page to look at, and what "
        "all images would take",
    )
    preview_seed: Annotated[int, Shown("SEED")] = Field(0, description="with --preview: another number picks other images")
    preview_to: Annotated[str | None, Shown("FOLDER")] = Field(
        None, min_length=1, description="with --preview: where the page goes (default: a folder for temporary files)"
    )
    retry_errors: bool = Field(False, description="process images again whose rows are errors")
    max_error_rate: Share = Field(0.5, description="exit with code 3 where more than this share of the run's images failed")
    max_decode_seconds: Annotated[float, Shown("SECONDS")] = Field(
        120.0, gt=0, description="an image that takes more CPU to decode is an error (too_slow); --retry-errors does it again"
    )
    batch_size: Annotated[int | None, Shown("IMAGES")] = Field(
        None, ge=1, description="images per forward pass (default: chosen by device and input size)"
    )
    forward: Forward = Field(
        "auto",
        description="how the model runs; auto: graphs on GPUs, else eager; graphs: from CUDA graphs, since a GPU's kernels often take "
        "longer to start than to run; compiled: by torch.compile, a faster forward after a slow start, for long runs at few input sizes; "
        "openvino: on CPUs in float32, converted once for each input size and kept on disk (extra openvino)",
    )
    device: Device = Field(
        "auto",
        description="where the model runs; auto: cuda (NVIDIA) where the cluster has GPUs, else cpu. mps: a Mac's GPU, on one machine",
    )
    actors: Annotated[Counts | None, Shown("N|MIN:MAX")] = Field(
        None,
        description="model actors; MIN:MAX: the run starts with MIN and grows as nodes join (default: one per GPU; without, one per CPU)",
    )
    gpus_per_actor: Annotated[float | None, Shown("GPUS")] = Field(
        None, ge=0, description="GPUs of an actor, or a share of one (default: 1 where the cluster has GPUs, else 0)"
    )
    cpus_per_actor: Annotated[float | None, Shown("CPUS")] = Field(
        None, gt=0, description="CPUs, and so threads, of an actor (default: 1; 0.5 without GPUs)"
    )
    wait_for_nodes: Annotated[float | None, Shown("SECONDS")] = Field(
        None,
        ge=0,
        description="wait this long for nodes that hold the actors (default: an hour where an autoscaler is there, else 5 minutes)",
    )
    stall_minutes: Annotated[float, Shown("MINUTES")] = Field(
        30.0, gt=0, description="end the run, with exit code 5 and a diagnosis, when nothing has happened for this long"
    )
    rows_per_file: Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(_unless_auto), Shown("ROWS")] = Field(
        None,
        description="rows per Parquet file before partitioning; auto: a file is written at 64 MB, or when its first rows have waited "
        "--commit-seconds, later a sixteenth of the run's time, up to a minute (default: auto)",
    )
    commit_seconds: Annotated[float, Shown("SECONDS")] = Field(5.0, gt=0, description="commit what is finished this often")
    price_per_hour: Annotated[float | None, Shown("PRICE")] = Field(
        None, ge=0, description="what the run's machines cost an hour, all together: the report and --dry-run then say what images cost"
    )
    notify: Annotated[str | None, Shown("URL", secret=True)] = Field(
        None,
        pattern=r"^https?://[^@/\s]+(/\S*)?$",
        description="post a JSON document there when the run ends, however it ends; where that fails, the run ends all the same",
    )
    gallery_images: Annotated[int, Shown("IMAGES")] = Field(24, ge=0, description="images sampled into the HTML gallery")
    ray_address: Annotated[str | None, Shown("ADDRESS")] = Field(
        None, description="Ray cluster (default: the submitted job's own, else a local Ray)"
    )
    local: bool | None = Field(
        None,
        description="do all work in this process, without Ray; --no-local: always on Ray (default: here where it would take less time "
        "than starting Ray is worth, and no cluster is named)",
    )


class StoresConfig(BaseModel):
    """How the places of a run are reached, where that is not as the environment has it."""

    model_config = ConfigDict(frozen=True)

    input_profile: Profile | None = Field(None, description="AWS profile for --input: its keys, region, endpoint and certificates")
    input_endpoint: Endpoint | None = Field(None, description="S3 endpoint for --input")
    input_anonymous: bool = Field(False, description="--input is a public bucket: requests are not signed")
    input_requester_pays: bool = Field(False, description="the bucket of --input charges who reads: agree to pay")
    output_profile: Profile | None = Field(None, description="AWS profile for --output")
    output_endpoint: Endpoint | None = Field(None, description="S3 endpoint for --output")
    output_anonymous: bool = Field(False, description="--output takes requests that are not signed")
    output_requester_pays: bool = Field(False, description="the bucket of --output charges who reads: agree to pay")
    model_profile: Profile | None = Field(None, description="AWS profile for a --model in object storage")
    model_endpoint: Endpoint | None = Field(None, description="S3 endpoint for a --model in object storage")
    model_anonymous: bool = Field(False, description="the --model is in a public bucket: requests are not signed")
    model_requester_pays: bool = Field(False, description="the bucket of --model charges who reads: agree to pay")

    @model_validator(mode="after")
    def _one_identity(self) -> StoresConfig:
        for place in PLACES:
            if getattr(self, f"{place}_anonymous") and (profile := getattr(self, f"{place}_profile")):
                raise ValueError(f"--{place}-anonymous and --{place}-profile {profile}: requests are signed by the profile or not at all")
        return self


class Config(SegmentConfig, RunConfig, StoresConfig):
    """All settings of `masklake segment`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _preview_needs_no_table(cls, given: Any) -> Any:
        return {"output": "", **given} if isinstance(given, dict) and given.get("preview") else given

    @model_validator(mode="after")
    def _preview_alone(self) -> Config:
        if self.preview is None:
            if not self.output:
                raise ValueError("--output is empty: name the table's folder")
            if self.preview_to is not None:
                raise ValueError(f"--preview-to {self.preview_to}: say how many images to look at, as in --preview 12")
        elif self.dry_run:
            raise ValueError(f"--dry-run and --preview {self.preview}: one starts nothing, the other a model: leave one of them out")
        return self

    @model_validator(mode="after")
    def _key_of_a_table(self) -> Config:
        if self.key_column == "row":
            raise ValueError("--key-column row: rows without a key are called so by their number; give the column another name")
        if self.key_column is not None and self.bytes_column is None:
            raise ValueError(f"--key-column {self.key_column} names the rows of a table of images: say --bytes-column as well")
        if self.uri_column is not None and self.bytes_column is not None:
            raise ValueError(
                f"--uri-column {self.uri_column}: with --bytes-column the images are in the table itself: leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _device_fits(self) -> Config:
        gpus = self.gpus_per_actor
        if gpus is not None and self.device != "auto" and (gpus > 0) != (self.device == "cuda"):
            cure = "leave it out" if self.device == "cuda" else "it is for --device cuda"
            raise ValueError(f"--device {self.device} and --gpus-per-actor {gpus:g} contradict each other: {cure}")
        return self

    @model_validator(mode="after")
    def _local_alone(self) -> Config:
        of_ray = {name: getattr(self, name) for name in ("ray_address", "actors", "cpus_per_actor", "gpus_per_actor")}
        for name, value in of_ray.items():
            if self.local and value is not None:
                flag = f"--{name.replace('_', '-')} {value:g}" if isinstance(value, float) else f"--{name.replace('_', '-')} {value}"
                raise ValueError(f"--local and {flag}: without Ray there is one model, which has the whole machine: leave one of them out")
        return self

    @model_validator(mode="after")
    def _whole_gpus(self) -> Config:
        if (gpus := self.gpus_per_actor) and gpus > 1 and gpus != int(gpus):
            raise ValueError(f"--gpus-per-actor {gpus:g}: must be a whole number, or a share of one GPU below 1")
        return self

    @model_validator(mode="after")
    def _carried_once(self) -> Config:
        partitions = {name.lower() for name in self.partition_by}
        if twice := [name for name in self.carry if name.lower() in partitions]:
            raise ValueError(f"--carry {twice[0]}: it is in --partition-by, and so a column of the table already: leave it out of one")
        return self


PROGRAM = Program(
    "masklake segment",
    Config,
    {
        "the run": RunConfig,
        "the answer (part of the fingerprint: a change is new work)": SegmentConfig,
        "stores that are reached otherwise than the environment says": StoresConfig,
    },
    about="Turn a lake of images into a table of segmentation masks. Run it again to process only what is missing.",
    examples={
        "masklake segment --input s3://lake/images/ --output s3://lake/masks "
        "--model facebook/mask2former-swin-tiny-coco-panoptic --dry-run": "what would be done: images, bytes, how many are done already",
        "masklake segment --input s3://lake/images/ --model facebook/mask2former-swin-tiny-coco-panoptic --preview 12": "a dozen images "
        "answered at once, on a page, and what all of them would take",
        "masklake segment --input photos/ --output masks "
        "--model nvidia/segformer-b0-finetuned-ade-512-512 --tasks semantic": "a folder of photographs, one label for each pixel",
        "masklake segment --input photos/ --output masks --model facebook/sam3 --concepts 'person,yellow school bus' "
        "--tasks instance": "what is asked for by name",
        "masklake segment --config jobs/settings/nightly.yaml --since 48h": "every night, with settings in a file",
    },
    exit_codes="0 done, 1 failed, 2 refused (nothing was started), 3 too many failed images, 4 a newer run took over, 5 nothing happened "
    "any more (--stall-minutes, --wait-for-nodes), 130 or 143 stopped",
    needs=("run",),
)
