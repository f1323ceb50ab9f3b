"""How things are spelt for a person, on a terminal, a page or a model card: text from a lake, a list or a model, and counts."""

from __future__ import annotations

import unicodedata


def visible(text: str) -> str:
    """Text whose controls are spelt out, among them those that turn the reading direction around: they make a text look like another, or
    give orders to a terminal."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible, text))


def plural(count: float, one: str, many: str | None = None) -> str:
    """A count and its noun, also with the verb that goes with it: "1 row", "2,000 classes"."""
    return f"{count:{',' if isinstance(count, int) else ',g'}} {one if count == 1 else many or one + 's'}"


def _visible(character: str) -> str:
    # Joiners belong to scripts and emoji; every other format character, control, surrogate and line separator is spelt out.
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and character not in "\u200c\u200d":
        return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"
    return character
