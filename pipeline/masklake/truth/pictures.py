"""Truth in pictures: PNG files (and the like) whose pixels are codes of segments or labels."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from masklake import storage
from masklake.truth.formats import BadTruth, Painted, Region, Size, TruthImage

_FEW = 1 << 17  # codes below this are counted by a table, more of them by sorting the pixels
_SINGLE = ("1", "L", "P", "LA", "PA", "I", "I;16", "I;16B", "I;16L")
_COLOUR = ("RGB", "RGBA")


def fetched(images: Sequence[TruthImage]) -> list[TruthImage]:
    """The images with their pictures' bytes, read at once; one that cannot be read stays as it is, to fail when it is looked at."""
    uris = [uri for image in images for uri in image.pictures]
    found = dict(zip(uris, storage.read_many(uris), strict=True))
    return [_with_data(image, [found[uri] for uri in image.pictures]) for image in images]


def _with_data(image: TruthImage, contents: Sequence[object]) -> TruthImage:
    data = tuple(content for content in contents if isinstance(content, bytes))
    return replace(image, data=data) if data and len(data) == len(contents) else image


def open_picture(image: TruthImage, place: int = 0) -> Image.Image:
    """One of the image's pictures, decoded.

    Raises:
        BadTruth: it cannot be read.
    """
    uri = image.pictures[place]
    try:
        picture = Image.open(io.BytesIO(storage.read_bytes(uri) if image.data is None else image.data[place]))
        picture.load()
    except storage.StorageError as error:
        raise BadTruth(str(error)) from None
    except Exception as error:  # decoders raise whatever they like on bad data
        raise BadTruth(f"{uri}: cannot be read as a picture of labels: {error}") from None
    return picture


def values(image: TruthImage, place: int = 0) -> NDArray[np.int64]:
    """The value of each pixel of a picture of one channel, int64 [H, W]: of a palette its index, of one bit 0 or 1.

    Raises:
        BadTruth: it cannot be read, or is in colour.
    """
    picture = open_picture(image, place)
    if picture.mode not in _SINGLE and not is_grey(picture):
        raise BadTruth(f"{image.pictures[place]}: is in colour ({picture.mode}): a label map has one channel, of label ids")
    channels = np.asarray(picture, np.int64)
    found: NDArray[np.int64] = channels if channels.ndim == 2 else channels[..., 0]  # beside transparency, or the same twice more
    return found


def colours(image: TruthImage, place: int = 0) -> NDArray[np.int64]:
    """R + 256 G + 256^2 B of each pixel of a picture in colour, or of a palette of colours, int64 [H, W].

    Raises:
        BadTruth: it cannot be read, or has one channel.
    """
    picture = open_picture(image, place)
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGB")
    if not is_colour(picture):
        raise BadTruth(f"{image.pictures[place]}: is not in colour ({picture.mode})")
    channels = np.asarray(picture)[..., :3].astype(np.int64)
    found: NDArray[np.int64] = channels @ np.array([1, 256, 65536], np.int64)
    return found


def is_colour(picture: Image.Image) -> bool:
    """Whether it has three channels, besides transparency."""
    return picture.mode in _COLOUR


def is_grey(picture: Image.Image) -> bool:
    """Whether it has three channels that are the same, as some tools write label maps."""
    if not is_colour(picture):
        return False
    channels = np.asarray(picture)
    return bool((channels[..., 0] == channels[..., 1]).all() and (channels[..., 0] == channels[..., 2]).all())


def distinct(codes: NDArray[np.int64]) -> list[int]:
    """The codes that occur, ascending."""
    if codes.size and codes.min() >= 0 and codes.max() < _FEW:
        return [int(code) for code in np.flatnonzero(np.bincount(codes.ravel()))]
    return [int(code) for code in np.unique(codes)]


def painted(codes: NDArray[np.int64], means: Callable[[int], tuple[Region, int] | None]) -> Painted:
    """An id map of codes.

    Args:
        codes: int64 [H, W].
        means: of a code its region and a number, where codes of one region and number are one segment; None where it says nothing.
            It raises `BadTruth` for a code that may not be there.
    """
    present = distinct(codes)
    meant = [means(code) for code in present]
    places = {key: place for place, key in enumerate(dict.fromkeys(key for key in meant if key is not None), 1)}
    numbers = np.array([0 if key is None else places[key] for key in meant], np.int32)
    if present and present[-1] < _FEW and present[0] >= 0:
        table = np.zeros(present[-1] + 1, np.int32)
        table[present] = numbers
        ids = table[codes]
    else:
        ids = numbers[np.searchsorted(np.array(present, np.int64), codes)]
    return Painted(ids, tuple(region for region, _ in places))


def check_size(image: TruthImage, size: Size | tuple[int, ...], place: int = 0) -> None:
    """Raises BadTruth where a picture is of another size than truth says."""
    if image.size is not None and image.size != tuple(size):
        raise BadTruth(f"{image.pictures[place]}: is of size {tuple(size)} (height, width), and the ground truth says {image.size}")


def of_one_size(image: TruthImage, *arrays: NDArray[Any]) -> None:
    """Raises BadTruth where the pictures of an image differ in size, or from what truth says."""
    for place, array in enumerate(arrays):
        check_size(image, array.shape, place)
        if array.shape != arrays[0].shape:
            raise BadTruth(
                f"{image.pictures[place]}: is of size {array.shape} (height, width), and {image.pictures[0]} of {arrays[0].shape}"
            )
