"""Folders of pictures as truth: which of the files are maps, and what their images are called."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass

from PIL import Image

from masklake.truth.formats import BadTruth, TruthImage
from masklake.truth.pictures import is_colour, is_grey, open_picture
from masklake.truth.place import IMAGE, PICTURE, Place

_OF_EXPORTS = "label-maps/"
_IMAGES = "images/"
_SAMPLES = 8  # the first ones may show nothing
_SUFFIX = re.compile(r"[_.-][A-Za-z][A-Za-z0-9]*$")  # of a map's name: a word behind the image's name


@dataclass(frozen=True)
class Maps:
    """`names` of the maps below `place`; `suffix` is what they have behind the images' names: `sure`, or only where no image is called as
    the map; `images_at` is a folder of images beside them."""

    place: Place
    names: tuple[str, ...]
    suffix: str = ""
    sure: bool = False
    images_at: str | None = None

    def images(self) -> tuple[TruthImage, ...]:
        """An image for each map, called as it but for the ending and the suffix."""
        perhaps = "" if self.sure else self.suffix
        stems = (stem_of(name).removesuffix(self.suffix) if self.sure else stem_of(name) for name in self.names)
        return tuple(
            TruthImage(order, stem, stem=True, suffix=perhaps, pictures=(self.place.folder + name,))
            for order, (stem, name) in enumerate(zip(stems, self.names, strict=True))
        )

    def samples(self) -> list[Image.Image]:
        """Some of the maps, to see what they are; those that cannot be read are told of when they must be."""
        return self.place.once("samples", lambda: list(self._samples()))

    def _samples(self) -> Iterator[Image.Image]:
        images = self.images()
        for image in images[:: max(1, len(images) // _SAMPLES)][:_SAMPLES]:
            with suppress(BadTruth):
                yield open_picture(image)

    @property
    def in_colour(self) -> bool:
        """Whether maps have three channels that differ."""
        return any(is_colour(picture) and not is_grey(picture) for picture in self.samples())


def pictures(place: Place, suffix: str | None) -> Maps:
    """The maps of a folder: of its `label-maps/` where it is an export's; of the one folder beside its `images/`; else all below it.

    Where images lie among the maps, those with the suffix are the maps.
    """
    return place.once("maps", lambda: _pictures(place, suffix))


def _pictures(place: Place, suffix: str | None) -> Maps:
    if not place.is_folder:
        return Maps(place, ())
    there = place.names()
    others = [name for name in there if name.endswith("/") and name != _IMAGES and not name.startswith((".", "_"))]
    images_at = None
    if _OF_EXPORTS in there:
        place = Place(place.uri + _OF_EXPORTS, place.setting)
    elif _IMAGES in there and len(others) == 1:
        place, images_at = Place(place.uri + others[0], place.setting), place.uri + _IMAGES
    names = tuple(name for name in place.files if PICTURE.search(name))
    stems = {stem_of(name) for name in place.files if IMAGE.search(name)}
    found = _suffix([stem_of(name) for name in names], stems) if suffix is None else suffix
    maps = tuple(name for name in names if stem_of(name).endswith(found))
    if not found or not maps:
        return Maps(place, () if suffix else names, images_at=images_at)
    among = any(stem_of(name).removesuffix(found) in stems for name in maps)
    return Maps(place, maps, found, among or suffix is not None, images_at or (place.folder if among else None))


def _suffix(maps: list[str], stems: Collection[str]) -> str:
    """What maps have behind the names of their images: a word that all have, or that all have with an image beside them."""
    words = {match[0] for match in map(_SUFFIX.search, maps) if match}
    for word in sorted(words):
        with_it = [stem for stem in maps if stem.endswith(word)]
        without = {stem for stem in maps if not stem.endswith(word)}
        partners = {stem.removesuffix(word) for stem in with_it}
        if not without or (partners <= set(stems) and without <= partners):
            return word
    return ""


def stem_of(name: str) -> str:
    """A file's name without its ending."""
    return name.rpartition(".")[0] or name
