"""An object as a seekable file."""

from __future__ import annotations

import io
import os
from collections.abc import Callable

from masklake.storage.faults import StorageError, failure

_READ_BYTES = 16 * 1024 * 1024  # in one request; whoever asks for more is given this much at a time


class RangedFile(io.RawIOBase):
    """A file of `size` bytes of which `read(start, length)` fetches a part; errors come as `StorageError`."""

    def __init__(self, uri: str, read: Callable[[int, int], bytes], size: int) -> None:
        self._uri, self._read, self._size, self._position = uri, read, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        length = min(len(buffer), self._size - self._position, _READ_BYTES)
        if length <= 0:
            return 0
        try:
            data = self._read(self._position, length)
        except Exception as error:
            raise StorageError(self._uri, failure(error)) from error
        buffer[:length] = data
        self._position += length
        return length
