"""Truth's categories and the table's labels, matched by name: the classes that are judged."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import yaml

from masklake import storage
from masklake.errors import Refused
from masklake.inference import splits
from masklake.schema import Task
from masklake.truth.formats import BACKGROUND, BACKGROUND_ID, Category, Truth

EVERYTHING_ELSE = "*"

Mapped = Mapping[str, str | None]
"""Truth's name -> the table's label, None for what is not judged; `*` stands for all names that are not there."""


@dataclass(frozen=True)
class JudgedClass:
    """A class that is judged: the table's label, and the categories of truth that it stands for.

    `given` says that it is a mapping alone that names the label; else labels match it whatever their case.
    """

    label: str
    isthing: bool
    categories: tuple[str, ...]
    given: bool
    aliases: tuple[str, ...] = ()
    """What else it is called, in lower case: its categories' other names, COCO's synonyms."""


@dataclass(frozen=True)
class Classes:
    """The classes, by their index; `of_category` gives each category of truth its index, None where it is not judged."""

    judged: tuple[JudgedClass, ...]
    of_category: Mapping[int, int | None]
    not_judged: tuple[str, ...]
    """Names of the categories that the mapping takes out."""

    def of_label(self, label: str) -> int | None:
        """The class that a label of the table means; None where truth has none for it."""
        for names, name in ((self._exact, label), (self._folded, label.casefold()), (self._aliases, label.strip().lower())):
            if name in names:
                return names[name]
        return None

    @cached_property
    def _exact(self) -> dict[str, int]:
        return {each.label: index for index, each in enumerate(self.judged)}

    @cached_property
    def _folded(self) -> dict[str, int]:
        return {each.label.casefold(): index for index, each in enumerate(self.judged) if not each.given}

    @cached_property
    def _aliases(self) -> dict[str, int]:
        """Other names, where they are of one class alone."""
        found: defaultdict[str, set[int]] = defaultdict(set)
        for index, each in enumerate(self.judged):
            for name in each.aliases if not each.given else ():
                found[name].add(index)
        return {name: next(iter(indices)) for name, indices in found.items() if len(indices) == 1}

    def __len__(self) -> int:
        return len(self.judged)


def read_mapping(uri: str) -> dict[str, str | None]:
    """A YAML (or JSON) file of `truth's name: the table's label`, or `null` for what is not judged.

    Raises:
        Refused: it is something else.
    """
    storage.check_input(uri, "--categories")
    try:
        found = yaml.load(storage.read_bytes(uri), Loader=_NamesAreText)  # noqa: S506 - a safe loader, see below
    except yaml.YAMLError as error:
        raise Refused(f"--categories {uri}: is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict) or not all(isinstance(name, str) and isinstance(label, str | None) for name, label in found.items()):
        raise Refused(
            f"--categories {uri}: must hold lines of 'name in the ground truth: label in the table', or ': null' for one not judged"
        )
    return found


class _NamesAreText(yaml.SafeLoader):
    """Loads `no`, `on` and `12` as the names that they are here; only null is not text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as in yaml's own class
        first: [(tag, pattern) for tag, pattern in resolvers if tag == "tag:yaml.org,2002:null"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def classes_for(truth: Truth, task: Task, mapping: Mapped) -> Classes:
    """The classes that a task is judged by, or learned from: of instances the things alone.

    What no object covers has a class in semantic work only, and where the mapping names it.

    Raises:
        Refused: as `judged_classes`.
    """
    categories = truth.categories
    if task is Task.INSTANCE:
        categories = tuple(category for category in categories if category.isthing is not False)
        if not categories:
            raise Refused(f"--task instance: none of the classes of {truth.uri} is a thing; see --thing-labels")
    background = truth.coding.objects_only and task is Task.SEMANTIC
    known = [category.name for category in truth.categories]
    return judged_classes(categories, mapping, apart=task is Task.PANOPTIC, background=background, known=known)


def judged_classes(
    categories: Sequence[Category], mapping: Mapped, apart: bool = False, background: bool = False, known: Collection[str] = ()
) -> Classes:
    """Decide what is judged: what the mapping says, and by its own name every category that it does not name.

    Several categories may become one class.

    Args:
        categories: of truth.
        mapping: as `read_mapping` gives it; may be empty.
        apart: whether things and stuff must not share a class: a panoptic score keeps them apart.
        background: whether there are pixels that no instance covers; they are judged only where the mapping names `background`.
        known: further names that the mapping may have.

    Raises:
        Refused: the mapping names what truth does not have, or puts things and stuff together.
    """
    names = {category.name for category in categories} | {BACKGROUND, *known}
    for name in mapping:
        if name != EVERYTHING_ELSE and name not in names:
            near = difflib.get_close_matches(name, names, 1)
            raise Refused(f"--categories: {name!r} is not a category of the ground truth" + (f"; it has {near[0]!r}" if near else ""))
    if background and BACKGROUND in mapping and BACKGROUND not in {category.name for category in categories}:
        categories = [*categories, Category(BACKGROUND_ID, BACKGROUND, False)]
    members: dict[str, list[Category]] = {}
    given: dict[str, bool] = {}
    labels: dict[int, str] = {}
    named = {label.casefold(): label for label in mapping.values() if label}
    for category in categories:
        explicit = mapping.get(category.name, mapping.get(EVERYTHING_ELSE, ""))
        if explicit is None:
            continue
        label = explicit or named.get(category.name.casefold(), category.name)
        members.setdefault(label, []).append(category)
        given[label] = given.get(label, True) and bool(explicit)
        labels[category.id] = label
    if not members:
        raise Refused("--categories: leaves no category to judge")
    index = {label: number for number, label in enumerate(members)}
    judged = tuple(_judged(label, some, given[label], apart) for label, some in members.items())
    of_category = {category.id: index[labels[category.id]] if category.id in labels else None for category in categories}
    return Classes(judged, of_category, tuple(category.name for category in categories if category.id not in labels))


def _judged(label: str, members: Collection[Category], given: bool, apart: bool) -> JudgedClass:
    kinds = {bool(category.isthing) for category in members}
    if apart and len(kinds) > 1:
        listed = ", ".join(category.name for category in members)
        raise Refused(f"--categories: {label!r} would stand for things and stuff at once ({listed}): give them labels apart")
    names = tuple(dict.fromkeys(category.name for category in members))
    aliases = [alias.strip().lower() for category in members for alias in category.aliases]
    others = dict.fromkeys([*aliases, *(other for name in (*names, *aliases) for other in splits.other_names(name))])
    return JudgedClass(label, kinds == {True}, names, given, tuple(others))
