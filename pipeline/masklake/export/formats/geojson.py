"""GeoJSON: a file per image, with a polygon per segment."""

from __future__ import annotations

from masklake.export.format import Format, Job, Written
from masklake.tasks import Task


def _write(job: Job) -> Written:
    from masklake.export.geojson import write_geojson

    return write_geojson(job, "geojson")


FORMAT = Format(
    name="geojson",
    about="geojson/*.geojson: a FeatureCollection per image, a polygon with holes per segment, in pixels (QuPath, geopandas, shapely)",
    tasks=(Task.INSTANCE, Task.PANOPTIC, Task.SEMANTIC),
    complete=(),
    files=r"geojson/.+\.geojson",
    write=_write,
    named_files=True,
    background=False,
    polygons=True,
)
