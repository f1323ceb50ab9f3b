"""The whole job on an embedded S3 server: generated scenes in, masks out, run three times, judged against the scenes' ground truth."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from masklake import storage
from masklake.commands.lines import say
from masklake.config import ENV_PREFIX
from masklake.demo import MODEL
from masklake.demo.lake import broken_files, upload_broken, upload_scenes, upload_truth
from masklake.demo.seaweedfs import SeaweedFS
from masklake.demo.settings import DemoConfig
from masklake.errors import MasklakeError, Refused
from masklake.evaluation import run
from masklake.evaluation.report import Report
from masklake.evaluation.settings import EvaluateConfig
from masklake.spelling import plural

BUCKET, IMAGES, TABLE = "lake", "s3://lake/images/", "s3://lake/masks"
TRUTH, EVALUATION = "s3://lake/truth/scenes.json", "s3://lake/evaluation"

_MASKS, _REPORT, _GALLERY = "masks", "report.json", "gallery.html"
_BROUGHT = (_MASKS, _REPORT, _GALLERY, run.JSON, run.PAGE)


def work(settings: DemoConfig) -> dict[str, Any]:
    """Run the demonstration; returns the summary.

    Raises:
        Refused: the folder cannot be written, or holds what is not an earlier demonstration's.
        MasklakeError: a run did not do what it should.
    """
    output = Path(settings.output)
    check(output)
    with SeaweedFS() as server:
        os.environ.update(server.env())
        server.create_bucket(BUCKET)
        with _step(f"uploading {plural(settings.scenes, 'generated scene')} and {plural(len(broken_files()), 'broken file')} to {IMAGES}"):
            upload_scenes(IMAGES, range(settings.scenes))
            upload_broken(IMAGES)
        first = _segment("first run: everything")
        again = _segment("second run: nothing has changed")
        with _step("ten new images arrive"):
            upload_scenes(IMAGES, range(settings.scenes, settings.scenes + 10))
        third = _segment("third run: only what is new")
        with _step("comparing the stored masks with the scenes' ground truth"):
            quality = _judge(settings.scenes + 10)
        _bring_home(output, first["report_uri"])
    expected = [settings.scenes + len(broken_files()), 0, 10]
    found = [first["images"], again["images"], third["images"]]
    _tell(quality, output)
    if found != expected:
        raise MasklakeError(f"the runs processed {found} images, not {expected}")
    return {"outcome": "done", "output": settings.output, "images": found, "pq": quality["scores"]["pq"]}


def check(output: Path) -> None:
    """Make the folder, and see that what would be replaced in it was left by an earlier demonstration.

    Raises:
        Refused: it cannot be written, or holds a table or pages of somebody else's.
    """
    storage.check_output(str(output), "--output")
    there = [name for name in _BROUGHT if (output / name).exists()]
    if there and not _of_a_demo(output / _REPORT):
        raise Refused(f"--output {output}: holds {', '.join(there)}, which no demonstration left there: name another folder")
    output.mkdir(parents=True, exist_ok=True)


def _of_a_demo(report: Path) -> bool:
    try:
        return bool(json.loads(report.read_text(encoding="utf-8"))["table"] == TABLE)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _segment(title: str) -> dict[str, Any]:
    """Run the job as a user would, in a process of its own; returns the summary from its last line."""
    command = [
        "-m",
        "masklake",
        "segment",
        "--input",
        IMAGES,
        "--output",
        TABLE,
        "--model",
        str(MODEL),
        "--tasks",
        "panoptic",
        "--partition-by",
        "dt,task",
    ]
    own = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}  # nothing but what is shown
    with _step(title + "\n  python " + " ".join(command)):
        done = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True, check=False, env=own)
    if done.returncode:
        raise MasklakeError(f"{title}: the job ended with exit code {done.returncode}")
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"  {json.dumps(summary)}")
    return summary


def _judge(images: int) -> Report:
    """The quality of what the table holds, against the truth the scenes were painted from; the page and the figures go beside the table."""
    upload_truth(TRUTH, IMAGES, range(images))
    return run.evaluate(EvaluateConfig(table=TABLE, truth=TRUTH, output=EVALUATION), say)


def _bring_home(output: Path, report_uri: str) -> None:
    """Copy the table, the evaluation, and the first run's report and pictures, out of the server that is about to stop."""
    shutil.rmtree(output / _MASKS, ignore_errors=True)
    storage.download_folder(TABLE, output / _MASKS)
    for name in (_REPORT, _GALLERY):
        (output / name).write_bytes(storage.read_bytes(f"{report_uri}/{name}"))
    for name in (run.JSON, run.PAGE):
        (output / name).write_bytes(storage.read_bytes(f"{EVALUATION}/{name}"))


def _tell(quality: Report, output: Path) -> None:
    pq, things, stuff = (part["pq"] for part in (quality["scores"], quality["scores"]["things"], quality["scores"]["stuff"]))
    print(
        f"""
panoptic quality against the scenes' ground truth: PQ {pq:.3f} (things {things:.3f}, stuff {stuff:.3f})
quality:   {output / run.PAGE}  (open it in a browser: classes, confusion, the worst images)
pictures:  {output / _GALLERY}  (open it in a browser)
report:    {output / _REPORT}
table:     {output / _MASKS}  (Delta; ask it anything, for example:)

  python - <<'END'
  import polars as pl
  masks = pl.read_delta("{output / _MASKS}")
  print(masks.explode("segments").unnest("segments").group_by("label").agg(pl.len(), pl.col("area").mean()).sort("len"))
  END"""
    )


@contextmanager
def _step(title: str) -> Iterator[None]:
    print(f"\n== {title}", flush=True)
    started = time.monotonic()
    yield
    print(f"   {time.monotonic() - started:.1f} s", flush=True)
