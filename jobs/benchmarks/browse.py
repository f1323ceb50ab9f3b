"""Measure how `masklake browse` answers on a large table: the first page, filters, later pages, and the memory of the whole process.

    python -m jobs.benchmarks.browse --rows 100000 --larger 1000000

The table is a real one, of real files with masks, made without a model: a few scenes, over and over, with classes and scores drawn anew for
every row. The page is asked over HTTP, as a browser does, in a process of its own. A figure is the median of several questions, each one
that was not asked before; the first page is everything that a browser loads for it: the page, its answer, 24 photographs and their masks.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jobs.benchmarks.process_tree import Watch, watched
from masklake.demo.scenes import jpeg, render, sample_scene
from masklake.inference.rle import encode_ids
from masklake.schema import SEGMENT, TABLE
from masklake.table.append import Table
from masklake.table.write import FileRecord, FileWriter

RESULT = Path(__file__).parent / "results" / "browse.json"
CLASSES = ("person", "car", "bus", "dog", "cat", "chair", "table", "tree", "grass", "sky", "road", "building")
DAYS = 100
SCENES = 16

_HEIGHT, _WIDTH = 480, 640
_ERROR_EVERY = 500
_WITH_PICTURES = 200  # of a day, the last: the first page shows these, and no other picture is looked at


def make_table(folder: Path, rows: int, older: int = 0) -> str:
    """A table of `rows` images in 100 days, each with its file, and of the first `older` of each day an answer of an earlier model; its
    URI."""
    pool = _Pool()
    table = Table.open_or_create(str(folder / "masks"), ["dt"])
    for fingerprint, run, each in (("0" * 32, "earlier", older), ("5" * 32, "latest", rows // DAYS)):
        if each:
            table.begin_run(f"file://{folder}/images/", run, beat=False)
            table.commit([pool.write(table.uri, folder, day, each, fingerprint, run) for day in range(DAYS)])
            table.finish_run()
    return table.uri


class _Pool:
    """The segments of a few scenes, from which rows take theirs."""

    def __init__(self) -> None:
        self._images: list[bytes] = []
        counts: list[bytes] = []
        areas: list[int] = []
        boxes: list[list[int]] = []
        starts = [0]
        for seed in range(SCENES):
            scene = render(sample_scene(seed), _HEIGHT, _WIDTH)
            self._images.append(jpeg(scene))
            for encoded in encode_ids(np.ascontiguousarray(scene.ids.T), len(scene.label_ids)):
                counts.append(encoded.counts)
                areas.append(encoded.area)
                boxes.append(list(encoded.bbox))
            starts.append(len(counts))
        self._starts = np.array(starts)
        self._segments = {"counts": pa.array(counts), "area": pa.array(areas), "bbox": pa.array(boxes, pa.list_(pa.int32()))}

    def write(self, table_uri: str, folder: Path, day: int, rows: int, fingerprint: str, run: str) -> FileRecord:
        """A day's file, and its images."""
        random = np.random.default_rng([day, len(run)])
        place = folder / "images" / f"dt={_day(day)}"
        place.mkdir(parents=True, exist_ok=True)
        scenes = (np.arange(rows) + day) % SCENES
        names = [place / f"camera-{number:06d}.jpg" for number in range(rows)]
        for name, scene in [*zip(names, scenes.tolist(), strict=True)][-_WITH_PICTURES:]:
            if not name.exists():
                self._link(folder, scene, name)
        writer = FileWriter(TABLE)
        writer.add(self._rows([f"file://{name}" for name in names], scenes, random, (fingerprint, run, day)))
        stored = writer.store(table_uri, {"dt": _day(day)}, run)
        assert stored
        return FileRecord(**vars(stored), ok=stored.rows)

    def _link(self, folder: Path, scene: int, name: Path) -> None:
        source = folder / f"scene-{scene}-{name.parent.name}.jpg"
        if not source.exists():
            source.write_bytes(self._images[scene])
        name.hardlink_to(source)

    def _rows(self, uris: list[str], scenes: NDArray[np.int64], random: np.random.Generator, origin: tuple[str, str, int]) -> pa.Table:
        fingerprint, run, day = origin
        now = datetime(2026, 1, 1 + day % 28, 12, day % 60, tzinfo=UTC)
        count = len(uris)
        failed = np.arange(count) % _ERROR_EVERY == 7
        told: dict[str, Any] = {
            "task": "panoptic",
            "model": f"example/{run}",
            "model_revision": "r",
            "fingerprint": fingerprint,
            "run_id": run,
        }
        told |= {"run_order": 1 if run == "earlier" else 2, "width": _WIDTH, "height": _HEIGHT, "format": "JPEG", "processed_at": now}
        columns = {
            **{name: pa.repeat(pa.scalar(value, TABLE.field(name).type), count) for name, value in told.items()},
            "image_uri": pa.array(uris),
            "status": pa.array(np.where(failed, "error", "ok"), pa.string()),
            "error_code": pa.array(np.where(failed, "truncated", ""), pa.string(), mask=~failed),
            "error_message": pa.array(np.where(failed, "JPEG: the file ends early", ""), pa.string(), mask=~failed),
            "segments": self._lists(scenes, failed, random),
        }
        return pa.table([columns.get(field.name, pa.nulls(count, field.type)) for field in TABLE], schema=TABLE)

    def _lists(self, scenes: NDArray[np.int64], failed: NDArray[np.bool_], random: np.random.Generator) -> pa.ListArray:
        lengths = np.where(failed, 0, self._starts[scenes + 1] - self._starts[scenes])
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        total = int(offsets[-1])
        within = np.arange(total) - np.repeat(offsets[:-1], lengths)
        taken = pa.array(np.repeat(self._starts[scenes], lengths) + within)
        labels = np.minimum(random.geometric(0.2, total) - 1, len(CLASSES) - 1)
        fields: dict[str, pa.Array] = {
            **{name: values.take(taken) for name, values in self._segments.items()},
            "segment_id": pa.array(within + 1, pa.int32()),
            "label_id": pa.array(labels, pa.int32()),
            "label": pa.array(CLASSES).take(pa.array(labels)),
            "isthing": pa.array(labels < 7),
            "score": pa.array(random.beta(5, 1.5, total).astype(np.float32)),
            "class_score": pa.nulls(total, pa.float32()),
        }
        structs = pa.StructArray.from_arrays([fields[field.name].cast(field.type) for field in SEGMENT], fields=list(SEGMENT))
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), structs, type=pa.list_(SEGMENT), mask=pa.array(failed))


def _day(day: int) -> str:
    return f"2026-{day // 28 + 1:02d}-{day % 28 + 1:02d}"


def measure(url: str, cpu: Callable[[], float]) -> dict[str, Any]:
    """Ask the page at an address; seconds of each kind of question, and of the first page also those of `cpu`, which its processes took."""
    before = cpu()
    found: dict[str, Any] = {"first_page": _first_page(url)}
    found["first_page"]["cpu"] = round(cpu() - before, 2)
    while not _json(f"{url}state")["complete"]:
        time.sleep(0.2)
    found["first_page_again"] = _first_page(url)
    found |= {name: _median(url, queries) for name, queries in _QUESTIONS.items()}
    found["classes"] = _seconds(f"{url}classes?task=panoptic&score_to=0.91")
    found["chart"] = _seconds(f"{url}chart?task=panoptic&by=dt&score_to=0.92")
    return found


_LAST = "&first=last"
_QUESTIONS = {
    "filter": [f"label={label}&share_from=0.1&score_to=0.6" for label in CLASSES[:5]],
    "filter_partition": [f"in.dt={_day(day)}&label=person" for day in range(5)],
    "filter_sql": [f"where=dt+>+'{_day(day)}'" for day in (10, 30, 50)],
    "filter_name": [f"name=camera-0000{number}" for number in range(3)],
    "sort_doubt": [f"order=doubt&label={label}" for label in CLASSES[:3]],
    "sort_difference": [f"order=difference&label={label}" for label in CLASSES[:3]],
    "last_page": [f"order={order}{_LAST}" for order in ("newest", "name", "lowest")],
}


def _median(url: str, queries: list[str]) -> float:
    taken = []
    for query in queries:
        asked = f"{url}find?task=panoptic&{query}"
        if query.endswith(_LAST):
            count = _json(asked.removesuffix(_LAST) + "&first=0")["count"]
            asked = asked.removesuffix(_LAST) + f"&first={count - 24}"
        taken.append(_seconds(asked))
    return round(statistics.median(taken), 3)


def _first_page(url: str) -> dict[str, float]:
    """Seconds until the page knows its images, and until all of their pictures are there, four at a time as in the browser."""
    started = time.monotonic()
    for path in ("", "static/browse.css", "static/browse.js", "static/view.js", "static/parts.js", "table"):
        _read(url + path)
    images = _json(f"{url}find?task=panoptic&first=0&most=24")["images"]
    listed = time.monotonic() - started
    paths = [f"{kind}/{image['id']}?side=480" for image in images if image["status"] == "ok" for kind in ("photograph", "painted")]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda path: _read(url + path), paths))
    return {"images": round(listed, 3), "pictures": round(time.monotonic() - started, 3)}


def _seconds(url: str) -> float:
    started = time.monotonic()
    _json(url)
    return round(time.monotonic() - started, 3)


def _json(url: str) -> Any:
    return json.loads(_read(url))


def _read(url: str) -> bytes:
    place, mark, query = url.partition("?")
    with urllib.request.urlopen(place + mark + urllib.parse.quote(query, safe="=&+%"), timeout=120) as answer:  # noqa: S310 - the page
        content: bytes = answer.read()
        return content


@contextmanager
def _browsing(table: str) -> Iterator[tuple[str, subprocess.Popen[str], float]]:
    """The command in a process of its own: its page's address, and seconds until it says that."""
    started = time.monotonic()
    command = [sys.executable, "-m", "masklake", "browse", table]
    sentences = {**os.environ, "MASKLAKE_LOG_FORMAT": "text"}
    process = subprocess.Popen(command, env=sentences, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        assert process.stderr
        line = next(line for line in process.stderr if "http://" in line)
        yield line[line.index("http://") :].strip(), process, round(time.monotonic() - started, 2)
    finally:
        process.terminate()
        process.communicate(timeout=60)


def _peak(watch: Watch) -> int:
    """The most memory, MB, of all processes together: the page's, and those that decode."""
    held: Counter[float] = Counter()
    for sample in watch.samples:
        held[sample.time] += sample.memory
    return round(max(held.values(), default=0) / 1e6)


def _measured(images: int, older: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="browse-") as folder:
        table = make_table(Path(folder), images, older)
        size = sum(file.stat().st_size for file in Path(folder, "masks").rglob("*.parquet"))
        with _browsing(table) as (url, process, ready), watched(process.pid, every=0.1) as watch:

            def cpu() -> float:
                watch.look(process.pid)
                return watch.cpu_seconds

            seconds = measure(url, cpu)
        return {
            "rows": images + older * DAYS,
            "images": images,
            "table_mb": round(size / 1e6),
            "machine": {"cpus": len(os.sched_getaffinity(0)), "system": platform.platform(), "load": os.getloadavg()[0]},
            "seconds": {"until_the_page_is_there": ready, **seconds},
            "peak_mb": _peak(watch),
        }


def main(argv: list[str] | None = None) -> int:
    """Make the table, measure, print and write the result."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks.browse", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000, help="images of the table (default: %(default)s)")
    parser.add_argument(
        "--larger", type=int, default=0, help="images of a second table, of which the result is kept beside (default: none)"
    )
    parser.add_argument(
        "--older", type=int, default=100, help="of each day, images that an earlier model answered too (default: %(default)s)"
    )
    parser.add_argument("--result", type=Path, default=RESULT, help="where the result goes (default: %(default)s)")
    arguments = parser.parse_args(argv)
    result = _measured(arguments.rows, arguments.older)
    if arguments.larger:
        result["larger"] = _measured(arguments.larger, arguments.older)
    arguments.result.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
