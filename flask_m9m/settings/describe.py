"""The effective settings, for people and programs to read: every secret masked."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import SecretStr

from .paths import LEAVES, get
from .presets import FROM_PRESET
from .sources import Loaded

MASK = "********"


class Described(NamedTuple):
    """One setting as it may be shown; `value` is what JSON can say."""

    path: str
    value: Any
    source: str


def describe(loaded: Loaded) -> list[Described]:
    """Return every setting with its effective value and where it came from, secrets masked."""
    headers = loaded.settings.security.headers
    described = []
    for path in LEAVES:
        value = get(loaded.settings, path)
        source = " ".join((loaded.sources[path], *loaded.references.get(path, ())))
        if value == FROM_PRESET:
            value, source = headers.value(path.rpartition(".")[2]), f"preset {headers.preset}"
        described.append(Described(path, _plain(value), source))
    return described


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value.value if hasattr(value, "value") else value
