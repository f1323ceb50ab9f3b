"""Settings of single places: a bucket or folder that is reached by another profile, endpoint or right than the environment's.

They are kept in the environment, without secrets, so that each process of a run, on whichever machine, reaches them the same way.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass

VARIABLE = "_MASKLAKE_PLACES"


@dataclass(frozen=True)
class Place:
    """How everything below a prefix is reached; what is None or False is as the environment has it."""

    prefix: str = ""
    """Of canonical URIs: `s3://bucket/`, or a folder of it, with the slash at the end."""
    profile: str | None = None
    endpoint: str | None = None
    anonymous: bool = False
    """Requests are not signed, as for a public bucket."""
    requester_pays: bool = False

    @property
    def is_usual(self) -> bool:
        """Whether nothing is set."""
        return not any(astuple(self)[1:])


USUAL = Place()


def use(places: Sequence[Place]) -> None:
    """Reach these places their own way from here on, in this process and those that it starts. Longer prefixes go first."""
    known = None if all(place.is_usual for place in places) else json.dumps([asdict(place) for place in places])
    if known is None:
        os.environ.pop(VARIABLE, None)
    elif known != os.environ.get(VARIABLE):  # written no more often than it changes: `masklake.variables` says why
        os.environ[VARIABLE] = known


@functools.lru_cache(maxsize=8)
def _places(known: str) -> tuple[Place, ...]:
    return tuple(Place(**each) for each in json.loads(known))


def place_of(uri: str) -> Place:
    """The place that a canonical URI lies in."""
    places = _places(os.environ.get(VARIABLE, "[]"))
    return max((place for place in places if f"{uri}/".startswith(place.prefix)), key=lambda place: len(place.prefix), default=USUAL)
