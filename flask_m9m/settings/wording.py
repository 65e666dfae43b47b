"""How a value is shown in a message: escaped, shortened, and never when it is a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from .paths import LEAVES

_LONGEST = 60
_READ = 4096
_USER_INFORMATION = re.compile(r"//[^/?#@]*@")


def shown(value: object) -> str:
    """Return a value as a message may quote it; lists and mappings by their kind only."""
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
    """Return text in quotes, escaped, cut where it is long, and without a URL's password."""
    text = _USER_INFORMATION.sub("//…@", text[:_READ])
    cut = text[:_LONGEST]
    visible = "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in cut
    )
    return f'"{visible}{"…" if len(text) > _LONGEST else ""}"'


def found(path: str, value: object) -> str:
    """Return what stands at a path, masked where that is a secret."""
    leaf = LEAVES.get(path)
    if leaf is not None and leaf.is_secret:
        return secret_found(value)
    return shown(value) if leaf is not None else kind(value)


def secret_found(value: object) -> str:
    """Describe a secret by its size alone."""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if not isinstance(value, str):
        return kind(value)
    size = len(value.encode("utf-8", "surrogatepass"))
    return f"a secret of {size} byte{'s' * (size != 1)}"


def kind(value: object) -> str:
    """Name what sort of value it is."""
    if value is None:
        return "null"
    for types, name in _KINDS:
        if isinstance(value, types):
            return name
    return f"a value of type {type(value).__name__[:_LONGEST]}"


_KINDS: tuple[tuple[type[Any] | tuple[type[Any], ...], str], ...] = (
    (bool, "true or false"),
    ((int, float), "a number"),
    (str, "text"),
    (Mapping, "a mapping"),
    ((list, tuple, set, frozenset), "a list"),
)
