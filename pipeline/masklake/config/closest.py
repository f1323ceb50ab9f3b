"""The name that was meant by a misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_CUTOFF = 0.6  # difflib's own
_SHORTEST = 3  # fewer letters begin too many names


def closest(wrong: str, names: Iterable[str], cutoff: float = _CUTOFF) -> str | None:
    """The one of `names` that `wrong` resembles most, whatever its case and with `-`, `_` or nothing between its words; None: none does.

    `cutoff` is how much it must at least resemble it, from 0 to 1: where there are few names, less will do.
    """
    by_letters: dict[str, str] = {}
    for name in names:
        by_letters.setdefault(_letters(name), name)
    letters = _letters(wrong)
    found = difflib.get_close_matches(letters, by_letters, 1, cutoff)
    if not found and len(letters) >= _SHORTEST:
        found = [each for each in by_letters if each.startswith(letters)][:1]
    return by_letters[found[0]] if found else None


def _letters(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
