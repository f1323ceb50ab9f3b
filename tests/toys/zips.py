"""Images inside zip archives. Its place: masklake/images/sources/; its line: an entry of SOURCES."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from masklake import storage
from masklake.errors import ErrorCode, ImageFailure
from masklake.images.indexes import Indexes
from masklake.images.pages import Place, page
from masklake.images.source import Input, Source
from masklake.storage import StoredFile


@dataclass(frozen=True)
class Zip:
    """An archive, closed."""

    file: StoredFile

    def pages(self) -> Iterator[pa.Table]:
        """Every file in it; an archive that cannot be opened is one row."""
        known = {"image_etag": pa.scalar(self.file.etag), "image_modified": pa.scalar(self.file.modified), "image_source": pa.scalar("zip")}
        try:
            with storage.open_file(self.file.uri) as source, zipfile.ZipFile(source) as archive:
                members = [member for member in archive.infolist() if not member.is_dir()]
        except zipfile.BadZipFile as error:
            yield page([self.file.uri], error_code=[str(ErrorCode.BROKEN)], error_message=[str(error)], **known)
            return
        uris = [f"{self.file.uri}/{member.filename}" for member in members]
        sizes = [member.file_size for member in members]
        yield page(uris, image_bytes=sizes, image_container=pa.scalar(len(self.file.uri)), image_start=pa.scalar(0), **known)


class Zips(Source):
    """Zip archives, wherever they are listed."""

    name = "zip"
    opens = (".zip",)

    def open(self, file: StoredFile, asked: Input) -> Zip:
        """The archive."""
        del asked
        return Zip(file)

    def read(self, places: Sequence[Place], max_bytes: int | None) -> Iterator[bytes | ImageFailure]:
        """Member by member."""
        del max_bytes
        return map(self._member, places)

    def find(self, uri: str, indexes: Indexes | None) -> Place | None:
        """By the first archive in its path."""
        del indexes
        container, suffix, name = uri.partition(".zip/")
        return Place(uri, f"{container}.zip", None) if suffix and name else None

    def _member(self, place: Place) -> bytes | ImageFailure:
        with storage.open_file(place.container) as source, zipfile.ZipFile(source) as archive:
            try:
                return archive.read(place.uri.removeprefix(f"{place.container}/"))
            except KeyError as error:
                return ImageFailure(ErrorCode.NOT_FOUND, str(error))
