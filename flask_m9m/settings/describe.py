"""Listing the effective settings with their sources and masked secrets, for `config show`."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import SecretStr

from .loaded import Loaded
from .paths import LEAVES, get
from .presets import FROM_PRESET

MASK = "********"


class Described(NamedTuple):
    """A setting for output.

    Attributes:
        path: the dotted path.
        value: the value as a JSON type; secrets are masked.
        source: the source's name.
    """

    path: str
    value: Any
    source: str


def describe(loaded: Loaded) -> list[Described]:
    """List every setting with its effective value and its source, with secrets masked."""
    headers = loaded.settings.security.headers
    described = []
    for path in LEAVES:
        value = get(loaded.settings, path)
        source = " ".join((loaded.sources[path], *loaded.references.get(path, ())))
        if value == FROM_PRESET:
            value, source = headers.value(path.rpartition(".")[2]), f"preset {headers.preset}"
        described.append(Described(path, _to_json_value(value), source))
    return described


def _to_json_value(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return MASK
    if isinstance(value, tuple):
        return [_to_json_value(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value.value if hasattr(value, "value") else value
