"""Panoptic quality of a checkpoint on the 500 held-out scenes: photograph-like sizes, stored as JPEG, judged at their original size.

python -m jobs.judge_demo_model --model pipeline/masklake/demo/model --output jobs/benchmarks/results/judge.json
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from masklake.demo.scenes import HELD_OUT, LABELS, THING_LABEL_IDS, Rendered, jpeg, photograph
from masklake.images.decode import Decoded, decode
from masklake.inference import checkpoint, preprocess
from masklake.inference.options import Options
from masklake.inference.segmenter import ModelInput, Segment, Segmenter
from masklake.quality import panoptic
from masklake.quality.panoptic import PanopticStats

_BATCH = 20
_TASK = "panoptic"


def main(argv: list[str] | None = None) -> int:
    """Judge the checkpoint; prints a table and, last, one JSON object."""
    arguments = _parser().parse_args(argv)
    description = checkpoint.describe(arguments.model, Options(tasks=(_TASK,)))
    segmenter = Segmenter.load(arguments.model, description, dtype=arguments.dtype)
    total = PanopticStats()
    for first in range(0, arguments.scenes, _BATCH):
        scenes = [photograph(seed) for seed in HELD_OUT[first : min(first + _BATCH, arguments.scenes)]]
        answers = segmenter.segment([_model_input(scene, description.resize) for scene in scenes])
        for scene, answer in zip(scenes, answers, strict=True):
            segments = answer[_TASK]
            if not isinstance(segments, list):
                raise SystemExit(f"the model failed: {segments}")
            total += _compare(segments, scene)
        print(f"{min(first + _BATCH, arguments.scenes)}/{arguments.scenes} scenes", end="\r", file=sys.stderr)
    quality = total.result(THING_LABEL_IDS)
    _tell(quality)
    result = {"scenes": arguments.scenes, "dtype": arguments.dtype, **_figures(quality)}
    result |= {"things": _figures(quality.things), "stuff": _figures(quality.stuff)}
    result["classes"] = {LABELS[label_id]: _figures(figures) for label_id, figures in quality.per_class.items()}
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))
    return 0


def _model_input(scene: Rendered, plan: preprocess.ResizePlan) -> ModelInput:
    decoded = decode(jpeg(scene), max_pixels=10**7)
    assert isinstance(decoded, Decoded)
    return ModelInput(preprocess.resize(decoded.pixels, plan), scene.ids.shape, (_TASK,))


def _compare(segments: list[Segment], scene: Rendered) -> PanopticStats:
    height, width = scene.ids.shape
    ids, labels = panoptic.segment_ids([asdict(segment) for segment in segments], height, width)
    return panoptic.compare(ids, labels, scene.ids, dict(enumerate(scene.label_ids, 1)))


def _figures(quality: panoptic.PanopticQuality | panoptic.Quality) -> dict[str, float]:
    return {"pq": quality.pq, "sq": quality.sq, "rq": quality.rq}


def _tell(quality: panoptic.PanopticQuality) -> None:
    print(f"{'':<10}{'PQ':>8}{'SQ':>8}{'RQ':>8}")
    rows: list[tuple[str, panoptic.PanopticQuality | panoptic.Quality]] = [
        ("all", quality),
        ("things", quality.things),
        ("stuff", quality.stuff),
    ]
    rows += [(LABELS[label_id], figures) for label_id, figures in quality.per_class.items()]
    for name, figures in rows:
        print(f"{name:<10}{figures.pq:>8.4f}{figures.sq:>8.4f}{figures.rq:>8.4f}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.judge_demo_model", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--scenes", type=int, default=len(HELD_OUT), help="how many of the held-out scenes (default: all %(default)s)")
    precisions = ("auto", "float32", "bfloat16", "float16")
    parser.add_argument("--dtype", default="auto", choices=precisions, help="default: bfloat16 on a GPU, float32 on a CPU")
    parser.add_argument("--output", type=Path, help="also write the JSON here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
