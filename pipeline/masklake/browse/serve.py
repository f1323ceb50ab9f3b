"""The page's server, on this machine alone, for as long as somebody looks."""

from __future__ import annotations

import secrets
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from masklake import reading, stopping, storage
from masklake.browse.app import Page
from masklake.browse.index import Index
from masklake.browse.pictures import Pictures
from masklake.browse.settings import BrowseConfig
from masklake.browse.truths import Truths
from masklake.errors import Refused
from masklake.spelling import plural
from masklake.upkeep.upkeep import UpkeepTable

_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Served:
    """A page that can be asked: its server, its socket, its address."""

    server: uvicorn.Server
    socket: socket.socket
    url: str
    images: int

    def run(self) -> None:
        """Answer until the server's `should_exit` is set, or a signal ends it."""
        self.server.run(sockets=[self.socket])


@contextmanager
def served(settings: BrowseConfig, say: Callable[[str], None]) -> Iterator[Served]:
    """Read a table's rows, and be ready to answer; segments are read meanwhile.

    Raises:
        Refused: there is no table, the port is taken, or the truth is wrong.
        MasklakeError: the table cannot be read.
    """
    storage.check_input(settings.table, "TABLE")
    table = reading.open_table(settings.table_uri)
    pictures, token = Pictures(settings.cache_mb << 20), secrets.token_urlsafe(24)
    pictures.warm()  # beside the reading of rows
    with (
        _listening(settings.port) as listener,
        tempfile.TemporaryDirectory(prefix="masklake-browse-") as scratch,
        closing(Index(UpkeepTable.existing(settings.table_uri), Path(scratch))) as index,
    ):
        if not len(index.ids):
            raise Refused(f"{settings.table_uri}: the table has no rows yet")
        truths = Truths(settings, index, say) if settings.truth else None
        page = Page(index, table, pictures, truths)
        threads = [
            threading.Thread(target=page.make_first_pictures, name="first-pictures", daemon=True),
            threading.Thread(target=index.read_segments, args=(lambda: pictures.kept.busy,), name="segments", daemon=True),
        ]
        for thread in threads:
            thread.start()
        config = uvicorn.Config(
            page.app(token),
            log_level="error",
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=1,
        )
        port = listener.getsockname()[1]
        yield Served(uvicorn.Server(config), listener, f"http://{_LOOPBACK}:{port}/{token}/", len(index.ids))
        index.stop()
        for thread in threads:
            thread.join()


@contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_LOOPBACK, port))
            listener.listen()
        except OSError as error:
            raise Refused(f"--port {port}: {error.strerror}: name another, or none") from None
        yield listener


def browse(settings: BrowseConfig, say: Callable[[str], None]) -> int:
    """Show a table until Ctrl-C; returns how many rows it has."""
    say(f"reading {settings.table_uri}")
    with served(settings, say) as page:
        say(f"{plural(page.images, 'row')}; look at them here, and end with Ctrl-C: {page.url}")
        if settings.open:
            webbrowser.open(page.url)
        try:
            page.run()
        except KeyboardInterrupt:  # as it is meant to end
            stopping.forget()
            say("ended")
        return page.images
