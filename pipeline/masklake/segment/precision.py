"""What a table holds of a run's model: what `--precision auto` means there, and the rows that answer some of its concepts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from masklake.errors import Say
from masklake.segment import known
from masklake.segment.concepts import Held
from masklake.segment.known import Known
from masklake.segment.model import RunModel
from masklake.segment.settings import Config
from masklake.spelling import plural
from masklake.table.append import Table
from masklake.table.keys import Wanted
from masklake.table.places import ok_places


def settle(config: Config, model: RunModel, on_gpus: Callable[[], bool], say: Say) -> tuple[Config, RunModel]:
    """The same settings and checkpoint, in a precision.

    It is part of the fingerprint: where it followed the nodes that happen to be up, a night without GPUs would do the whole lake again.
    """
    if config.precision != "auto":
        return config, model
    table = Table.open(config.output)
    others = known.remembered(table.uri) if table else []
    held = known.precision_held(told(model), others, lambda task, fingerprint: rows_of(table, task, fingerprint)) if table else None
    if held:
        say(f"precision {held[0]}, as in about {plural(held[1], 'row')} of this model in the table (--precision says another)")
    precision = held[0] if held else "bfloat16" if on_gpus() else "float32"
    settled = config.model_copy(update={"precision": precision})
    return settled, model.asked(settled)


def nearest(table: Table, model: RunModel) -> Sequence[known.Near]:
    """Rows of the table that would do but for one setting, of tasks of which it holds none as asked."""
    return known.nearest(told(model), known.remembered(table.uri), lambda task, fingerprint: rows_of(table, task, fingerprint))


def held_by(table: Table, model: RunModel, prefix: str | None) -> Held | None:
    """The table's rows that answer some of the concepts of a run, of images whose URI begins so; None where there are none.

    Where another program gave the table features such as deletion vectors, nobody here knows where a row lies: None, too.
    """
    if not model.description.concepts:
        return None
    (mine,) = told(model)
    answered = known.concepts_held(mine, known.remembered(table.uri))
    wanted = Wanted({fingerprint: fingerprint for fingerprint in answered}, prefix)
    files = table.key_files(wanted) if answered else None
    if not files:
        return None
    paths = [file.path for file in files]
    return Held(model.description.concepts, [*answered], [*answered.values()], paths, ok_places(table.uri, files, wanted))


def remember(table: Table, model: RunModel) -> None:
    """Leave what the fingerprints of a run stand for beside its table."""
    known.remember(table.uri, told(model))


def told(model: RunModel) -> list[Known]:
    """The fingerprints of a run, and what they cover."""
    return [Known(task, fingerprint, model.facts[task]) for task, fingerprint in model.fingerprints.items()]


def rows_of(table: Table | None, task: str, fingerprint: str) -> int:
    """How many rows of it the table's files hold, by the statistics in its log: others of the same files are counted as well."""
    if table is None:
        return 0
    wanted = Wanted({task: fingerprint})
    files = table.key_files(wanted)
    return sum(batch.num_rows for batch in table.done_keys(wanted)) if files is None else sum(file.rows for file in files)
