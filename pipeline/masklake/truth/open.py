"""A truth by its URI: a COCO JSON, a folder of label maps, or the folder of an export."""

from __future__ import annotations

from typing import Any

from masklake import storage
from masklake.errors import Refused
from masklake.truth import coco, label_maps
from masklake.truth.formats import Format, Truth

_OF_EXPORTS = ("panoptic.json", "instances.json")


def open_truth(uri: str, wanted: Format | None = None, labels: str | None = None, ignore_index: int | None = None) -> Truth:
    """Read a truth's categories and the names of its images.

    Args:
        uri: a JSON file, or a folder: one that `masklake export` wrote, one with a single JSON in it, or one of PNGs.
        wanted: its format; None: found out.
        labels: of label maps, the file of names.
        ignore_index: of label maps, the value of pixels that are not judged.

    Raises:
        Refused: there is nothing, or it is not of a format known here.
    """
    storage.check_input(uri, "--truth")
    name = storage.normalise(uri)
    found: dict[str, Any] | None = None
    if name.endswith(".json") or (name := _in_folder(name.rstrip("/") + "/", wanted)).endswith(".json"):
        found = coco.read_json(name)
        detected = coco.format_of(found)
    else:
        detected = Format.LABEL_MAPS
    if wanted is not None and wanted is not detected and not (found is not None and not found["annotations"]):
        raise Refused(f"--truth-format {wanted}: {name} looks like {detected}")
    if found is None:
        return label_maps.from_folder(name, labels, ignore_index)
    for setting, value in (("--labels", labels), ("--ignore-index", ignore_index)):
        if value is not None:
            raise Refused(f"{setting} {value}: is for label maps, and {name} is {detected}")
    return coco.from_json(found, name, wanted or detected)


def _in_folder(folder: str, wanted: Format | None) -> str:
    """What to read of a folder: a JSON, or the folder of PNGs."""
    there = storage.list_names(folder)
    if wanted is not Format.LABEL_MAPS:
        known = [name for name in _OF_EXPORTS if name in there]
        jsons = known or [name for name in there if name.endswith(".json") and not name.startswith("_")]
        if len(jsons) > 1:
            raise Refused(f"--truth {folder}: holds {' and '.join(jsons[:3])}: name the file")
        if jsons and jsons[0] != "labels.json":
            return folder + jsons[0]
    return folder + "label-maps/" if "label-maps/" in there else folder
