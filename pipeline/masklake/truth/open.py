"""A truth by what `--truth` names: its format found out, or as asked for."""

from __future__ import annotations

from typing import Protocol

from masklake.errors import Refused
from masklake.spelling import plural
from masklake.truth import ade20k, cityscapes, coco_instances, coco_panoptic, instance_ids, label_colours, label_maps, vistas, voc, yolo
from masklake.truth.formats import Truth
from masklake.truth.place import Place
from masklake.truth.settings import Format, TruthConfig


class Kind(Protocol):
    """A format: a module of this package. A new one is one module, its name in `Format`, and its place in `KINDS`."""

    FORMAT: Format
    USES: frozenset[str]
    """The settings of `TruthConfig` that it heeds, besides those of every format."""

    def claims(self, place: Place, settings: TruthConfig) -> bool:
        """Whether what is there is of this format."""

    def open_truth(self, place: Place, settings: TruthConfig) -> Truth:
        """The truth's categories and images; pictures are read later.

        Raises:
            Refused: something is wrong with it.
        """


KINDS: tuple[Kind, ...] = (
    *(cityscapes, ade20k, voc, vistas, yolo),
    *(coco_panoptic, coco_instances),
    *(label_colours, instance_ids, label_maps),
)
"""The first that claims a place is its format: layouts of known data sets before single files, and those before folders of any pictures."""

_ANY_PICTURES = (Format.LABEL_COLOURS, Format.INSTANCE_IDS)
"""Told from label maps by what is in them, and so where the user insists, taken at his word."""
_EVERY = frozenset({"truth", "format", "images", "categories"})


def open_truth(settings: TruthConfig, setting: str = "--truth") -> Truth:
    """Read a truth's categories and the names of its images.

    Args:
        settings: where it is, and how it is written.
        setting: what the user named it by.

    Raises:
        Refused: there is nothing, it is not of the format asked for or of any known here, or the format has no use for a setting.
    """
    place = Place(settings.truth, setting)
    kind = _kind(place, settings)
    for name, field in TruthConfig.model_fields.items():
        value = getattr(settings, name)
        if value != field.default and name not in kind.USES | _EVERY:
            told = ",".join(map(str, value)) if isinstance(value, tuple) else value
            raise Refused(f"--{name.replace('_', '-')} {told}: is not for {kind.FORMAT}, as which {place.uri} is read")
    return kind.open_truth(place, settings)


def found_in_words(truth: Truth) -> str:
    """What was found, as a sentence for the user."""
    return (
        f"{truth.uri} is read as {truth.format}: {plural(len(truth.images), 'image')}, {plural(len(truth.categories), 'class', 'classes')}"
    )


def _kind(place: Place, settings: TruthConfig) -> Kind:
    wanted = settings.format
    if wanted is Format.AUTO:
        found = next((kind for kind in KINDS if kind.claims(place, settings)), None)
        if found is None:
            known = ", ".join(kind.FORMAT for kind in KINDS)
            raise place.refused(f"holds no ground truth that is known here ({known}); `--help` tells what these are")
        return found
    kind = next((kind for kind in KINDS if kind.FORMAT is wanted), None)
    if kind is None:
        raise Refused(f"--format {wanted}: is a table to learn from (`masklake finetune`), not ground truth")
    if not kind.claims(place, settings) and wanted not in _ANY_PICTURES:
        other = next((each.FORMAT for each in KINDS if each.claims(place, settings)), None)
        raise Refused(f"--format {wanted}: {place.uri} " + (f"looks like {other}" if other else "is none"))
    return kind
