"""COCO panoptic: a JSON, and a folder of PNGs whose colours are segment ids, R + 256 G + 256^2 B."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from masklake import storage
from masklake.schema import Task
from masklake.spelling import plural
from masklake.truth import coco
from masklake.truth.coco import Entry, Json
from masklake.truth.formats import BadTruth, Coding, Listed, Painted, Region, Truth, TruthImage
from masklake.truth.pictures import check_size, colours
from masklake.truth.place import Place
from masklake.truth.settings import Format, TruthConfig

FORMAT = Format.PANOPTIC
USES = frozenset({"masks", "crowds"})

_CODES = 256**3  # ids that a colour can hold


@dataclass(frozen=True)
class PanopticPng(Coding):
    """PNGs of ids that the JSON lists."""

    tasks: tuple[Task, ...] = (Task.PANOPTIC, Task.INSTANCE, Task.SEMANTIC)
    listed: bool = True
    objects_only: bool = False

    def read(self, image: TruthImage) -> Painted:
        """Segments in the order of the JSON.

        Raises:
            BadTruth: the PNG cannot be read, is of another size than the JSON says, or holds other ids.
        """
        codes = colours(image)
        check_size(image, codes.shape)
        return Painted(_places(image, codes), tuple(Region(each.category_id, each.crowd) for each in image.segments))


def claims(place: Place, settings: TruthConfig) -> bool:
    """Whether it is a JSON of panoptic annotations, or a folder with one."""
    found = coco.find(place)
    return found is not None and found.is_panoptic is not False


def open_truth(place: Place, settings: TruthConfig) -> Truth:
    """The truth of a panoptic JSON; its PNGs lie in `--masks`, by default the folder beside it that has its name without `.json`.

    Raises:
        Refused: an entry lacks what COCO's format demands, is there twice, or names what is not there.
    """
    found = coco.found(place)
    folder = storage.normalise(settings.masks or found.uri.removesuffix(".json")).rstrip("/") + "/"
    categories = found.categories(things=True)
    known = {category.id for category in categories}
    images = found.images()
    annotations = {}
    for annotation in found.content["annotations"]:
        image_id = found.need(annotation, "image_id", f"the annotation of {annotation.get('file_name')}")
        if image_id not in images:
            raise found.refused(f"has an annotation of image {image_id}, which is not in images")
        if image_id in annotations:
            raise found.refused(f"has an annotation of image {image_id} twice")
        annotations[image_id] = annotation
    if lacking := [name for image_id, (name, _, _) in images.items() if image_id not in annotations]:
        raise found.refused(f"{plural(len(lacking), 'image has', 'images have')} no annotation, such as {lacking[0]}")
    return Truth(
        FORMAT,
        found.uri,
        categories,
        tuple(
            TruthImage(
                order,
                name,
                uri=uri,
                size=size,
                pictures=(folder + _picture(found, annotations[image_id], image_id),),
                segments=_segments(found, annotations[image_id], image_id, known, settings.crowds == "objects"),
            )
            for order, (image_id, (name, uri, size)) in enumerate(images.items())
        ),
        PanopticPng(),
        coco.images_at(found),
    )


def _picture(found: Json, annotation: Entry, image_id: object) -> str:
    what = f"the annotation of image {image_id}"
    name = str(found.need(annotation, "file_name", what))
    found.refuse_outside(name, what)
    return name


def _segments(found: Json, annotation: Entry, image_id: object, known: set[int], objects: bool) -> tuple[Listed, ...]:
    segments = []
    for place, each in enumerate(found.need(annotation, "segments_info", f"the annotation of image {image_id}")):
        what = f"segment {each.get('id', f'at place {place}')} of image {image_id}"
        number, category_id = found.number(each, "id", what), found.number(each, "category_id", what)
        if not 0 < number < _CODES:
            raise found.refused(f"{what}: an id must be 1 to {_CODES - 1}; black (0) is pixels without a segment")
        if category_id not in known:
            raise found.refused(f"{what} has category_id {category_id}, which is not in categories")
        segments.append(Listed(number, category_id, bool(each.get("iscrowd")) and not objects))
    found.unique(f"in image {image_id} segment", (each.id for each in segments))
    return tuple(segments)


def _places(image: TruthImage, coded: NDArray[np.int64]) -> NDArray[np.int32]:
    """Whose pixel it is: the place of its segment in `segments`, from 1 on; 0 where it is black.

    Raises:
        BadTruth: PNG and JSON do not hold the same ids.
    """
    uri, named = image.pictures[0], [segment.id for segment in image.segments]
    table = np.zeros(_CODES, np.int32)  # a page of it takes memory once it is touched; sorting the pixels would take far longer
    table[named] = range(1, len(named) + 1)
    places: NDArray[np.int32] = table[coded]
    if (unnamed := coded[(places == 0) & (coded != 0)]).size:
        raise BadTruth(f"{uri}: segment {unnamed.min()} is in the PNG and not in the JSON")
    seen = np.bincount(places.ravel(), minlength=len(named) + 1)
    if unseen := [code for place, code in enumerate(named, 1) if not seen[place]]:
        raise BadTruth(f"{uri}: segment {unseen[0]} is in the JSON and not in the PNG")
    return places
