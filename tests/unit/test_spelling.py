"""What is spelt out, and what is text of some language."""

from __future__ import annotations

import pytest

from masklake.spelling import visible


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
