"""Label maps: a folder of pictures of one channel, whose pixels are label ids; of a palette, its indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from masklake.errors import Refused
from masklake.schema import Task
from masklake.truth import label_names, map_folders
from masklake.truth.formats import BadTruth, Category, Coding, Painted, Region, Truth, TruthImage
from masklake.truth.label_names import Names, words
from masklake.truth.pictures import check_size, painted, values
from masklake.truth.place import Place
from masklake.truth.settings import Format, TruthConfig

FORMAT = Format.LABEL_MAPS
USES = frozenset({"labels", "ignore_index", "thing_labels", "mask_suffix"})

_DEFAULT_IGNORE = 255
_WITH_THINGS = (Task.SEMANTIC, Task.PANOPTIC, Task.INSTANCE)


@dataclass(frozen=True)
class LabelMap(Coding):
    """`categories` gives a value its category; `ignored` values mean nothing, and every other one is an error. A label map does not tell
    neighbours apart: all pixels of a category are one segment.
    """

    categories: Mapping[int, int]
    ignored: frozenset[int]
    tasks: tuple[Task, ...] = (Task.SEMANTIC,)
    listed: bool = False
    objects_only: bool = False

    def read(self, image: TruthImage) -> Painted:
        """A segment for each category that is there.

        Raises:
            BadTruth: the picture cannot be read, has several channels, or a value that says nothing.
        """
        codes = values(image)
        check_size(image, codes.shape)
        return painted(codes, lambda value: self._means(value, image.pictures[0]))

    def _means(self, value: int, uri: str) -> tuple[Region, int] | None:
        if value in self.ignored:
            return None
        if value not in self.categories:
            raise BadTruth(
                f"{uri}: has pixels of value {value}, which has no name and is not ignored (ignored: {words(self.ignored)}): "
                "see --labels and --ignore-index"
            )
        return Region(self.categories[value]), 0


def claims(place: Place, settings: TruthConfig) -> bool:
    """Whether it is a folder of pictures."""
    return bool(map_folders.pictures(place, settings.mask_suffix).names)


def open_truth(place: Place, settings: TruthConfig) -> Truth:
    """All pictures of the folder; they are read when they are needed.

    Raises:
        Refused: no file of names, or no such thing.
    """
    maps = map_folders.pictures(place, settings.mask_suffix)
    names = label_names.find(maps.place, settings.labels)
    ignored = ignored_values(names, settings.ignore_index)
    categories, category_of = categories_of(names, ignored, settings.thing_labels)
    tasks = tasks_of(settings.thing_labels)
    return Truth(FORMAT, maps.place.uri, categories, maps.images(), LabelMap(category_of, ignored, tasks), maps.images_at)


def tasks_of(things: tuple[str, ...]) -> tuple[Task, ...]:
    """What a map of classes can judge: objects where the user says that a class is one on each image."""
    return _WITH_THINGS if things else (Task.SEMANTIC,)


def ignored_values(names: Names, asked: tuple[int, ...]) -> frozenset[int]:
    """The values that mean nothing: those asked for; else what the file of names calls void; else 255, unless the file names it."""
    if asked:
        return frozenset(asked)
    if names.void is not None:
        return frozenset({names.void})
    return frozenset({_DEFAULT_IGNORE}) - {each.id for each in names.named}


def categories_of(names: Names, ignored: frozenset[int], things: tuple[str, ...]) -> tuple[tuple[Category, ...], dict[int, int]]:
    """A category for each name that is not ignored, whose id is the first of its values; and each value's category.

    Raises:
        Refused: a thing is none of the names.
    """
    first: dict[str, int] = {}
    category_of = {each.id: first.setdefault(each.name, each.id) for each in names.named if each.id not in ignored}
    if unknown := [thing for thing in things if thing not in first]:
        raise Refused(f"--thing-labels {','.join(unknown)}: not among the labels {', '.join(first)} of {names.uri}")
    return tuple(Category(value, name, name in things) for name, value in first.items()), category_of
