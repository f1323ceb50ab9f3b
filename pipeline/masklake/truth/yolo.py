"""YOLO's text files of polygons, `class x1 y1 x2 y2 ...` as shares of the image, as Ultralytics, CVAT and Label Studio write them.

Classes are named by data.yaml (or another YAML with `names`) or classes.txt. An image without a file, or with an empty one, has no objects.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import yaml
from pycocotools import mask as coco_mask

from masklake import storage
from masklake.errors import ImageFailure, Refused
from masklake.images.decode import decode
from masklake.images.fetch import fetch_by_uri
from masklake.schema import Task
from masklake.spelling import plural
from masklake.truth import label_names
from masklake.truth.formats import BadTruth, Category, Coding, Drawing, Drawn, Size, Truth, TruthImage
from masklake.truth.masks import run_lengths
from masklake.truth.place import Place, files_below, images_below, names_in
from masklake.truth.settings import Format, TruthConfig

FORMAT = Format.YOLO
USES = frozenset({"labels"})

_MAX_PIXELS = 100_000_000
_LINE = re.compile(r"\d+(\s+-?[0-9.]+(e[+-]?\d+)?){4,}", re.IGNORECASE)
_LABELS = "labels/"
_BOX = 5  # numbers in a line of detection


@dataclass(frozen=True)
class Polygons(Coding):
    """Text files, which stand for `pictures` of the images; an image without one has no objects."""

    classes: frozenset[int]
    tasks: tuple[Task, ...] = (Task.INSTANCE, Task.SEMANTIC)
    listed: bool = False
    objects_only: bool = True

    def read(self, image: TruthImage) -> Drawn:
        """The objects at the size of the image, which is read where it is not known.

        Raises:
            BadTruth: the image or the file cannot be read, or a line is not a polygon.
        """
        size = image.size or _size(image)
        found: list[Drawing] = []
        for number, line in enumerate(self._lines(image), 1):
            category, shares = self._parts(line, image, number)
            mask = run_lengths([[share * size[1 - place % 2] for place, share in enumerate(shares)]], size)
            if area := float(coco_mask.area(mask)):
                found.append(Drawing(category, mask, area))
        return Drawn(size, tuple(found))

    def shown(self, image: TruthImage) -> list[tuple[int, bool]]:
        """As told by the first number of each line: the size of the image, without which there are no masks, is not needed.

        Raises:
            BadTruth: as `read`.
        """
        return [(self._parts(line, image, number)[0], False) for number, line in enumerate(self._lines(image), 1)]

    def _lines(self, image: TruthImage) -> Iterable[str]:
        if not image.pictures:
            return []
        try:
            text = (storage.read_bytes(image.pictures[0]) if image.data is None else image.data[0]).decode()
        except (storage.StorageError, UnicodeDecodeError) as error:
            raise BadTruth(f"{image.pictures[0]}: cannot be read: {error}") from None
        return [line for line in text.splitlines() if line.strip()]

    def _parts(self, line: str, image: TruthImage, number: int) -> tuple[int, list[float]]:
        """Class and coordinates of a line."""
        where = f"{image.pictures[0]}, line {number}"
        if not _LINE.fullmatch(line.strip()):
            raise BadTruth(f"{where}: is not 'class x1 y1 x2 y2 x3 y3 ...': {line[:60]!r}")
        first, *numbers = line.split()
        category = int(first)
        if category not in self.classes:
            raise BadTruth(f"{where}: has class {category}, which has no name")
        if len(numbers) + 1 == _BOX:
            raise BadTruth(f"{where}: is a box, as for detection, and no polygon: there is no mask in it")
        if len(numbers) % 2:
            raise BadTruth(f"{where}: has {plural(len(numbers), 'number')}, and a polygon has an x and a y for each point")
        return category, [float(each) for each in numbers]


def _size(image: TruthImage) -> Size:
    assert image.uri is not None
    content = fetch_by_uri(image.uri)
    found = content if isinstance(content, ImageFailure) else decode(content, _MAX_PIXELS)
    if isinstance(found, ImageFailure):
        raise BadTruth(f"{image.uri}: its size is not known, as the image cannot be read: {found.message}")
    height, width = found.pixels.shape[:2]
    return height, width


def claims(place: Place, settings: TruthConfig) -> bool:
    """Whether it is a YAML file of a data set, its folder, or a folder of text files of objects."""
    return _labels_folder(place) is not None


def open_truth(place: Place, settings: TruthConfig) -> Truth:
    """The images of `--images`, else of the folder called images where the text files' is called labels; with their text files.

    Raises:
        Refused: no image is there, or no names of the classes.
    """
    folder = _labels_folder(place)
    if folder is None:
        raise place.refused("there are no text files of objects in it, as YOLO's labels/ has them")
    names = _names(place, folder, settings.labels)
    images_at = settings.images or _beside(folder)
    if images_at is None:
        raise Refused(f"--images is missing: {folder} has shares of the images' sizes, and no images/ beside it")
    root = storage.normalise(images_at).rstrip("/") + "/"
    texts = {name.removesuffix(".txt"): folder + name for name in files_below(folder) if name.endswith(".txt")}
    images = []
    for order, uri in enumerate(images_below(images_at, "--images")):
        name = uri.removeprefix(root)
        text = texts.pop(name.rpartition(".")[0], None)
        images.append(TruthImage(order, name, uri=uri, pictures=() if text is None else (text,)))
    left_out = {f"text files without an image below {root}": len(texts) - len(_NO_LABELS & set(texts))} if set(texts) - _NO_LABELS else {}
    categories = tuple(Category(value, name, isthing=True) for value, name in sorted(names.items()))
    return Truth(FORMAT, folder, categories, tuple(images), Polygons(frozenset(names)), root, left_out)


_NO_LABELS = frozenset({"classes", "train", "val", "test"})


def _labels_folder(place: Place) -> str | None:
    return place.once("yolo", lambda: _find(place))


def _find(place: Place) -> str | None:
    if not place.is_folder:
        return place.folder + _LABELS if place.uri.endswith((".yaml", ".yml")) and _LABELS in place.names() else None
    folder = place.uri + _LABELS if _LABELS in place.names() else place.uri
    if not (place.uri.rstrip("/").rpartition("/")[2] == "labels" or "/labels/" in place.uri or folder != place.uri):
        return None
    for name in files_below(folder):
        if name.endswith(".txt") and name not in {f"{each}.txt" for each in _NO_LABELS}:
            lines = storage.read_bytes(folder + name).decode(errors="replace").split("\n")
            if any(line.strip() for line in lines):
                return folder if all(_LINE.fullmatch(line.strip()) for line in lines if line.strip()) else None
    return None


def _beside(folder: str) -> str | None:
    """The folder of images: the same path with images for labels, as Ultralytics has it."""
    head, here, tail = folder.rpartition("/labels/")
    found = f"{head}/images/{tail}"
    return found if here and names_in(found) else None


def _names(place: Place, folder: str, labels: str | None) -> dict[int, str]:
    if labels is not None:
        storage.check_input(labels, "--labels")
        named = _of_file(storage.normalise(labels))
        if named is None:
            raise Refused(f"--labels {labels}: has no list of names, as YOLO's data.yaml has")
        return named
    candidates = [place.uri] if not place.is_folder else []
    for level in Place(folder, place.setting).above(2):
        there = names_in(level)
        yamls = sorted((name for name in there if name.endswith((".yaml", ".yml"))), key=lambda name: name != "data.yaml")
        candidates += [level + name for name in (*yamls, "classes.txt") if name in there]
    found = next((names for names in map(_of_file, candidates) if names is not None), None)
    if found is None:
        raise place.refused("give a file that names the classes by --labels: there is no data.yaml and no classes.txt")
    return found


def _of_file(uri: str) -> dict[int, str] | None:
    """The names in a file; None where it is a YAML without names."""
    if not uri.endswith((".yaml", ".yml")):
        return {each.id: each.name for each in label_names.read(uri).named}
    try:
        found = yaml.safe_load(storage.read_bytes(uri))
    except (storage.StorageError, yaml.YAMLError) as error:
        raise Refused(f"{uri}: cannot be read: {' '.join(str(error).split())}") from None
    names = found.get("names") if isinstance(found, dict) else None
    pairs = enumerate(names) if isinstance(names, list) else names.items() if isinstance(names, dict) else ()
    named = {int(key): str(name) for key, name in pairs if str(key).isdigit()}
    return named or None
