"""ADE20K as its scene parsing challenge gives it (ADEChallengeData2016): annotations/<split>/*.png, named by objectInfo150.txt.

annotations_instance/<split>/*.png, a download of its own, has the 100 things: R is the place of the class among the things, G the object.
With the annotations beside it, that makes a panoptic truth, as `prepare_ade20k_pan_seg.py` of facebookresearch/Mask2Former makes it:
stuff by the annotations, and things over it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from masklake import storage
from masklake.inference import splits
from masklake.schema import Task
from masklake.truth.formats import BadTruth, Category, Coding, Painted, Truth, TruthImage
from masklake.truth.instance_ids import InstanceIds
from masklake.truth.label_maps import LabelMap
from masklake.truth.pictures import of_one_size
from masklake.truth.place import Place
from masklake.truth.settings import Format, TruthConfig

FORMAT = Format.ADE20K
USES: frozenset[str] = frozenset()

_INFO = "objectInfo150.txt"
_CLASSES, _OBJECTS = "annotations/", "annotations_instance/"
_OTHER = frozenset({0})


@dataclass(frozen=True)
class Panoptic(Coding):
    """Pictures of objects and of classes."""

    objects: InstanceIds
    classes: LabelMap
    stuff: frozenset[int]
    tasks: tuple[Task, ...] = (Task.PANOPTIC, Task.INSTANCE)
    listed: bool = False
    objects_only: bool = False

    def read(self, image: TruthImage) -> Painted:
        """Stuff, and objects over it.

        Raises:
            BadTruth: a picture cannot be read, they differ in size, or have a class that says nothing.
        """
        objects = self.objects.read(_only(image, 0))
        classes = self.classes.read(_only(image, 1))
        of_one_size(image, objects.ids, classes.ids)
        below = [each.category_id in self.stuff for each in classes.segments]
        table = np.cumsum([0, *below]) * np.array([False, *below])  # those that are not stuff become 0
        ids = np.where(objects.ids > 0, objects.ids + np.int32(sum(below)), table.astype(np.int32)[classes.ids])
        return Painted(ids, (*(each for each in classes.segments if each.category_id in self.stuff), *objects.segments))


def _only(image: TruthImage, place: int) -> TruthImage:
    data = None if image.data is None else (image.data[place],)
    return replace(image, pictures=(image.pictures[place],), data=data)


def claims(place: Place, settings: TruthConfig) -> bool:
    """Whether it is ADE20K's folder, or annotations in it."""
    return place.is_folder and _root(place) is not None and bool(_part(place))


def open_truth(place: Place, settings: TruthConfig) -> Truth:
    """The annotations of the folder and of those below it; objects where it is, or lies in, `annotations_instance`.

    Raises:
        Refused: there is none.
    """
    root, part = _root(place), _part(place)
    if root is None or not part:
        raise place.refused(f"there is no {_INFO} above it, as in ADEChallengeData2016")
    place = place if root + part in place.uri else Place(root + part, place.setting)
    split = place.uri.removeprefix(root + part)
    categories = _categories(root, things=part == _OBJECTS)
    classes = LabelMap({each.id: each.id for each in categories}, _OTHER)
    coding: LabelMap | Panoptic | InstanceIds = classes
    beside: str | None = None
    if part == _OBJECTS:
        things = [each.id for each in categories if each.isthing]
        objects = InstanceIds(dict(enumerate(things, 1)), _OTHER, frozenset(things), divisor=None, tasks=(Task.INSTANCE,))
        beside = root + _CLASSES + split if _CLASSES in storage.list_names(root) else None
        stuff = frozenset(each.id for each in categories if not each.isthing)
        coding = objects if beside is None else Panoptic(objects, classes, stuff)
    images = tuple(
        TruthImage(order, split + name.removesuffix(".png"), True, pictures=(place.uri + name, *((beside + name,) if beside else ())))
        for order, name in enumerate(place.pictures)
    )
    if not images:
        raise place.refused("there are no PNG files")
    return Truth(FORMAT, place.uri, categories, images, coding, root + "images/")


def _root(place: Place) -> str | None:
    return place.once("ade20k", lambda: next((folder for folder in place.above(2) if _INFO in storage.list_names(folder)), None))


def _part(place: Place) -> str:
    root = _root(place) or ""
    inside = place.uri.removeprefix(root)
    for part in (_CLASSES, _OBJECTS):
        if inside.startswith(part) or (not inside and part in place.names()):
            return part
    return ""


def _categories(root: str, things: bool) -> tuple[Category, ...]:
    """The classes by their values, with all their names: `windowpane, window`."""
    text = storage.read_bytes(root + _INFO).decode("utf-8-sig")
    rows: list[Mapping[str, str]] = list(csv.DictReader(io.StringIO(text), delimiter="\t"))
    try:
        names = {int(row["Idx"]): [name.strip() for name in row["Name"].split(",")] for row in rows}
    except (KeyError, ValueError, TypeError, AttributeError):
        raise BadTruth(f"{root}{_INFO}: is not the table of Idx, ..., Name that ADE20K has") from None
    known = splits.identify({value - 1: ", ".join(some) for value, some in names.items()})
    countable = known.thing_ids if known is not None and things else frozenset()
    return tuple(
        Category(value, some[0], value - 1 in countable if things else None, aliases=tuple(some[1:]))
        for value, some in sorted(names.items())
    )
