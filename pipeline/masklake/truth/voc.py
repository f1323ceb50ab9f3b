"""Pascal VOC as downloaded (VOCdevkit/VOC2012): SegmentationClass/*.png, objects in SegmentationObject/, splits in ImageSets/Segmentation/.

CVAT's "Segmentation mask" export is of this layout, with its classes and colours in labelmap.txt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from masklake import storage
from masklake.schema import Task
from masklake.spelling import plural
from masklake.truth import label_names
from masklake.truth.formats import BadTruth, Category, Coding, Painted, Region, Truth, TruthImage
from masklake.truth.label_colours import code_of
from masklake.truth.label_names import Colour
from masklake.truth.pictures import colours, distinct, is_colour, of_one_size, open_picture, values
from masklake.truth.place import Place, files_below
from masklake.truth.settings import Format, TruthConfig

FORMAT = Format.VOC
USES: frozenset[str] = frozenset()

_CLASSES, _OBJECTS, _IMAGES, _NAMES = "SegmentationClass/", "SegmentationObject/", "JPEGImages/", "labelmap.txt"
_SPLITS = "ImageSets/Segmentation/"
_BORDER, _BORDER_COLOUR = 255, code_of((224, 224, 192))  # of objects, where nothing is said
_VOC = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse"),
    *("motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


@dataclass(frozen=True)
class ClassesAndObjects(Coding):
    """A picture of classes, and one of objects where `objects`; either of a palette, or in colours: `by_colour` gives a class's colour its
    value. An object is of the class that most of its pixels have. Background is stuff.
    """

    names: tuple[str, ...]
    by_colour: Mapping[int, int]
    objects: bool
    tasks: tuple[Task, ...]
    listed: bool = False
    objects_only: bool = False

    def read(self, image: TruthImage) -> Painted:
        """Background, objects, and the pixels of classes that no object has.

        Raises:
            BadTruth: a picture cannot be read, they differ in size, or a class is not known.
        """
        classes = self._classes(image)
        objects = _objects(image) if self.objects else np.zeros_like(classes)
        of_one_size(image, classes, objects)
        ids = np.zeros(classes.shape, np.int32)
        segments: list[Region] = []
        for number in distinct(objects):
            inside = (objects == number) & (classes != _BORDER) & (classes != 0)
            if number and inside.any():
                segments.append(Region(int(np.bincount(classes[inside]).argmax())))
                ids[inside] = len(segments)
        for value in distinct(classes):
            rest = (classes == value) & (ids == 0)
            if value != _BORDER and rest.any():
                segments.append(Region(value, crowd=self.objects and value != 0))
                ids[rest] = len(segments)
        return Painted(ids, tuple(segments))

    def _classes(self, image: TruthImage) -> NDArray[np.int64]:
        if not is_colour(open_picture(image)):
            classes = values(image)
            if unknown := [value for value in distinct(classes) if value >= len(self.names) and value != _BORDER]:
                raise BadTruth(
                    f"{image.pictures[0]}: has pixels of value {unknown[0]}, which is none of {plural(len(self.names), 'class', 'classes')}"
                )
            return classes
        codes = colours(image)
        present = distinct(codes)
        if unknown := [code for code in present if code not in self.by_colour and code != _BORDER_COLOUR]:
            colour = unknown[0] & 255, unknown[0] >> 8 & 255, unknown[0] >> 16
            raise BadTruth(f"{image.pictures[0]}: has pixels of colour {colour}, which is no class's")
        table = np.array([self.by_colour.get(code, _BORDER) for code in present], np.int64)
        return table[np.searchsorted(np.array(present, np.int64), codes)]


def _objects(image: TruthImage) -> NDArray[np.int64]:
    """What tells objects apart, values or colours; 0 where there is none, and on borders."""
    in_colour = is_colour(open_picture(image, 1))
    codes = colours(image, 1) if in_colour else values(image, 1)
    return np.where(codes == (_BORDER_COLOUR if in_colour else _BORDER), 0, codes)


def claims(place: Place, settings: TruthConfig) -> bool:
    """Whether it is VOC's folder, its pictures of classes, or a list of a split."""
    return _root(place) is not None


def open_truth(place: Place, settings: TruthConfig) -> Truth:
    """All that has a picture of classes, or what a list of a split names.

    Raises:
        Refused: there is none, or the list names one that is not there.
    """
    root = _root(place)
    if root is None:
        raise place.refused(f"there is no {_CLASSES} in it, as in VOCdevkit/VOC2012")
    there = [name.removesuffix(".png") for name in files_below(root + _CLASSES) if name.endswith(".png")]
    wanted = there if place.is_folder else storage.read_bytes(place.uri).decode().split()
    if absent := sorted(set(wanted) - set(there)):
        of = f"of its {plural(len(wanted), 'image')}"
        raise place.refused(f"{plural(len(absent), f'{of} has', f'{of} have')} no picture in {root}{_CLASSES}, such as {absent[0]}")
    if not wanted:
        raise place.refused(f"there are no PNG files in {root}{_CLASSES}")
    objects = _OBJECTS in storage.list_names(root)
    names, by_colour = _names(root)
    tasks = (Task.SEMANTIC, Task.INSTANCE, Task.PANOPTIC) if objects else (Task.SEMANTIC,)
    images = tuple(
        TruthImage(order, name, True, pictures=tuple(f"{root}{folder}{name}.png" for folder in (_CLASSES, _OBJECTS)[: 1 + objects]))
        for order, name in enumerate(wanted)
    )
    categories = tuple(Category(value, name, objects and value > 0) for value, name in enumerate(names))
    return Truth(FORMAT, place.uri, categories, images, ClassesAndObjects(names, by_colour, objects, tasks), root + _IMAGES)


def _root(place: Place) -> str | None:
    """The folder with SegmentationClass/ in it."""
    return place.once("voc", lambda: _find_root(place))


def _find_root(place: Place) -> str | None:
    if not place.is_folder:
        return place.uri.rpartition(_SPLITS)[0] or None if place.uri.endswith(".txt") else None
    if place.uri.endswith(("/" + _CLASSES, "/" + _OBJECTS)):
        return place.uri.removesuffix(_CLASSES).removesuffix(_OBJECTS)
    there = place.names()
    if _CLASSES in there:
        return place.uri
    years = [name for name in there if name.startswith("VOC20") and name.endswith("/")]
    return place.uri + years[0] if len(years) == 1 and _CLASSES in place.names(years[0]) else None


def _names(root: str) -> tuple[tuple[str, ...], dict[int, int]]:
    """The classes by their values, and their values by their colours."""
    if _NAMES not in storage.list_names(root):
        return _VOC, {code_of(colour_of(value)): value for value in range(len(_VOC))}
    found = label_names.read(root + _NAMES)
    background = [each for each in found.named if each.name == "background"]
    ordered = [*background, *(each for each in found.named if each.name != "background")]  # CVAT lists the classes by their names
    names = tuple(each.name for each in ordered) if background else ("background", *(each.name for each in ordered))
    by_colour = {0: 0} | {code_of(each.colour): names.index(each.name) for each in ordered if each.colour is not None}
    return names, by_colour


def colour_of(value: int) -> Colour:
    """VOC's colour of a value: its bits, three at a time, from the highest bit of each channel on (`VOClabelcolormap.m`)."""
    channels = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            channels[channel] |= (value >> (3 * place + channel) & 1) << (7 - place)
    return channels[0], channels[1], channels[2]
