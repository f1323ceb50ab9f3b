"""Times as lists of images have them: as such, as text, or as a number since 1970 whose size tells its unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pyarrow as pa

from masklake.images.pages import cast_values
from masklake.images.source import Unreadable

TIME = pa.timestamp("us", tz="UTC")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = (
    (1e8, 1e11, 1_000_000, 1),
    (1e11, 1e14, 1_000, 1),
    (1e14, 1e17, 1, 1),
    (1e17, 1e20, 1, 1_000),
)  # from, to, microseconds as a ratio


def instants(values: pa.ChunkedArray, name: str) -> pa.Array | pa.ChunkedArray:
    """Values of a column of this name as instants; without a zone they are in UTC. A number is of seconds, milli-, micro- or nanoseconds
    since 1970, whichever of these puts it between 1973 and 5138.

    Raises:
        Unreadable: one of them is not a time.
    """
    if pa.types.is_timestamp(values.type):
        return cast_values(values, TIME)
    plain: Sequence[Any] = values.to_pylist()
    return pa.array([_instant(value, name) for value in plain], TIME)


def _instant(value: Any, name: str) -> datetime | None:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        value = _from_text(value)
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        for least, most, microseconds, units in _UNITS:
            if least <= value < most:
                return _EPOCH + timedelta(microseconds=int(value * microseconds) // units)
    raise Unreadable(
        f"its column `{name}` has {value!r}, which is not a time: use such as 2026-11-22T10:00:00Z, or seconds, milli-, micro- or "
        "nanoseconds since 1970"
    )


def _from_text(text: str) -> datetime | float | str:
    """The time, or the number, that a text is; the text where it is none."""
    for read in (int, float, datetime.fromisoformat):
        try:
            return read(text.strip())
        except ValueError:
            continue
    return text
