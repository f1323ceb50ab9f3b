"""The Iceberg catalog: an embedded one in an SQLite file, or any that pyiceberg's configuration describes; and its errors in words."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException, NoSuchTableError, TableAlreadyExistsError
from pyiceberg.table import Table
from pyiceberg.utils.config import Config
from sqlalchemy import URL

from masklake import storage
from masklake.errors import MasklakeError, Refused
from masklake.export.iceberg import EMBEDDED

CONFLICTS = (CommitFailedException, CommitStateUnknownException, TableAlreadyExistsError, NoSuchTableError)
"""What a catalog says where another commit was faster, or where it cannot tell: look again."""

Identifier = tuple[str, ...]
"""Namespaces, then the table's name."""

_ANSWER_SECONDS = 20.0
_LOCK_SECONDS = 60  # that a publication waits for another one's commit to the same SQLite file
_LONGEST_DETAIL = 300
_SECRET = re.compile(r"secret|token|credential|password|access-key|\bauth", re.IGNORECASE)
_USER_INFO = re.compile(r"(?<=://)[^/@\s]+@")
_T = TypeVar("_T")


@dataclass(frozen=True)
class CatalogSettings:
    """Which catalog, as the user said it."""

    name: str | None = None
    """Of a catalog in pyiceberg's configuration; None: the embedded one."""
    file: str | None = None
    """The embedded one's SQLite file; None: `~/.masklake/iceberg.db`."""
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Of pyiceberg, on top of its configuration; may hold secrets."""

    @property
    def path(self) -> Path:
        """The embedded catalog's file."""
        return Path(self.file).expanduser().absolute() if self.file else Path.home() / ".masklake" / "iceberg.db"

    @property
    def shown(self) -> str:
        """The setting, for messages."""
        return f"--catalog {self.name}" if self.name is not None else f"--catalog-file {self.path}"

    @property
    def exists(self) -> bool:
        """Whether opening the catalog makes nothing."""
        return self.name is not None or self.path.exists()

    def all_properties(self) -> dict[str, str]:
        """What the catalog is opened with, secrets included.

        Credentials and endpoint of object storage are those of `masklake.storage`, unless pyiceberg was told any of its own.

        Raises:
            Refused: pyiceberg's configuration does not know the catalog, or cannot be understood.
        """
        if self.name is None:
            uri = URL.create("sqlite", database=str(self.path), query={"timeout": str(_LOCK_SECONDS)})
            return {**storage.iceberg_options(), "uri": uri.render_as_string()}
        try:
            configured = Config().get_catalog_config(self.name) or {}
        except Exception as error:  # YAML's own errors, and pyiceberg's
            raise Refused(f"{self.shown}: pyiceberg's configuration cannot be understood: {_line(error)}") from None
        told = {**{name: str(value) for name, value in configured.items()}, **self.properties}
        if not {"uri", "type", "py-catalog-impl"} & set(told):
            raise Refused(
                f"{self.shown}: pyiceberg's configuration knows no such catalog: describe it in ~/.pyiceberg.yaml, in the environment "
                f"(PYICEBERG_CATALOG__{self.name.upper()}__URI), or with --property uri=..."
            )
        own_storage = any(name.startswith(("s3.", "client.", "py-io-impl")) for name in told)
        return told if own_storage else {**storage.iceberg_options(), **told}


def open_catalog(settings: CatalogSettings) -> Catalog:
    """The catalog, made now where it is the embedded one and not there yet.

    Raises:
        Refused: it is not configured, does not answer, or does not let us in.
    """
    with in_words(settings, Refused):
        properties = settings.all_properties()
        if settings.name is not None:
            name = settings.name
            return _in_time(lambda: load_catalog(name, **properties))
        settings.path.parent.mkdir(parents=True, exist_ok=True)
        return SqlCatalog(EMBEDDED, **properties)


def find_table(catalog: Catalog, identifier: Identifier, settings: CatalogSettings) -> Table | None:
    """The table of this name as it is now, or None.

    Raises:
        Refused: the catalog does not answer, or what it has under this name is not a table that can be read.
    """
    with in_words(settings, Refused):
        try:
            return _in_time(lambda: catalog.load_table(identifier))
        except NoSuchTableError:
            return None
        except FileNotFoundError:
            raise Refused(
                f"{settings.shown}: knows a table {'.'.join(identifier)} whose metadata are gone: "
                "drop it from the catalog, or give another --name"
            ) from None


def make_namespace(catalog: Catalog, identifier: Identifier, settings: CatalogSettings) -> None:
    """Make the table's namespace where it is not there yet; others may do so at the same time.

    Raises:
        Refused: the catalog does not make it.
    """
    with in_words(settings, Refused):
        for depth in range(1, len(identifier)):
            namespace = identifier[:depth]
            try:
                if not catalog.namespace_exists(namespace):
                    catalog.create_namespace(namespace)
            except Exception:
                if not catalog.namespace_exists(namespace):
                    raise


@contextmanager
def in_words(settings: CatalogSettings, kind: type[MasklakeError], cure: str = "") -> Iterator[None]:
    """Tell what a catalog, or the storage behind it, raises as one sentence without secrets. Each catalog has errors of its own.

    `cure` ends the sentence.

    Raises:
        MasklakeError: of this kind.
        CONFLICTS: as they are.
    """
    try:
        yield
    except (MasklakeError, *CONFLICTS):
        raise
    except Exception as error:
        raise kind(f"{settings.shown}: {_without_secrets(_line(error), settings.all_properties())}{cure}") from None


def _in_time(call: Callable[[], _T]) -> _T:
    """Call, and give up after a while: pyiceberg's clients wait for an answer without end."""
    outcome: list[tuple[_T, None] | tuple[None, Exception]] = []

    def run() -> None:
        try:
            outcome.append((call(), None))
        except Exception as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True, name="catalog")
    thread.start()
    thread.join(_ANSWER_SECONDS)
    if not outcome:
        raise TimeoutError(f"no answer within {_ANSWER_SECONDS:g} s: correct its URI, or check the network")
    answer, error = outcome[0]
    if error is not None:
        raise error
    return answer  # type: ignore[return-value]


def _line(error: Exception) -> str:
    """An error in a line, with its type where that says more than the words."""
    words = " ".join(str(error).split("[SQL:")[0].split())
    return words if words and isinstance(error, (ValueError, TimeoutError)) else f"{type(error).__name__}: {words}"


def _without_secrets(text: str, properties: Mapping[str, str]) -> str:
    for name, value in properties.items():
        if _SECRET.search(name) and value:
            text = text.replace(value, "***")
    return _USER_INFO.sub("***@", text)[:_LONGEST_DETAIL]
