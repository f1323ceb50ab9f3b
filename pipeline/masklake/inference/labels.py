"""The labels of a checkpoint: its own, or, where it names none, those of the dataset it was trained on, or the user's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from masklake.errors import Refused
from masklake.inference import splits

SETTING = "--labels"


def of_checkpoint(
    config: Mapping[str, Any], count: int, dataset: str, given: Mapping[int, str] | None, name: str
) -> tuple[dict[int, str], str]:
    """The label of each of the model's `count` classes, and what to tell the user where they are not the checkpoint's own.

    Ids may have holes: a class that nobody named is `LABEL_<id>`, as transformers calls it.

    Args:
        config: the checkpoint's.
        count: of the model's classes.
        dataset: that it was trained on, or empty.
        given: the user's labels by id.
        name: of the checkpoint, as the user gave it.

    Raises:
        Refused: ids are not whole numbers, or beyond the model's classes; nothing names the classes; both the checkpoint and the user do.
    """
    own = {key: label for key, label in _written(config, name).items() if not splits.is_placeholder(label)}
    if given is not None:
        if own:
            raise Refused(f"{SETTING}: {name} names its labels itself ({', '.join(list(own.values())[:3])}, ...): leave it out")
        _check(given, count, f"{SETTING} names", name)
        return _filled(given, count), f"labels are those of {SETTING}"
    if own:
        everything = _written(config, name)
        _check(everything, count, f"{name}: id2label in config.json names", name)
        return _filled(everything, count), ""
    named = splits.names(dataset, count)
    if named is None:
        raise Refused(
            f"{name} names none of its {count} classes (id2label in config.json), and neither its name nor its model card says which "
            f"dataset's they are: give {SETTING} FILE, with an id and a name for each"
        )
    return named, f"the checkpoint names no labels: the {count} of {dataset} are taken, which its name or model card says"


def _written(config: Mapping[str, Any], name: str) -> dict[int, str]:
    written = config.get("id2label") or {}
    try:
        return dict(sorted((int(key), str(label)) for key, label in written.items()))
    except (AttributeError, TypeError, ValueError):
        raise Refused(f"{name}: id2label in config.json must give whole numbers their names, as {{'0': 'sky'}}") from None


def _check(labels: Mapping[int, str], count: int, who: str, name: str) -> None:
    beyond = [label_id for label_id in labels if not 0 <= label_id < count]
    if beyond:
        raise Refused(f"{who} the id {beyond[0]}, but the classes of {name} are 0 to {count - 1}")


def _filled(labels: Mapping[int, str], count: int) -> dict[int, str]:
    return {label_id: labels.get(label_id, f"LABEL_{label_id}") for label_id in range(count)}
