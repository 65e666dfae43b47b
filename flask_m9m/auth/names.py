"""Names and passwords: Unicode normalization (NFC), length limits and forbidden characters."""

from __future__ import annotations

import unicodedata

LONGEST_NAME = 255
"""The longest accepted name, in characters."""

_LONGEST_TYPED = 1_020
"""The longest text that is normalized, in characters: normalization takes quadratic time."""


def normalize(text: str) -> str:
    """Convert a name or password to NFC, so that it matches however it was typed."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def is_control(character: str) -> bool:
    """Tell whether a character is a control character, as names and passwords have none."""
    return character < " " or "\x7f" <= character <= "\x9f"


def is_surrogate(character: str) -> bool:
    """Tell whether a character is a lone surrogate, which UTF-8 cannot encode."""
    return "\ud800" <= character <= "\udfff"


def name_of(typed: object) -> str | None:
    """Convert a typed name to NFC; `None` if no stored name can be equal to it."""
    if not isinstance(typed, str) or not 0 < len(typed) <= _LONGEST_TYPED:
        return None
    name = normalize(typed)
    if len(name) > LONGEST_NAME or any(is_control(char) or is_surrogate(char) for char in name):
        return None
    return name


def checked_name(argument: str, typed: object) -> str:
    """Check the name for a new record and convert it to NFC.

    Args:
        argument: the caller's argument, for the error message.
        typed: the name, 1 to 255 printable characters.

    Raises:
        ValueError: the name is not valid.
    """
    name = name_of(typed)
    if name is None or not name.isprintable():
        raise ValueError(f"{argument} must be 1 to {LONGEST_NAME} printable characters")
    return name
