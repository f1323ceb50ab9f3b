"""Why an input has no image, in words that name what would: an empty listing is a mistyped name more often than an empty lake."""

from __future__ import annotations

import re
from itertools import islice

from masklake import storage
from masklake.errors import Refused
from masklake.images.listing import listed, one_file
from masklake.images.tally import Tally, most_common
from masklake.storage import StorageError
from masklake.storage.nearby import shown

_PAGES_LOOKED_AT = 20
_NAMES, _ENDINGS = 1000, 5
_EXPECTED = "; if that is as it should be, say --allow-empty"


def refuse_absent(uri: str) -> None:
    """See that there is something at a URI that is not a pattern, with a request or two.

    Raises:
        Refused: there is nothing.
    """
    if not storage.is_glob(uri) and one_file(uri) is None and not storage.list_names(uri, 1):
        raise Refused(f"--input {uri}: {_nothing_at(uri)}{_EXPECTED}")


def refuse_empty(uri: str, tally: Tally) -> None:
    """See that there was an image, or would have been but for `since`.

    Raises:
        Refused: there was none; the message says what would match.
    """
    if tally.images or tally.older:
        return
    if tally.excluded:
        endings = ", ".join(f"{number:,} {ending or 'without an ending'}" for ending, number in most_common(tally.endings, _ENDINGS))
        raise Refused(f"--include, --exclude: they leave out every image of {uri} ({endings}){_EXPECTED}")
    held = f"none of its objects ({tally.listed:,}) holds an image" if tally.listed else _why_empty(uri)
    raise Refused(f"--input {uri}: {held}{_EXPECTED}")


def _why_empty(uri: str) -> str:
    if storage.is_glob(uri) and not storage.exists(uri):
        return _why_no_match(uri)
    if one_file(uri) is not None:
        return "it names no image"
    hidden = storage.list_names(uri, _NAMES)
    if hidden:
        return f"all that it holds is hidden, with names that begin with _ or . ({shown(hidden)})"
    return _nothing_at(uri)


def _nothing_at(uri: str) -> str:
    clause = storage.nearby(uri)
    return f"there is nothing there{': ' if clause else ''}{clause}"


def _why_no_match(pattern: str) -> str:
    """What the pattern would match with a slash at its end, or what there is where its first wildcard is."""
    folders = [] if pattern.endswith("/") else _matching_folders(pattern)
    if folders:
        number = "a folder" if len(folders) == 1 else f"{len(folders):,} folders"
        return f"the pattern matches {number} ({shown(folders)}) and no object: write {pattern}/ for what is below"
    root = storage.glob_root(pattern)
    folder = root[: root.rindex("/") + 1]
    if not storage.exists(folder):
        return f"no object matches: {_nothing_at(folder)}"
    below = storage.nearby(root) if root != folder else ""
    return f"no object matches: {below or f'{folder} holds {shown(storage.list_names(folder, _NAMES))}'}"


def _matching_folders(pattern: str) -> list[str]:
    """The names of folders that a pattern matches, as far as the first objects below them tell."""
    matches = re.compile(storage.glob_regex(storage.normalise(pattern))).fullmatch
    found = dict[str, None]()
    try:
        for files in islice(listed(f"{pattern}/"), _PAGES_LOOKED_AT):
            for file in files.files():
                ends = (mark.start() for mark in re.finditer("/", file.uri))
                found |= dict.fromkeys(file.uri[:end].rpartition("/")[2] + "/" for end in ends if matches(file.uri[:end]))
    except StorageError:
        return []  # there is not even the folder with them
    return sorted(found)
