"""Text from a lake, a list or a model, as a person may read it: on a terminal, a page or a model card."""

from __future__ import annotations

import unicodedata


def visible(text: str) -> str:
    """Text whose controls are spelt out, among them those that turn the reading direction around: they make a text look like another, or
    give orders to a terminal."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    # Joiners belong to scripts and emoji; every other format character, control, surrogate and line separator is spelt out.
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and character not in "\u200c\u200d":
        return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"
    return character
