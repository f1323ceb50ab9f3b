"""Train the demo model from nothing on generated scenes and write its checkpoint folder.

python -m jobs.train_demo_model --output infra/demo-model        # about 40 minutes on 2 cores
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

from pipeline.training import demo_model

_REPORT_EVERY = 100  # steps
_SAVE_EVERY = 1000  # steps


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    model = demo_model.build_model(arguments.seed)
    started = time.monotonic()
    losses: list[float] = []

    def report(step: int, loss: float) -> None:
        losses.append(loss)
        if step % _REPORT_EVERY == 0:
            elapsed = time.monotonic() - started
            eta = elapsed / step * (arguments.steps - step)
            mean = sum(losses[-_REPORT_EVERY:]) / _REPORT_EVERY
            print(f"step {step}/{arguments.steps}  loss {mean:.2f}  {elapsed:.0f} s  ETA {eta:.0f} s", flush=True)
        if step % _SAVE_EVERY == 0:
            demo_model.save_checkpoint(model, arguments.output)

    demo_model.train(model, arguments.steps, arguments.batch, arguments.rate, report)
    demo_model.save_checkpoint(model, arguments.output)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jobs.train_demo_model", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="checkpoint folder to write")
    parser.add_argument("--steps", type=int, default=9000, help="optimizer steps (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="scenes per step (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate of the one-cycle schedule (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the initial weights (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: torch's choice)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
