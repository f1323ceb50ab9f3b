"""HTTPS in front of a server of the tests, with a certificate of an authority that nobody trusts by default."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """A private authority's certificate, and one that it gave to 127.0.0.1 with its key, as PEM files."""
    authority, cert, key = folder / "authority.pem", folder / "server.pem", folder / "server-key.pem"
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    root = [*new, "-keyout", str(folder / "authority-key.pem"), "-out", str(authority), "-subj", "/CN=a private authority"]
    signed = ["-CA", str(authority), "-CAkey", str(folder / "authority-key.pem"), "-addext", "basicConstraints=critical,CA:FALSE"]
    server = [*new, "-keyout", str(key), "-out", str(cert), "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", *signed]
    for command in (root, server):
        subprocess.run(command, check=True, capture_output=True)
    return authority, cert, key


@contextlib.contextmanager
def tls_front(endpoint: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """The `https://` URL that passes everything on to `endpoint` (`http://`), and the file of the certificate to trust.

    A process of its own: delta-rs holds the interpreter's lock while it waits for an answer.
    """
    authority, cert, key = certificates(folder)
    command = [sys.executable, "-m", "tests.tls", endpoint, str(cert), str(key)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as process:
        assert process.stdout
        try:
            yield f"https://127.0.0.1:{int(process.stdout.readline())}", authority
        finally:
            process.kill()


async def _serve(endpoint: str, cert: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    target = urlsplit(endpoint)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(target.hostname, target.port)
        await asyncio.gather(_copy(reader, inner_writer), _copy(inner_reader, writer))

    server = await asyncio.start_server(pass_on, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()
    sink.close()


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
