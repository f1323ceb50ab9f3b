"""Score a table of masks against ground truth: `masklake evaluate --help`."""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table
from rich.text import Text

from masklake.commands.ending import Paced, end_with, leave, say
from masklake.errors import Refused
from masklake.evaluation import run
from masklake.evaluation.page import TITLES, figures, percent
from masklake.evaluation.report import BY_CLASS, Report, summary
from masklake.evaluation.settings import Settings
from masklake.pages.page import visible
from masklake.schema import Task
from masklake.truth.formats import Format

PROG = "masklake evaluate"
_ABOUT = """\
Score what is stored in a table of masks against ground truth. The newest row with status ok of each image is taken.

ground truth (--truth):
  coco-panoptic   a JSON, and PNGs in the folder beside it that has its name   PQ, SQ, RQ (--task panoptic), mIoU (--task semantic)
  coco-instances  a JSON: polygons, run lengths, crowds                        AP, AP50, AP75 (--task instance), mIoU (--task semantic)
  label-maps      a folder of single-channel PNGs of label ids                 mIoU, frequency-weighted IoU, pixel accuracy
What `masklake export` writes is read as well; give its folder.
"""
_RULES = """\
names of classes:
  Truth's name and the table's label are one class where they are the same, whatever their case. --categories names a YAML file for the
  rest, a line for each of truth's names; several may have one label:
      couch: sofa
      truck: car
      book: null           # not judged: void
      "*": background      # every name that is not in the file; then nothing matches by itself
  Of coco-instances, pixels that no instance covers are judged by --task semantic only where the file names them (background: background).
  What does not match is listed, and counts: a class of truth that is no segment's label is missed wherever it occurs. Segments with a label
  that truth does not have are taken away: they are no false positives, and what they cover is missed.

images:
  Truth's file_name is the end of the image's URI; or, where there is one of each, the file name alone. Label maps are named as the image,
  with .png for its ending or after it. An image of truth without a row, with an error, or of another size counts as missed with all that is
  in it. Images of the table without truth are not scored.

label maps:
  Their values are named by --labels, else by labels.json, labels.csv or labels.txt in the folder or above it: {"0": "sky"}, a list of
  names, a CSV with id and name, or lines like "0 sky". Pixels of --ignore-index are not judged.

figures:
  PQ is that of panopticapi, AP that of pycocotools; both count every class of truth that occurs. The figures do not depend on how the
  images are divided among tasks. More than 1,000 images, or any with --ray-address, are scored on Ray.

--output gets evaluation.json (all figures, names and the confusion matrix) and evaluation.html (the same to look at, and the worst images).

exit codes: 0 done, 1 failed, 2 refused.
"""
_CLASSES = 40  # rows of the table on the terminal


def main(argv: list[str] | None = None) -> int:
    """Run the evaluation; returns its exit code. The last line on stdout is one JSON object, whatever happens."""
    return end_with(lambda: _evaluate(argv), interrupted="interrupted; nothing was changed")


def _evaluate(argv: list[str] | None) -> dict[str, Any]:
    settings = _settings(argv)
    found = run.evaluate(settings, say, Paced())
    tell(found)
    return summary(found) | ({} if settings.output is None else {"output": settings.output})


def tell(found: Report) -> None:
    """The figures as a table, on stdout."""
    console = Console(width=None if sys.stdout.isatty() else 100)
    names = BY_CLASS[found["task"]]
    table = Table(title=f"{found['task']}: {found['images']['scored']} images", title_justify="left")
    table.add_column("class", overflow="fold")
    for name in names:
        table.add_column(TITLES[name], justify="right")
    table.add_column(f"true {found['unit']}", justify="right")
    table.add_column("predicted", justify="right")
    judged = sorted((each for each in found["classes"] if each.get(names[0]) is not None), key=lambda each: -each[names[0]])
    for each in judged[:_CLASSES]:
        label = Text("".join(map(visible, each["label"])))
        table.add_row(label, *(percent(each.get(name)) for name in names), f"{each['true']:,}", f"{each['predicted']:,}")
    if len(judged) > _CLASSES:
        table.add_row(f"{len(judged) - _CLASSES} more, in evaluation.json")
    console.print(table)
    console.print("   ".join(f"{title} {percent(figure)}" for title, figure in figures(found)), markup=False, highlight=False)


def _settings(argv: list[str] | None) -> Settings:
    given = vars(_parser().parse_args(argv))
    task = None if given["task"] is None else Task(given["task"])
    wanted = None if given["truth_format"] is None else Format(given["truth_format"])
    return Settings(**{**given, "task": task, "truth_format": wanted})


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Refused(f"{message}; --help lists the settings")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=PROG, description=_ABOUT, epilog=_RULES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", required=True, help="the table's folder: s3://, file:// or a path")
    parser.add_argument("--truth", required=True, help="ground truth: a JSON file or a folder, on the same kinds of storage")
    parser.add_argument("--truth-format", choices=[str(each) for each in Format], help="its format (default: found out)")
    parser.add_argument(
        "--task", choices=[str(each) for each in Task], help="whose rows (default: panoptic, instance or semantic, as the truth is)"
    )
    parser.add_argument("--categories", metavar="FILE", help="YAML of truth's names and the table's labels, see below")
    parser.add_argument("--labels", metavar="FILE", help="of label maps: names of their values, see below")
    parser.add_argument(
        "--ignore-index", type=int, metavar="N", help="of label maps: the value that is not judged (default: what the labels say, else 255)"
    )
    parser.add_argument("--where", metavar="SQL", help="rows that fit a condition on the table's columns, such as \"dt = '2026-11-22'\"")
    parser.add_argument("--model", help="rows of this model, as the table's column `model` names it")
    parser.add_argument("--fingerprint", help="rows of this fingerprint: one model and its settings")
    parser.add_argument("--output", help="a folder for evaluation.json and evaluation.html, which are replaced")
    parser.add_argument("--worst", type=int, default=12, metavar="N", help="images of the lowest scores on the page (default: %(default)s)")
    parser.add_argument("--ray-address", help="score on this Ray cluster; `local` starts one here")
    return parser


if __name__ == "__main__":
    leave(main())
