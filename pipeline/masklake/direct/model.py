"""`masklake.load`: a checkpoint as something to call with images.

Each answer is the row that `masklake segment` would write on this machine: the same decoding, resizing, batches and post-processing, and
the same number of threads, which on CPUs moves the last bit of a logit, and with it a pixel now and then. By default that is all cores; a
model of the job has half of them, and on Ray those of its actor.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Annotated, Any, Literal, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from masklake.config import Program, Shown, checked
from masklake.config.closest import closest
from masklake.direct.pictures import Bounds, Named, Picture, is_picture, named
from masklake.errors import ImageFailure, Refused, Say, unsaid
from masklake.images.decode import Decoded
from masklake.inference import checkpoint, preprocess
from masklake.inference.devices import chosen_device, threads
from masklake.inference.families import SEMANTIC
from masklake.inference.segmenter import Answers, ModelInput, Segmenter
from masklake.results import Result, Unusable
from masklake.segment.machine import cores
from masklake.segment.model import RunModel, fingerprint, options
from masklake.segment.settings import Device, SegmentConfig
from masklake.spelling import plural
from masklake.table.rows import RunStamp, build_rows
from masklake.tasks import Task

_AT_ONCE = 16  # images that are decoded before the model sees them
_PIXELS_AT_ONCE = 50_000_000


class _HereConfig(BaseModel):
    """How the work is done here: nothing of it changes an answer by more than the last bit of a logit."""

    model_config = ConfigDict(frozen=True)

    device: Device = Field("auto", description="where the model runs: auto (a GPU of NVIDIA's where there is one), cpu, cuda or mps")
    threads: Annotated[int | None, Shown("THREADS")] = Field(
        None, ge=1, description="of the CPU (default: all cores; a model of the job has half of them, actors on Ray --cpus-per-actor, 1)"
    )
    batch_size: int | None = Field(None, ge=1, description="images of a forward pass (default: chosen by device and input size)")
    max_decode_seconds: float = Field(120.0, gt=0, description="an image that takes more CPU to decode is an error")


class LoadConfig(SegmentConfig, _HereConfig):
    """All that `masklake.load` takes."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


_PROGRAM = Program("masklake.load", LoadConfig, {"the answer": SegmentConfig, "the work": _HereConfig}, "", {})


def load(model: str | os.PathLike[str], *, say: Say = unsaid, **settings: Any) -> Model:
    """A model to call with images; `masklake[run]` must be installed.

    Args:
        model: hub id with optional `@revision`, or a folder, local or in object storage, with a checkpoint.
        say: takes a sentence on what is found out on the way: what is downloaded, where things are known from.
        **settings: `device` (auto, cpu, cuda, mps), `threads` (of the CPU; by default all cores), `batch_size`,
            `max_decode_seconds`, and those of `masklake segment` that change answers: `precision`, `resolution`, `postprocess`,
            `object_threshold`, `overlap_threshold`, `score_threshold`, `max_instances`, `thing_labels`, `labels`, `concepts`,
            `max_pixels`, `max_image_bytes`.

    Raises:
        Refused: a setting is wrong, or the model cannot be had or does not fit; the message says which and what would be right.

    Example:
        model = masklake.load("facebook/mask2former-swin-tiny-coco-panoptic")
        result = model("photo.jpg", task="panoptic")
        result.segments, result.overlay(), result.to_coco()
    """
    given = {"model": os.fspath(model), **settings}
    unknown = [
        f"{name!r} is not a setting of masklake.load{_hint(name)}" for name in given if name not in _PROGRAM.fields or name == "tasks"
    ]
    config = checked(_PROGRAM, {"in masklake.load": {name: value for name, value in given.items() if name in _PROGRAM.fields}}, unknown)
    return Model(config, say)


def _hint(name: str) -> str:
    if name in ("task", "tasks"):
        return ": it is said when the model is called, as in model(image, task='instance')"
    close = closest(name, _PROGRAM.fields)
    return f": did you mean {close!r}?" if close else f"; there are {', '.join(sorted(set(_PROGRAM.fields) - {'tasks'}))}"


class Model:
    """A loaded checkpoint.

    Attributes:
        tasks: what it can be asked, of panoptic, instance, semantic.
        labels: name of each class by `label_id`.
        device: where it runs.

    Example:
        model = masklake.load("facebook/mask2former-swin-tiny-coco-panoptic", device="cpu")
        model.tasks, model.labels[0], model.device
    """

    def __init__(self, config: LoadConfig, say: Say = unsaid) -> None:
        self.device = chosen_device(config.device)
        self._config = config.model_copy(update={"tasks": (), "precision": self._precision(config)})
        found = RunModel.resolve(self._config, say)
        for line in found.say():
            say(line)
        about = self._about = found.description
        self._found, self._fingerprints = found, dict[str, str]()
        self._segmenter = Segmenter.load(found.folder, about, self.device, self._config.precision, config.batch_size)
        self.tasks = tuple(task for task in about.tasks if about.things_from or task == SEMANTIC)
        self.labels = dict(about.labels)
        self._bounds = Bounds(config.max_pixels, config.max_image_bytes, config.max_decode_seconds)

    def _precision(self, config: LoadConfig) -> Literal["float32", "bfloat16", "float16"]:
        if config.precision != "auto":
            return config.precision
        return "bfloat16" if self.device.startswith("cuda") else "float32"

    @overload
    def __call__(self, images: Picture, task: str | None = None) -> Result: ...

    @overload
    def __call__(self, images: list[Any] | tuple[Picture, ...], task: str | None = None) -> list[Result]: ...

    def __call__(self, images: Any, task: str | None = None) -> Result | list[Result]:
        """Answer an image, or several.

        Args:
            images: a path, a URL, a file's bytes, an image of Pillow's, an array uint8 [height, width] or [height, width, 1, 3 (RGB) or 4],
                or a list of these.
            task: panoptic, instance or semantic; by default the first that the model can do.

        Returns:
            A `Result` for an image; a list of them, in order, for a list. In a list, one that could not be used has a `failure`.

        Raises:
            Unusable: the one image cannot be read or decoded.
            Refused: the model cannot do this task.

        Example:
            one = model("photo.jpg", task="panoptic")
            several = model(["photo.jpg", np.zeros((480, 640, 3), np.uint8)])
        """
        if not is_picture(images):
            return list(self.stream(images, task))
        (result,) = self.stream([images], task)
        if result.failure is not None:
            raise Unusable(f"{result.name} cannot be segmented: {result.failure}")
        return result

    def stream(self, images: Iterable[Picture], task: str | None = None) -> Iterator[Result]:
        """Answers to many images, one after the other, of which a few are in memory at a time.

        Example:
            for result in model.stream(Path("photos").glob("*.jpg"), task="instance"):
                print(result.name, len(result))
        """
        asked = self._asked(task)
        rest = enumerate(images)
        while some := [named(picture, number, self._bounds) for number, picture in islice(rest, _AT_ONCE)]:
            yield from self._answered(some, asked)

    def _asked(self, task: str | None) -> str:
        if task is not None and task not in list(Task):
            raise Refused(f"task {task!r}: use {', '.join(self.tasks)}")
        asked = str(task or self.tasks[0])
        if asked not in self._fingerprints:
            config = self._config.model_copy(update={"tasks": (Task(asked),)})
            about = checkpoint.describe(self._found.folder, options(config), config.model)  # refuses what it cannot do
            self._fingerprints[asked] = fingerprint(config, about, asked)
        return asked

    def _answered(self, pictures: Sequence[Named], task: str) -> Iterator[Result]:
        waiting: list[tuple[Named, Decoded | ImageFailure, ModelInput | None]] = []
        pixels = 0
        for picture in pictures:
            found = picture.read()
            if isinstance(found, ImageFailure):
                waiting.append((picture, found, None))
            else:
                resized = preprocess.resize(found.pixels, self._about.resize)
                facts = Decoded(np.zeros((0, 0, 3), np.uint8), found.format, found.size)  # the picture itself is not kept
                waiting.append((picture, facts, ModelInput(resized, found.size, (task,))))
                pixels += resized.size // 3
            if pixels >= _PIXELS_AT_ONCE:
                yield from self._rows(waiting, task)
                waiting, pixels = [], 0
        if waiting:
            yield from self._rows(waiting, task)

    def _rows(self, items: Sequence[tuple[Named, Decoded | ImageFailure, ModelInput | None]], task: str) -> Iterator[Result]:
        with threads(self._config.threads or cores()):
            answers: Iterator[Answers] = iter(self._segmenter.segment([given for _, _, given in items if given is not None]))
        by_image = [{task: found} if isinstance(found, ImageFailure) else dict(next(answers)) for _, found, _ in items]
        sizes = [(None, None, None) if isinstance(found, ImageFailure) else (*found.size, found.format) for _, found, _ in items]
        images = pa.table(
            {
                "image_uri": pa.array([picture.name for picture, _, _ in items], pa.string()),
                "height": pa.array([height for height, _, _ in sizes], pa.int32()),
                "width": pa.array([width for _, width, _ in sizes], pa.int32()),
                "format": pa.array([form for _, _, form in sizes], pa.string()),
                "tasks": pa.array([[task]] * len(items), pa.list_(pa.string())),
            }
        )
        stamp = RunStamp(self._config.model, self._found.revision, self._fingerprints, "", 0, datetime.now(UTC))
        for row, (picture, _, _) in zip(build_rows(images, by_image, stamp, ()).to_pylist(), items, strict=True):
            yield Result(row, partial(_pixels, picture))

    def __repr__(self) -> str:
        return f"Model({self._config.model!r}, {'/'.join(self.tasks)}, {plural(len(self.labels), 'label')}, on {self.device})"


def _pixels(picture: Named) -> NDArray[np.uint8] | ImageFailure:
    found = picture.read()
    return found if isinstance(found, ImageFailure) else found.pixels
