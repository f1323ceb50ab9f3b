"""What a page asks for, as its address says it, and the same as SQL on the index. Values are literals, names are the table's columns.

Rows are chosen first (task, status, model, partitions, an SQL condition), and of each image the newest of them is taken, as `export` does
it; conditions on segments then look at that answer alone. All conditions on segments are meant of one segment: a person, over 10 % of the
picture, under a score of 0.6.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from masklake.browse.index import ID, SUBJECT
from masklake.errors import Refused
from masklake.schema import Status
from masklake.sql import quoted
from masklake.table.keys import sql_text
from masklake.table.read import condition
from masklake.tasks import Task

IN = "in."
"""What a parameter's name begins with that says values of a column: `in.dt`."""

_MANY = ("label", "error_code")


class Order(StrEnum):
    """What comes first."""

    NEWEST = "newest"
    NAME = "name"
    DOUBT = "doubt"
    DIFFERENCE = "difference"
    LOWEST = "lowest"
    LARGEST = "largest"
    MOST = "most"


class Asked(BaseModel):
    """A question; two that are equal have one answer."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    task: Task
    status: Status | None = None
    error_code: tuple[str, ...] = ()
    model: str | None = None
    fingerprint: str | None = None
    values: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Columns, and the values that each may have; an empty text is none."""
    name: str = ""
    """Part of the image's URI."""
    where: str = ""
    truth: bool = False
    """Images with ground truth only."""
    label: tuple[str, ...] = ()
    score_from: float | None = Field(None, ge=0, le=1)
    score_to: float | None = Field(None, ge=0, le=1)
    share_from: float | None = Field(None, ge=0, le=1)
    share_to: float | None = Field(None, ge=0, le=1)
    order: Order = Order.NEWEST

    @property
    def of_segments(self) -> bool:
        """Whether the answer depends on segments."""
        return bool(self.segment_conditions()) or self.order not in (Order.NEWEST, Order.NAME)

    def row_conditions(self) -> list[str]:
        """On rows, whatever their segments, as DuckDB and delta-rs understand them: `--where` of other commands takes them as well."""
        found = [f"task = {sql_text(self.task)}"]
        found += [f"{name} = {sql_text(value)}" for name in ("status", "model", "fingerprint") if (value := getattr(self, name))]
        if self.error_code:
            found.append(_one_of("error_code", self.error_code))
        found += [_one_of(quoted(name), values) for name, values in self.values]
        if self.name:
            found.append(f"strpos(lower(image_uri), {sql_text(self.name.lower())}) > 0")
        if self.where:
            found.append(condition(self.where))
        return found

    def segment_conditions(self) -> list[str]:
        """On a segment; scores and shares are compared as they are stored, so that 0.6 is in `from 0.6`."""
        found = [f"kind IN (SELECT kind FROM kinds WHERE {_one_of('label', self.label)})"] if self.label else []  # noqa: S608
        for column in ("score", "share"):
            for end, sign in (("from", ">="), ("to", "<=")):
                bound = getattr(self, f"{column}_{end}")
                if bound is not None:
                    found.append(f"{column} {sign} {bound!r}::FLOAT")
        return found


def asked_of(parameters: Iterable[tuple[str, str]], columns: Sequence[str]) -> Asked:
    """A question from the parameters of an address; those that are empty say nothing.

    Args:
        parameters: names and values, as they stand.
        columns: those of the table that may be asked for by `in.NAME`.

    Raises:
        Refused: a parameter is none, or has a value that it cannot have.
    """
    given: dict[str, list[str]] = {}
    for name, value in parameters:
        if value or name.startswith(IN):
            given.setdefault(name, []).append(value)
    values = {name.removeprefix(IN): tuple(found) for name, found in given.items() if name.startswith(IN)}
    if unknown := sorted(values.keys() - set(columns)):
        raise Refused(f"{unknown[0]} is not a column that images can be filtered by; there are {', '.join(columns) or 'none'}")
    fields: dict[str, object] = {name: found if name in _MANY else found[-1] for name, found in given.items() if not name.startswith(IN)}
    try:
        return Asked.model_validate({**fields, "values": tuple(sorted(values.items()))})
    except ValidationError as error:
        first = error.errors()[0]
        raise Refused(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def found_sql(asked: Asked) -> str:
    """The numbers of the rows that are meant, with their places in the order asked for: `place` from 0 on, `id`."""
    chosen = f"SELECT max({ID}) AS id, {SUBJECT} AS subject FROM rows WHERE {' AND '.join(asked.row_conditions())} GROUP BY {SUBJECT}"  # noqa: S608
    parts = {"chosen": chosen}
    joins = [f"JOIN rows ON rows.{ID} = chosen.id"] if asked.truth or asked.order is Order.NAME else []
    if asked.segment_conditions() or asked.order in (Order.LOWEST, Order.LARGEST):
        fits = " AND ".join(asked.segment_conditions()) or "true"
        parts["fits"] = f"SELECT id, min(score) AS lowest, max(share) AS largest FROM segments WHERE {fits} GROUP BY id"  # noqa: S608
        joins.append("JOIN fits USING (id)")
    if asked.order in (Order.DOUBT, Order.MOST):
        joins.append("LEFT JOIN sums USING (id)")
    if asked.order is Order.DIFFERENCE:
        parts |= _DIFFERENCE
        joins.append("LEFT JOIN differences USING (id)")
    if asked.truth:
        joins.append("SEMI JOIN truthful USING (image_uri, task)")
    told = ", ".join(f"{name} AS ({query})" for name, query in parts.items())
    order = f"row_number() OVER (ORDER BY {_ORDERS[asked.order]}, id DESC)"
    return f"WITH {told} SELECT ({order} - 1)::INTEGER AS place, id FROM chosen {' '.join(joins)} ORDER BY place"  # noqa: S608


_ORDERS: Mapping[Order, str] = {
    Order.NEWEST: "id DESC",
    Order.NAME: "image_uri",
    Order.DOUBT: "doubt DESC NULLS LAST",
    Order.DIFFERENCE: "difference DESC NULLS LAST",
    Order.LOWEST: "lowest",
    Order.LARGEST: "largest DESC",
    Order.MOST: "segments DESC NULLS LAST",
}

_DIFFERENCE = {
    # As `masklake.export.doubt` has it: one minus the area on which two answers agree over all, label by label, of those that both were
    # asked for.
    "partners": f"SELECT chosen.id, max(rows.{ID}) AS other, own.fingerprint AS mine, arg_max(rows.fingerprint, rows.{ID}) AS theirs "  # noqa: S608
    f"FROM chosen JOIN rows AS own ON own.{ID} = chosen.id "
    f"JOIN rows ON rows.{SUBJECT} = chosen.subject AND rows.fingerprint <> own.fingerprint AND rows.status = 'ok' "
    "WHERE own.status = 'ok' GROUP BY chosen.id, own.fingerprint",
    "areas": "SELECT partners.id, kind, share AS one, 0 AS two FROM partners JOIN segments ON segments.id = partners.id "
    "UNION ALL SELECT partners.id, kind, 0, share FROM partners JOIN segments ON segments.id = partners.other",
    "pairs": "SELECT areas.id, label, sum(one) AS one, sum(two) AS two FROM areas JOIN kinds USING (kind) JOIN partners USING (id) "
    "ANTI JOIN unasked USING (mine, theirs, label) GROUP BY areas.id, label",
    "differences": "SELECT id, 1 - sum(least(one, two)) / sum(greatest(one, two)) AS difference FROM pairs GROUP BY id",
}


def _one_of(name: str, values: Sequence[str]) -> str:
    """Of an empty value, null."""
    texts = [value for value in values if value]
    conditions = [f"{name} IN ({', '.join(map(sql_text, texts))})"] if texts else []
    if len(texts) < len(values):
        conditions.append(f"{name} IS NULL")
    return conditions[0] if len(conditions) == 1 else f"({' OR '.join(conditions)})"
