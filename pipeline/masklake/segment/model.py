"""The checkpoint of a run, as its driver knows it: what it can do, and the fingerprint of each task."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from masklake import storage
from masklake.errors import Say
from masklake.images import decode
from masklake.inference import checkpoint
from masklake.inference import source as model_source
from masklake.inference.checkpoint import ModelDescription
from masklake.inference.files import stored_tensors
from masklake.inference.options import HALF_PRECISION_VERSION, Options
from masklake.inference.source import ModelSource
from masklake.segment.known import digest_of
from masklake.segment.settings import SegmentConfig
from masklake.truth import label_names


@dataclass(frozen=True)
class RunModel:
    """The checkpoint of a run, here on the driver."""

    source: ModelSource
    folder: Path
    description: ModelDescription
    revision: str
    precision: str
    fingerprints: dict[str, str]
    facts: dict[str, dict[str, Any]]
    """Of each task, what its fingerprint covers."""

    @classmethod
    def resolve(cls, config: SegmentConfig, say: Say) -> RunModel:
        """Find the checkpoint and what it can do, without loading it.

        Raises:
            Refused: it is not there, or cannot do a task.
        """
        source = model_source.resolve(config.model, say=say)
        folder = source.fetch(say)
        description = checkpoint.describe(folder, options(config), config.model)
        revision = source.revision or f"sha256:{description.digest[:32]}"
        return cls(source, folder, description, revision, "", {}, {}).asked(config)

    def asked(self, config: SegmentConfig) -> RunModel:
        """The same checkpoint, asked for this."""
        told = {str(task): facts(config, self.description, task) for task in config.tasks}
        fingerprints = {task: digest_of(found) for task, found in told.items()}
        return replace(self, precision=config.precision, fingerprints=fingerprints, facts=told)

    @cached_property
    def weights(self) -> int:
        """How many there are, by the files' headers."""
        return sum(math.prod(each.shape) for each in stored_tensors(self.folder, self.description.name).values())

    def say(self) -> Iterator[str]:
        """What the user should know of the model before it answers."""
        about = self.description
        yield f"model {about.name} at {self.revision[:19]}: {about.family}, input {about.resize.describe()}, in {self.precision}"
        if about.concepts:
            yield f"it looks for {', '.join(about.concepts)}"
        elif about.things_from:
            yield f"things are known from {about.things_from}"
        if about.licence:
            yield f"the model's licence is {about.licence}"
        yield from about.notes


def options(config: SegmentConfig) -> Options:
    """What the settings say of the answers, as the checkpoint's description takes it.

    Raises:
        Refused: the file that `labels` names cannot be read.
    """
    return Options(
        tasks=tuple(str(task) for task in config.tasks),
        resolution=config.resolution,
        postprocess=config.postprocess,
        object_threshold=config.object_threshold,
        overlap_threshold=config.overlap_threshold,
        score_threshold=config.score_threshold,
        max_instances=config.max_instances,
        thing_labels=config.thing_labels,
        concepts=config.concepts,
        labels=None if config.labels is None else _labels(config.labels),
    )


def _labels(file: str) -> dict[int, str]:
    storage.check_input(file, "--labels")
    return {each.id: each.name for each in label_names.read(storage.normalise(file)).named}


def fingerprint(config: SegmentConfig, description: ModelDescription, task: str) -> str:
    """32 hex digits of everything that changes this task's answer; batch size, actors and memory are not in it."""
    return digest_of(facts(config, description, task))


def facts(config: SegmentConfig, description: ModelDescription, task: str) -> dict[str, Any]:
    """Everything that changes this task's answer, as JSON."""
    more = {"formats": decode.MORE_FORMATS} if decode.MORE_FORMATS else {}
    found: dict[str, Any] = {
        "answer": description.answer_settings(task),
        "precision": config.precision,
        "decode": {"version": decode.DECODE_VERSION, "max_pixels": config.max_pixels, "max_bytes": config.max_image_bytes, **more},
    }
    if config.decode != "exact":
        found["decode"]["how"] = config.decode
    if config.precision != "float32":
        found["half_precision_version"] = HALF_PRECISION_VERSION
    return found
