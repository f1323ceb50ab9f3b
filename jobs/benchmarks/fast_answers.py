"""By how much `--decode fast` changes answers: photographs enlarged to 12 megapixels, answered after either way of decoding.

    python -m jobs.benchmarks.fast_answers --photographs FOLDER --model FOLDER

DeepLab (or another semantic checkpoint) on photographs: the area whose class differs, and the mean IoU of one answer with the other. The
demo model on held-out scenes: panoptic quality of both against the scenes' truth.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from masklake.demo import MODEL
from masklake.demo.scenes import HELD_OUT, THING_LABEL_IDS, photograph
from masklake.images.decode import Decoded, decode
from masklake.inference import checkpoint
from masklake.inference.options import Options
from masklake.inference.preprocess import resize
from masklake.inference.segmenter import ModelInput, Segment, Segmenter
from masklake.quality import panoptic, semantic
from masklake.quality.panoptic import PanopticStats

RESULT = Path(__file__).parent / "results" / "fast-answers.json"
PIXELS = 12_000_000
_BOUND = 100_000_000
_WAYS = ("exact", "fast")


def main(argv: list[str] | None = None) -> int:
    """Answer all pictures both ways; prints the result and writes it."""
    arguments = _parser().parse_args(argv)
    files = sorted(arguments.photographs.glob("*.jpg"))[: arguments.images]
    result = {"megapixels": PIXELS / 1e6, "photographs": _photographs(arguments.model, files), "scenes": _scenes(arguments.images)}
    arguments.result.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return 0


def _photographs(model: Path, files: Sequence[Path]) -> dict[str, Any]:
    """A semantic model's answers, one way against the other."""
    segmenter = _load(model, "semantic")
    classes = len(segmenter.description.labels)
    differing, total = [], None
    for file in files:
        with Image.open(file) as image:
            data = _jpeg(_enlarged(image.convert("RGB")))
        exact, fast = (_class_map(*_answer(segmenter, data, way, "semantic")) for way in _WAYS)
        differing.append(float((exact != fast).mean()))
        compared = semantic.compare(fast, exact, classes)
        total = compared if total is None else total + compared
    assert total is not None
    return {
        "model": model.name,
        "images": len(files),
        "differing_area": round(float(np.mean(differing)), 5),
        "differing_area_at_most": round(max(differing), 5),
        "miou_of_fast_with_exact": round(total.result().miou, 4),
    }


def _scenes(images: int) -> dict[str, Any]:
    """The demo model's panoptic quality either way, truth enlarged with the scenes."""
    segmenter = _load(MODEL, "panoptic")
    totals = dict.fromkeys(_WAYS, PanopticStats())
    for seed in HELD_OUT[:images]:
        scene = photograph(seed)
        large = _enlarged(Image.fromarray(scene.image))
        truth = np.asarray(Image.fromarray(scene.ids.astype(np.int32)).resize(large.size, Image.Resampling.NEAREST))
        data = _jpeg(large)
        for way in _WAYS:
            segments, size = _answer(segmenter, data, way, "panoptic")
            ids, labels = panoptic.segment_ids([asdict(segment) for segment in segments], *size)
            totals[way] += panoptic.compare(ids, labels, truth, dict(enumerate(scene.label_ids, 1)))
    return {"images": images, **{f"pq_{way}": round(total.result(THING_LABEL_IDS).pq, 4) for way, total in totals.items()}}


def _load(folder: Path, task: str) -> Segmenter:
    return Segmenter.load(folder, checkpoint.describe(folder, Options(tasks=(task,))), "cpu", "float32")


def _enlarged(image: Image.Image) -> Image.Image:
    """A picture of the same shape with `PIXELS` pixels."""
    factor = (PIXELS / (image.width * image.height)) ** 0.5
    return image.resize((round(factor * image.width), round(factor * image.height)), Image.Resampling.BICUBIC)


def _jpeg(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "JPEG", quality=90)
    return sink.getvalue()


def _answer(segmenter: Segmenter, data: bytes, way: str, task: str) -> tuple[list[Segment], tuple[int, int]]:
    """The segments of a picture, and its size (height, width)."""
    plan = segmenter.description.resize
    found = decode(data, _BOUND, plan.target if way == "fast" else None)
    assert isinstance(found, Decoded), found
    assert (found.box is not None) == (way == "fast"), "a picture is so large that fast is another way"
    pixels = resize(found.pixels, plan) if found.box is None else resize(found.pixels, plan, found.size, found.box)
    segments = segmenter.segment([ModelInput(pixels, found.size, (task,))])[0][task]
    assert isinstance(segments, list), segments
    return segments, found.size


def _class_map(segments: Sequence[Segment], size: tuple[int, int]) -> NDArray[np.int32]:
    """The class of each pixel; `semantic.NONE` where there is none."""
    ids, labels = panoptic.segment_ids([asdict(segment) for segment in segments], *size)
    classes = np.full(max(labels, default=0) + 1, semantic.NONE, np.int32)
    for segment_id, label in labels.items():
        classes[segment_id] = label
    found: NDArray[np.int32] = classes[ids]
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks.fast_answers", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--photographs", type=Path, required=True, help="folder of JPEG files")
    parser.add_argument("--model", type=Path, required=True, help="folder of a semantic checkpoint")
    parser.add_argument("--images", type=int, default=20, help="how many photographs, and as many scenes (default: %(default)s)")
    parser.add_argument("--result", type=Path, default=RESULT, help="where the result goes (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
