"""One publication, from settings to summary.

The Iceberg table is made equal to the Delta table's present version by one snapshot, whatever it held before: there is nothing to
resume, and publishing again does nothing. The Iceberg table is looked at before the Delta table, so that a version is never replaced by
an older one. Where another commit comes between, the catalog refuses ours, and everything is looked at again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from pyiceberg.catalog import Catalog
from pyiceberg.table import Table, TableProperties, Transaction

from masklake import storage
from masklake.errors import MasklakeError, Refused
from masklake.export.iceberg import mirror
from masklake.export.iceberg.catalogs import (
    CONFLICTS,
    find_table,
    in_words,
    make_namespace,
    open_catalog,
)
from masklake.export.iceberg.mirror import Difference
from masklake.export.iceberg.settings import PublishConfig
from masklake.spelling import plural
from masklake.storage import StorageError
from masklake.upkeep.upkeep import ICEBERG_FOLDER, UpkeepTable

Summary = dict[str, Any]
"""The JSON object that a publication ends with."""

_ATTEMPTS = 10


class _Overtaken(MasklakeError):
    """A file was replaced in the Delta table, and deleted, before it could be looked at."""


def publish(settings: PublishConfig, say: Callable[[str], None], show: Callable[[str], None] = lambda text: None) -> Summary:
    """Make the Iceberg table equal to the Delta table's present version, or say what that would take.

    Args:
        settings: what to publish, and where to.
        say: told what the user should know, a sentence at a time.
        show: told of progress.

    Raises:
        Refused: there is no table, or no such catalog, or what is there under this name is something else; nothing was done.
        MasklakeError: the publication failed; readers see the Iceberg table as it was before.
    """
    storage.check_input(settings.table_uri, "--table")
    table = UpkeepTable.existing(settings.table_uri)
    if settings.dry_run and not settings.chosen.exists:
        return _plan(settings, table, None, say)
    with closing(open_catalog(settings.chosen)) as catalog:
        there = _find(settings, table, catalog)
        if settings.dry_run:
            return _plan(settings, table, there, say)
        if _location(settings, there).startswith(f"{settings.table_uri}/"):  # elsewhere, only the catalog may have the right to write
            storage.check_output(settings.table_uri, "--table")
        make_namespace(catalog, settings.identifier, settings.chosen)
        return _until_done(settings, table, catalog, say, show)


def _until_done(
    settings: PublishConfig, table: UpkeepTable, catalog: Catalog, say: Callable[[str], None], show: Callable[[str], None]
) -> Summary:
    for attempt in range(_ATTEMPTS):
        try:
            with in_words(settings.chosen, MasklakeError):
                return _once(settings, table, catalog, say, show)
        except (*CONFLICTS, _Overtaken):
            time.sleep(random.uniform(0.05, 0.1) * 2 ** min(attempt, 6))
    raise MasklakeError(
        f"{settings.shown_name}: other commits came first {_ATTEMPTS} times; readers see one of theirs: publish again later"
    )


def _once(
    settings: PublishConfig, table: UpkeepTable, catalog: Catalog, say: Callable[[str], None], show: Callable[[str], None]
) -> Summary:
    """One attempt.

    Raises:
        CONFLICTS: another commit was faster, or the catalog does not know.
        _Overtaken: another job on the Delta table was.
    """
    there = _settled(_find(settings, table, catalog))
    found = _difference(settings, table, there, say)
    change = _extended(there, table) if there else _created(settings, table, catalog)
    if found.missing or found.surplus:
        _stage(change, found, table, show)
    done = change.commit_transaction()
    outcome = "published" if found.missing or found.surplus or there is None else "nothing to do"
    say(f"{settings.shown_name} in {_catalog_shown(settings)} is version {table.version}; its metadata: {done.metadata_location}")
    return _summary(settings, table, found, outcome, done)


def _plan(settings: PublishConfig, table: UpkeepTable, there: Table | None, say: Callable[[str], None]) -> Summary:
    return _summary(settings, table, _difference(settings, table, there, say), "planned", there)


def _difference(settings: PublishConfig, table: UpkeepTable, there: Table | None, say: Callable[[str], None]) -> Difference:
    """What is to be done, which is said."""
    found = mirror.difference(there, table, table.files(), settings.shown_name)
    say(f"version {table.version} of {settings.table_uri}: {plural(len(found.missing), 'file')} to add, {len(found.surplus):,} to take out")
    return found


def _find(settings: PublishConfig, table: UpkeepTable, catalog: Catalog) -> Table | None:
    """The Iceberg table as it is now, or None where it is to be made.

    Raises:
        Refused: it is another one's than the settings say.
    """
    there = find_table(catalog, settings.identifier, settings.chosen)
    if there is not None:
        mirror.check(there, table, settings.shown_name)
        _location(settings, there)
    return there


def _location(settings: PublishConfig, there: Table | None) -> str:
    """Where the Iceberg table's metadata lie, or will.

    Raises:
        Refused: they lie elsewhere than the settings say.
    """
    if there is None:
        return settings.location_uri or f"{settings.table_uri}/{ICEBERG_FOLDER}"
    place = there.location().rstrip("/")
    if settings.location_uri and settings.location_uri != storage.normalise(place):
        raise Refused(f"--location {settings.location_uri}: the metadata of {settings.shown_name} lie at {place}: leave --location out")
    return place


def _settled(there: Table | None) -> Table | None:
    """The table with the properties on which publishing relies, should another program have changed them.

    This comes before the tables are compared: a commit on top of anything that was not looked at would be none of ours.
    """
    if there is not None and any(there.properties.get(name) != value for name, value in mirror.RULES.items()):
        with there.transaction() as change:
            change.set_properties(mirror.RULES)
        return there.refresh()
    return there


def _created(settings: PublishConfig, table: UpkeepTable, catalog: Catalog) -> Transaction:
    """The beginning of a commit that makes the Iceberg table."""
    schema, location = mirror.iceberg_schema(table), _location(settings, None)
    with in_words(settings.chosen, Refused, f"; the new table's metadata would go to {location}: --location puts them elsewhere"):
        change = catalog.create_table_transaction(
            settings.identifier,
            schema=schema,
            location=location,
            partition_spec=mirror.partition_spec(schema, table.partition_by),
            properties=mirror.properties(table),
        )
    mapping = change.table_metadata.schema().name_mapping
    return change.set_properties({TableProperties.DEFAULT_NAME_MAPPING: mapping.model_dump_json()})


def _extended(there: Table, table: UpkeepTable) -> Transaction:
    """The beginning of a commit to the Iceberg table, which adds the columns that the Delta table has gained; also to the name mapping."""
    change = there.transaction()
    if mirror.missing_columns(there, table):
        with change.update_schema() as update:
            update.union_by_name(mirror.iceberg_schema(table))
    return change


def _stage(change: Transaction, found: Difference, table: UpkeepTable, show: Callable[[str], None]) -> None:
    """Add the one snapshot that makes both tables equal to a commit."""
    try:
        added = mirror.data_files(table, found.missing, change.table_metadata, show)
    except StorageError as error:
        if table.holds(found.missing):
            raise
        raise _Overtaken from error
    update = change.update_snapshot(snapshot_properties={mirror.VERSION: str(table.version)})
    with update.overwrite() if found.surplus else update.merge_append() as snapshot:
        for entry in added:
            snapshot.append_data_file(entry)
        for entry in found.surplus:
            snapshot.delete_data_file(entry)


def _summary(settings: PublishConfig, table: UpkeepTable, found: Difference, outcome: str, there: Table | None) -> Summary:
    snapshot = there.current_snapshot() if there else None
    return {
        "outcome": outcome,
        "table": settings.table_uri,
        "table_version": table.version,
        "name": settings.shown_name,
        "catalog": settings.chosen.name or str(settings.chosen.path),
        "files": found.same + len(found.missing),
        "added_files": len(found.missing),
        "removed_files": len(found.surplus),
        "snapshot": snapshot.snapshot_id if snapshot else None,
        "metadata": there.metadata_location if there else None,
    }


def _catalog_shown(settings: PublishConfig) -> str:
    return f"the catalog {settings.chosen.name}" if settings.chosen.name else f"the SQLite catalog {settings.chosen.path}"
