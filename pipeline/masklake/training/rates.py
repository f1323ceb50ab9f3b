"""The learning rate as a function of the step: nothing of it has to be saved."""

from __future__ import annotations

import math

_POWER = 0.9  # of the poly schedule, as in DeepLab and Mask2Former
_ONE_CYCLE_START, _ONE_CYCLE_END, _ONE_CYCLE_RISE = 1 / 25, 1 / 25 / 1e4, 0.1  # torch's OneCycleLR, its rise apart


def factor(step: int, steps: int, schedule: str, warmup_steps: int) -> float:
    """The share of the peak rate for step `step` (from 0) of `steps`.

    poly: (1 - t)^0.9; cosine: (1 + cos(pi t)) / 2; one-cycle: half cosines from 1/25 up to 1 and down to 1/250,000 (Smith and Topin,
    arXiv:1708.07120, as torch anneals); constant: 1. The first three rise linearly over the warm-up before, constant too.
    """
    if schedule == "one-cycle":
        rise = max(warmup_steps, round(_ONE_CYCLE_RISE * steps), 1)
        if step < rise:
            return _half_cosine(_ONE_CYCLE_START, 1.0, step / rise)
        return _half_cosine(1.0, _ONE_CYCLE_END, (step - rise) / max(1, steps - 1 - rise))
    warm = min(1.0, (step + 1) / (warmup_steps + 1))
    passed = step / steps
    shapes = {"poly": math.pow(1 - passed, _POWER), "cosine": (1 + math.cos(math.pi * passed)) / 2, "constant": 1.0}
    return warm * shapes[schedule]


def _half_cosine(start: float, end: float, passed: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * passed)) / 2
