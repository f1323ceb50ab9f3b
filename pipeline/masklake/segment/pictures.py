"""The gallery's pictures of a run: a few of its images, read again, with what is painted over them.

They can be begun before the last commit, when it is known which they will be; they are read from files that this run has written, and what
comes of them is shown only once the run has ended well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from masklake import storage
from masklake.errors import ImageFailure
from masklake.images.decoder import decode_apart
from masklake.images.fetch import fetch_by_uri
from masklake.images.indexes import Indexes
from masklake.pages.cards import card_from
from masklake.schema import Status
from masklake.segment.gallery import Encoded, encoded
from masklake.segment.settings import Config
from masklake.table import write
from masklake.table.write import Sample

_AT_ONCE = 2  # each holds one image of up to --max-pixels


class Pictures:
    """Makes pictures in threads, a few at once; an image that is gone meanwhile has none."""

    def __init__(self, config: Config, table_uri: str, indexes: Indexes | None) -> None:
        self._config, self._table_uri, self._indexes = config, table_uri, indexes
        self._begun: dict[Sample, Future[list[Encoded]]] = {}
        self._threads: ThreadPoolExecutor | None = None

    def begin(self, samples: Sequence[Sample]) -> None:
        """Begin with those of these that the gallery has room for."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_AT_ONCE, "pictures")
        for sample in samples[: self._config.gallery_images]:
            if sample not in self._begun:
                self._begun[sample] = self._threads.submit(self._made, sample)

    def of(self, samples: Sequence[Sample]) -> Iterator[Encoded]:
        """The pictures of these, as many as the gallery has room for."""
        self.begin(samples)
        for sample in samples[: self._config.gallery_images]:
            yield from self._begun[sample].result()

    def end(self) -> None:
        """Begin no more; what is under way is for nobody."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _made(self, sample: Sample) -> list[Encoded]:
        config = self._config
        found = fetch_by_uri(sample.image_uri, config.max_image_bytes, self._indexes)
        image = found if isinstance(found, ImageFailure) else decode_apart(found, config.max_pixels, config.max_decode_seconds)
        if isinstance(image, ImageFailure):
            return []  # it was there a moment ago; a picture less is no reason to fail a finished run
        with suppress(storage.StorageError):  # compacted and vacuumed since
            rows = write.read_rows(self._table_uri, sample)
            return [encoded(card_from(image.pixels, row)) for row in rows if row["status"] == Status.OK]
        return []
