"""What COCO's JSON files have in common (cocodataset.org, "Data format"): images, annotations and categories, by id."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from masklake import storage
from masklake.errors import Refused
from masklake.truth.formats import Category, Size
from masklake.truth.place import Place

Entry = Mapping[str, Any]
Id = int | str
"""Of an image: COCO's are numbers, those of Cityscapes' and ADE20K's conversions are names."""

_OF_EXPORTS = ("panoptic.json", "instances.json")
_LISTS = ("images", "annotations", "categories")


def read_json(uri: str, setting: str) -> dict[str, Any]:
    """A COCO JSON, whole in memory; `setting` is what the user named it by.

    Raises:
        Refused: it cannot be read, is not JSON, or lacks the lists of COCO's format.
    """
    try:
        found = json.loads(storage.read_bytes(uri))
    except storage.StorageError as error:
        raise Refused(f"{setting} {uri}: {error}") from None
    except ValueError as error:
        raise Refused(f"{setting} {uri}: is not JSON: {error}") from None
    for name in _LISTS:
        if not isinstance(found, dict) or not isinstance(found.get(name), list) or not all(isinstance(each, dict) for each in found[name]):
            raise Refused(f"{setting} {uri}: has no list of {name}: a COCO JSON has images, annotations and categories")
    return found  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Json:
    """A COCO JSON and where it is; looks up what it must have, and refuses by the entry's and the key's name."""

    content: Mapping[str, list[dict[str, Any]]]
    uri: str
    setting: str

    @property
    def is_panoptic(self) -> bool | None:
        """Whether its annotations are panoptic ones; None where it has none."""
        annotations = self.content["annotations"]
        return "segments_info" in annotations[0] if annotations else None

    def refused(self, reason: str) -> Refused:
        """The refusal of this file, to be raised."""
        return Refused(f"{self.setting} {self.uri}: {reason}")

    def need(self, entry: Entry, key: str, what: str) -> Any:
        """A value that may not be absent or null; `what` names the entry.

        Raises:
            Refused: it is.
        """
        value = entry.get(key)
        if value is None:
            raise self.refused(f"{what} has no {key}")
        return value

    def number(self, entry: Entry, key: str, what: str) -> int:
        """A whole number that may not be absent.

        Raises:
            Refused: it is, or is none.
        """
        value = self.need(entry, key, what)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
            raise self.refused(f"{what} has {key} {value!r}, which is not a whole number")
        return int(value)

    def categories(self, things: bool) -> tuple[Category, ...]:
        """The categories in the order of their ids; `things`: what they are where the file does not say.

        Raises:
            Refused: there is none, one lacks id or name, or has that of another.
        """
        found = []
        for place, each in enumerate(self.content["categories"]):
            name = str(self.need(each, "name", f"category {each.get('id', f'at place {place}')}"))
            category_id = self.number(each, "id", f"category {name!r}")
            found.append(Category(category_id, name, bool(each["isthing"]) if each.get("isthing") is not None else things))
        if not found:
            raise self.refused("has no categories")
        self.unique("category", (each.id for each in found))
        self.unique("category", (each.name for each in found))
        return tuple(sorted(found, key=lambda each: each.id))

    def images(self) -> dict[Id, tuple[str, str | None, Size]]:
        """By id, in the order of the ids: the file's name, the URI that the file gives it, and its size.

        Raises:
            Refused: one lacks something, or has the id of another.
        """
        found: dict[Id, tuple[str, str | None, Size]] = {}
        for place, image in enumerate(self.content["images"]):
            image_id = self.need(image, "id", f"the image {image.get('file_name', f'at place {place}')}")
            what = f"image {image_id}"
            name = str(self.need(image, "file_name", what)).replace("\\", "/")  # as Label Studio writes it on Windows
            name = name.replace("_gtFine_leftImg8bit.", "_leftImg8bit.")  # Cityscapes' own conversion calls its images so
            self.refuse_outside(name, what)
            size = self.number(image, "height", what), self.number(image, "width", what)
            if min(size) < 1:
                raise self.refused(f"{what} has height {size[0]} and width {size[1]}")
            if image_id in found:
                raise self.refused(f"has image {image_id} twice")
            uri = image.get("coco_url")
            found[image_id] = name, uri if isinstance(uri, str) else None, size
        return dict(sorted(found.items(), key=lambda item: (isinstance(item[0], str), item[0])))

    def refuse_outside(self, name: str, what: str) -> None:
        """Raises Refused where a file's name leads out of the folder that it is looked for in."""
        if ".." in name.split("/"):
            raise self.refused(f"{what} has the file_name {name!r}, which leads out of its folder: name the folder itself")

    def unique(self, what: str, values: Iterable[object]) -> None:
        """Raises Refused where a value is there twice."""
        seen: set[object] = set()
        for value in values:
            if value in seen:
                raise self.refused(f"has {what} {value} twice")
            seen.add(value)


def find(place: Place) -> Json | None:
    """The COCO JSON that a truth is: the file itself, that of an export's folder, or the only one in a folder; None where there is none.

    Raises:
        Refused: a folder holds several, or the file is none.
    """
    return place.once("coco", lambda: _find(place))


def found(place: Place) -> Json:
    """The same, where one must be there.

    Raises:
        Refused: there is none, a folder holds several, or the file is none.
    """
    there = find(place)
    if there is None:
        raise place.refused("holds no COCO JSON")
    return there


def _find(place: Place) -> Json | None:
    if not place.is_folder:
        return Json(read_json(place.uri, place.setting), place.uri, place.setting) if place.uri.endswith(".json") else None
    there = place.names()
    known = [name for name in _OF_EXPORTS if name in there]
    below = "annotations/" if "annotations/" in there and "images/" in there else ""  # as CVAT exports
    jsons = known or _jsons(there) or [below + name for name in _jsons(place.names(below))]
    if len(jsons) > 1:
        raise place.refused(f"holds {' and '.join(jsons[:3])}: name the file")
    if not jsons:
        return None
    uri = place.folder + jsons[0]
    try:
        return Json(read_json(uri, place.setting), uri, place.setting)
    except Refused:
        if known or not place.pictures:
            raise
        return None  # some other JSON beside label maps


def _jsons(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.endswith(".json") and not name.startswith(("_", ".")) and name != "labels.json"]


def images_at(json_file: Json) -> str | None:
    """The folder `images` beside the JSON, or beside the folder that it is in, as Label Studio and CVAT export."""
    folder = json_file.uri.rpartition("/")[0] + "/"
    for place in (folder, folder.rstrip("/").rpartition("/")[0] + "/"):
        if place.count("/") > 2 and "images/" in storage.list_names(place):
            return place + "images/"
    return None
