"""The ids of an official COCO JSON, so that tools take an export against that file: categories by name, images by file name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from masklake import storage
from masklake.errors import Refused
from masklake.spelling import plural
from masklake.truth.classes import Classes, judged_classes
from masklake.truth.coco import Id, Json, read_json
from masklake.truth.formats import TruthImage
from masklake.truth.match import match

_SETTING = "--categories-of"
_KEPT = ("id", "name", "supercategory", "isthing", "color")


class Official:
    """`categories` as the file has them; `left_out` counts the segments, by label, that it has no category for."""

    def __init__(self, uri: str) -> None:
        """Read the file.

        Raises:
            Refused: it is not a COCO JSON, or lacks what such a file must have.
        """
        self.uri = storage.normalise(uri)
        found = Json(read_json(self.uri, _SETTING), self.uri, _SETTING)
        known = found.categories(things=True)
        self._classes: Classes = judged_classes(known, {})
        self._ids = [category.id for category in known]
        self._images = found.images()
        written = {category["id"]: category for category in found.content["categories"]}
        self.categories = [{key: written[category_id][key] for key in _KEPT if key in written[category_id]} for category_id in self._ids]
        self.left_out: Counter[str] = Counter()

    def category_of(self, label: str) -> int | None:
        """The category of a label, by its name or COCO's synonyms; None, and counted, where there is none."""
        index = self._classes.of_label(label)
        if index is None:
            self.left_out[label] += 1
            return None
        return self._ids[index]

    def images_of(self, uris: Collection[str]) -> Mapping[str, tuple[Id, str]]:
        """Id and file name of those of the URIs that are images of the file.

        Raises:
            Refused: none is, or it cannot be said which.
        """
        ids = list(self._images)
        images = [TruthImage(order, name, uri=uri) for order, (name, uri, _) in enumerate(self._images.values())]
        found = match(images, uris).images
        if not found:
            raise Refused(f"{_SETTING} {self.uri}: none of its images ({len(images):,}) is among those that are exported")
        return {uri: (ids[image.order], image.name) for uri, image in found.items()}

    def size_of(self, image_id: Id) -> tuple[int, int]:
        """Height and width of an image."""
        return self._images[image_id][2]

    def in_words(self, exported: int, asked: int) -> list[str]:
        """What did not fit the file, a sentence each."""
        lines = []
        if asked > exported:
            lines.append(f"{plural(asked - exported, 'image is', 'images are')} not in {self.uri}, and left out")
        if len(self._images) > exported:
            lines.append(
                f"{plural(len(self._images) - exported, 'image')} of {self.uri} not exported: tools count all that is there as missed"
            )
        if self.left_out:
            some = ", ".join(f"{label} ({count})" for label, count in self.left_out.most_common(5))
            lines.append(f"{plural(self.left_out.total(), 'segment')} left out for want of a category in {self.uri}: {some}")
        return lines
