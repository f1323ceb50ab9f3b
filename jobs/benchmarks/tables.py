"""Figures in the documents, from the files that programs wrote.

A figure in a sentence or a cell is followed by a comment with its file in `results/` and its place in it, a JSON pointer (RFC 6901), and
what it is multiplied by where it is not 1; its form (decimals, commas, a sign) is that of the figure in the document:

    **0.897**<!-- judge.json#/pq -->, in 0.24 %<!-- precisions.json#/panoptic/share x100 -->

A table stands between `<!-- table: NAME -->` and `<!-- end -->`, and is made by the function of that name here, listed in `TABLES`.

What `masklake models` knows of speed, `pipeline/masklake/commands/measured.json`, is made here as well.

    python -m jobs.benchmarks.tables            # write all of them anew
    python -m jobs.benchmarks.tables --check    # or say which are not what their file says, exit code 1
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
DOCUMENTS = tuple(
    ROOT / name
    for name in (
        *("README.md", "jobs/README.md", "jobs/benchmarks/README.md", "pipeline/README.md", "pipeline/masklake/demo/model/README.md"),
        *("infra/README.md", "tests/README.md"),
    )
)
MEASURED = ROOT / "pipeline" / "masklake" / "commands" / "measured.json"
FIGURE = re.compile(
    r"(?P<figure>[+-]?\d[\d,]*(?:\.\d+)?)(?P<unit>[*`%\w ]{0,8})"
    r"<!-- (?P<file>[\w.-]+\.json)#(?P<pointer>/[^>\n]+?)(?: x(?P<factor>[\d.e-]+))? -->"
)
_TABLE = re.compile(r"(?P<head><!-- table: (?P<name>\w+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)


def main(argv: list[str] | None = None) -> int:
    """Write the figures of all documents anew, or with `--check` say which are stale."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks.tables", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 where a document is not what its files say")
    check = parser.parse_args(argv).check
    stale = False
    for path in (*DOCUMENTS, MEASURED):
        text = path.read_text(encoding="utf-8")
        fresh = measured(RESULTS) if path == MEASURED else rewritten(text, RESULTS)
        if fresh != text:
            stale = True
            print(path.relative_to(ROOT), *differences(text, fresh), sep="\n  ", file=sys.stderr)
            if not check:
                path.write_text(fresh, encoding="utf-8")
    return int(stale and check)


def rewritten(text: str, results: Path) -> str:
    """The document with the figures and tables of the files in `results`.

    Raises:
        OSError: there is no such file.
        LookupError: the file has nothing in that place, or there is no such table.
    """
    text = FIGURE.sub(partial(_figure, results=results), text)
    return _TABLE.sub(lambda found: found["head"] + "".join(f"{line}\n" for line in TABLES[found["name"]](results)) + found["end"], text)


def differences(old: str, new: str) -> list[str]:
    """The lines that go, behind a `-`, and those that come, behind a `+`."""
    found = list(difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm=""))
    return [line for line in found[2:] if not line.startswith("@@")]


def value(results: Path, file: str, pointer: str) -> Any:
    """What a JSON file holds at a pointer (RFC 6901).

    Raises:
        OSError: there is no such file.
        LookupError: it has nothing there.
    """
    found = json.loads((results / file).read_text(encoding="utf-8"))
    for part in pointer.removeprefix("/").split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        try:
            found = found[int(name)] if isinstance(found, list) else found[name]
        except (LookupError, ValueError, TypeError):
            raise LookupError(f"{file} has nothing at {pointer}") from None
    return found


def like(shown: str, number: float) -> str:
    """The number in the form of the one that is shown: its decimals, commas between thousands, a sign before it.

    >>> like("1,234.50", 98765.4321), like("+4", 17.2), like("12", 3.6)
    ('98,765.43', '+17', '4')
    """
    decimals = len(shown.partition(".")[2])
    return f"{number:{'+' if shown[0] == '+' else ''}{',' if ',' in shown or number >= 10_000 else ''}.{decimals}f}"


def _figure(found: re.Match[str], results: Path) -> str:
    number = float(value(results, found["file"], found["pointer"])) * float(found["factor"] or 1)
    return like(found["figure"], number) + found[0][len(found["figure"]) :]


def rows(*cells: Sequence[object]) -> list[str]:
    """A Markdown table: the first are its headings."""
    lines = [f"| {' | '.join(map(str, each))} |".replace("|  |", "| |") for each in cells]
    return [lines[0], "|" + "---|" * len(cells[0]), *lines[1:]]


def _evaluation(results: Path) -> list[str]:
    scores, images = value(results, "demo-evaluation.json", "/scores"), value(results, "demo-evaluation.json", "/images")
    parts = [scores["pq"], scores["sq"], scores["rq"], scores["things"]["pq"], scores["stuff"]["pq"]]
    return rows(
        ("PQ", "SQ", "RQ", "PQ things", "PQ stuff", "images scored", "missed"),
        (*(f"{100 * part:.1f}" for part in parts), images["scored"], images["missed"]),
    )


def _judged(results: Path) -> list[str]:
    judged = json.loads((results / "judge.json").read_text(encoding="utf-8"))
    named = {"all": judged, "things (ball, crate, cone)": judged["things"], "stuff (sky, water, grass)": judged["stuff"]}
    return rows(("", "PQ", "SQ", "RQ"), *((name, *(f"{part[key]:.3f}" for key in ("pq", "sq", "rq"))) for name, part in named.items()))


def _trials(results: Path) -> list[str]:
    """How many trials of each kind of fault there were, and how they ended."""
    kinds = value(results, "faults.json", "/by_kind")
    counts = ((f"`{kind}`", f"{found['trials']}", f"{found['failed']}", f"{found['missed']}") for kind, found in kinds.items())
    return rows(("kind", "trials", "that broke a promise", "tries that were none"), *counts)


_ON_A_GPU = (
    "transformers' forward",
    "our forward",
    "everything, panoptic, 1 caller",
    "everything, panoptic, graphs",
    "transformers' own way, panoptic",
)


def _on_a_gpu(results: Path) -> list[str]:
    """Milliseconds an image, and images a second."""
    found = value(results, "gpu-h200.json", "/parts/speed/mask2former-swin-tiny-384, 640x480/result")
    return rows(("", "ms an image", "images/s"), *((name, f"{found[name]:.2f}", f"{1000 / found[name]:.0f}") for name in _ON_A_GPU))


def _decoding(results: Path) -> list[str]:
    measured = json.loads((results / "decoding.json").read_text(encoding="utf-8"))["rows"]
    head = ("megapixels", "`--decode`", "CPU ms", "MB at most", "cores for 100 images/s", "difference from exact, of 255")
    cells = [
        (
            f"{row['megapixels']:g}",
            row["way"],
            f"{row['milliseconds']:.0f}",
            row["megabytes"],
            f"{row['cores_for_100_a_second']:.1f}",
            f"{row['mean_difference']:.2f}",
        )
        for row in measured
    ]
    return rows(head, *cells)


def _postprocess_counts(results: Path) -> list[str]:
    """Of an image but for the waits of a batch; before and after the slash: image by image, and together. One number: that together."""
    found = json.loads((results / "postprocess_counts.json").read_text(encoding="utf-8"))
    lines: list[tuple[object, ...]] = [("", "original", "operations", "MB moved", "waits of one image", "waits of a batch", "host, ms")]
    for task, name in (("panoptic", "panoptic"), ("instance", "instance"), ("semantic", "semantic"), ("concepts", "SAM 3, 12 instances")):
        lines += [(name, size, *_counted(counts)) for size, counts in found[task].items()]
    return rows(*lines, ("training: which query learns which object", "", *_counted(found["matching"])))


def _counted(counts: dict[str, Any]) -> list[str]:
    ways = [counts[way] for way in ("one_by_one", "together") if way in counts]
    pairs = [" / ".join(f"{way[key]:,.0f}" for way in ways) for key in ("operations", "megabytes")]
    waits = ways[0]["waits_a_batch"] / counts["images"], ways[-1]["waits_a_batch"]
    return [*pairs, f"{waits[0]:.0f}", f"{waits[1]}", " / ".join(f"{way['host_ms']:.1f}" for way in ways if "host_ms" in way)]


_LEAST_SHARE, _TIMES_FASTER = 0.9, 10


def _gpu_targets(results: Path) -> list[str]:
    """What was asked of a GPU, what it did, and whether that is enough."""
    small, large = (
        value(results, "gpu-h200.json", f"/parts/speed/mask2former-swin-tiny-384, {size}/result") for size in ("640x480", "1920x1080")
    )
    job = value(results, "gpu-h200.json", "/parts/job/photographs of 640x480/result")
    shares = job["device busy, share of seconds with kernels, in tenths of the run"]
    busy = max(shares)
    at_work = sum(shares) / busy * job["seconds"] / len(shares)  # the first tenth with kernels, and the last, are of partial work
    rate = job["images"] / at_work
    swin_large = value(results, "gpu-h100.json", "/before/forward of transformers by batch")["L800 b8"]["per_image"]
    bare, ours, theirs = small["transformers' forward"], small["our forward"], small["transformers' own way, panoptic"]

    def share(forward: float, everything: float, what: str) -> tuple[str, str, str]:
        reached = forward / everything
        return f"{what}: at least {_LEAST_SHARE:.0%}", f"{reached:.0%}", "yes" if reached >= _LEAST_SHARE else "no"

    times, longest = theirs / small["everything, panoptic, graphs"], (theirs - bare + swin_large) / swin_large
    return rows(
        ("target", "measured", "met"),
        share(
            bare,
            1000 / rate,
            "the job from JPEGs to rows, panoptic, while kernels ran, of transformers' bare forward",
        ),
        share(bare, small["everything, panoptic, 1 caller"], "one process to COCO's strings, panoptic, of transformers' bare forward"),
        share(bare, small["everything, panoptic, graphs"], "the same with CUDA graphs"),
        share(ours, small["everything, panoptic, graphs"], "the same, of our own forward, which is faster"),
        share(bare, large["everything, panoptic, graphs"], "with CUDA graphs, of 1920x1080, of transformers' bare forward"),
        share(bare, small["everything, all tasks, 1 caller"], "one process, all three tasks, of transformers' bare forward"),
        (f"{_TIMES_FASTER} times transformers' own way, Swin-T", f"{times:.1f}", "yes" if times >= _TIMES_FASTER else "no"),
        (f"Swin-L at 800/1333: as many times as its forward allows, {longest:.1f}", "the forward alone", "not measured"),
        (f"the job: the device is busy {_LEAST_SHARE:.0%} of the time", f"{busy:.0%}", "yes" if busy >= _LEAST_SHARE else "no"),
    )


def _half_precision(results: Path) -> list[str]:
    cells: list[Sequence[object]] = [("input", "", "coordinates", "segments", "found again", "area that differs", "images not answered")]
    for file in sorted(results.glob("half-precision-*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        for row in found["precisions"]:
            share = f"{row['area_that_differs']:.2%}"
            cells.append((found["resolution"], row["dtype"], row["coordinates"], row["segments"], row["found"], share, row["unanswered"]))
    return rows(*cells)


_PRESETS = {
    "mask2former-swin-tiny-384": ("facebook/mask2former-*-coco-panoptic", "Swin-T"),
    "mask2former-swin-large-800": ("facebook/mask2former-*-coco-panoptic", "Swin-L at 800/1333"),
    "oneformer-swin-large-800": ("shi-labs/oneformer_coco_swin_*", "Swin-L"),
    "eomt-large-640": ("tue-mps/coco_panoptic_eomt_*", "L 640"),
}
"""Models of benchmarks, and the released checkpoints whose architecture and input they have."""


def measured(results: Path) -> str:
    """Images a second of released architectures: loaded images of 640x480 to finished panoptic run lengths."""
    file, way = "gpu-h200.json", "everything, panoptic, graphs"
    speed, device = value(results, file, "/parts/speed"), value(results, file, "/environment/gpu")
    lines = []
    for preset, (repositories, variant) in _PRESETS.items():
        milliseconds = speed.get(f"{preset}, 640x480", {}).get("result", {}).get(way)
        if milliseconds:
            source = f"{file}#/parts/speed/{preset}, 640x480/result/{way}"
            told = {"repositories": repositories, "variant": variant, "images_per_second": round(1000 / milliseconds)}
            lines.append(json.dumps({**told, "device": device, "source": source}))
    return "[\n " + ",\n ".join(lines) + "\n]\n"


def _conversions(results: Path) -> list[str]:
    """Which families OpenVINO takes, and what that costs at the start."""
    cells: list[Sequence[object]] = [("family", "largest difference from torch's logits", "CPU s to the first answer", "from the cache")]
    for name, found in value(results, "conversions.json", "/families").items():
        if found["converts"]:
            seconds = found["seconds"]
            cells.append((name, f"{found['largest_relative_difference']:.0e}", f"{seconds['converted']:.1f}", f"{seconds['kept']:.2f}"))
        else:
            cells.append(
                (name, "not converted: it is told concepts" if "--concepts" in found["why"] else f"not converted: {found['why']}", "", "")
            )
    return rows(*cells)


def _fleet(results: Path) -> list[str]:
    """What a simulated fleet's commits cost the driver."""
    cells = [("a minute of it", "files", "commits", "CPU ms of 1,000 images", "CPU s of a commit", "MB at most")]
    for run in value(results, "fleet.json", "/runs"):
        costs = (f"{run['cpu_ms_per_1000_images']:.1f}", f"{run['commit_cpu_seconds_median']:.3f}")
        cells.append((run["name"], f"{run['files']:,}", f"{run['commits']:,}", *costs, f"{run['peak_mb']:,}"))
    return rows(*cells)


def _at_scale(results: Path) -> list[str]:
    """What a billion images ask for."""
    found = json.loads((results / "scale.json").read_text(encoding="utf-8"))
    listing, plan, table, driver = (found[name] for name in ("listing", "plan", "table", "driver"))
    parts = found["asked"]["parts"]
    return rows(
        ("", "in one run", f"as {parts} runs of a prefix each"),
        ("the work, at 5,000 images/s", f"{found['hours']:.0f} h", f"{60 * found['hours'] / parts:.0f} min each"),
        (
            "listing",
            f"{listing['cpu_hours']:.1f} h of CPU, {listing['requests']:,} requests",
            f"{60 * listing['cpu_hours'] / parts:.0f} min each",
        ),
        ("planning from an inventory", f"{listing['inventory_cpu_hours']:.1f} h of CPU", ""),
        ("digests on the driver's disk", f"{listing['digests_gb']:.0f} GB", f"{1000 * listing['digests_gb'] / parts:.0f} MB"),
        ("files of the work list", f"{plan['files']:,}", f"{plan['files'] / parts:,.0f}"),
        (
            "images that a lost load task does again, at most",
            f"{plan['images_per_load_task']:,}",
            f"{plan['images_per_load_task_of_a_part']:,}",
        ),
        ("the table", f"{table['tb']:.0f} TB", ""),
        (f"files of {table['file_mb']} MB", f"{table['files']:,}", f"{table['files'] / parts:,.0f}"),
        ("files a day", f"{table['files_a_day']:,}", ""),
        ("commits a day, at most", f"{table['commits_a_day']:,}", ""),
        ("the log a day", f"{table['log_mb_a_day']:,} MB, {table['checkpoints_a_day']} checkpoints", ""),
        ("the last checkpoint", f"{table['last_checkpoint_mb']:.0f} MB, {table['last_checkpoint_cpu_seconds']:.1f} s of CPU", ""),
        ("the last commit", f"{driver['last_commit_cpu_seconds']:.1f} s of CPU", ""),
        ("the driver's memory for the list of files", f"{driver['table_mb']:,} MB", ""),
        (f"with files of 1,024 rows: {table['files_of_1024_rows']:,} of them", "", ""),
        ("their last commit", f"{driver['last_commit_cpu_seconds_of_1024_rows']:.1f} s of CPU", ""),
        ("their list on the driver", f"{driver['table_mb_of_1024_rows']:,} MB", ""),
    )


TABLES: dict[str, Callable[[Path], list[str]]] = {
    "demo_evaluation": _evaluation,
    "judged": _judged,
    "half_precision": _half_precision,
    "trials": _trials,
    "on_a_gpu": _on_a_gpu,
    "gpu_targets": _gpu_targets,
    "decoding": _decoding,
    "conversions": _conversions,
    "postprocess_counts": _postprocess_counts,
    "fleet": _fleet,
    "at_scale": _at_scale,
}


if __name__ == "__main__":
    sys.exit(main())
