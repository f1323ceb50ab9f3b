"""A store of any number of objects that are only ever listed: S3's ListObjectsV2 on loopback, its pages made as they are asked for.

    python -m jobs.benchmarks.listed_store --layout days --objects 10000000 --latency 0.05     # prints its port

For measuring what a listing takes of its client, with nothing stored anywhere. Each answer comes after a latency, as from a store far away.
`GET /requests` says how many lists were asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from urllib.parse import parse_qs, quote, urlsplit

_PER_DAY, _PER_USER = 100_000, 20
_PAGE = 1000
_ENTRY = (
    "<Contents><Key>{}</Key><LastModified>2026-11-22T10:00:00.000Z</LastModified><ETag>&quot;{:032x}&quot;</ETag>"
    "<Size>100000</Size><StorageClass>STANDARD</StorageClass></Contents>"
)


LAYOUTS: dict[str, Callable[[int], str]] = {
    "days": lambda i: f"images/dt={i // _PER_DAY:05d}/camera-{i % _PER_DAY // 1000:03d}-{i:09d}.jpg",
    "users": lambda i: f"images/user-{i // _PER_USER:09d}/{i:09d}.jpg",
    "tree": lambda i: f"images/{i // 20_000:05d}/{i // 2000 % 10}/{i // 200 % 10}/{i // _PER_USER % 10}/{i:09d}.jpg",
    "flat": lambda i: f"images/photo-{i:09d}.jpg",
}
"""The key of object i, in S3's order: in days of 100,000 objects, in users of 20, in a tree with 20 at each end, or in one folder."""


class ListedStore:
    """Answers list requests for `objects` objects of a layout; `requests` counts them."""

    def __init__(self, layout: str, objects: int, latency: float) -> None:
        self.key, self.objects, self.latency, self.requests = LAYOUTS[layout], objects, latency, 0

    def page(self, prefix: str, delimiter: str, start: int, most: int) -> str:
        """A page's XML. Tokens are numbers of objects."""
        first, end = max(start, self._first_from(prefix)), self._first_from(prefix + "\U0010ffff")
        entries, folders, position = list[str](), list[str](), first
        while position < end and len(entries) + len(folders) < most:
            key = self.key(position)
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            if cut >= 0:
                folders.append(f"<CommonPrefixes><Prefix>{quote(key[: cut + 1])}</Prefix></CommonPrefixes>")
                position = self._first_from(key[: cut + 1] + "\U0010ffff")
            else:
                entries.append(_ENTRY.format(quote(key), position))
                position += 1
        more = f"<NextContinuationToken>{position}</NextContinuationToken>" if position < end else ""
        return (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>lake</Name>'
            f"<EncodingType>url</EncodingType><Prefix>{quote(prefix)}</Prefix><KeyCount>{len(entries) + len(folders)}</KeyCount>"
            f"<MaxKeys>{most}</MaxKeys><IsTruncated>{str(bool(more)).lower()}</IsTruncated>{more}{''.join(entries)}{''.join(folders)}"
            "</ListBucketResult>"
        )

    def _first_from(self, key: str) -> int:
        """The number of the first object whose key is not before this one."""
        low, high = 0, self.objects
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self.key(middle) < key else (low, middle)
        return low

    async def serve(self) -> asyncio.Server:
        """Listen on a free port of loopback."""
        return await asyncio.start_server(self._connection, "127.0.0.1", 0, limit=1 << 20)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                body = (await self._answer(head.split(b" ", 2)[1].decode())).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            writer.close()

    async def _answer(self, target: str) -> str:
        url = urlsplit(target)
        if url.path == "/requests":
            return str(self.requests)
        self.requests += 1
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        await asyncio.sleep(self.latency)
        start = int(asked.get("continuation-token", 0))
        return self.page(asked.get("prefix", ""), asked.get("delimiter", ""), start, min(_PAGE, int(asked.get("max-keys", _PAGE))))


def main(argv: list[str] | None = None) -> int:
    """Serve until the process is ended; the port is printed."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.benchmarks.listed_store", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--layout", choices=list(LAYOUTS), default="days")
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds before each answer (default: %(default)s)")
    arguments = parser.parse_args(argv)

    async def serve() -> None:
        server = await ListedStore(arguments.layout, arguments.objects, arguments.latency).serve()
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(serve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
