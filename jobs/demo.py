"""The whole job on an embedded S3 server: generated scenes in, masks out, run three times, judged against the known truth.

python -m jobs.demo --output demo-out
"""

from __future__ import annotations

import argparse
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

from infra.seaweedfs import SeaweedFS
from jobs.lake import broken_files, scene_seed, scene_uri, upload_broken, upload_scenes
from pipeline import reading, storage
from pipeline.quality import panoptic
from pipeline.training.scenes import THING_LABEL_IDS, photograph

MODEL = Path(__file__).parents[1] / "infra" / "demo-model"
BUCKET, IMAGES, TABLE = "lake", "s3://lake/images/", "s3://lake/masks"


def main(argv: list[str] | None = None) -> int:
    """Run the demo; returns 0 when every step did what it should."""
    arguments = _parser().parse_args(argv)
    arguments.output.mkdir(parents=True, exist_ok=True)
    with SeaweedFS() as server:
        os.environ.update(server.env())
        server.create_bucket(BUCKET)
        with _step(f"uploading {arguments.images} generated scenes and {len(broken_files())} broken files to {IMAGES}"):
            upload_scenes(IMAGES, range(arguments.images))
            upload_broken(IMAGES)
        first = _segment("first run: everything")
        again = _segment("second run: nothing has changed")
        with _step("ten new images arrive"):
            upload_scenes(IMAGES, range(arguments.images, arguments.images + 10))
        third = _segment("third run: only what is new")
        with _step("comparing the stored masks with the scenes' truth"):
            quality = _judge(arguments.images + 10)
        _bring_home(arguments.output, first["report_uri"])
    expected = [arguments.images + len(broken_files()), 0, 10]
    found = [first["images"], again["images"], third["images"]]
    _tell(quality, arguments.output)
    if found != expected:
        print(f"demo: the runs processed {found} images, not {expected}", file=sys.stderr)
        return 1
    return 0


def _segment(title: str) -> dict[str, Any]:
    """Run the job as a user would, in a process of its own; returns the summary from its last line."""
    command = [
        "-m",
        "jobs.segment",
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
    with _step(title + "\n  python " + " ".join(command)):
        done = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"demo: the job ended with exit code {done.returncode}")
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"  {json.dumps(summary)}")
    return summary


def _judge(images: int) -> panoptic.PanopticQuality:
    """Panoptic quality of what the table holds, against the truth the scenes were painted from."""
    table = reading.open_table(TABLE)
    truth = {scene_uri(IMAGES, index): scene_seed(index) for index in range(images)}
    total = panoptic.PanopticStats()
    for row in table.newest(task="panoptic"):
        if row["status"] != "ok":
            continue
        scene = photograph(truth[row["image_uri"]])
        ids, labels = reading.id_map(row)
        total += panoptic.compare(ids, labels, scene.ids, dict(enumerate(scene.label_ids, 1)))
    return total.result(THING_LABEL_IDS)


def _bring_home(output: Path, report_uri: str) -> None:
    """Copy the table, and the first run's report and pictures, out of the server that is about to stop."""
    shutil.rmtree(output / "masks", ignore_errors=True)
    storage.download_folder(TABLE, output / "masks")
    for name in ("report.json", "gallery.html"):
        (output / name).write_bytes(storage.read_bytes(f"{report_uri}/{name}"))


def _tell(quality: panoptic.PanopticQuality, output: Path) -> None:
    things, stuff = quality.things.pq, quality.stuff.pq
    print(
        f"""
panoptic quality against the scenes' truth: PQ {quality.pq:.3f} (things {things:.3f}, stuff {stuff:.3f})
pictures:  {output / "gallery.html"}  (open it in a browser)
report:    {output / "report.json"}
table:     {output / "masks"}  (Delta; ask it anything, for example:)

  python - <<'END'
  import polars as pl
  masks = pl.read_delta("{output / "masks"}")
  print(masks.explode("segments").unnest("segments").group_by("label").agg(pl.len(), pl.col("area").mean()).sort("len"))
  END"""
    )


@contextmanager
def _step(title: str) -> Iterator[None]:
    print(f"\n== {title}", flush=True)
    started = time.monotonic()
    yield
    print(f"   {time.monotonic() - started:.1f} s", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m jobs.demo", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=Path("demo-out"), help="folder for the pictures, the report and the table (default: %(default)s)"
    )
    parser.add_argument("--images", type=int, default=200, help="generated scenes (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
