"""The table as an Apache Iceberg table: the same Parquet files, in a catalog that other programs know.

    catalog (catalogs) -> what is there and what should be (mirror) -> one snapshot that makes them equal (publish)

`publish.publish` is one publication, from settings to summary. This package is the only place that knows pyiceberg.
"""

EMBEDDED = "masklake"
"""The embedded catalog's name, and the namespace of tables that are given none."""
