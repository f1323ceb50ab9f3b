"""Break the real job at random moments, many times, and report what was lost, doubled or left behind.

    python -m tests.faults --trials 40 --seed 7
    python -m tests.faults --report build/faults.json --only first-commit:173518645

Everything runs on this machine: SeaweedFS, Ray, the demo model. The same seed gives the same faults; when they strike depends on the
machine. Trials that the report already has are not made again, so that the same command goes on until there are as many as asked for;
`--again` forgets those that broke a promise or did not strike, and makes them again first. Exit code 1 where a promise was broken, or where
a fault did not strike. Trials that fill a disk need root, for a small file system of their own.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tests.faults.kinds import KINDS, NEED_ROOT, can_mount
from tests.faults.trials import Harness, choose, summarise


def main() -> int:
    """Run trials; the report is rewritten after each, so that an interrupted run leaves one as well."""
    asked, kinds = _asked()
    asked.report.parent.mkdir(parents=True, exist_ok=True)
    done: list[dict[str, Any]] = json.loads(asked.report.read_text())["each"] if asked.report.exists() else []
    again = [(trial["kind"], trial["seed"]) for trial in done if asked.again and (trial["problems"] or not trial["struck"])]
    todo = asked.only or [*again, *choose(asked.trials - len(again), asked.seed, kinds, done := _without(done, again))]
    done = _without(done, todo)
    ends = time.monotonic() + asked.minutes * 60
    with Harness(ray=asked.ray) as harness, ThreadPoolExecutor(asked.beside) as pool:

        def run(kind: str, seed: int) -> dict[str, Any] | None:
            return harness.run(kind, seed) if time.monotonic() < ends else None

        for trial in as_completed([pool.submit(run, kind, seed) for kind, seed in todo]):
            if (found := trial.result()) is not None:
                done.append(found)
                asked.report.write_text(json.dumps(summarise(done), indent=1) + "\n")
                print(f"{summarise(done)['trials']} of {asked.trials}: {json.dumps(found)}", file=sys.stderr, flush=True)
    summary = summarise(done)
    print(json.dumps({name: value for name, value in summary.items() if name != "each"}))
    return 1 if summary["failed"] or summary["trials"] < (len(todo) if asked.only else asked.trials) else 0


def _without(done: list[dict[str, Any]], some: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
    return [trial for trial in done if (trial["kind"], trial["seed"]) not in some]


def _one(text: str) -> tuple[str, int]:
    kind, _, seed = text.partition(":")
    if kind not in KINDS or not seed.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: not a kind and a seed, as in kill-driver:7")
    return kind, int(seed)


def _asked() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=24, help="how many, those in the report among them (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="chooses kinds and moments (default: %(default)s)")
    parser.add_argument("--kinds", default="", help=f"only these, separated by commas: {', '.join(KINDS)}")
    parser.add_argument(
        "--only", type=_one, nargs="+", default=[], metavar="KIND:SEED", help="make these trials, again or not, and no other"
    )
    parser.add_argument("--again", action="store_true", help="make again what broke a promise or did not strike")
    parser.add_argument(
        "--no-ray", dest="ray", action="store_false", help="use Ray only for kinds of fault that need it, not for a fifth of all"
    )
    parser.add_argument("--beside", type=int, default=1, help="trials at once (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=1440, help="begin no trial after this long (default: %(default)s)")
    parser.add_argument("--report", type=Path, default=Path("build/faults.json"), help="where the JSON report goes (default: %(default)s)")
    asked = parser.parse_args()
    kinds = [kind for kind in asked.kinds.split(",") if kind] or [kind for kind in KINDS if kind not in NEED_ROOT or can_mount()]
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"--kinds {','.join(sorted(unknown))}: there are only {', '.join(KINDS)}")
    return asked, kinds


if __name__ == "__main__":
    sys.exit(main())
