"""Names and passwords: Unicode normalization (NFC), length limits and forbidden characters."""

from __future__ import annotations

import re
import unicodedata

LONGEST_NAME = 255
"""The longest accepted name, in characters."""

_LONGEST_TYPED = 1_020
"""The longest text that is read as a name, in characters: in NFC, some have a quarter of them."""


_MOST_COMBINING = 30  # in a row, as in Stream-Safe Text Format (UAX #15 §13)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def normalize(text: str) -> str:
    """Convert a name or password to NFC, so that it matches however it was typed.

    Text with more than 30 combining characters in a row stays as it is: no language has such text,
    and normalization takes quadratic time for it.
    """
    if text.isascii() or not _is_stream_safe(text):
        return text
    return unicodedata.normalize("NFC", text)


def _is_stream_safe(text: str) -> bool:
    if len(text) <= _MOST_COMBINING:
        return True
    run = 0
    for character in text:
        run = run + 1 if unicodedata.combining(character) else 0
        if run > _MOST_COMBINING:
            return False
    return True


def has_control(text: str) -> bool:
    """Tell whether a text has control characters, as names and passwords have none."""
    return _CONTROL.search(text) is not None


def has_surrogate(text: str) -> bool:
    """Tell whether a text has lone surrogates, which UTF-8 cannot encode."""
    return _SURROGATE.search(text) is not None


def name_of(typed: object) -> str | None:
    """Convert a typed name to NFC; `None` if no stored name can be equal to it."""
    if not isinstance(typed, str) or not 0 < len(typed) <= _LONGEST_TYPED:
        return None
    name = normalize(typed)
    if len(name) > LONGEST_NAME or has_control(name) or has_surrogate(name):
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
