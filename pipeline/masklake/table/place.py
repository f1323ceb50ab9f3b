"""Where a table, or what is made from one, may lie: in a folder of its own, apart from the images and from other tables.

Other programs' vacuums delete whatever lies in a table's folder and is not the table's; what is written among images is listed as images.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress

from masklake import storage
from masklake.errors import Refused
from masklake.storage import StorageError

_OURS = ("_masklake/", "_delta_log/")


def check_table_place(output: str, input_uri: str) -> None:
    """See that a table may lie at `output`: it is there already, or its folder is empty; and it and the input's images lie apart.

    Raises:
        Refused: it lies in, around or at the input, or in another table; there is no table, and the folder holds something else; or a name
            has steps such as `..`, which in a store are names like any other.
    """
    _check_steps(input_uri, "--input", {".", ".."})
    check_outside_tables(output, may_be_one=True)
    table, images = _real(output), _real(input_uri)
    pattern = storage.is_glob(input_uri) and not storage.exists(input_uri)
    if pattern and input_uri.endswith("/"):
        images += "/"  # everything below the folders that match
    root = storage.glob_root(images).rpartition("/")[0] if pattern else images
    told = f"--output {output} and --input {input_uri}"
    if table == root:
        raise Refused(f"{told} are the same folder: give the table a folder of its own")
    if _is_inside(root, table):
        raise Refused(f"{told}: the images lie in the table's folder: give the table a folder of its own")
    if _is_inside(table, root) and not _is_whole_store(root) and (not pattern or _takes_in(images, table)):
        raise Refused(f"{told}: the table lies among the images, and would be listed with them: give it a folder beside them")
    _check_empty(output)


def check_outside_tables(uri: str, setting: str = "--output", *, may_be_one: bool = False) -> None:
    """See that a folder to write to lies in no Delta table's, and is none's unless it `may_be_one`.

    Raises:
        Refused: it does, or its name has steps such as `..`.
    """
    _check_steps(uri, setting, {"", ".", ".."})
    folder = whole = _real(uri)
    while True:
        if not (may_be_one and folder == whole):
            with suppress(StorageError):  # not everybody may list the folders above
                if storage.list_names(f"{folder}/_delta_log/"):
                    where = "is the folder of a table" if folder == whole else f"lies inside the table {folder}"
                    raise Refused(f"{setting} {uri}: it {where}: give it a folder outside")
        if _is_whole_store(folder):
            return
        folder = folder.rpartition("/")[0]


def _check_steps(uri: str, setting: str, odd: set[str]) -> None:
    """See that a name on a store has no such steps: some programs resolve them, for others they are names like any other."""
    name = storage.normalise(uri)
    if not name.startswith("file://") and odd.intersection(name.partition("://")[2].rstrip("/").split("/")):
        raise Refused(f"{setting} {uri}: in a store '.', '..' and '//' are names, and lead nowhere: write the place without them")


def _check_empty(output: str) -> None:
    folder = storage.normalise(output).rstrip("/")
    names = storage.list_names(f"{folder}/")
    if "_delta_log/" in names:
        return
    other = next((name for name in names if name not in _OURS and not name.startswith(".")), None)
    if other is not None:
        raise Refused(f"--output {output}: there is no table, and the folder holds {other}: give the new table a folder of its own")


def _real(uri: str) -> str:
    """A place's one name: canonical, without a slash at its end, and on a file system without links."""
    name = storage.normalise(uri)
    return "file://" + os.path.realpath(name.removeprefix("file://")).rstrip("/") if name.startswith("file://") else name.rstrip("/")


def _is_inside(uri: str, folder: str) -> bool:
    return uri.startswith(f"{folder}/")


def _is_whole_store(folder: str) -> bool:
    """Whether a folder is a bucket, or all of a file system: a table can lie nowhere but below it."""
    scheme, _, path = folder.partition("://")
    return not path if scheme == "file" else "/" not in path


def _takes_in(pattern: str, folder: str) -> bool:
    """Whether a pattern takes in what lies directly in a folder."""
    last = pattern.rpartition("/")[2]
    name = last.translate(str.maketrans("*?[]", "xxxx")) or "x"
    return re.fullmatch(storage.glob_regex(pattern), f"{folder}/{name}") is not None
