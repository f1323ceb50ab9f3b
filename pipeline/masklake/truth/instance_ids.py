"""Instance-id pictures: pixels say class and object at once, in two channels (R = class, G = object) or one (class * 1000 + object)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from masklake.schema import Task
from masklake.truth import label_names, map_folders
from masklake.truth.formats import BadTruth, Category, Coding, Painted, Region, Truth, TruthImage
from masklake.truth.label_maps import categories_of, ignored_values
from masklake.truth.label_names import Names, words
from masklake.truth.map_folders import Maps
from masklake.truth.pictures import check_size, colours, distinct, is_colour, painted, values
from masklake.truth.place import Place
from masklake.truth.settings import Format, TruthConfig

FORMAT = Format.INSTANCE_IDS
USES = frozenset({"labels", "ignore_index", "thing_labels", "mask_suffix", "label_divisor"})


@dataclass(frozen=True)
class InstanceIds(Coding):
    """How a code is a class and an object.

    `categories` gives a class its category; `ignored` classes mean nothing, and every other one is an error. With a `divisor`, a code is
    class * divisor + object, and one below it is a class of which no objects are told apart, as in Cityscapes, unless `always` says that
    every code has an object, as in Mapillary Vistas; without, it is the class in the red channel and the object in the green one, 0 for
    none. Pixels of a thing of no object are a crowd; all pixels of stuff are one segment.
    """

    categories: Mapping[int, int]
    ignored: frozenset[int]
    things: frozenset[int]
    divisor: int | None
    always: bool = False
    tasks: tuple[Task, ...] = (Task.PANOPTIC, Task.INSTANCE, Task.SEMANTIC)
    listed: bool = False
    objects_only: bool = False

    def read(self, image: TruthImage) -> Painted:
        """A segment for each object, and for each class of stuff, that is there.

        Raises:
            BadTruth: the picture cannot be read, is of the wrong kind, or has a class that says nothing.
        """
        codes = self.codes(image)
        check_size(image, codes.shape)
        return painted(codes, lambda code: self.means(code, image.pictures[0]))

    def codes(self, image: TruthImage, place: int = 0) -> NDArray[np.int64]:
        """Class * divisor + object of each pixel, or the two channels as red + 256 green, int64 [H, W]."""
        return values(image, place) if self.divisor else colours(image, place) & 0xFFFF

    def means(self, code: int, uri: str) -> tuple[Region, int] | None:
        """The region and the object's number of a code."""
        value, number = self.parts(code)
        if value in self.ignored:
            return None
        if value not in self.categories:
            raise BadTruth(
                f"{uri}: has pixels of class {value} (value {code}), which has no name and is not ignored (ignored: "
                f"{words(self.ignored)}): see --labels, --ignore-index and --label-divisor"
            )
        category = self.categories[value]
        if category not in self.things:
            return Region(category), 0
        return (Region(category, crowd=True), 0) if number is None else (Region(category), code)

    def parts(self, code: int) -> tuple[int, int | None]:
        """Class and object of a code."""
        if self.divisor is None:
            value, number = code & 255, code >> 8
            return value, number or None
        if code < self.divisor and not self.always:
            return code, None
        return code // self.divisor, code % self.divisor


def claims(place: Place, settings: TruthConfig) -> bool:
    """Whether it is a folder of pictures of which some have two channels that differ, or values that are named only if divided."""
    maps = map_folders.pictures(place, settings.mask_suffix)
    if not maps.names:
        return False
    names = maps.place.once("labels", lambda: label_names.look(maps.place, settings.labels))
    if names is None or (names.has_colours and maps.in_colour):
        return False
    return maps.in_colour or _is_divided(maps, names, settings)


def _is_divided(maps: Maps, names: Names, settings: TruthConfig) -> bool:
    known = {each.id for each in names.named} | _ignored(names, settings)
    deep = [picture for picture in maps.samples() if picture.mode.startswith("I")]
    unknown = {value for picture in deep for value in distinct(np.asarray(picture, np.int64))} - known
    return bool(unknown) and all(value // settings.label_divisor in known for value in unknown)


def open_truth(place: Place, settings: TruthConfig) -> Truth:
    """All pictures of the folder; they are read when they are needed. Classes are things, or those of `--thing-labels` are.

    Raises:
        Refused: there is no file of names.
    """
    maps = map_folders.pictures(place, settings.mask_suffix)
    names = label_names.find(maps.place, settings.labels)
    ignored = _ignored(names, settings)
    categories, category_of = categories_of(names, ignored, settings.thing_labels)
    categories = tuple(Category(each.id, each.name, each.name in _things(names, settings)) for each in categories)
    things = frozenset(each.id for each in categories if each.isthing)
    divisor = None if any(map(is_colour, maps.samples())) else settings.label_divisor
    return Truth(FORMAT, maps.place.uri, categories, maps.images(), InstanceIds(category_of, ignored, things, divisor), maps.images_at)


def _ignored(names: Names, settings: TruthConfig) -> frozenset[int]:
    """As of label maps; and black, where nobody names it."""
    named = {each.id for each in names.named}
    return ignored_values(names, settings.ignore_index) | (frozenset() if settings.ignore_index else frozenset({0}) - named)


def _things(names: Names, settings: TruthConfig) -> set[str]:
    if settings.thing_labels:
        return set(settings.thing_labels)
    return {each.name for each in names.named if each.isthing is not False}
