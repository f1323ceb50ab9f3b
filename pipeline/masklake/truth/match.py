"""Truth's images and the table's, or a folder's, matched by what they are called."""

from __future__ import annotations

from collections import defaultdict
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
    file name alone is the same, where it is the only one in both. Of label maps, which have another ending, the name without it counts.

    Raises:
        Refused: several URIs have a name, or several images of truth mean one URI.
    """
    there = set(uris)
    by_file = {False: _by_file_name(there, stems=False), True: _by_file_name(there, stems=True)}
    named_alike: defaultdict[str, int] = defaultdict(int)
    for image in images:
        named_alike[_file_name(image.name)] += 1
    found: dict[str, TruthImage] = {}
    missing: list[TruthImage] = []
    by_name_alone = 0
    for image in images:
        uri = image.uri if image.uri in there else None
        if uri is None:
            candidates = by_file[False].get(_file_name(image.name), []) or (
                by_file[True].get(_file_name(image.name), []) if image.stem else []
            )
            whole = [each for each in candidates if _ends_in(each, image)]
            if not whole and candidates and named_alike[_file_name(image.name)] == 1:
                whole, by_name_alone = candidates, by_name_alone + 1
            if len(whole) > 1:
                raise Refused(
                    f"--truth: {image.name!r} could be {len(whole)} images {of}, such as {whole[0]} and {whole[1]}: "
                    "choose a part of them, or use the paths below the lake in the truth"
                )
            uri = whole[0] if whole else None
        if uri is None:
            missing.append(image)
        elif uri in found:
            raise Refused(f"--truth: {found[uri].name!r} and {image.name!r} both mean {uri}: each image may be there once")
        else:
            found[uri] = image
    return Matched(found, tuple(missing), by_name_alone)


def file_names(images: Iterable[TruthImage]) -> set[str]:
    """What a URI's file name, with its ending or without, must be for `match` to look at it."""
    return {_file_name(name) for image in images for name in (image.name, image.uri) if name}


def _by_file_name(uris: Iterable[str], stems: bool) -> dict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for uri in sorted(uris):
        name = _file_name(uri)
        found[_without_ending(name) if stems else name].append(uri)
    return found


def _ends_in(uri: str, image: TruthImage) -> bool:
    path = "/" + uri.partition("://")[2]
    name = "/" + image.name.lstrip("/")
    return path.endswith(name) or (image.stem and _without_ending(path).endswith(name))


def _without_ending(name: str) -> str:
    head, dot, tail = name.rpartition(".")
    return head if dot and head and not head.endswith("/") and "/" not in tail else name


def _file_name(name: str) -> str:
    return name.rsplit("/", 1)[-1]
