"""Mapillary Vistas as downloaded: <split>/[v2.0/]instances/*.png of class * 256 + object, or labels/*.png; classes in config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from masklake import storage
from masklake.truth.formats import Category, Truth, TruthImage
from masklake.truth.instance_ids import InstanceIds
from masklake.truth.label_maps import LabelMap
from masklake.truth.place import Place, files_below
from masklake.truth.settings import Format, TruthConfig

FORMAT = Format.VISTAS
USES: frozenset[str] = frozenset()

_SPLITS = ("training/", "validation/")
_VERSIONS = ("v2.0/", "v1.2/", "")  # of the annotations in a split; the first release has none
_KINDS = ("instances/", "labels/")  # what says most comes first
_DIVISOR = 256


def claims(place: Place, settings: TruthConfig) -> bool:
    """Whether it is the folder of Vistas, a split of it, or a version of the annotations in one."""
    return place.is_folder and bool(_parts(place))


def open_truth(place: Place, settings: TruthConfig) -> Truth:
    """The images of a split, or of both.

    Raises:
        Refused: there are none, or no config.json that names the classes.
    """
    parts = _parts(place)
    if not parts:
        raise place.refused("there are no instances/ or labels/ beside images/, as in Mapillary Vistas")
    kind, version = parts[0][2], parts[0][1]
    labels = _labels(place, version)
    images: list[TruthImage] = []
    for split, version_of, kind_of in parts:
        for name in files_below(split + version_of + kind_of):
            stem = f"{split.rstrip('/').rpartition('/')[2]}/images/{name.removesuffix('.png')}"
            images.append(TruthImage(len(images), stem, True, pictures=(split + version_of + kind_of + name,)))
    categories = tuple(
        Category(value, str(label["readable"]), bool(label["instances"]) and kind == "instances/")
        for value, label in enumerate(labels)
        if label.get("evaluate", True)
    )
    same, ignored = {each.id: each.id for each in categories}, frozenset(range(len(labels))) - {each.id for each in categories}
    things = frozenset(each.id for each in categories if each.isthing)
    coding = LabelMap(same, ignored) if kind == "labels/" else InstanceIds(same, ignored, things, _DIVISOR, always=True)
    return Truth(FORMAT, place.uri, categories, tuple(images), coding, _images_at(parts))


def _parts(place: Place) -> list[tuple[str, str, str]]:
    """Split, version and kind of the annotations that there are."""
    return place.once("vistas", lambda: _find(place))


def _find(place: Place) -> list[tuple[str, str, str]]:
    there = place.names()
    for version in _VERSIONS:  # of the place itself
        if version and place.uri.endswith("/" + version):
            split = place.uri.removesuffix(version)
            found = _of_split(split, (version,)) if "images/" in storage.list_names(split) else None
            return [found] if found else []
    if "images/" in there:
        found = _of_split(place.uri, _VERSIONS)
        return [found] if found and _config(place, found[1]) else []
    splits = [place.uri + split for split in _SPLITS if split in there]
    parts = [part for split in splits if (part := _of_split(split, _VERSIONS))]
    return parts if parts and _config(place, parts[0][1]) else []


def _of_split(split: str, versions: tuple[str, ...]) -> tuple[str, str, str] | None:
    for version in versions:
        there = storage.list_names(split + version)
        for kind in _KINDS:
            if kind in there:
                return split, version, kind
    return None


def _config(place: Place, version: str) -> str | None:
    """The URI of the file that names the classes."""
    names = (f"config_{version.rstrip('/')}.json", "config.json") if version else ("config.json",)
    for folder in place.above(2):
        there = storage.list_names(folder)
        for name in names:
            if name in there:
                return folder + name
    return None


def _labels(place: Place, version: str) -> list[Mapping[str, Any]]:
    config = _config(place, version)
    if config is None:
        raise place.refused("there is no config.json above it that names the classes, as in Mapillary Vistas")
    try:
        labels = json.loads(storage.read_bytes(config))["labels"]
        if all(isinstance(each["readable"], str) and isinstance(each["instances"], bool) for each in labels):
            return list(labels)
    except (ValueError, KeyError, TypeError):
        pass
    raise place.refused(f"{config} does not name the classes as Mapillary Vistas does: labels with readable, instances and evaluate")


def _images_at(parts: list[tuple[str, str, str]]) -> str:
    splits = [split for split, _, _ in parts]
    return splits[0] + "images/" if len(splits) == 1 else splits[0].rstrip("/").rpartition("/")[0] + "/"
