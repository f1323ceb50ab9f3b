"""Segment a lake of images into a table of masks: `masklake segment --help`."""

from __future__ import annotations

import json
import signal
import sys

from jobs.progress import show_progress
from pipeline import config, job
from pipeline.errors import MasklakeError

PROG = "masklake segment"
TOO_MANY_FAILED = 3


def main(argv: list[str] | None = None) -> int:
    """Run the job; returns its exit code. The last line on stdout is one JSON object, whatever happens."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cluster's stop is an interruption like Ctrl-C
    try:
        settings = config.load(sys.argv[1:] if argv is None else argv, PROG)
        with show_progress() as progress:
            summary = job.segment(settings, progress)
    except MasklakeError as error:
        return _fail(error, error.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; what was committed stays, run the same command to go on", 1)
    code = TOO_MANY_FAILED if summary["too_many_failed"] else 0
    print(json.dumps({**summary, "exit_code": code}), flush=True)
    return code


def _fail(reason: MasklakeError | str, code: int) -> int:
    for line in str(reason).splitlines():
        print(f"masklake: {line}", file=sys.stderr)
    sys.stderr.flush()
    outcome = {2: "refused", 4: "fenced"}.get(code, "failed")
    print(json.dumps({"outcome": outcome, "error": str(reason), "exit_code": code}), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
