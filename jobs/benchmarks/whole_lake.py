"""Measure the whole job beside what people write today: same images, same model, same machine, in one run.

    python -m jobs.benchmarks.whole_lake --images 2000 --daft ENVIRONMENT/bin/python

Each contestant is a process of its own, run one after the other on an embedded S3 server. Two figures each: images per second of the whole
process, start-up included, and in steady state, counted from the first finished batch. Daft runs in an environment of its own, which holds
this project's packages as well, in both of its documented ways: one instance of the model with all cores, and one a core.
masklake itself chooses between its own process and Ray; it is measured once more on Ray, and where OpenVINO is installed, with that forward
(before which the model is converted, once for a machine: by ten of the images).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from masklake.demo import MODEL
from masklake.demo.lake import upload_scenes
from masklake.demo.seaweedfs import SeaweedFS

_IMAGES = "s3://lake/images/"


def main(argv: list[str] | None = None) -> int:
    """Run every contestant; prints a table, then one JSON object."""
    arguments = _parser().parse_args(argv)
    contestants = {
        "masklake": _segment("s3://lake/masks", arguments.model),
        "masklake on Ray": [*_segment("s3://lake/masks-ray", arguments.model), "--no-local"],
        "masklake, OpenVINO": [*_segment("s3://lake/masks-openvino", arguments.model), "--forward", "openvino"],
        "plain transformers loop": [
            sys.executable,
            "-m",
            "jobs.benchmarks.peers.plain_loop",
            _IMAGES,
            "s3://lake/peer-loop",
            str(arguments.model),
        ],
        "Ray Data's documented pattern": [
            sys.executable,
            "-m",
            "jobs.benchmarks.peers.ray_data",
            _IMAGES,
            "s3://lake/peer-ray",
            str(arguments.model),
        ],
    }
    if arguments.daft:
        for words, instances in {"one instance": 1, "an instance a core": len(os.sched_getaffinity(0))}.items():
            peer = [
                arguments.daft,
                "-m",
                "jobs.benchmarks.peers.daft_class",
                _IMAGES,
                f"s3://lake/peer-daft-{instances}",
                str(arguments.model),
            ]
            contestants[f"Daft, {words}"] = [*peer, str(instances)]
    if not find_spec("openvino"):
        del contestants["masklake, OpenVINO"]
    wanted = {name.strip() for name in arguments.only.split(",")}
    contestants = {name: command for name, command in contestants.items() if name == "masklake" or any(each in name for each in wanted)}
    with SeaweedFS() as server:
        os.environ.update(server.env())
        server.create_bucket("lake")
        print(f"making {arguments.images} scenes ...", flush=True)
        upload_scenes(_IMAGES, range(arguments.images))
        if "masklake, OpenVINO" in contestants:
            upload_scenes("s3://lake/first/", range(10))
            once = _segment("s3://lake/masks-first", arguments.model, "s3://lake/first/")
            _measure("the conversion, once", [*once, "--forward", "openvino"], 10)
        results = {name: _measure(name, command, arguments.images) for name, command in contestants.items()}
    ours = results["masklake"]
    print(f"\n{'':<32}{'seconds':>9}{'whole, images/s':>17}{'steady, images/s':>18}{'ours / this: whole':>20}{'steady':>8}")
    for name, result in results.items():
        # So few images that all are in the first commit have no steady state.
        result |= {f"ours_to_this_{kind}": round(ours[kind] / result[kind], 2) if result[kind] else 0.0 for kind in ("whole", "steady")}
        ratios = f"{result['ours_to_this_whole']:>20.2f}{result['ours_to_this_steady']:>8.2f}"
        print(f"{name:<32}{result['seconds']:>9.1f}{result['whole']:>17.1f}{result['steady']:>18.1f}{ratios}")
    measured = {"images": arguments.images, "cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0], "results": results}
    print(json.dumps(measured))
    if arguments.result:
        arguments.result.write_text(json.dumps(measured, indent=1) + "\n")
    return 0


def _segment(table: str, model: Path, images: str = _IMAGES) -> list[str]:
    return [sys.executable, "-m", "masklake", "segment", "--input", images, "--output", table, "--model", str(model)]


def _measure(name: str, command: list[str], images: int) -> dict[str, float]:
    print(f"running {name} ...", flush=True)
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    print(f"{name}: {seconds:.1f} s", flush=True)  # the others may take longer than there is time
    if done.returncode:
        raise SystemExit(f"benchmark: {name} ended with exit code {done.returncode}:\n{done.stderr[-3000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    if result["images"] != images:
        raise SystemExit(f"benchmark: {name} answered {result['images']} images, not {images}")
    steady = result["steady_images_per_second"]
    return {"seconds": round(seconds, 1), "whole": round(images / seconds, 2), "steady": round(steady, 2)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks.whole_lake", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2000, help="generated scenes in the lake (default: %(default)s)")
    parser.add_argument("--model", type=Path, default=MODEL, help="panoptic checkpoint folder (default: the demo model)")
    parser.add_argument("--daft", help="Python of an environment in which Daft is, to be measured as well")
    parser.add_argument(
        "--only", default="", help="beside masklake, contestants with one of these in their names, by commas (default: all)"
    )
    parser.add_argument("--result", type=Path, help="where the result goes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
