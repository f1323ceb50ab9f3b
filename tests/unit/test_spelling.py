"""What is spelt out, and what is text of some language."""

from __future__ import annotations

import re

import pytest

from masklake.spelling import plural, visible
from tests.lakes import ROOT


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a/ü/写真 1.jpg", "a/ü/写真 1.jpg"),
        ("a\x1b[31mred", "a\\u001b[31mred"),
        ("a\r\nb\tc", "a\\u000d\\u000ab\\u0009c"),
        ("a\u202egpj", "a\\u202egpj"),
        ("a\udcff", "a\\udcff"),
        ("\x9b2J", "\\u009b2J"),
        ("👩\u200d👧", "👩\u200d👧"),
    ],
)
def test_controls_are_spelt_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_noun_and_its_verb_go_by_the_count() -> None:
    assert [plural(count, "row") for count in (0, 1, 2, 1234)] == ["0 rows", "1 row", "2 rows", "1,234 rows"]
    assert plural(1, "class is", "classes are") == "1 class is"
    assert plural(3, "class is", "classes are") == "3 classes are"
    assert plural(0.5, "GPU") == "0.5 GPUs"


def test_messages_say_counts_by_their_number() -> None:
    """`f"{count:,} rows"` says "1 rows" as well."""
    pattern = re.compile(r"\{(?![^{}]*[A-Z]{3})[^{}]*(?::,|\blen\(\w+\))\} (?:images|rows|files|segments|classes|examples|labels|steps)\b")
    found = {(path.name, match[0]) for path in (ROOT / "pipeline").rglob("*.py") for match in pattern.finditer(path.read_text("utf-8"))}
    assert found == {("match.py", "{len(whole)} images"), ("voc.py", "{len(labels)} classes")}  # of which there are several
