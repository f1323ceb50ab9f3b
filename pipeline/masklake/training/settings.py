"""What a fine-tuning run is asked for: every setting once, as a flag, an environment variable and a YAML key."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from masklake.config import Condition, File, Folder, Model, OneTask, Program, Share, Shown, Uri
from masklake.config.extras import install
from masklake.table.settings import LISTS
from masklake.tasks import Task
from masklake.truth.settings import TruthConfig


def _known_size(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[1-9]\d*x[1-9]\d*", value):
        raise ValueError("must be HEIGHTxWIDTH such as 384x384")
    return value


WHOLE = (None, 0, 1)
"""What `gpus_per_worker` may be where there is no Ray to divide GPUs, or to give several."""

Size = Annotated[str | None, AfterValidator(_known_size), Shown("HEIGHTxWIDTH")]


class DataConfig(BaseModel):
    """What of the ground truth is learned from, and what is held out."""

    model_config = ConfigDict(frozen=True)

    task: OneTask = Field(Task.PANOPTIC, description="table: whose rows")
    where: Condition | None = Field(None, description="table: only rows that fit this SQL condition on its columns")
    uris: File | None = Field(None, description=f"table: only rows of the images in this list, for --truth alone: {LISTS}")
    min_score: Annotated[Share, Shown("SCORE")] = Field(0.0, description="table: only segments that score at least this")
    empty_classes: Literal["drop", "keep", "refuse"] = Field(
        "drop", description="a class without examples is left out of the model, kept in it without being learned, or refused"
    )
    bad_examples: Literal["refuse", "skip"] = Field(
        "refuse",
        description="an image or its ground truth that cannot be read, or that do not fit each other: end the run, or skip and count it",
    )
    empty_images: Literal["skip", "learn"] = Field(
        "skip", description="images without objects: leave them out of training, as Detectron2 does, or learn that nothing is there"
    )
    validation_truth: Uri | None = Field(None, description="as --truth, held out for validation (default: a share of --truth's images)")
    validation_images: Folder | None = Field(None, description="as --images, for --validation-truth (default: --images)")
    validation_masks: Folder | None = Field(None, description="as --masks, for --validation-truth")
    validation_share: Annotated[float, Shown("SHARE")] = Field(
        0.1, ge=0, lt=1, description="without --validation-truth: the share held out, by a hash of the URI; of few images one, unless 0"
    )


class SourceConfig(TruthConfig, DataConfig):
    """All that says what is learned from."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelConfig(BaseModel):
    """What learns."""

    model_config = ConfigDict(frozen=True)

    model: Model | None = Field(None, description="checkpoint to start from: hub id with optional @revision, or a folder")
    model_config_file: File | None = Field(
        None, description="instead of --model, from scratch: a config.json of transformers (Mask2Former, MaskFormer, OneFormer, SegFormer)"
    )
    backbone: Model | None = Field(
        None, description="with --model-config-file: checkpoint whose backbone weights are taken, of the architecture in the file"
    )
    tokenizer: Folder | None = Field(None, description="OneFormer from scratch: folder with a CLIP tokenizer")
    resolution: Annotated[Size, BeforeValidator(lambda value: None if value == "checkpoint" else value), Shown("SIZE")] = Field(
        None, description="model input size HEIGHTxWIDTH, or checkpoint (the default: the checkpoint's); needed from scratch"
    )
    crop: Size = Field(None, description="part of the resized image that is trained on at a time, HEIGHTxWIDTH (default: the input size)")


class LearningConfig(BaseModel):
    """How it learns."""

    model_config = ConfigDict(frozen=True)

    steps: Annotated[int, Shown("STEPS")] = Field(2000, ge=1, description="optimizer steps")
    batch_size: Annotated[int, Shown("IMAGES")] = Field(8, ge=1, description="images of a step, over all workers")
    micro_batch_size: Annotated[int | None, Shown("IMAGES")] = Field(
        None, ge=1, description="images of a forward pass (default: --batch-size over --workers); changes results, the workers do not"
    )
    rate: Annotated[float, Shown("RATE")] = Field(1e-4, gt=0, description="peak learning rate of AdamW")
    backbone_rate: Annotated[float, Shown("SHARE")] = Field(0.1, ge=0, description="the backbone's rate as a share of --rate")
    freeze_backbone: bool = Field(False, description="leave the backbone as it is")
    norm: Literal["auto", "frozen", "train"] = Field(
        "auto", description="batch normalisation of the backbone; auto: frozen where the backbone is pretrained"
    )
    schedule: Literal["poly", "cosine", "one-cycle", "constant"] = Field("poly", description="how the rate falls; poly: power 0.9")
    warmup_steps: Annotated[int, Shown("STEPS")] = Field(
        10, ge=0, description="steps in which the rate rises to its peak (one-cycle: at least a tenth of --steps)"
    )
    weight_decay: Annotated[float, Shown("DECAY")] = Field(0.05, ge=0, description="of weights; biases, norms and embeddings have none")
    clip: Annotated[float, Shown("NORM")] = Field(1.0, gt=0, description="largest norm of a step's gradient")
    class_weight: Annotated[float | None, Shown("WEIGHT")] = Field(
        None, ge=0, description="of the class loss; Mask2Former and OneFormer match by it as well (default: the model's configuration)"
    )
    no_object_weight: Annotated[float | None, Shown("WEIGHT")] = Field(
        None, gt=0, description='of "no object" in the class loss (default: the model\'s configuration; published: 0.1 with 100 queries)'
    )
    points: Annotated[int | None, Shown("POINTS")] = Field(
        None, ge=1, description="of a mask that the loss looks at (default: the model's configuration)"
    )
    flip: Share = Field(0.5, description="share of the images that are mirrored")
    scale_min: Annotated[float, Shown("FACTOR")] = Field(0.8, gt=0, description="smallest factor of the scale jitter")
    scale_max: Annotated[float, Shown("FACTOR")] = Field(1.25, gt=0, description="largest factor of the scale jitter; both 1: none")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="arithmetic of the forward pass; auto: bfloat16 on GPUs that have it, float32 elsewhere"
    )
    seed: Annotated[int, Shown("N")] = Field(0, ge=0, description="of new weights, the order, augmentation and sampled points")


class WorkConfig(BaseModel):
    """Where and on what it runs; nothing here changes what is learned."""

    model_config = ConfigDict(frozen=True)

    output: Uri = Field(description="folder of the new checkpoint and of the run's state (s3://, file://, a path)")
    validate_every: Annotated[int, Shown("STEPS")] = Field(200, ge=1, description="steps between validations")
    validation_images_most: Annotated[int, Shown("IMAGES")] = Field(
        500, ge=1, description="validate on at most this many of the held-out images"
    )
    save_every: Annotated[int, Shown("STEPS")] = Field(
        200, ge=1, description="steps between saved states, from which the same command goes on"
    )
    log_every: Annotated[int, Shown("STEPS")] = Field(20, ge=1, description="steps between lines of progress")
    tensorboard: Folder | None = Field(
        None, description="also log to TensorBoard: folder of its event files (needs the package tensorboard)"
    )
    mlflow: Annotated[str | None, Shown("EXPERIMENT")] = Field(
        None,
        min_length=1,
        description="also log to MLflow: name of the experiment, at MLFLOW_TRACKING_URI (needs the package mlflow or mlflow-skinny)",
    )
    workers: Annotated[int, Shown("WORKERS")] = Field(1, ge=1, description="processes that train together, each with a share of the batch")
    gpus_per_worker: Annotated[float | None, Shown("GPUS")] = Field(
        None, ge=0, description="GPUs of a worker (default: 1 where the cluster has GPUs, else 0)"
    )
    cpus_per_worker: Annotated[int | None, Shown("CPUS")] = Field(
        None, ge=1, description="CPUs, and so threads, of a worker (default: all but half a one, shared; 1 beside a GPU)"
    )
    ray_address: Annotated[str | None, Shown("ADDRESS")] = Field(
        None, description="Ray cluster (default: the submitted job's own, else a local Ray)"
    )
    local: bool | None = Field(
        None,
        description="train in this process, without Ray; --no-local: always on Ray (default: here with one worker and no cluster named)",
    )
    dry_run: bool = Field(False, description="print what would be trained, and start nothing")


class FinetuneConfig(SourceConfig, ModelConfig, LearningConfig, WorkConfig):
    """All settings of `masklake finetune`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @property
    def micro(self) -> int:
        """Images of a forward pass."""
        return self.micro_batch_size or max(1, self.batch_size // self.workers)

    @property
    def micros(self) -> int:
        """Forward passes of a step, over all workers."""
        return self.batch_size // self.micro

    @model_validator(mode="after")
    def _one_start(self) -> FinetuneConfig:
        if (self.model is None) == (self.model_config_file is None):
            raise ValueError("--model starts from a checkpoint, --model-config-file from scratch: give one of them")
        if self.model is not None and (self.backbone or self.tokenizer):
            raise ValueError("--backbone and --tokenizer go with --model-config-file: a checkpoint has its own")
        if self.model is None and self.resolution is None:
            raise ValueError("--resolution is missing: from scratch there is no input size to take over, give HEIGHTxWIDTH")
        return self

    @model_validator(mode="after")
    def _trackers_are_installed(self) -> FinetuneConfig:
        for setting, value, package, line in (
            ("--tensorboard", self.tensorboard, "tensorboard", install("finetune")),
            ("--mlflow", self.mlflow, "mlflow", "pip install mlflow"),
        ):
            if value is not None and find_spec(package) is None:
                raise ValueError(f"{setting} {value} needs the package {package}, which is not installed: {line}")
        return self

    @model_validator(mode="after")
    def _data_is_whole(self) -> FinetuneConfig:
        if self.validation_truth is None and (self.validation_images or self.validation_masks):
            raise ValueError("--validation-images and --validation-masks go with --validation-truth")
        return self

    @model_validator(mode="after")
    def _local_alone(self) -> FinetuneConfig:
        if self.local and self.ray_address is not None:
            raise ValueError(f"--local and --ray-address {self.ray_address}: a cluster is Ray's: leave one of them out")
        if self.local and self.workers > 1:
            raise ValueError(f"--local and --workers {self.workers}: several workers need Ray: leave one of them out")
        if self.local and self.gpus_per_worker not in WHOLE:
            raise ValueError(
                f"--local and --gpus-per-worker {self.gpus_per_worker:g}: without Ray there is one worker, with one GPU or none: leave one "
                "of them out, or give 1 or 0"
            )
        return self

    @model_validator(mode="after")
    def _batches_divide(self) -> FinetuneConfig:
        if self.batch_size % self.micro or self.micros % self.workers:
            raise ValueError(
                f"--batch-size {self.batch_size} must be a multiple of --micro-batch-size {self.micro} times --workers {self.workers}"
            )
        if self.scale_min > self.scale_max:
            raise ValueError(f"--scale-min {self.scale_min:g} is larger than --scale-max {self.scale_max:g}")
        return self


PROGRAM = Program(
    "masklake finetune",
    FinetuneConfig,
    {
        "the ground truth": TruthConfig,
        "the data": DataConfig,
        "the model": ModelConfig,
        "the learning": LearningConfig,
        "the run": WorkConfig,
    },
    about="Fine-tune a segmentation model, or train one from scratch, on ground truth (the same settings name what `masklake evaluate` "
    "judges by), or on the rows of a table of masks. The result is a checkpoint folder for `masklake segment --model`. Run the same "
    "command again to go on after an interruption: it ends with the same weights.",
    examples={
        "masklake finetune --truth s3://lake/truth/panoptic.json --images s3://lake/images "
        "--model facebook/mask2former-swin-tiny-coco-panoptic --output s3://lake/models/mine --dry-run": (
            "which classes there are and how many examples show each, without training"
        ),
        "masklake finetune --truth s3://lake/masks --format table --min-score 0.9 "
        "--model s3://lake/models/mine --output s3://lake/models/next": "a model's own confident answers",
        "masklake finetune --config jobs/settings/finetune/camvid.yaml --truth CamVid/trainannot --images CamVid/train --output mine": (
            "label maps, with the other settings in a file"
        ),
    },
    needs=("run",),
    interrupted="interrupted; the last saved state stays, run the same command to go on",
)
