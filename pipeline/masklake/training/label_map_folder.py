"""Examples from two folders: images, and label maps of the same names."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from masklake import storage
from masklake.errors import Refused
from masklake.training.examples import BadExample, DataSet, Example, LabelMap, check_values, count_labels, labels_of, read_label_map

_ENDINGS = re.compile(r"\.(jpe?g|png|webp|tiff?|bmp|gif)$", re.IGNORECASE)


def read_folder(masks: str, images: str, labels: str, ignore: Iterable[int], things: Sequence[str]) -> DataSet:
    """An example for every label map below `masks` with an image of the same name, but for its ending, below `images`.

    Every map is read once, to count its labels and to see at once whether a value is not explained.

    Args:
        masks: folder of single-channel PNGs.
        images: folder of images.
        labels: JSON or YAML file: `{"0": "sky", ...}`, a list of names, or the `labels.json` of `masklake export`.
        ignore: values that mean nothing.
        things: labels that are things. A label map does not tell neighbours apart: each label of an image is one segment.

    Raises:
        Refused: a file cannot be read, a value has no label, no map has an image.
    """
    named, void = read_labels(labels)
    ignored = frozenset(ignore) | void
    names = {name: new for new, name in enumerate(dict.fromkeys(named[value] for value in sorted(named) if value not in ignored))}
    if unknown := [thing for thing in things if thing not in names]:
        raise Refused(f"--thing-labels {','.join(unknown)}: not among the labels {', '.join(names)} of {labels}")
    values = tuple((value, names[name]) for value, name in sorted(named.items()) if value not in ignored)
    maps, pictures = _by_stem(masks), _by_stem(images)
    stems = sorted(set(maps) & set(pictures))
    if not stems:
        raise Refused(f"no label map below {masks} ({len(maps)} found) has the name of an image below {images} ({len(pictures)} found)")
    skipped = Counter({"label maps without an image": len(set(maps) - set(pictures))})
    skipped["images without a label map"] = len(set(pictures) - set(maps))
    found = [Example(pictures[stem], LabelMap(maps[stem], values, ignored)) for stem in stems]
    with ThreadPoolExecutor(8) as threads:
        seen = list(threads.map(_with_labels, found))
    examples = tuple(example for example in seen if labels_of(example))
    skipped["images without segments"] = len(found) - len(examples)
    thing_ids = frozenset(names[thing] for thing in things)
    return DataSet({i: name for name, i in names.items()}, thing_ids, examples, count_labels(examples), +skipped, f"label maps, {masks}")


def _with_labels(example: Example) -> Example:
    """The example with the labels that its map shows."""
    truth = example.truth
    assert isinstance(truth, LabelMap)
    try:
        found = np.unique(read_label_map(truth.uri)).tolist()
        check_values(found, truth)
    except BadExample as error:
        raise Refused(f"{error}: name them with --labels or --ignore-index") from None
    shown = dict.fromkeys(label for value, label in truth.values if value in found)
    return replace(example, truth=replace(truth, shown=tuple(shown)))


def read_labels(uri: str) -> tuple[dict[int, str], frozenset[int]]:
    """Value -> label, and the values that mean nothing.

    Raises:
        Refused: the file cannot be read, or has another form.
    """
    try:
        text = storage.read_bytes(storage.normalise(uri)).decode()
        content: Any = json.loads(text) if uri.endswith(".json") else yaml.safe_load(text)
    except storage.StorageError as error:
        raise Refused(f"--labels {uri}: {error}") from None
    except (ValueError, yaml.YAMLError) as error:
        raise Refused(f"--labels {uri}: cannot be read: {error}") from None
    void: frozenset[int] = frozenset()
    if isinstance(content, dict) and isinstance(content.get("labels"), dict):
        void, content = frozenset({int(content["void"])} if "void" in content else ()), content["labels"]
    if isinstance(content, list):
        content = dict(enumerate(content))
    try:
        labels = {int(value): str(name) for value, name in content.items()}
    except (AttributeError, ValueError):
        labels = {}
    if not labels:
        raise Refused(f'--labels {uri}: must hold the label of each value, such as {{"0": "sky", "1": "road"}}, or a list of labels')
    return labels, void


def _by_stem(folder: str) -> dict[str, str]:
    """Name below the folder without its ending -> URI, of every file that is an image by its ending."""
    root = storage.normalise(folder).rstrip("/") + "/"
    try:
        uris = [file.uri for page in storage.list_files(root) for file in page if _ENDINGS.search(file.uri)]
    except storage.StorageError as error:
        raise Refused(f"{folder}: {error}") from None
    hidden = [uri for uri in uris if any(part.startswith((".", "_")) for part in Path(uri[len(root) :]).parts)]
    return {_ENDINGS.sub("", uri[len(root) :]): uri for uri in sorted(set(uris) - set(hidden))}
