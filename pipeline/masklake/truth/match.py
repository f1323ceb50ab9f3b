"""Truth's images and the table's, or a folder's, matched by what they are called."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from masklake.errors import Refused
from masklake.truth.formats import TruthImage


@dataclass(frozen=True)
class Matched:
    """`images` gives a URI its truth; `missing` are truth's images that are not among the URIs; `by_name_alone` counts matches whose
    folders differ."""

    images: Mapping[str, TruthImage]
    missing: tuple[TruthImage, ...]
    by_name_alone: int


def match(images: Sequence[TruthImage], uris: Collection[str], of: str = "of the table") -> Matched:
    """Find each image of truth among the URIs of the table, or of a folder; `of` says in words whose they are.

    The URI that truth gives itself decides (`coco_url`, as exports write it); then a URI that ends in truth's whole name; then one whose
    file name alone is the same, where it is the only one in both. Of label maps, which have another ending, the name without it counts;
    and where none is called so, the name without what they have behind it (`a_mask.png` of `a.jpg`).

    Raises:
        Refused: several URIs have a name, or several images of truth mean one URI.
    """
    names = _Names(uris)
    named_alike: Counter[str] = Counter(_file_name(image.name) for image in images)
    found: dict[str, TruthImage] = {}
    missing: list[TruthImage] = []
    by_name_alone = 0
    for image in images:
        uri = image.uri if image.uri in names.uris else None
        if uri is None:
            candidates, whole = names.called(image)
            if not whole and candidates and named_alike[_file_name(image.name)] == 1:
                whole, by_name_alone = candidates, by_name_alone + 1
            if len(whole) > 1:
                raise Refused(
                    f"--truth: {image.name!r} could be {len(whole)} images {of}, such as {whole[0]} and {whole[1]}: "
                    "choose a part of them, or write paths below the lake into the ground truth"
                )
            uri = whole[0] if whole else None
        if uri is None:
            missing.append(image)
        elif uri in found:
            raise Refused(f"--truth: {found[uri].name!r} and {image.name!r} both mean {uri}: each image may be there once")
        else:
            found[uri] = image
    return Matched(found, tuple(missing), by_name_alone)


class _Names:
    """URIs by their file names, with their endings and without."""

    def __init__(self, uris: Collection[str]) -> None:
        self.uris = frozenset(uris)
        self._whole: defaultdict[str, list[str]] = defaultdict(list)
        self._stems: defaultdict[str, list[str]] = defaultdict(list)
        for uri in sorted(self.uris):
            name = _file_name(uri)
            self._whole[name].append(uri)
            self._stems[_without_ending(name)].append(uri)

    def called(self, image: TruthImage) -> tuple[list[str], list[str]]:
        """The URIs with the image's file name, and those of them that end in its whole name."""
        for name in _names_of(image):
            file = _file_name(name)
            candidates = self._whole.get(file, []) or (self._stems.get(file, []) if image.stem else [])
            if candidates:
                return candidates, [uri for uri in candidates if _ends_in(uri, name, image.stem)]
        return [], []


def _names_of(image: TruthImage) -> tuple[str, ...]:
    """What the image may be called, the likeliest first."""
    without = image.name.removesuffix(image.suffix)
    return (image.name,) if without in ("", image.name) else (image.name, without)


def file_names(images: Iterable[TruthImage]) -> set[str]:
    """What a URI's file name, with its ending or without, must be for `match` to look at it."""
    return {_file_name(name) for image in images for name in (*_names_of(image), image.uri) if name}


def _ends_in(uri: str, name: str, stem: bool) -> bool:
    path = "/" + uri.partition("://")[2]
    end = "/" + name.lstrip("/")
    return path.endswith(end) or (stem and _without_ending(path).endswith(end))


def _without_ending(name: str) -> str:
    head, dot, tail = name.rpartition(".")
    return head if dot and head and not head.endswith("/") and "/" not in tail else name


def _file_name(name: str) -> str:
    return name.rsplit("/", 1)[-1]
