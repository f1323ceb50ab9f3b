"""An evaluation's figures as a table on stdout."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from masklake.evaluation.page import TITLES, figures, percent
from masklake.evaluation.report import BY_CLASS, Report
from masklake.spelling import plural, visible

_CLASSES = 40  # rows of the table


def tell(found: Report) -> None:
    """The figures as a table, on stdout."""
    console = Console(width=None if sys.stdout.isatty() else 100)
    names = BY_CLASS[found["task"]]
    table = Table(title=f"{found['task']}: {plural(found['images']['scored'], 'image')}", title_justify="left")
    table.add_column("class", overflow="fold")
    for name in names:
        table.add_column(TITLES[name], justify="right")
    table.add_column(f"true {found['unit']}", justify="right")
    table.add_column("predicted", justify="right")
    judged = sorted((each for each in found["classes"] if each.get(names[0]) is not None), key=lambda each: -each[names[0]])
    for each in judged[:_CLASSES]:
        label = Text(visible(each["label"]))
        table.add_row(label, *(percent(each.get(name)) for name in names), f"{each['true']:,}", f"{each['predicted']:,}")
    if len(judged) > _CLASSES:
        table.add_row(f"{len(judged) - _CLASSES} more, in evaluation.json")
    console.print(table)
    console.print("   ".join(f"{title} {percent(figure)}" for title, figure in figures(found)), markup=False, highlight=False)
