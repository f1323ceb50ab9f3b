"""Which images a run is about: its input, of which kind that is, what the listing came across, and how to say it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

import pyarrow as pa

from masklake import storage
from masklake.config import time_of
from masklake.images.discover import carried_columns, discover
from masklake.images.indexes import Indexes
from masklake.images.keys import with_each_key
from masklake.images.nothing import refuse_absent, refuse_empty
from masklake.images.patterns import Patterns
from masklake.images.source import Input
from masklake.images.sources import source_of
from masklake.images.tally import Tally, most_common
from masklake.segment.plan import Plan
from masklake.segment.settings import RunConfig
from masklake.spelling import plural

_ENDINGS = 4  # of names that are not images', shown
_TABLES = 3


def check(config: RunConfig) -> None:
    """See within seconds that the input can be listed or read, and that there is something.

    Raises:
        Refused: it cannot, or there is nothing and an empty input is not allowed.
    """
    if config.allow_empty and storage.absent(config.input):
        return  # a day's folder that nobody has made yet
    storage.check_input(config.input)
    if not config.allow_empty:
        refuse_absent(config.input)


class Images:
    """The images of one run. `scope` is what they stand for beside other runs, `carried` what of them goes into the table."""

    def __init__(self, config: RunConfig, now: datetime, table_uri: str) -> None:
        """Find out of which kind the input is.

        Raises:
            Refused: it cannot be read, or a column not be carried.
        """
        self._allow_empty = config.allow_empty
        self.asked = Input(
            config.input,
            bytes_column=config.bytes_column,
            key_column=config.key_column,
            uri_column=config.uri_column,
            allowed=config.allow_location,
            since=None if config.since is None else time_of(config.since, now),
            patterns=Patterns(config.include, config.exclude),
            indexes=Indexes(f"{table_uri}/_masklake/shards/", kept=not (config.dry_run or config.preview)),
        )
        self._source = source_of(self.asked)
        self.scope = self._source.fences(self.asked)
        self.carried = carried_columns(self.asked, config.carry, self._source)
        self._tally = Tally()

    def may_hold(self) -> str | None:
        """What the URIs of all its images begin with; None where they may be anywhere."""
        return self._source.may_hold(self.asked)

    def pages(self, keys: Sequence[str], partitions: Sequence[str] = ()) -> Iterator[pa.Table]:
        """The images, in pages, with these columns as keys where the input has them.

        Args:
            keys: columns of a manifest or a table.
            partitions: those by which a new table is partitioned.

        Raises:
            Refused: there is no image, and an empty input is not allowed; or no image has one of the partitions.
        """
        self._tally = Tally()
        found = discover(self.asked, keys, self.carried, self._source, self._tally)
        yield from with_each_key(found, partitions, "--partition-by", self.asked.uri)
        if not self._allow_empty:
            refuse_empty(self.asked.uri, self._tally)

    def counted(self, plan: Plan) -> Plan:
        """The plan with what the listing left out, once it has been read."""
        tally = self._tally
        return replace(
            plan,
            in_tables=plan.in_tables + self.asked.tables.left_out,
            excluded=tally.excluded,
            older=tally.older,
            unlike_images=tally.unlike.total(),
        )

    def describe(self, plan: Plan) -> str:
        """A plan in words."""
        left_out = ((plan.older, "--since"), (plan.excluded, "--include and --exclude"), (plan.left_out, "--where"))
        parts = [
            f"{plural(plan.images, 'image')}, {plural(plan.bytes, 'byte')}",
            f"{plan.done_images:,} already done, {plan.todo_images:,} to do",
            f"of earlier errors, {plural(plan.retried_errors, 'row')} to retry, {plan.kept_errors:,} left alone"
            + (" (--retry-errors picks them up)" if plan.kept_errors else ""),
            *(
                f"{plural(images, 'image')}: {held:,} of {plural(plan.concepts, 'concept')} in the table already"
                for images, held in plan.held
            ),
            *(f"{number:,} left out by {setting}" for number, setting in left_out if number),
        ]
        if tables := sorted(self.asked.tables.found):
            more = f" and {len(tables) - _TABLES:,} more" if len(tables) > _TABLES else ""
            parts.append(f"{plural(plan.in_tables, 'file')} left out, in tables: {', '.join(tables[:_TABLES])}{more}")
        if plan.unlike_images:
            most = most_common(self._tally.unlike, _ENDINGS)
            endings = ", ".join(f"{number:,} {ending}" for ending, number in most)
            pattern = f"*{most[0][0]}" if len(most) == 1 else f"*{{{','.join(ending for ending, _ in most)}}}"
            parts.append(
                f"{plural(plan.unlike_images, 'object')} whose name is not an image's ({endings}): "
                f"--exclude '{pattern}' leaves out what is called so"
            )
        return "; ".join(parts)

    def describe_nothing(self, plan: Plan) -> str:
        """Why there is nothing to do."""
        if plan.images:
            return "the table holds everything"
        if plan.left_out:
            return f"--where leaves out every image ({plan.left_out:,})"
        if plan.older:
            return f"every image ({plan.older:,}) is older than --since"
        return "the input holds no image"
