"""Export a table of masks to files that other tools read: `masklake export --help`."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from masklake.commands.ending import Paced, end_with, say
from masklake.errors import Refused
from masklake.export import run
from masklake.export.settings import BITS, Format, Settings
from masklake.schema import Task

PROG = "masklake export"
_ABOUT = """\
Export a table of masks to files that other tools read. The newest row with status ok of each image and task is taken.

formats:
  coco-instances  instances.json: COCO's instance JSON, an annotation per segment: a compressed run-length mask, and its score
  coco-panoptic   panoptic/*.png and panoptic.json: COCO's panoptic format; a pixel's colour is its segment's id, R + 256 G + 256^2 B
  label-maps      label-maps/*.png and labels.json: one single-channel PNG per image with the label id of each pixel
  segments        segments-*.parquet: one row per segment, with its image, label, score, area, share of the image, box and mask
"""
_RULES = """\
ids:
  A category's id is the table's label_id + 1; that is not COCO's own numbering. Label maps hold the label_id itself.
  An image's id is its position, from 1 on, in the order of the exported URIs; it changes when images are added or left out, while
  file_name (the URI below what all exported URIs have in common) and coco_url (the URI) name the image itself.
  An annotation's id is its image's id times 100,000 plus its segment_id. In panoptic JSON a segment's id is its segment_id.
  A PNG is named as its image, with .png for the ending; where that would be one name for two images, .png is added to the whole name.

An image of which no segment is left by --label and --min-score stays in the images, without annotations or all void. Annotations come in
no particular order. Memory is bounded; the temporary folder (TMPDIR) needs space for the JSON and, of millions of images, for sorting.
Files appear whole or not at all, and _export.json last: a folder without it holds no complete export.

exit codes: 0 done, 1 failed, 2 refused.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the export; returns its exit code. The last line on stdout is one JSON object, whatever happens."""
    return end_with(
        lambda: run.export(_settings(argv), say, Paced()),
        interrupted="interrupted; the export is not complete, run the same command with --overwrite",
    )


def _settings(argv: list[str] | None) -> Settings:
    given = vars(_parser().parse_args(argv))
    task = None if given["task"] is None else Task(given["task"])
    return Settings(**{**given, "format": Format(given["format"]), "task": task, "labels": tuple(given["labels"])})


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Refused(f"{message}; --help lists the settings")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=PROG, description=_ABOUT, epilog=_RULES, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--table", required=True, help="the table's folder (s3://, file://, a path)")
    parser.add_argument("--output", required=True, help="an empty folder for the export, on the same kinds of storage")
    parser.add_argument("--format", required=True, choices=[str(each) for each in Format], help="what to write, see above")
    parser.add_argument(
        "--task",
        choices=[str(each) for each in Task],
        help="whose rows (default: instance for coco-instances, panoptic for coco-panoptic, semantic for label-maps, all for segments)",
    )
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        dest="labels",
        metavar="LABEL",
        help="segments of this label only; may be given several times",
    )
    parser.add_argument("--min-score", type=float, metavar="SCORE", help="segments that score at least this")
    parser.add_argument("--where", metavar="SQL", help="rows that fit a condition on the table's columns, such as \"dt = '2026-11-22'\"")
    parser.add_argument("--model", help="rows of this model, as the table's column `model` names it")
    parser.add_argument("--fingerprint", help="rows of this fingerprint: one model and its settings")
    parser.add_argument("--bits", type=int, choices=BITS, default=8, help="bits of a label map's pixel (default: %(default)s)")
    parser.add_argument("--void", type=int, help="value of a label map's pixels without a label (default: 255, or 65535 with 16 bits)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export in the folder, complete or not")
    return parser


if __name__ == "__main__":
    sys.exit(main())
