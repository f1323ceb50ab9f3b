"""What there is where something is not: names that a mistyped one may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from itertools import islice

_NAMES_READ = 5000  # of a folder: five requests to S3, however much lies there
_NAMES_SHOWN = 3


def suggestion(uri: str, names_in: Callable[[str], Iterable[str]]) -> str:
    """A clause on what there is near a URI at which there is nothing; empty where nothing is known.

    Args:
        uri: in canonical form.
        names_in: the names directly below a folder (a URI that ends in a slash), those of folders with a slash; none where there is none.
    """
    path = uri.rstrip("/")
    while path.count("/") > 2:
        folder, _, missing = path.rpartition("/")
        names = sorted(islice(names_in(f"{folder}/"), _NAMES_READ))
        if names:
            return _clause(f"{folder}/", missing, names)
        path = folder
    return ""


def _clause(folder: str, missing: str, names: list[str]) -> str:
    begun = [name for name in names if name.startswith(missing) and name.rstrip("/") != missing]
    if len(begun) > 1:
        return (
            f"{len(begun):,} names in {folder} begin so ({shown(begun)}): write {folder}{missing}*{'/' if begun[0].endswith('/') else ''}"
        )
    plain = {name.rstrip("/").lower(): name for name in reversed(names)}
    like = [begun[0].rstrip("/").lower()] if begun else difflib.get_close_matches(missing.lower(), plain, _NAMES_SHOWN)
    if like:
        return f"did you mean {' or '.join(folder + plain[name] for name in like)}?"
    return f"{folder} holds {shown(names)}"


def shown(names: list[str]) -> str:
    """A few of some names, and how many more there are."""
    more = f" and {len(names) - _NAMES_SHOWN:,} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more
