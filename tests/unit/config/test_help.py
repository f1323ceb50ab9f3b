"""What `--help` shows of a schema, at any width."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from masklake.config import Names, Program, Share, Shown, Tasks, Uri
from masklake.config.closest import closest
from masklake.config.flags import help_text
from masklake.tasks import Task


class Toy(BaseModel):
    """A few settings."""

    table: Uri = Field(description="the table")
    rows_per_file: Annotated[int | None, Shown("ROWS")] = Field(None, description="rows (default: 100 % of them)")
    format: Literal["png", "json"] = Field(description="what to write")
    tasks: Tasks = Field((Task.PANOPTIC,), description="one or more")
    columns: Names = Field((), description="columns")
    share: Share = Field(0.0, description="how many")
    seconds: Annotated[float, Shown("SECONDS")] = Field(30.0, description="how long")
    dry_run: bool = Field(False, description="only say it")


TOY = Program(
    "masklake toy",
    Toy,
    {"all of it": Toy},
    about="Plays with a table, and says in many words what it is that it does there.\n\nkinds:\n  short  one line\n  long   "
    + "many words " * 12,
    examples={"masklake toy --table s3://a/very/long/name/of/a/table --format png --columns first,second,third --dry-run": "one"},
    rules="rules:\n  A first line\n  and its second.\n      as: it is",
)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_it_fits_the_terminal_but_for_what_has_no_place_to_break(width: int) -> None:
    text = help_text(TOY, width)
    assert [line for line in text.splitlines() if len(line) > width and " " in line.strip() and not line.startswith("usage")] == []


def test_each_setting_has_its_name_a_placeholder_and_its_default() -> None:
    text = help_text(TOY, 100)
    assert text.startswith("usage: masklake toy --table URI --format FORMAT [settings]\n")
    for line in (
        "  --table URI           the table (required)",
        "  --rows-per-file ROWS  rows (default: 100 % of them)",
        "  --format png|json     what to write (required)",
        "  --tasks, --task panoptic|instance|semantic,...",
        "  --columns NAME,...    columns",
        "  --share SHARE         how many (default: 0)",
        "  --seconds SECONDS     how long (default: 30)",
        "  --dry-run             only say it",
        "all of it:",
    ):
        assert line in text.splitlines()
    assert "MASKLAKE_ROWS_PER_FILE" in text


def test_many_values_are_told_once_where_they_are_explained() -> None:
    class Many(BaseModel):
        format: Literal["coco-panoptic", "coco-instances", "label-maps", "voc"] = Field("voc", description="how it is written, see above")

    text = help_text(Program("masklake many", Many, {"all": Many}, about="", examples={}), 100)
    assert "  --format FORMAT  how it is written, see above (default: voc)" in text.splitlines()


def test_paragraphs_are_filled_and_laid_out_lines_stay() -> None:
    lines = help_text(TOY, 60).splitlines()
    assert "  A first line and its second." in lines
    assert "      as: it is" in lines
    first = lines.index("  long   many words many words many words many words many")
    assert lines[first + 1].startswith("         words many")


def test_a_long_example_is_a_command_that_a_shell_takes() -> None:
    text = help_text(TOY, 60)
    example = text[text.index("      masklake toy") :].split("\n\n")[0]
    assert "\\\n" in example
    assert " ".join(example.replace("\\\n", " ").split()) == next(iter(TOY.examples))


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("tabel", "table"),
        ("--Table", "table"),
        ("batchsize", "batch_size"),
        ("batch-size", "batch_size"),
        ("tab", "table"),
        ("out", "output"),
        ("zzz", None),
        ("", None),
    ],
)
def test_the_name_that_was_meant(wrong: str, meant: str | None) -> None:
    assert closest(wrong, ["table", "batch_size", "output", "overwrite"]) == meant
