"""The data of a run: read as it is configured, split into what is learned and what is held out, with one set of labels."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from masklake import storage
from masklake.errors import Refused
from masklake.training import coco, label_map_folder, lake
from masklake.training.examples import DataSet, count_labels
from masklake.training.settings import DataConfig


def read(settings: DataConfig) -> tuple[DataSet, DataSet]:
    """What is trained on and what is held out, with the same labels: those that the training examples show.

    Raises:
        Refused: the data cannot be read, nothing is left to train on, or a class has no examples and `empty_classes` refuses that.
    """
    whole = _read_one(settings, "--data", settings.data, settings.images, settings.masks)
    if settings.validation_data is not None:
        training = whole
        images = settings.validation_images or settings.images
        held_out = _read_one(settings, "--validation-data", settings.validation_data, images, settings.validation_masks)
    else:
        training, held_out = split(whole, settings.validation_share)
    if not training.examples:
        raise Refused(f"--data {settings.data}: no example is left to train on ({_told(training)})")
    training = _without_empty(training, settings.empty_classes)
    return training, _with_labels_of(held_out, training)


def split(data: DataSet, share: float) -> tuple[DataSet, DataSet]:
    """Hold out about `share` of the images by a hash of their URIs: the same whatever else is in the data."""
    held = [_hashed(example.image) < share for example in data.examples]
    parts = []
    for wanted in (False, True):
        examples = tuple(example for example, out in zip(data.examples, held, strict=True) if out == wanted)
        parts.append(replace(data, examples=examples, counts=count_labels(examples), skipped=data.skipped if not wanted else {}))
    return parts[0], parts[1]


def _read_one(settings: DataConfig, setting: str, data: str, images: str | None, masks: str | None) -> DataSet:
    images = images and storage.normalise(images)
    masks = masks and storage.normalise(masks)
    readers: dict[str, Callable[[], DataSet]] = {
        "coco-panoptic": lambda: coco.read_panoptic(storage.normalise(data), images, masks, setting),
        "coco-instances": lambda: coco.read_instances(storage.normalise(data), images, setting),
        "label-maps": lambda: label_map_folder.read_folder(
            data, images or "", settings.labels or "", settings.ignore_index, settings.thing_labels
        ),
        "table": lambda: lake.read_table(data, settings.task, settings.where, settings.min_score),
    }
    found = readers[settings.format]()
    if not found.examples:
        raise Refused(f"{setting} {data}: has no example ({_told(found)})")
    return found


def _without_empty(data: DataSet, rule: str) -> DataSet:
    empty = [label for index, label in data.labels.items() if not data.counts.get(index)]
    if not empty or rule == "keep":
        return data
    if rule == "refuse":
        raise Refused(f"--empty-classes refuse: no training example shows {', '.join(empty)}")
    kept = [index for index in data.labels if data.counts.get(index)]
    return _relabelled(
        replace(data, skipped={**data.skipped, f"classes without examples ({', '.join(empty[:20])})": len(empty)}),
        {old: new for new, old in enumerate(kept)},
        {new: data.labels[old] for new, old in enumerate(kept)},
        frozenset(new for new, old in enumerate(kept) if old in data.thing_ids),
    )


def _with_labels_of(held_out: DataSet, training: DataSet) -> DataSet:
    """The held-out examples in the training's labels, by name; what those do not have is left out, and counted."""
    by_name = {label: index for index, label in training.labels.items()}
    unknown = [label for index, label in held_out.labels.items() if label not in by_name and held_out.counts.get(index)]
    if unknown:
        told = f"held-out classes that the training has not ({', '.join(unknown[:20])})"
        held_out = replace(held_out, skipped={**held_out.skipped, told: len(unknown)})
    new_ids = {index: by_name[label] for index, label in held_out.labels.items() if label in by_name}
    return _relabelled(held_out, new_ids, training.labels, training.thing_ids)


def _relabelled(data: DataSet, new_ids: dict[int, int], labels: Mapping[int, str], things: frozenset[int]) -> DataSet:
    examples = tuple(example.relabelled(new_ids) for example in data.examples)
    return replace(data, labels=labels, thing_ids=things, examples=examples, counts=count_labels(examples))


def _hashed(text: str) -> float:
    """0 to 1, evenly."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def _told(data: DataSet) -> str:
    return ", ".join(f"{count} {what}" for what, count in Counter(data.skipped).items()) or "nothing was skipped"
