"""The wording of values in error messages: escaped, shortened, and with secrets masked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from .paths import LEAVES

_MAX_SHOWN = 60
_MAX_SCANNED = 4096
_USER_INFORMATION = re.compile(r"//[^/?#@]*@")


def shown(value: object) -> str:
    """Format a value for a message; lists and mappings appear as their kind only."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < 10**18):
        return str(value)
    return kind(value)


def quoted(text: str) -> str:
    """Quote and escape text, shorten it, and remove user and password from URLs."""
    text = _USER_INFORMATION.sub("//…@", text[:_MAX_SCANNED])
    cut = text[:_MAX_SHOWN]
    return f'"{printable(cut)}{"…" if len(text) > _MAX_SHOWN else ""}"'


def printable(text: str) -> str:
    """Escape all unprintable characters, which a terminal or log viewer might interpret."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def describe_value(path: str, value: object) -> str:
    """Describe the value at a path; a secret is described by its size alone."""
    leaf = LEAVES.get(path)
    if leaf is not None and leaf.is_secret:
        return describe_secret(value)
    return shown(value) if leaf is not None else kind(value)


def describe_secret(value: object) -> str:
    """Describe a secret by its size alone."""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if not isinstance(value, str):
        return kind(value)
    size = len(value.encode("utf-8", "surrogatepass"))
    return f"a secret of {size} byte{'s' * (size != 1)}"


def kind(value: object) -> str:
    """Name the kind of a value, such as `a list`."""
    if value is None:
        return "null"
    for types, name in _KINDS:
        if isinstance(value, types):
            return name
    return f"a value of type {type(value).__name__[:_MAX_SHOWN]}"


_KINDS: tuple[tuple[type[Any] | tuple[type[Any], ...], str], ...] = (
    (bool, "a boolean"),
    ((int, float), "a number"),
    (str, "text"),
    (Mapping, "a mapping"),
    ((list, tuple, set, frozenset), "a list"),
)
