"""Environment variables in credentials: `${NAME}` in the values of records with `resolve=True`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from ..errors import UnresolvedVariable

_REFERENCE = re.compile(r"\$\{([^{}]*)\}")
_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,63}", re.ASCII)
_RESERVED = ("M9M_", "N8N_")


def resolve_variables(data: Any, allowed: Collection[str], environ: Mapping[str, str]) -> Any:
    """Replace each `${NAME}` in the data's texts by the environment variable's value.

    The values themselves are not searched for further references.

    Args:
        data: JSON data; the names in objects are not changed.
        allowed: the names that may be read; `M9M_*` and `N8N_*` never may.
        environ: the environment.

    Raises:
        UnresolvedVariable: a name may not be read, or the variable is not set.
    """
    if isinstance(data, str):
        return _REFERENCE.sub(lambda found: _value(found[1], allowed, environ), data)
    if isinstance(data, Mapping):
        return {key: resolve_variables(value, allowed, environ) for key, value in data.items()}
    if isinstance(data, list):
        return [resolve_variables(value, allowed, environ) for value in data]
    return data


def _value(name: str, allowed: Collection[str], environ: Mapping[str, str]) -> str:
    # Text that is not a variable's name may be part of a secret: do not repeat it.
    shown = f"${{{name}}}" if _NAME.fullmatch(name) else "a variable"
    if name not in allowed or name.upper().startswith(_RESERVED):
        raise UnresolvedVariable(f"{shown} is not allowed by credentials.environment")
    if name not in environ:
        raise UnresolvedVariable(f"{shown} is not set in the environment")
    return environ[name]
