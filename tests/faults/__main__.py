"""Break the real job at random moments, many times, and report what was lost, doubled or left behind.

    python -m tests.faults --trials 40 --seed 7

Everything runs on this machine: SeaweedFS, Ray, the demo model. The same seed gives the same faults; when they strike depends on the
machine. Exit code 1 where a promise was broken. Trials that fill a disk need root, for a small file system of their own.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tests.faults.kinds import KINDS, NEED_ROOT, can_mount
from tests.faults.trials import Harness, choose, summarise


def main() -> int:
    """Run trials; the report is rewritten after each, so that an interrupted run leaves one as well."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=24, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="chooses kinds and moments (default: %(default)s)")
    parser.add_argument("--kinds", default="", help=f"only these, separated by commas: {', '.join(KINDS)}")
    parser.add_argument("--report", type=Path, default=Path("build/faults.json"), help="where the JSON report goes (default: %(default)s)")
    asked = parser.parse_args()
    kinds = [kind for kind in asked.kinds.split(",") if kind] or [kind for kind in KINDS if kind not in NEED_ROOT or can_mount()]
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"--kinds {','.join(sorted(unknown))}: there are only {', '.join(KINDS)}")
    asked.report.parent.mkdir(parents=True, exist_ok=True)
    done = []
    with Harness() as harness:
        for number, (kind, seed) in enumerate(choose(asked.trials, asked.seed, kinds), 1):
            done.append(harness.run(kind, seed))
            asked.report.write_text(json.dumps(summarise(done), indent=2))
            print(f"{number} of {asked.trials}: {json.dumps(done[-1])}", file=sys.stderr, flush=True)
    summary = summarise(done)
    print(json.dumps({name: value for name, value in summary.items() if name != "each"}))
    return 1 if summary["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
