"""Cityscapes as downloaded: gtFine/<split>/<city>/<image>_gtFine_instanceIds.png (or labelIds, labelTrainIds); gtCoarse alike.

The classes, and which of them are judged, are those of mcordts/cityscapesScripts, `helpers/labels.py`. The images lie in leftImg8bit/.
"""

from __future__ import annotations

import re

from masklake.truth.formats import Category, Truth, TruthImage
from masklake.truth.instance_ids import InstanceIds
from masklake.truth.label_maps import LabelMap
from masklake.truth.place import Place
from masklake.truth.settings import Format, TruthConfig

FORMAT = Format.CITYSCAPES
USES: frozenset[str] = frozenset()

_MAP = re.compile(r"(?P<image>.*)_gt(?:Fine|Coarse)_(?P<kind>instanceIds|labelIds|labelTrainIds)\.png")
_KINDS = ("instanceIds", "labelIds", "labelTrainIds")  # what says most comes first
_FOLDERS = ("gtFine", "gtCoarse")
_CLASSES = {  # label id -> name and whether it is a thing, in the order of the train ids
    7: ("road", False), 8: ("sidewalk", False), 11: ("building", False), 12: ("wall", False), 13: ("fence", False), 17: ("pole", False),
    19: ("traffic light", False), 20: ("traffic sign", False), 21: ("vegetation", False), 22: ("terrain", False), 23: ("sky", False),
    24: ("person", True), 25: ("rider", True), 26: ("car", True), 27: ("truck", True), 28: ("bus", True), 31: ("train", True),
    32: ("motorcycle", True), 33: ("bicycle", True),
}  # fmt: skip
_NOT_JUDGED = frozenset(range(34)) - set(_CLASSES)
_VOID = 255  # of train ids


def claims(place: Place, settings: TruthConfig) -> bool:
    """Whether it is Cityscapes' folder, or a part of its gtFine."""
    named = any(f"/{each}/" in place.uri for each in _FOLDERS)
    if not place.is_folder or not (named or any(f"{each}/" in place.names() for each in _FOLDERS)):
        return False
    return any(map(_MAP.fullmatch, place.files))


def open_truth(place: Place, settings: TruthConfig) -> Truth:
    """The images of the folder and of those below it: of a split, or of a city.

    Raises:
        Refused: there is none.
    """
    if "gtFine/" in place.names():
        place = Place(place.uri + "gtFine/", place.setting)
    found = [match for match in map(_MAP.fullmatch, place.files) if match]
    kind = next((kind for kind in _KINDS if any(match["kind"] == kind for match in found)), None)
    if kind is None:
        raise place.refused("there is no file such as aachen/aachen_000000_000019_gtFine_instanceIds.png")
    images = tuple(
        TruthImage(order, _image(match["image"]), True, pictures=(place.uri + match[0],))
        for order, match in enumerate(match for match in found if match["kind"] == kind)
    )
    categories = tuple(Category(label_id, name, thing and kind == "instanceIds") for label_id, (name, thing) in _CLASSES.items())
    return Truth(FORMAT, place.uri, categories, images, _coding(kind), _images_at(place))


def _coding(kind: str) -> InstanceIds | LabelMap:
    same = {label_id: label_id for label_id in _CLASSES}
    if kind == "instanceIds":
        things = frozenset(label_id for label_id, (_, thing) in _CLASSES.items() if thing)
        return InstanceIds(same, _NOT_JUDGED, things, divisor=1000)
    if kind == "labelIds":
        return LabelMap(same, _NOT_JUDGED | {_VOID})
    return LabelMap(dict(enumerate(_CLASSES)), frozenset({_VOID}))


def _image(name: str) -> str:
    return re.sub(r"^(?:.*/)?gt(?:Fine|Coarse)/", "", name) + "_leftImg8bit"


def _images_at(place: Place) -> str:
    for folder in _FOLDERS:
        head, here, tail = place.uri.rpartition(f"/{folder}/")
        if here:
            return f"{head}/leftImg8bit/{tail}"
    return place.uri + "leftImg8bit/"
