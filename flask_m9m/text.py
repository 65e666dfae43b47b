"""Names and passwords as text: in one form of Unicode, bounded before they are looked at."""

from __future__ import annotations

import unicodedata

LONGEST_NAME = 255
"""Characters of the longest name that is kept."""

_LONGEST_TYPED = 1_020
"""Characters of the longest text that is brought into NFC, which takes quadratic time."""


def normalize(text: str) -> str:
    """Return a name or a password in NFC, so that however it was typed it is the same."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def is_control(character: str) -> bool:
    """Tell whether a character is one that no name and no password has (RFC 7617 §2)."""
    return character < " " or "\x7f" <= character <= "\x9f"


def is_surrogate(character: str) -> bool:
    """Tell whether a character is half of one, which cannot be encoded."""
    return "\ud800" <= character <= "\udfff"


def name_of(typed: object) -> str | None:
    """Return the name that somebody typed, in NFC, or `None` where nothing can have such a name."""
    if not isinstance(typed, str) or not 0 < len(typed) <= _LONGEST_TYPED:
        return None
    name = normalize(typed)
    if len(name) > LONGEST_NAME or any(is_control(one) or is_surrogate(one) for one in name):
        return None
    return name


def checked_name(argument: str, typed: object) -> str:
    """Return a name that is given to something new.

    Raises:
        ValueError: it cannot be one.
    """
    name = name_of(typed)
    if name is None or not name.isprintable():
        raise ValueError(f"{argument} is 1 to {LONGEST_NAME} printable characters")
    return name


def printable(text: str) -> str:
    """Return a text with whatever a terminal or a log might obey escaped."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
