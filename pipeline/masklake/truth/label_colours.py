"""Colours as classes: a folder of pictures in colour, and a table that gives each colour its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from masklake.schema import Task
from masklake.truth import label_names, map_folders
from masklake.truth.formats import BadTruth, Coding, Painted, Region, Truth, TruthImage
from masklake.truth.label_maps import categories_of, tasks_of
from masklake.truth.label_names import Colour, Names
from masklake.truth.pictures import check_size, colours, painted
from masklake.truth.place import Place
from masklake.truth.settings import Format, TruthConfig

FORMAT = Format.LABEL_COLOURS
USES = frozenset({"labels", "ignore_index", "thing_labels", "mask_suffix"})


@dataclass(frozen=True)
class ColourMap(Coding):
    """`categories` gives a colour, as R + 256 G + 256^2 B, its category, None where it means nothing."""

    categories: Mapping[int, int | None]
    tasks: tuple[Task, ...] = (Task.SEMANTIC,)
    listed: bool = False
    objects_only: bool = False

    def read(self, image: TruthImage) -> Painted:
        """A segment for each category that is there.

        Raises:
            BadTruth: the picture cannot be read, or has a colour without a name.
        """
        codes = colours(image)
        check_size(image, codes.shape)
        return painted(codes, lambda code: self._means(code, image.pictures[0]))

    def _means(self, code: int, uri: str) -> tuple[Region, int] | None:
        if code not in self.categories:
            colour = code & 255, code >> 8 & 255, code >> 16
            raise BadTruth(
                f"{uri}: has pixels of colour {colour}, which has no name in --labels; to leave them out, name the colour, and then give "
                "`name: null` in --categories"
            )
        category = self.categories[code]
        return None if category is None else (Region(category), 0)


def claims(place: Place, settings: TruthConfig) -> bool:
    """Whether it is a folder of pictures in colour, or in any mode where names have colours and no numbers, with a table of colours."""
    maps = map_folders.pictures(place, settings.mask_suffix)
    if not maps.names:
        return False
    names = maps.place.once("labels", lambda: label_names.look(maps.place, settings.labels))
    return names is not None and names.has_colours and (maps.in_colour or not names.numbered)


def open_truth(place: Place, settings: TruthConfig) -> Truth:
    """All pictures of the folder; they are read when they are needed.

    Raises:
        Refused: there is no table of colours.
    """
    maps = map_folders.pictures(place, settings.mask_suffix)
    names = label_names.find(maps.place, settings.labels)
    if not names.has_colours:
        raise place.refused(f"{names.uri} gives the names no colours: use columns name, r, g, b, or one of the other forms in --help")
    ignored = frozenset(settings.ignore_index) | (frozenset() if names.void is None else {names.void})
    categories, category_of = categories_of(names, ignored, settings.thing_labels)
    coding = ColourMap(codes_of(names, category_of), tasks_of(settings.thing_labels))
    return Truth(FORMAT, maps.place.uri, categories, maps.images(), coding, maps.images_at)


def codes_of(names: Names, category_of: Mapping[int, int]) -> dict[int, int | None]:
    """Each colour's category."""
    return {code_of(each.colour): category_of.get(each.id) for each in names.named if each.colour is not None}


def code_of(colour: Colour) -> int:
    """R + 256 G + 256^2 B."""
    return colour[0] | colour[1] << 8 | colour[2] << 16
