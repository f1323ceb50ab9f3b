"""COCO instances: one JSON of polygons, run lengths and crowds. Label Studio and CVAT export it as well."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from pycocotools import mask as coco_mask

from masklake.schema import Task
from masklake.truth import coco
from masklake.truth.coco import Entry, Id, Json
from masklake.truth.formats import BadTruth, Coding, Drawing, Drawn, Listed, Size, Truth, TruthImage
from masklake.truth.masks import cleaned, run_lengths
from masklake.truth.place import Place
from masklake.truth.settings import Format, TruthConfig

FORMAT = Format.INSTANCES
USES = frozenset({"crowds"})

_NO_MASK = "annotations without a mask (none, no polygon of three points, or no pixel)"


@dataclass(frozen=True)
class CocoMasks(Coding):
    """Masks that the file lists."""

    tasks: tuple[Task, ...] = (Task.INSTANCE, Task.SEMANTIC)
    listed: bool = True
    objects_only: bool = True

    def read(self, image: TruthImage) -> Drawn:
        """The masks, decoded.

        Raises:
            BadTruth: one cannot be.
        """
        assert image.size is not None
        return Drawn(image.size, tuple(_drawing(image, each, image.size) for each in image.segments))


def _drawing(image: TruthImage, listed: Listed, size: Size) -> Drawing:
    try:
        mask = run_lengths(listed.mask, size)
    except ValueError as error:
        raise BadTruth(f"the mask of annotation {listed.id} ({image.name}) {error}") from None
    area = float(coco_mask.area(mask)) if listed.area is None else listed.area
    return Drawing(listed.category_id, mask, area, listed.crowd)


def claims(place: Place, settings: TruthConfig) -> bool:
    """Whether it is a JSON of instances, or a folder with one."""
    found = coco.find(place)
    return found is not None and not found.is_panoptic


def open_truth(place: Place, settings: TruthConfig) -> Truth:
    """The truth of an instances JSON. Annotations without a mask are left out, and counted.

    Raises:
        Refused: an entry lacks what COCO's format demands, is there twice, or names what is not there.
    """
    found = coco.found(place)
    categories, images = found.categories(things=True), found.images()
    known = {category.id for category in categories}
    by_image: defaultdict[Id, list[Listed]] = defaultdict(list)
    left_out: Counter[str] = Counter()
    for order, annotation in enumerate(found.content["annotations"]):
        what = f"annotation {annotation.get('id', f'at place {order}')}"
        image_id = found.need(annotation, "image_id", what)
        if image_id not in images:
            raise found.refused(f"{what} has image_id {image_id}, which is not in images")
        listed = _listed(found, annotation, what, images[image_id][2], order)
        if listed.category_id not in known:
            raise found.refused(f"{what} has category_id {listed.category_id}, which is not in categories")
        if listed.mask is None:
            left_out[_NO_MASK] += 1
        else:
            by_image[image_id].append(_as_object(listed) if settings.crowds == "objects" else listed)
    return Truth(
        FORMAT,
        found.uri,
        categories,
        tuple(
            TruthImage(order, name, uri=uri, size=size, segments=tuple(by_image[image_id]))
            for order, (image_id, (name, uri, size)) in enumerate(images.items())
        ),
        CocoMasks(),
        coco.images_at(found),
        left_out,
    )


def _listed(found: Json, annotation: Entry, what: str, size: Size, order: int) -> Listed:
    try:
        mask = cleaned(annotation.get("segmentation"), size)
    except ValueError as error:
        raise found.refused(f"the mask of {what} {error}") from None
    number, area = annotation.get("id"), annotation.get("area")
    if area is not None and not isinstance(area, int | float):
        raise found.refused(f"{what} has area {area!r}, which is not a number")
    category_id = found.number(annotation, "category_id", what)
    number = number if isinstance(number, int) else order
    return Listed(number, category_id, bool(annotation.get("iscrowd")), None if area is None else float(area), mask)


def _as_object(listed: Listed) -> Listed:
    return Listed(listed.id, listed.category_id, False, listed.area, listed.mask)
