"""Which classes a partition shows more or less often than the others do, beyond what chance gives.

An image shows a class or it does not, whatever the number of its segments: two segments of one image are not independent. A partition's
share of images with a class is compared with that of all other partitions together, by a test of two proportions: the pooled z-test where
each expected count is 5 or more (Cochran, Biometrics 10, 1954), else Fisher's exact test, two-sided (Statistical Methods for Research
Workers, 1934). As many classes times partitions are looked at, p-values are corrected by Holm's method (Scandinavian Journal of Statistics
6, 1979): the chance that one table without any change names a class is at most `LEVEL`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

LEVEL = 0.01

_LEAST_EXPECTED = 5.0
_ROUNDING = 1 + 1e-7  # two outcomes of the same probability may differ by so much

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Counted:
    """Images with an answer, and of each class how many show it."""

    images: int
    classes: Mapping[str, int]


@dataclass(frozen=True)
class Moved(Generic[Key]):
    """A class that moved: in a partition and in all others, the images that show it, and all images."""

    partition: Key
    label: str
    here: int
    of: int
    elsewhere: int
    of_others: int
    p: float
    """After the correction."""

    @property
    def share(self) -> float:
        return self.here / self.of

    @property
    def share_elsewhere(self) -> float:
        return self.elsewhere / self.of_others


def moved(partitions: Mapping[Key, Counted], level: float = LEVEL) -> list[Moved[Key]]:
    """The classes of partitions that moved, by the largest change of their share."""
    images = sum(each.images for each in partitions.values())
    totals: dict[str, int] = {}
    for each in partitions.values():
        for label, shown in each.classes.items():
            totals[label] = totals.get(label, 0) + shown
    compared = [
        (key, label, each.classes.get(label, 0), each.images, total - each.classes.get(label, 0), images - each.images)
        for key, each in partitions.items()
        if 0 < each.images < images
        for label, total in totals.items()
    ]
    corrected = holm([p_value(here, of, elsewhere, others) for _, _, here, of, elsewhere, others in compared])
    found = [Moved(*counts, p) for counts, p in zip(compared, corrected, strict=True) if p < level]
    return sorted(found, key=lambda each: (-abs(each.share - each.share_elsewhere), each.label, str(each.partition)))


def p_value(here: int, of: int, elsewhere: int, of_others: int) -> float:
    """How likely two shares differ so much by chance alone, two-sided."""
    shown, images = here + elsewhere, of + of_others
    if min(of, of_others) * min(shown, images - shown) < _LEAST_EXPECTED * images:
        return fisher(here, of, elsewhere, of_others)
    pooled = shown / images
    z = (here / of - elsewhere / of_others) / math.sqrt(pooled * (1 - pooled) * (1 / of + 1 / of_others))
    return math.erfc(abs(z) / math.sqrt(2))


def fisher(here: int, of: int, elsewhere: int, of_others: int) -> float:
    """Fisher's exact test: the probability of all tables with these margins that are no likelier than this one."""
    shown = here + elsewhere

    def log_probability(count: int) -> float:
        return _log_choose(of, count) + _log_choose(of_others, shown - count) - _log_choose(of + of_others, shown)

    ours = log_probability(here)
    each = (log_probability(count) for count in range(max(0, shown - of_others), min(of, shown) + 1))
    return min(1.0, sum(math.exp(other) for other in each if other <= ours + math.log(_ROUNDING)))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of as many tests, corrected: the i-th smallest of m times m - i + 1, none smaller than one before it."""
    corrected, largest = [1.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - place)))
        corrected[index] = largest
    return corrected


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
