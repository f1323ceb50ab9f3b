"""Publish a table of masks to Apache Iceberg: `masklake publish --help`."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from masklake.commands.ending import Paced, end_with, say
from masklake.errors import Refused
from masklake.export.iceberg.catalogs import CatalogSettings
from masklake.export.iceberg.publish import Settings, publish

PROG = "masklake publish"
_ABOUT = """\
Publish a table of masks to Apache Iceberg: its Parquet files become an Iceberg table's, as they lie there. No data is read or rewritten.

masklake publish --table s3://lake/masks
masklake publish --table s3://lake/masks --catalog prod --name vision.masks
"""
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

exit codes: 0 done or nothing to do, 1 failed, 2 refused.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the publication; returns its exit code. The last line on stdout is one JSON object, whatever happens."""
    return end_with(
        lambda: publish(_settings(argv), say, Paced()),
        interrupted="interrupted; readers see the Iceberg table as it was, or as it should be",
    )


def _settings(argv: list[str] | None) -> Settings:
    given = _parser().parse_args(argv)
    catalog = CatalogSettings(given.catalog, given.catalog_file, dict(_pair(text) for text in given.property))
    return Settings(given.table, catalog, given.name, given.location, given.dry_run)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise Refused("--property: must be KEY=VALUE, such as uri=https://catalog.example.org")
    return name, value


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Refused(f"{message}; --help lists the settings")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=PROG, description=_ABOUT, epilog=_RULES, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--table", required=True, metavar="URI", help="the table's folder (s3://, file://, a path)")
    parser.add_argument("--name", metavar="NAMESPACE.TABLE", help="of the Iceberg table (default: masklake. and the folder's name)")
    parser.add_argument("--catalog", metavar="NAME", help="a catalog of pyiceberg's configuration (default: the SQLite file)")
    parser.add_argument("--catalog-file", metavar="FILE", help="the SQLite file, a local one (default: ~/.masklake/iceberg.db)")
    parser.add_argument(
        "--property",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a property of --catalog, on top of its configuration; may be given several times",
    )
    parser.add_argument(
        "--location",
        metavar="URI",
        help="where a new Iceberg table's metadata go (default: _masklake/iceberg in the table's folder); some catalogs insist on a place",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
