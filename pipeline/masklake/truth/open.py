"""A truth by what `--truth` names: its format found out, or as asked for."""

from __future__ import annotations

from typing import Protocol

from masklake.errors import Refused
from masklake.truth import coco_instances, coco_panoptic, label_maps
from masklake.truth.formats import Truth
from masklake.truth.place import Place
from masklake.truth.settings import Format, TruthConfig


class Kind(Protocol):
    """A format: a module of this package. A new one is one module, its name in `Format`, and its place in `KINDS`."""

    FORMAT: Format
    USES: frozenset[str]
    """The settings of `TruthConfig` that it heeds, besides those of every format."""

    def claims(self, place: Place) -> str | None:
        """What of the place is of this format, in words; None where nothing is."""

    def open_truth(self, place: Place, settings: TruthConfig) -> Truth:
        """The truth's categories and images; pictures are read later.

        Raises:
            Refused: something is wrong with it.
        """


KINDS: tuple[Kind, ...] = (coco_panoptic, coco_instances, label_maps)
"""The first that claims a place is its format."""

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
    kind = _kind(place, settings.format)
    for name, field in TruthConfig.model_fields.items():
        value = getattr(settings, name)
        if value != field.default and name not in kind.USES | _EVERY:
            told = ",".join(map(str, value)) if isinstance(value, tuple) else value
            raise Refused(f"--{name.replace('_', '-')} {told}: is not for {kind.FORMAT}, as which {place.uri} is read")
    return kind.open_truth(place, settings)


def found_in_words(truth: Truth) -> str:
    """What was found, as a sentence for the user."""
    return f"{truth.uri} is read as {truth.format}: {len(truth.images)} images, {len(truth.categories)} classes"


def _kind(place: Place, wanted: Format) -> Kind:
    if wanted is Format.AUTO:
        found = next((kind for kind in KINDS if kind.claims(place) is not None), None)
        if found is None:
            known = ", ".join(kind.FORMAT for kind in KINDS)
            raise place.refused(f"holds no ground truth that is known here ({known}); `--help` tells what these are")
        return found
    for kind in KINDS:
        if kind.FORMAT is wanted:
            if kind.claims(place) is None:
                other = next((each.FORMAT for each in KINDS if each.claims(place) is not None), None)
                raise Refused(f"--format {wanted}: {place.uri} looks like {other}" if other else f"--format {wanted}: {place.uri} is none")
            return kind
    raise Refused(f"--format {wanted}: is what `masklake finetune` can learn from, and no ground truth")
