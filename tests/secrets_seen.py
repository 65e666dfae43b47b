"""Writes down the secrets that tests make, for `scripts/find-secrets` to look for afterwards."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from flask_m9m.auth import api_key_format, api_keys
from flask_m9m.auth.jwt import issuer
from flask_m9m.auth.passwords import PasswordHasher

_RUN = re.compile(r"[\x21-\x7e]{16,}")  # shorter ones may stand anywhere
_FEWEST = 6  # different characters, likewise


def write_down(path: Path) -> None:
    """Have every key, token and password that is made from now on appended to a file.

    Args:
        path: the file; all processes of a run append to it, a line at a time.
    """
    seen: set[str] = set()

    def note(text: object) -> None:
        runs = _RUN.findall(text) if isinstance(text, str) else []
        longest = max(runs, key=len, default="")
        if len(set(longest)) >= _FEWEST and longest not in seen:
            seen.add(longest)
            with path.open("a", encoding="ascii") as file:
                file.write(f"{longest}\n")

    make_key = _noting_result(api_key_format.make_key, lambda key: note(key[-38:]))
    api_key_format.make_key = api_keys.make_key = make_key
    issuer.sign = _noting_result(issuer.sign, lambda token: note(token.rpartition(".")[2]))
    hashed = PasswordHasher.hash

    def hash(self: PasswordHasher, password: str) -> str:
        note(password)
        return hashed(self, password)

    PasswordHasher.hash = hash  # type: ignore[method-assign]


def _noting_result(made: Callable[..., Any], note: Callable[[str], None]) -> Callable[..., Any]:
    @wraps(made)
    def noting(*args: Any, **kwargs: Any) -> Any:
        result = made(*args, **kwargs)
        note(result)
        return result

    return noting
