"""Label maps: a folder of pictures of one channel, whose pixels are label ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from masklake.errors import Refused
from masklake.schema import Task
from masklake.truth import label_names
from masklake.truth.formats import BadTruth, Category, Painted, Region, Truth, TruthImage
from masklake.truth.label_names import Names
from masklake.truth.pictures import check_size, painted, values
from masklake.truth.place import Place
from masklake.truth.settings import Format, TruthConfig

FORMAT = Format.LABEL_MAPS
USES = frozenset({"labels", "ignore_index", "thing_labels"})

_DEFAULT_IGNORE = 255
_OF_EXPORTS = "label-maps/"


@dataclass(frozen=True)
class LabelMap:
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
                f"{uri}: has pixels of value {value}, which has no name and is not ignored (ignored: {listed(self.ignored)}): "
                "see --labels and --ignore-index"
            )
        return Region(self.categories[value]), 0


def listed(values: Iterable[int]) -> str:
    """Some numbers, in words."""
    return ", ".join(map(str, sorted(values)[:5])) or "none"


def claims(place: Place) -> str | None:
    """What of it are label maps: any folder of pictures."""
    return f"{len(place.pictures)} pictures" if place.is_folder and place.pictures else None


def open_truth(place: Place, settings: TruthConfig) -> Truth:
    """All pictures below the folder, or below `label-maps/` in that of an export; they are read when they are needed.

    Raises:
        Refused: there is none, or no file of names.
    """
    if not place.is_folder:
        raise place.refused("name the folder of the label maps")
    if _OF_EXPORTS in place.names():
        place = Place(place.uri + _OF_EXPORTS, place.setting)
    if not place.pictures:
        raise place.refused("there are no PNG files")
    names = label_names.find(place, settings.labels)
    ignored = ignored_values(names, settings.ignore_index)
    categories, category_of = categories_of(names, ignored, settings.thing_labels)
    tasks = (Task.SEMANTIC, Task.PANOPTIC, Task.INSTANCE) if settings.thing_labels else (Task.SEMANTIC,)
    return Truth(FORMAT, place.uri, categories, images_of(place), LabelMap(category_of, ignored, tasks))


def images_of(place: Place) -> tuple[TruthImage, ...]:
    """An image for each picture of the place, called as it but for the ending."""
    return tuple(
        TruthImage(order, name.rpartition(".")[0], stem=True, pictures=(place.folder + name,)) for order, name in enumerate(place.pictures)
    )


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
