"""Measure the model side: everything from the decoded picture to run lengths, beside the bare forward and beside transformers' own way.

    python -m jobs.benchmarks.stages
    python -m jobs.benchmarks.stages --model mask2former-swin-large-800 --tasks panoptic --device cuda
    python -m jobs.benchmarks.stages --model path/to/checkpoint --sizes 1920x1080
    python -m jobs.benchmarks.stages --sweep-cpu
    python -m jobs.benchmarks.stages --model path/to/checkpoint --precisions --pictures path/to/photographs

All contestants share one process, one module and the same pictures, and take turns in rounds; times are medians, ratios the medians of
each round's own. Prints tables and, last, one JSON object. Needs torch, transformers, numpy, pycocotools and Pillow, and nothing else:
run it from the repository's root.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image

from jobs.benchmarks import models as benchmark_models
from jobs.benchmarks import precision as benchmark_precision
from jobs.benchmarks import sweep as benchmark_sweep
from jobs.benchmarks.contestants import Bench, Timing, bare, everything, measure, theirs
from jobs.benchmarks.models import PRESETS, Pixels
from masklake.demo import MODEL as DEMO
from masklake.errors import ImageFailure, Refused
from masklake.inference import checkpoint
from masklake.inference.families import ALL_TASKS
from masklake.inference.forwards import Forward
from masklake.inference.limits import default_batch
from masklake.inference.options import Options
from masklake.inference.preprocess import Size
from masklake.inference.segmenter import Segment, Segmenter

_DISTINCT = 8  # pictures that are made; more than these are repetitions
_KEPT = 25  # queries of a picture that random weights are taught to keep


def main(argv: list[str] | None = None) -> int:
    """Measure what the arguments say; prints tables, then one JSON object."""
    arguments = _parser().parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            folder = _folder(arguments.model, Path(scratch))
            if arguments.sweep_cpu:
                result: dict[str, Any] = {"sweep": benchmark_sweep.sweep(folder, arguments.sizes[0], arguments.rounds)}
            elif arguments.precisions:
                result = {"precisions": _precisions(folder, arguments)}
            else:
                result = {"results": _measurements(folder, arguments)}
        except Refused as refusal:
            print(f"benchmark: {refusal}", file=sys.stderr)
            return refusal.exit_code
    result = {"model": arguments.model, "resolution": arguments.resolution, "environment": _environment(), **result}
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))
    return 0


def _folder(model: str, scratch: Path) -> Path:
    """The checkpoint's folder; random weights are written into `scratch`."""
    if model == "demo":
        return DEMO
    if model not in PRESETS:
        return Path(model)
    print(f"making {model} with random weights ...", flush=True)
    return benchmark_models.write(PRESETS[model], scratch / model)


def _measurements(folder: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    segmenter = _load(folder, arguments, arguments.dtype)
    results = []
    for size in arguments.sizes:
        bench = _bench(segmenter, _pictures(segmenter, size, arguments), arguments)
        timing = measure(bench, arguments.rounds, arguments.hf)
        result = _result(bench, timing, size)
        _print(result)
        sys.stdout.flush()
        results.append(result)
    return results


def _precisions(folder: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    segmenter = _load(folder, arguments, "float32")
    return benchmark_precision.compare(segmenter, _pictures(segmenter, arguments.sizes[0], arguments), tuple(arguments.tasks))


def _load(folder: Path, arguments: argparse.Namespace, dtype: str) -> Segmenter:
    description = checkpoint.describe(folder, Options(tasks=tuple(arguments.tasks), resolution=arguments.resolution))
    return Segmenter.load(folder, description, arguments.device, dtype, arguments.batch, arguments.threads, arguments.forward)


def _pictures(segmenter: Segmenter, size: Size, arguments: argparse.Namespace) -> list[Pixels]:
    """The user's own, else generated ones of `size`; random weights are taught to see them."""
    if arguments.pictures:
        files = sorted(path for path in arguments.pictures.iterdir() if path.is_file())[: arguments.images]
        try:
            return [np.asarray(Image.open(path).convert("RGB")) for path in files]
        except OSError as error:
            raise Refused(f"--pictures {arguments.pictures}: must hold nothing but pictures: {error}") from None
    count = (arguments.images or _DISTINCT) if arguments.precisions else _DISTINCT
    if arguments.model not in PRESETS:
        return benchmark_models.scenes(size, count)
    patchworks = [benchmark_models.patchwork(size, _KEPT, seed) for seed in range(count)]
    benchmark_models.teach(segmenter, patchworks)
    return [one.image for one in patchworks]


def _bench(segmenter: Segmenter, pictures: list[Any], arguments: argparse.Namespace) -> Bench:
    """As many pictures as asked for, rounded up to full batches."""
    probe = Bench(segmenter, pictures[:1], tuple(arguments.tasks), 1)
    batch = arguments.batch or default_batch(segmenter.device, probe.padded)
    images = arguments.images or (4 if segmenter.device.type == "cpu" else 8 * batch)
    count = -(-images // batch) * batch
    return Bench(segmenter, [pictures[index % len(pictures)] for index in range(count)], tuple(arguments.tasks), batch)


def _result(bench: Bench, timing: Timing, size: Size) -> dict[str, Any]:
    """All figures of one picture size, as JSON; times in seconds a picture."""
    seconds = {name: timing.seconds(name) for name in timing.rounds}
    answers = bench.everything(bench.tasks)
    segments = {task: statistics.mean(_count(answer[task]) for answer in answers) for task in bench.tasks}
    rows = {}
    for tasks in bench.task_sets():
        forward = bare(tasks) if bare(tasks) in seconds else bare(bench.tasks[:1])
        ours, peers = everything(tasks), [theirs(task) for task in tasks]
        row = {"seconds": seconds[ours], "over_bare_forward": timing.ratio([ours], forward)}
        if all(peer in seconds for peer in peers):
            row["transformers_over_bare_forward"] = timing.ratio(peers, forward)
            row["transformers_over_everything"] = timing.ratio(peers, ours)
        rows["+".join(tasks)] = row
    return {
        "size": list(size),
        "input": list(bench.padded),
        "batch": bench.batch,
        "images": len(bench.pictures),
        "device": str(bench.device),
        "dtype": str(bench.segmenter.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "kept_queries": benchmark_models.kept_queries(bench.segmenter, bench.distinct),
        "segments": segments,
        "tasks": rows,
        "seconds": seconds,
        "seconds_by_round": timing.rounds,
        "peak_mib": timing.peaks,
        "stages": timing.stages,
    }


def _count(segments: list[Segment] | ImageFailure) -> int:
    """How many segments there are; a failure would make every figure a lie."""
    if isinstance(segments, ImageFailure):
        raise SystemExit(f"benchmark: the model failed on a picture: {segments}")
    return len(segments)


def _print(result: dict[str, Any]) -> None:
    height, width = result["size"]
    kept = "" if result["kept_queries"] is None else f"; {result['kept_queries']:.1f} queries kept"
    print(f"\n{width}x{height} -> {result['input'][1]}x{result['input'][0]}, {result['dtype']} on {result['device']}, ", end="")
    print(f"{result['threads']} threads, batch {result['batch']}{kept}")
    print(f"{'':<44}{'ms/image':>10}{'images/s':>10}{'/ forward':>11}{'peak MiB':>10}")
    for name, spent in result["seconds"].items():
        kind, _, tasks = name.partition(", ")
        row = result["tasks"].get(tasks, {})
        ratio = {"everything": row.get("over_bare_forward"), "transformers": row.get("transformers_over_bare_forward")}.get(kind)
        shown = f"{'':>11}" if ratio is None else f"{ratio:>11.3f}"
        print(f"{name:<44}{spent * 1000:>10.1f}{1 / spent:>10.2f}{shown}{result['peak_mib'][name]:>10.0f}")
    for name, row in result["tasks"].items():
        if "transformers_over_everything" in row:
            print(f"{'transformers / everything, ' + name:<64}{row['transformers_over_everything']:>11.3f}")
    total = sum(result["stages"].values())
    print(f"{'stage, one after the other':<44}{'ms/image':>10}{'share':>10}")
    for name, spent in result["stages"].items():
        print(f"{name:<44}{spent * 1000:>10.1f}{spent / total:>10.1%}")


def _environment() -> dict[str, Any]:
    import transformers

    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _sizes(text: str) -> list[Size]:
    """`640x480,1920x1080` (width x height, as screens are named) as (height, width)."""
    pairs = [tuple(int(side) for side in part.split("x")) for part in text.split(",")]
    if not all(len(pair) == 2 and min(pair) > 0 for pair in pairs):
        raise argparse.ArgumentTypeError(f"{text}: write WIDTHxHEIGHT,WIDTHxHEIGHT")
    return [(height, width) for width, height in pairs]


def _tasks(text: str) -> list[str]:
    tasks = list(dict.fromkeys(text.split(",")))
    unknown = [task for task in tasks if task not in ALL_TASKS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: tasks are {', '.join(ALL_TASKS)}")
    return tasks


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks.stages", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    models = f"{', '.join(PRESETS)} (random weights), demo, or a checkpoint's folder"
    parser.add_argument("--model", default=next(iter(PRESETS)), help=f"{models}; default: %(default)s")
    parser.add_argument("--sizes", type=_sizes, default="640x480,1920x1080", help="WIDTHxHEIGHT of the pictures (default: %(default)s)")
    parser.add_argument("--tasks", type=_tasks, default="panoptic,instance,semantic", help="default: %(default)s")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: %(default)s)")
    parser.add_argument(
        "--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16"), help="default: bfloat16 on a GPU, float32 on a CPU"
    )
    parser.add_argument("--resolution", default="checkpoint", help="of the model's input, as masklake segment has it")
    parser.add_argument("--batch", type=int, help="images in a forward pass (default: the Segmenter's choice)")
    parser.add_argument("--images", type=int, help="images in a round (default: 4 on a CPU, 8 batches on a GPU)")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--threads", type=int, help="CPU threads of torch (default: torch's choice)")
    parser.add_argument("--forward", choices=get_args(Forward), default="eager", help="as masklake segment has it")
    parser.add_argument("--hf", action=argparse.BooleanOptionalAction, default=True, help="also time transformers' own way")
    parser.add_argument("--sweep-cpu", action="store_true", help="instead: what threads, memory format, bfloat16 and torch.compile do")
    parser.add_argument("--precisions", action="store_true", help="instead: how many masks bfloat16 and float16 change")
    parser.add_argument("--pictures", type=Path, help="with --precisions: a folder of pictures (default: generated ones)")
    parser.add_argument("--output", type=Path, help="also write the JSON here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
