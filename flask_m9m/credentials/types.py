"""Credential types: which fields a credential of each kind has to have."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from ..errors import NotFound

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", re.ASCII)

_KNOWN = {
    "apiKey": ("apiKey",),
    "basicAuth": ("username", "password"),
    "oauth2": ("clientId", "clientSecret"),
    "slackWebhook": ("webhookUrl",),
    "slackApi": ("accessToken",),
    "awsCredentials": ("accessKeyId", "secretAccessKey"),
    "postgresCredentials": ("host", "database", "user", "password"),
    "smtpCredentials": ("host",),
    "httpHeaderAuth": ("name", "value"),
}
"""m9m's types, and the fields that each needs."""


class CredentialTypes:
    """The types that an app knows: m9m's, and those that it registers."""

    def __init__(self) -> None:
        self._required: dict[str, tuple[str, ...]] = dict(_KNOWN)
        self._checkers: dict[str, Callable[[Any], Any]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._required))

    def register(self, name: str, required: Collection[str] = ()) -> None:
        """Add a type.

        Args:
            name: 1 to 64 letters, digits and `_.-`, a letter first.
            required: the fields without which there is none.

        Raises:
            ValueError: the name is none, or there is a type of that name.
        """
        if self.check_name(name) in self._required:
            raise ValueError(f"there is a credential type {name!r} already")
        self._required[name] = tuple(required)

    def check_name(self, name: object) -> str:
        """Return a name that a type can have, whether or not there is one.

        Raises:
            ValueError: none can.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError("a credential type's name is 1 to 64 letters, digits and _.-")
        return name

    def required(self, name: str) -> tuple[str, ...]:
        """Return the fields that a type needs; none, where it is not known."""
        return self._required.get(name, ())

    def checker(self, name: str, check: Callable[[Any], Any]) -> None:
        """Take a function that tries a credential of a type, which may raise."""
        self._checkers[name] = check

    def checker_of(self, name: str) -> Callable[[Any], Any]:
        """Return a type's function.

        Raises:
            NotFound: there is none.
        """
        if name not in self._checkers:
            raise NotFound(f"nothing checks credentials of the type {name}")
        return self._checkers[name]

    def check(self, name: str, data: Mapping[str, Any]) -> None:
        """See to it that a credential's data is of its type.

        Raises:
            ValueError: there is no such type, or a field that it needs is missing or empty.
        """
        if not isinstance(data, Mapping):
            raise ValueError("a credential's data is an object with texts as names")
        if not isinstance(name, str) or name not in self._required:
            raise ValueError(f"no credential type {str(name)[:64]!a} (known: {', '.join(self)})")
        missing = [field for field in self._required[name] if data.get(field) in (None, "")]
        if missing:
            raise ValueError(f"a credential of the type {name} needs {', '.join(missing)}")
