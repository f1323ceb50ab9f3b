"""A look before a run: a few images, picked over the whole input, answered by the stages of a run in this process, and written nowhere."""

from __future__ import annotations

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from masklake import storage
from masklake.errors import ImageFailure, Refused, Say
from masklake.images.decoder import decode_apart
from masklake.pages.cards import Card, card_from, reduced
from masklake.schema import Status
from masklake.segment.advice import loaders
from masklake.segment.engine import Resources
from masklake.segment.estimate import Estimate, Measured, by_preview, span
from masklake.segment.gallery import PreviewPage, render_preview
from masklake.segment.local import Local
from masklake.segment.machine import Machine, cores
from masklake.segment.model import RunModel
from masklake.segment.plan import Plan
from masklake.segment.progress import State
from masklake.segment.settings import Config
from masklake.segment.stages import Work, packet_facts, packet_rows
from masklake.spelling import plural
from masklake.table import write
from masklake.table.place import check_outside_tables

GROUP_ROWS = 4
"""Images that are loaded together: few are picked, and threads share them out. Of one at a time, a model's calls would be of one image, and
tell nothing of a run's, of which one of eight takes hardly longer."""

PAGE = "preview.html"

_OF_A_CLUSTER = {"ray_address": None, "actors": None, "cpus_per_actor": None, "gpus_per_actor": None}

Pixels = NDArray[np.uint8]


def check(config: Config) -> None:
    """See that the page can be written.

    Raises:
        Refused: it cannot, or it would lie in a table.
    """
    if config.preview_to is None:
        return
    storage.check_output(config.preview_to, "--preview-to")
    check_outside_tables(config.preview_to, "--preview-to")
    page, table = (storage.as_folder(storage.normalise(uri)) if uri else "" for uri in (config.preview_to, config.output))
    if table and page.startswith(table):
        raise Refused(f"--preview-to {config.preview_to}: that is the table's folder, which holds nothing but its table: name another")


def here(config: Config, opened: ExitStack) -> tuple[Config, str]:
    """The settings as they are for this process alone, and a folder for its work list, which goes when `opened` is closed.

    Where no table is named, its place is one that is not there.
    """
    scratch = opened.enter_context(tempfile.TemporaryDirectory(prefix="masklake-preview-"))
    table = config.output or Path(scratch, "masks").as_uri()
    return config.model_copy(update={**_OF_A_CLUSTER, "local": True, "output": table}), Path(scratch, "plan").as_uri()


@dataclass(frozen=True)
class Looked:
    """What was found: rows of the table's schema, one per image and task, in the order of URIs, and a picture of each usable image."""

    rows: pa.Table
    pictures: Mapping[str, Pixels]
    images: int
    failed: int
    measured: Measured | None
    """None where no image could be used."""

    def cards(self) -> Iterator[Card]:
        """One for each answer."""
        for row in self.rows.to_pylist():
            if row["status"] == Status.OK and row["image_uri"] in self.pictures:
                yield card_from(self.pictures[row["image_uri"]], row)

    def failures(self) -> dict[str, list[tuple[str, str]]]:
        """(image URI, message) of those that cannot be used, by code."""
        found: dict[str, list[tuple[str, str]]] = {}
        for row in self.rows.select(["image_uri", "status", "error_code", "error_message"]).to_pylist():
            if row["status"] != Status.OK:
                each = (row["image_uri"], row["error_message"] or "")
                known = found.setdefault(row["error_code"] or "", [])
                known += [each] * (each not in known)
        return found

    def labels(self) -> Counter[str]:
        """Segments by label."""
        return Counter(segment["label"] for row in self.rows["segments"].to_pylist() for segment in row or ())


def look(work: Work, engine: Local, resources: Resources, images: int, started: float, update: Callable[[State], None]) -> Looked:
    """Answer all images of a work list.

    Args:
        work: as of a run.
        engine: this process.
        resources: what the engine says of them.
        images: how many there are.
        started: when the run began, as `time.monotonic` says.
        update: told how it goes on.
    """
    pictures: dict[str, Pixels] = {}
    lock = threading.Lock()

    def keep(uri: str, content: bytes | ImageFailure) -> None:
        found = content if isinstance(content, ImageFailure) else decode_apart(content, work.max_pixels, work.max_decode_seconds, reduced)
        if not isinstance(found, ImageFailure):
            with lock:
                pictures[uri] = found.pixels

    update(State("starting the model", images))
    tables, told, ends = list[pa.Table](), list[Mapping[str, float]](), list[float]()
    with engine.answering(work, resources, keep) as packets:
        for packet in packets:
            tables.append(packet_rows(packet).replace_schema_metadata())
            told.append(packet_facts(packet))
            ends.append(time.monotonic() - started)
            done, failed = (round(sum(each[name] for each in told)) for name in ("images", "failed"))
            update(State("segmenting", images, done, failed))
    rows = pa.concat_tables(tables).sort_by([("image_uri", "ascending"), ("task", "ascending")])
    measured = _measured(told, ends[0], rows, work, engine.machine(work, resources)) if done > failed else None
    return Looked(rows, pictures, done, failed, measured)


def _measured(told: Sequence[Mapping[str, float]], first: float, rows: pa.Table, work: Work, machine: Machine) -> Measured:
    """What an image takes, start-up apart. Models' seconds are those in which they worked: calls wait for each other, and share batches."""
    images = sum(each["images"] for each in told)
    model = _warm(told) / machine.actors
    load = sum(each["fetch"] + each["decode"] for each in told) / images / loaders(machine)
    seconds = max(model, load) if machine.gpus_per_actor else model + load  # on CPUs, models and decoders share the cores
    start = max(0.0, first - told[0]["images"] * seconds)
    size = write.growth(rows, work.partition_by) / images
    where = f"{machine.device} ({plural(cores(), 'core')})" if not machine.gpus_per_actor else machine.device
    return Measured(round(images), start, seconds, size, f"{where}, in one process")


def _warm(told: Sequence[Mapping[str, float]]) -> float:
    """The models' seconds for an image, by the packets that hold the last half of the images: the first calls pay once for what they
    choose and allocate, which of a dozen images is most of the time, and of a lake nothing."""
    half, images, busy = sum(each["images"] for each in told) / 2, 0.0, 0.0
    for each in reversed(told):
        images, busy = images + each["images"], busy + each["busy"]
        if images >= half:
            break
    return busy / images


def unknown(config: Config, planned: Plan, looked: Looked, found: Estimate | None) -> list[str]:
    """What is not estimated, and why, or what would tell it."""
    if not planned.todo_images:
        return []
    if found is None:
        return ["time, growth of the table and cost: no image that was picked could be used, and the table has no run of this model"]
    lines = []
    if found.from_run is None:
        asked = next((f" (--{name.replace('_', '-')})" for name in _OF_A_CLUSTER if getattr(config, name) is not None), "")
        lines.append(f"the time on a cluster{asked}: it was measured in this process")
    if found.cost is None:
        lines.append("the cost: --price-per-hour says what the machines cost, all together")
    if looked.failed:
        lines.append(f"how many images cannot be used: of those picked it is {looked.failed:,} of {looked.images:,}")
    return lines


def told(config: Config, model: RunModel, planned: Plan, looked: Looked, earlier: Estimate | None, say: Say) -> dict[str, Any]:
    """Write the page and say what was found; returns what the last line says beside the plan.

    Args:
        config: the settings as the user gave them.
        model: what answered.
        planned: what is to do.
        looked: what was found.
        earlier: what the table's earlier runs tell of the work to do, where they do.
        say: takes a sentence.
    """
    found = earlier
    if found is None and looked.measured and planned.todo_images:
        found = by_preview(planned.todo_images, looked.measured, config.price_per_hour)
    missing = unknown(config, planned, looked, found)
    for line in (*([str(found)] if found else []), *(f"not estimated: {each}" for each in missing)):
        say(line)
    page = _write(
        config,
        PreviewPage(
            input_uri=config.input,
            tiles=_tiles(planned, found, looked),
            facts=_facts(config, model, found, missing),
            cards=looked.cards(),
            labels=looked.labels(),
            failures=looked.failures(),
            picked=looked.images,
            images=planned.images,
        ),
    )
    say(f"{plural(looked.images, 'image')} looked at, of which {looked.failed:,} cannot be used: {page}")
    return {
        "images": looked.images,
        "errors": looked.failed,
        "errors_by_code": {code: len(images) for code, images in looked.failures().items()},
        "segments": looked.labels().total(),
        "picked": list(dict.fromkeys(looked.rows["image_uri"].to_pylist())),
        "page": page,
        "estimate": found.keys() if found else None,
        "not_estimated": missing,
        "too_many_failed": looked.failed > looked.images * config.max_error_rate,
    }


def _write(config: Config, page: PreviewPage) -> str:
    folder = config.preview_to or tempfile.mkdtemp(prefix="masklake-preview-")
    uri = f"{storage.as_folder(storage.normalise(folder))}{PAGE}"
    storage.write_bytes(uri, render_preview(page).encode())
    return uri


def _facts(config: Config, model: RunModel, found: Estimate | None, missing: Sequence[str]) -> list[tuple[str, str]]:
    pairs = {
        "Input": config.input,
        "Table": f"{config.output} (nothing was written to it)" if config.output else "",
        "Model": f"{config.model} at {model.revision[:19]}, input {model.description.resize.describe()}, in {model.precision}",
        "Tasks": ", ".join(str(task) for task in config.tasks),
        "Estimate": f"by {found.source}" if found else "",
        "Not known": "; ".join(missing),
    }
    return [(title, text) for title, text in pairs.items() if text]


def _tiles(planned: Plan, found: Estimate | None, looked: Looked) -> list[tuple[str, str, str]]:
    tiles = [("Images", f"{planned.images:,}"), ("To do", f"{planned.todo_images:,}")]
    if found:
        tiles += [("All of it takes about", span(found.seconds)), ("The table grows by about", f"{found.table_bytes / 1e6:,.1f} MB")]
        tiles += [("It costs about", f"{found.cost:,.2f}")] if found.cost is not None else []
    bad = "Of those picked, not usable", f"{looked.failed:,} of {looked.images:,}", "bad" if looked.failed else "good"
    return [*((title, figure, "") for title, figure in tiles), bad]
