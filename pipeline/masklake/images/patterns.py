"""Which images `--include` and `--exclude` leave: patterns of names, or of the ends of paths."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from masklake import storage


@dataclass(frozen=True)
class Patterns:
    """A pattern without a slash is one of names (`*.jpg`); with one, of the end of a path from any folder on (`raw/*.jpg`, `raw/`: all that
    lies in a folder `raw`). Each as in `--input`. An image stays in that fits one of `include`, or there is none, and none of `exclude`.

    Raises:
        Refused: one is not a pattern.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    _include: re.Pattern[str] | None = field(init=False, repr=False, compare=False)
    _exclude: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_include", _any(self.include))
        object.__setattr__(self, "_exclude", _any(self.exclude))

    def excludes(self, path: str) -> bool:
        """Whether a path fits one of `exclude`."""
        return self._exclude is not None and self._exclude.fullmatch(path) is not None

    def keeps(self, path: str) -> bool:
        """Whether an image with this path stays in."""
        return not self.excludes(path) and (self._include is None or self._include.fullmatch(path) is not None)

    def __bool__(self) -> bool:
        return bool(self.include or self.exclude)


def _any(patterns: Sequence[str]) -> re.Pattern[str] | None:
    if not patterns:
        return None
    return re.compile("|".join(f"(?s:.*/){storage.glob_regex(pattern.lstrip('/'))}" for pattern in patterns))


ALL = Patterns()
