"""What a publication is asked for: every setting once, as a flag, an environment variable and a YAML key."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from masklake.config import Also, File, Pairs, Program, Shown, Uri
from masklake.export.iceberg import EMBEDDED
from masklake.table.settings import folder

if TYPE_CHECKING:
    from masklake.export.iceberg.catalogs import CatalogSettings


_RULES = """\
The Iceberg table is a mirror: one snapshot makes it equal to the table's present version, by adding files that are new since the last
time and taking out those that a compaction or erasure replaced. Publishing again does nothing; a publication that dies changes nothing;
of several at once each leaves a whole version. What another program writes to the Iceberg table is undone by the next publication.

catalogs:
  Without --catalog, an SQLite file holds the catalog: good for one machine, and for readers that take a metadata file, which the last
  line names. --catalog NAME is any catalog that pyiceberg knows (REST, Glue, Hive, SQL, ...), by ~/.pyiceberg.yaml, by the environment
  (PYICEBERG_CATALOG__NAME__URI, ...) or by --property. Secrets belong into the file or the environment: a command line can be seen by
  others. Endpoint and credentials of object storage are taken from where masklake takes them (AWS_...), unless the catalog's
  configuration has any of its own (s3.*, client.*). Nothing of it is stored in the Iceberg table.

Publish after compact and erase: they delete files that a published snapshot names, and its readers fail until the next publication.
Older Iceberg snapshots can be read as long as no vacuum deleted their files (--vacuum-hours of compact).
"""


class TablesConfig(BaseModel):
    """The table, and what it is called in the catalog."""

    model_config = ConfigDict(frozen=True)

    table: Uri = Field(description="the table's folder (s3://, file://, a path)")
    name: Annotated[str | None, Shown("NAMESPACE.TABLE")] = Field(
        None, description=f"of the Iceberg table (default: {EMBEDDED}. and the folder's name)"
    )
    location: Uri | None = Field(
        None,
        description="where a new Iceberg table's metadata go (default: _masklake/iceberg in the table's folder); some catalogs insist on "
        "a place",
    )
    dry_run: bool = Field(False, description="print what would be done, and do nothing")

    @property
    def table_uri(self) -> str:
        """The table's folder in canonical form."""
        return folder(self.table)

    @property
    def location_uri(self) -> str | None:
        """The folder of the metadata in canonical form; None: below the table."""
        return None if self.location is None else folder(self.location)

    @property
    def identifier(self) -> tuple[str, ...]:
        """The table's name in the catalog: namespaces, then its own."""
        if self.name is not None:
            return tuple(self.name.split("."))
        return (EMBEDDED, re.sub(r"\W", "_", self.table_uri.rpartition("/")[2]))

    @property
    def shown_name(self) -> str:
        """The table's name in the catalog."""
        return ".".join(self.identifier)


class CatalogConfig(BaseModel):
    """The catalog."""

    model_config = ConfigDict(frozen=True)

    catalog: Annotated[str | None, Shown("NAME")] = Field(
        None, min_length=1, description="a catalog of pyiceberg's configuration (default: the SQLite file)"
    )
    catalog_file: File | None = Field(None, description="the SQLite file, a local one (default: ~/.masklake/iceberg.db)")
    properties: Annotated[Pairs, Also("property")] = Field(
        {}, repr=False, description="a property of --catalog, on top of its configuration; may be given several times"
    )


class PublishConfig(TablesConfig, CatalogConfig):
    """All settings of `masklake publish`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def chosen(self) -> CatalogSettings:
        """The catalog."""
        from masklake.export.iceberg.catalogs import CatalogSettings  # pyiceberg, which --help does without

        return CatalogSettings(self.catalog, self.catalog_file, self.properties)

    @model_validator(mode="after")
    def _one_catalog(self) -> PublishConfig:
        if self.catalog is not None and self.catalog_file is not None:
            raise ValueError(
                f"--catalog-file {self.catalog_file}: is the embedded catalog's, and --catalog {self.catalog} names another: leave one out"
            )
        if self.catalog is None and self.properties:
            raise ValueError(
                f"--property {next(iter(self.properties))}=...: the embedded catalog needs none: name a catalog with --catalog"
            )
        return self

    @model_validator(mode="after")
    def _names_that_readers_take(self) -> PublishConfig:
        for setting, place in (("table", self.table), ("location", self.location)):
            if place is not None and re.search(r"[#?]", place):
                raise ValueError(f"--{setting} {place}: Iceberg's readers would end the name at '#' or '?': use a folder without them")
        if len(self.identifier) < 2 or not all(self.identifier):
            raise ValueError(f"--name {self.name}: must be a namespace and a table, as in {EMBEDDED}.masks")
        if self.location_uri and f"{self.table_uri}/".startswith(f"{self.location_uri}/"):
            raise ValueError(
                f"--location {self.location_uri}: holds the table, and Iceberg's tools may clean up there: give another folder"
            )
        return self


PROGRAM = Program(
    "masklake publish",
    PublishConfig,
    {"the tables": TablesConfig, "the catalog": CatalogConfig},
    about="Publish a table of masks to Apache Iceberg: its Parquet files become an Iceberg table's, as they lie there. No data is read or "
    "rewritten.",
    examples={
        "masklake publish --table s3://lake/masks": "into a catalog in an SQLite file",
        "masklake publish --table s3://lake/masks --catalog prod --name vision.masks": "into a catalog of pyiceberg's configuration",
        "masklake publish --table s3://lake/masks --dry-run": "how many files the Iceberg table lacks, and how many it should not have",
    },
    rules=_RULES,
    interrupted="interrupted; readers see the Iceberg table as it was, or as it should be",
    needs=("iceberg",),
)
