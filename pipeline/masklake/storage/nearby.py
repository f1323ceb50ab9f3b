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
        itself = {f"{missing}/", missing if path == uri else ""}
        if itself.intersection(names):  # it is there, and empty: only what is called almost the same may have been meant
            return _like(f"{folder}/", missing, [name for name in names if name not in itself])
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
    return _like(folder, missing, begun or names) or f"{folder} holds {shown(names)}"


def _like(folder: str, missing: str, names: list[str]) -> str:
    """A question after the names that resemble a missing one, or begin with it where there is just that one; empty where none does."""
    plain = {name.rstrip("/").lower(): name for name in reversed(names)}
    begun = [name for name in plain if name.startswith(missing.lower())]
    like = begun if len(begun) == 1 else difflib.get_close_matches(missing.lower(), plain, _NAMES_SHOWN)
    return f"did you mean {' or '.join(folder + plain[name] for name in like)}?" if like else ""


def shown(names: list[str]) -> str:
    """A few of some names, and how many more there are."""
    more = f" and {len(names) - _NAMES_SHOWN:,} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more
