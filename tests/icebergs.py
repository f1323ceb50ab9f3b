"""Iceberg tables that were published, as their readers see them, beside the Delta tables behind them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
from deltalake import DeltaTable
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import Table

from masklake import storage
from masklake.export.iceberg.publish import publish
from masklake.export.iceberg.settings import PublishConfig
from masklake.storage import normalise

Rows = list[dict[str, Any]]
NAME = "masklake.masks"


def published(table: Path | str, catalog: Path, said: list[str] | None = None, **settings: Any) -> dict[str, Any]:
    """Publish as the job does, to the SQLite catalog in this file; what it says is added to `said`."""
    chosen = PublishConfig(**{"table": str(table), "catalog_file": str(catalog), "name": NAME, **settings})
    return publish(chosen, (said if said is not None else []).append)


def mirror(catalog: Path) -> Table:
    """The Iceberg table in the catalog of this file."""
    return SqlCatalog("masklake", uri=f"sqlite:///{catalog}", **storage.iceberg_options()).load_table(NAME)


def by_pyiceberg(catalog: Path, **scan: Any) -> Rows:
    """All its rows, as pyiceberg reads them."""
    return _sorted(mirror(catalog).scan(**scan).to_arrow().to_pylist())


def by_polars(catalog: Path) -> Rows:
    """All its rows, as polars' own reader reads them."""
    return _sorted(pl.scan_iceberg(mirror(catalog), reader_override="native").collect().to_arrow().to_pylist())


def by_delta(table: Path | str, **version: Any) -> Rows:
    """All rows of the Delta table, as delta-rs reads them."""
    uri = normalise(str(table))
    delta = DeltaTable(storage.delta_uri(uri), storage_options=storage.delta_options(uri), **version)
    return _sorted(delta.to_pyarrow_table().to_pylist())


def file_entries(catalog: Path) -> Counter[str]:
    """How many entries of the current snapshot name each data file."""
    table = mirror(catalog)
    snapshot = table.current_snapshot()
    manifests = snapshot.manifests(table.io) if snapshot else []
    return Counter(entry.data_file.file_path for manifest in manifests for entry in manifest.fetch_manifest_entry(table.io))


def delta_files(table: Path | str) -> Counter[str]:
    """The data files of the Delta table, once each, by their names in the store."""
    uri = normalise(str(table))
    delta = DeltaTable(storage.delta_uri(uri), storage_options=storage.delta_options(uri))
    actions = delta.get_add_actions(flatten=True)
    return Counter(f"{uri}/{_decoded(path)}" for path in actions["path"].to_pylist())


def _decoded(path: str) -> str:
    return path.replace("%25", "%")  # all that masklake's own names have encoded in the log


def _sorted(rows: Rows) -> Rows:
    columns = sorted(rows[0]) if rows else []
    ordered = [{name: row[name] for name in columns} for row in rows]
    return sorted(ordered, key=lambda row: (row["image_uri"], row["task"], row["run_id"], row["fingerprint"]))
