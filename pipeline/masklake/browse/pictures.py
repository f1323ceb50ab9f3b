"""Photographs of the table's images, reduced, and what is painted over them. Images are read by what their rows call them alone."""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from masklake.errors import ImageFailure, MasklakeError
from masklake.images.decoder import decode_apart
from masklake.images.fetch import fetch_by_uri
from masklake.inference.rle import encode_mask
from masklake.pages import rendering
from masklake.pages.cards import ALPHA, Painting, Size, paint, reduced_size
from masklake.quality.instance import CONFIDENT
from masklake.tasks import Task

SIDES = (480, 1600, 4096)
"""The longest sides that pictures are reduced to, pixels."""

_QUALITY = 88
_MOST_BYTES = 1 << 30  # of an image's file

Row = Mapping[str, Any]
Values = dict[str, Any]


class Kept:
    """What was made before, by its key, as long as all of it fits a number of bytes; what was not asked for longest goes first. What
    several ask for at once is made once."""

    def __init__(self, most_bytes: int) -> None:
        self._most, self._held = most_bytes, 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """What has this key; it is made where it is not there."""
        with self._lock:
            if (found := self._found(key)) is not None:
                return found
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if (found := self._found(key)) is not None:
                    return found
            try:
                made = make()
                self._keep(key, made)
                return made
            finally:
                with self._lock:
                    self._making.pop(key, None)

    def _keep(self, key: Hashable, made: bytes) -> None:
        with self._lock:
            self._held += len(made) - len(self._kept.pop(key, b""))
            self._kept[key] = made
            while self._held > self._most:
                self._held -= len(self._kept.popitem(last=False)[1])

    def _found(self, key: Hashable) -> bytes | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    @property
    def busy(self) -> bool:
        """Whether anything is being made."""
        return bool(self._making)

    @property
    def held(self) -> int:
        """Bytes."""
        return self._held


class Pictures:
    """May be used by several threads; as many images are decoded at once as there are CPUs."""

    def __init__(self, most_bytes: int) -> None:
        self.kept = Kept(most_bytes)
        self._at_once = max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
        self._decoders = threading.Semaphore(self._at_once)

    def warm(self) -> None:
        """Start the decoders, and import what painting needs, in threads: both take longer than to make a picture."""
        for number in range(self._at_once):
            threading.Thread(target=self._start_decoder, name=f"decoder-{number}", daemon=True).start()
        threading.Thread(target=_paint_nothing, name="painter", daemon=True).start()

    def _start_decoder(self) -> None:
        with self._decoders:
            blank, side = as_jpeg(np.zeros((8, 8, 3), np.uint8)), SIDES[0]
            decode_apart(blank, 64, shrink=partial(_smaller, side=side), reduced_to=_target(side))  # which it must import, too

    def photograph(self, row: Row, side: int) -> bytes:
        """A row's image as JPEG, of at most `side` pixels.

        Raises:
            MasklakeError: it cannot be read or decoded, or is of another size by now.
        """
        return self.kept.get(("photograph", row["image_uri"], row["image_etag"], side), lambda: self._photograph(row, side))

    def _photograph(self, row: Row, side: int) -> bytes:
        uri, size = row["image_uri"], (row["height"], row["width"])
        if None in size:
            raise MasklakeError("its size is not known: it could not be decoded")
        with self._decoders:
            data = fetch_by_uri(uri, _MOST_BYTES)
            small = partial(_smaller, side=side)
            found = (
                data if isinstance(data, ImageFailure) else decode_apart(data, size[0] * size[1], shrink=small, reduced_to=_target(side))
            )
            if isinstance(found, ImageFailure):
                raise MasklakeError(f"{found.code}: {found.message}")
            if found.size != size:
                raise MasklakeError(f"it has changed since it was segmented: it is {found.size[1]} x {found.size[0]} pixels now")
            return as_jpeg(found.pixels)

    def painted(self, row: Row, side: int, fill: bool, score: float | None) -> Values:
        """What lies over a photograph of this side: see `as_values`.

        Args:
            row: a whole row with status ok.
            side: as of `photograph`.
            fill: whether colours cover the segments, else their edges alone.
            score: segments that score less are left out; None: instances of which the model is not confident.
        """
        least = score if score is not None else CONFIDENT if row["task"] == Task.INSTANCE else 0.0
        size = row["height"], row["width"]
        shown = [segment for segment in row["segments"] if segment["score"] >= least]
        return as_values(paint(shown, size, reduced_size(size, side), alpha=ALPHA if fill else 0.0))


def as_values(painting: Painting) -> Values:
    """A painting as a page takes it: `layer`, the address of a picture that is its content, and `names` where they stand."""
    return {
        "layer": rendering.layer(painting.layer, quick=True),
        "names": [
            {"text": rendering.shown(name.text), "colour": rendering.hex_colour(name.colour), "score": name.score}
            | {"x": round(name.x, 4), "y": round(name.y, 4), "small": name.small}
            for name in painting.names
        ],
    }


def _paint_nothing() -> None:
    mask = {
        "segment_id": 1,
        "label_id": 0,
        "label": "",
        "isthing": True,
        "score": 1.0,
        "counts": encode_mask(np.ones((8, 8), np.bool_)).counts,
    }
    as_values(paint([mask], (8, 8), (8, 8)))


def as_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """uint8 [H, W, 3] as a file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=_QUALITY)  # WebP would take half of the bytes and ten times as long
    return file.getvalue()


def _target(side: int) -> Callable[[int, int], Size]:
    return partial(_size, side)


def _size(side: int, height: int, width: int) -> Size:
    return reduced_size((height, width), side)


def _smaller(
    pixels: NDArray[np.uint8], size: Size | None = None, box: tuple[float, float, float, float] | None = None, *, side: int
) -> NDArray[np.uint8]:
    height, width = reduced_size(size or pixels.shape[:2], side)
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS, box=box, reducing_gap=2.0))
