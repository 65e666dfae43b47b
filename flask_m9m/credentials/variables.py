"""`${NAME}` in the values of a credential that was made with `resolve=True`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from ..errors import UnresolvedVariable

_REFERENCE = re.compile(r"\$\{([^{}]*)\}")
_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,63}", re.ASCII)
_OURS = ("M9M_", "N8N_")


def resolved(data: Any, allowed: Collection[str], environ: Mapping[str, str]) -> Any:
    """Return data with each `${NAME}` in its texts replaced by the environment variable.

    Args:
        data: JSON data; keys stay as they are.
        allowed: the names that may be read; ours never are.
        environ: the environment.

    Raises:
        UnresolvedVariable: a name may not be read, or there is no such variable.
    """
    if isinstance(data, str):
        return _REFERENCE.sub(lambda found: _value(found[1], allowed, environ), data)
    if isinstance(data, Mapping):
        return {key: resolved(value, allowed, environ) for key, value in data.items()}
    if isinstance(data, list):
        return [resolved(value, allowed, environ) for value in data]
    return data


def _value(name: str, allowed: Collection[str], environ: Mapping[str, str]) -> str:
    # What is no name may be a part of a secret.
    shown = f"${{{name}}}" if _NAME.fullmatch(name) else "a variable"
    if name not in allowed or name.upper().startswith(_OURS):
        raise UnresolvedVariable(f"{shown} is not in credentials.environment")
    if name not in environ:
        raise UnresolvedVariable(f"{shown} is not set")
    return environ[name]
