"""The data of a run: ground truth with its images, split into what is learned and what is held out, with one set of labels."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from masklake import storage
from masklake.errors import Refused
from masklake.inference import splits
from masklake.schema import Task
from masklake.training import lake
from masklake.training.examples import MEND, DataSet, Example, Reader
from masklake.training.settings import SourceConfig
from masklake.truth.classes import classes_for, read_mapping
from masklake.truth.formats import BACKGROUND_ID, BadTruth, Truth, TruthImage
from masklake.truth.match import match
from masklake.truth.open import found_in_words, open_truth
from masklake.truth.pictures import fetched
from masklake.truth.place import images_below
from masklake.truth.settings import Format, TruthConfig

_CURE = {
    True: "give the pixels that no object covers a class, by a line `background: background` in the file of --categories",
    False: "name the values of the other pixels in the labels, and take them out of --ignore-index",
}
_AT_ONCE = 8  # pictures that are decoded at the same time
_TOGETHER = 64  # pictures that are fetched at the same time


def read(settings: SourceConfig, semantic: bool) -> tuple[DataSet, DataSet]:
    """What is trained on and what is held out. Labels are those that the training examples show.

    Args:
        settings: of the run.
        semantic: whether the model does semantic work alone.

    Raises:
        Refused: the data cannot be read, nothing is left to train on, or a class has no examples and `empty_classes` refuses that.
    """
    whole = _data_set(settings, "--truth", semantic)
    if settings.validation_truth is None:
        training, held_out = split(whole, settings.validation_share)
    else:
        given = {"truth": settings.validation_truth, "masks": settings.validation_masks}
        images = settings.validation_images or settings.images
        other = settings.model_copy(update={**given, "images": images, "uris": None})
        training, held_out = whole, _data_set(other, "--validation-truth", semantic)
    training = _without_empty_images(training, settings.empty_images)
    if not training.examples:
        raise Refused(f"--truth {settings.truth}: no example is left to train on ({_told(training)})")
    training = _without_empty_classes(training, settings.empty_classes)
    if training.reader.by_class and len(training.counts) == 1:
        (only,) = training.counts
        raise Refused(
            f"--truth {settings.truth}: {training.labels[only]!r} is the only class that is shown, and what is not of it is ignored: the "
            f"model would learn to find it everywhere; {_CURE[training.reader.coding.objects_only]}"
        )
    return training, held_out


def split(data: DataSet, share: float) -> tuple[DataSet, DataSet]:
    """Hold out about `share` of the images by a hash of their URIs: the same whatever else is in the data.

    Of few images, a hash may fall on none: then the one that comes nearest is held out, so that there is always something to judge by.
    """
    hashes = [_hashed(example.image) for example in data.examples]
    if share and len(hashes) > 1:
        share = max(share, math.nextafter(min(hashes), 1.0))
    held = [each < share for each in hashes]
    parts = []
    for wanted in (False, True):
        examples = tuple(example for example, out in zip(data.examples, held, strict=True) if out == wanted)
        parts.append(replace(data, examples=examples, skipped=data.skipped if not wanted else {}))
    return parts[0], parts[1]


def _data_set(settings: SourceConfig, setting: str, semantic: bool) -> DataSet:
    truth = _truth(settings, setting)
    semantic = semantic or not any(category.isthing for category in truth.categories)
    mapping = read_mapping(settings.categories) if settings.categories else {}
    classes = classes_for(truth, Task.SEMANTIC if semantic else Task.PANOPTIC, mapping)
    meaning = {category: index for category, index in classes.of_category.items() if index is not None}
    skipped = Counter(truth.left_out)
    pairs = list(_with_images(truth, settings.images, setting, skipped))
    reader = Reader(truth.coding, meaning, by_class=semantic)
    examples = tuple(_shown(pairs, reader, settings.bad_examples == "skip", skipped))
    if not examples:
        raise Refused(f"{setting} {settings.truth}: has no example ({_in_words(skipped)})")
    labels = {index: each.label for index, each in enumerate(classes.judged)}
    things = frozenset(index for index, each in enumerate(classes.judged) if each.isthing)
    return DataSet(labels, things, examples, reader, replace(truth, images=()), found_in_words(truth), +skipped)


def _truth(settings: SourceConfig, setting: str) -> Truth:
    is_table = "_delta_log/" in storage.list_names(settings.truth) if settings.format is Format.AUTO else settings.format is Format.TABLE
    if is_table:
        return lake.read_table(settings.truth, settings)
    for name in ("where", "uris", "min_score"):
        if settings.validation_truth is None and getattr(settings, name):
            raise Refused(
                f"--{name.replace('_', '-')} is for rows of a table of masks, and {setting} {settings.truth} is not one: leave it out"
            )
    return open_truth(TruthConfig(**{name: getattr(settings, name) for name in TruthConfig.model_fields}), setting)


def _with_images(truth: Truth, images: str | None, setting: str, skipped: Counter[str]) -> Iterator[tuple[TruthImage, str]]:
    """Each image of truth that is there, with its URI: below `--images`, else where truth says, else where its format has them."""
    known = all(str(image.uri).startswith(("s3://", "file://")) for image in truth.images)
    folder = images or (None if known else truth.images_at)
    if folder is None:
        if not known:
            raise Refused(f"--images is missing: {setting} {truth.uri} does not say where its images are")
        yield from ((image, storage.image_name(str(image.uri))) for image in truth.images)
        return
    maps = {picture for image in truth.images for picture in image.pictures}
    uris = [uri for uri in images_below(folder, "--images") if uri not in maps]
    matched = match(truth.images, uris, f"below {folder}")
    if not matched.images:
        example = truth.images[0].name if truth.images else "nothing"
        raise Refused(f"{setting} {truth.uri}: none of its images ({len(truth.images):,}) is below {folder}: it has {example!r}, say")
    skipped[f"images of the ground truth that are not below {folder}"] = len(matched.missing)
    skipped["images without ground truth"] = len(uris) - len(matched.images)
    yield from sorted(((image, uri) for uri, image in matched.images.items()), key=lambda pair: pair[0].order)


def _shown(pairs: list[tuple[TruthImage, str]], reader: Reader, skip: bool, skipped: Counter[str]) -> Iterator[Example]:
    """The examples with the labels of what is on them; where only pictures tell, each is read once, and what is wrong is told at once."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for first in range(0, len(pairs), _TOGETHER):
            some = pairs[first : first + _TOGETHER]
            images = [image for image, _ in some]
            looked_at = images if reader.coding.listed else fetched(images)
            for (image, uri), found in zip(some, threads.map(lambda each: _segments(each, reader), looked_at), strict=True):
                if isinstance(found, BadTruth):
                    if not skip:
                        raise Refused(f"{found}; {MEND}")
                    skipped["images whose ground truth cannot be read"] += 1
                    continue
                if not reader.by_class:
                    skipped["crowd regions"] += sum(crowd for _, crowd in found)
                yield Example(uri, image, _labels(found, reader))


def _segments(image: TruthImage, reader: Reader) -> list[tuple[int, bool]] | BadTruth:
    """Category and crowd of each segment."""
    try:
        return reader.coding.shown(image)
    except BadTruth as error:
        return error


def _labels(segments: list[tuple[int, bool]], reader: Reader) -> tuple[int, ...]:
    labels = [reader.meaning[category] for category, crowd in segments if category in reader.meaning and (reader.by_class or not crowd)]
    if not reader.by_class:
        return tuple(labels)
    return tuple(sorted({*labels, *([reader.meaning[BACKGROUND_ID]] if BACKGROUND_ID in reader.meaning else [])}))


def _without_empty_images(data: DataSet, rule: str) -> DataSet:
    """Without images that show nothing, or with them: where nothing is known of an image, there is nothing to be learned from it."""
    if rule == "learn" and data.reader.coding.objects_only and not data.reader.by_class:
        return data
    kept = tuple(example for example in data.examples if example.shown)
    skipped = Counter(data.skipped) + Counter({"images without objects": len(data.examples) - len(kept)})
    return replace(data, examples=kept, skipped=dict(skipped))


def _without_empty_classes(data: DataSet, rule: str) -> DataSet:
    counts = data.counts
    empty = [label for index, label in data.labels.items() if not counts.get(index)]
    if not empty or rule == "keep":
        return data
    if rule == "refuse":
        raise Refused(f"--empty-classes refuse: no training example shows {', '.join(empty)}")
    new = {old: place for place, old in enumerate(index for index in data.labels if counts.get(index))}
    return replace(
        data,
        labels={place: data.labels[old] for old, place in new.items()},
        thing_ids=frozenset(place for old, place in new.items() if old in data.thing_ids),
        examples=tuple(replace(each, shown=tuple(new[label] for label in each.shown)) for each in data.examples),
        reader=replace(data.reader, meaning={category: new[old] for category, old in data.reader.meaning.items() if old in new}),
        skipped={**data.skipped, f"classes without examples ({', '.join(empty[:20])})": len(empty)},
    )


def more_than(data: DataSet, queries: int) -> tuple[int, int]:
    """How many examples have more objects than a model has queries, and the most objects that one has."""
    counts = [len(example.shown) for example in data.examples]
    return sum(count > queries for count in counts), max(counts, default=0)


def unknown_classes(training: DataSet, held_out: DataSet) -> list[str]:
    """The labels that held-out examples show and the training has not: they count as missed."""
    counts = held_out.counts
    known = {splits.plain(label) for label in training.labels.values()}
    return [label for index, label in held_out.labels.items() if splits.plain(label) not in known and counts.get(index)]


def _hashed(text: str) -> float:
    """0 to 1, evenly."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def _told(data: DataSet) -> str:
    return _in_words(data.skipped)


def _in_words(skipped: Mapping[str, int]) -> str:
    return ", ".join(f"{what} ({count:,})" for what, count in skipped.items() if count) or "nothing was left out"
