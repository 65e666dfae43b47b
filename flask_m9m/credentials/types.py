"""Credential types: their required fields, and the checkers that test credentials."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from ..errors import NotFound
from ..settings.arguments import check_callable, check_text, check_type

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
"""m9m's types and their required fields."""


class CredentialTypes:
    """The credential types of an app: m9m's types and those that the app registers."""

    def __init__(self) -> None:
        self._required: dict[str, tuple[str, ...]] = dict(_KNOWN)
        self._checkers: dict[str, Callable[[Any], Any]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._required))

    def register(self, name: str, required: Collection[str] = ()) -> None:
        """Add a type.

        Args:
            name: 1 to 64 letters, digits or `_.-`, starting with a letter.
            required: the names of the required fields.

        Raises:
            ValueError: the name is not valid, or the type exists already.
        """
        check_type(Collection, required=required)
        for field in (required,) if isinstance(required, str) else required:
            check_text(**{"a field in required": field})
        if self.check_name(name) in self._required:
            raise ValueError(f"name {name!r} is taken: the credential type is already registered")
        self._required[name] = (required,) if isinstance(required, str) else tuple(required)

    def check_name(self, name: object) -> str:
        """Check the form of a type's name, and return it; the type need not exist.

        Raises:
            ValueError: the name is not valid.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(
                "a credential type's name must be 1 to 64 letters, digits or _.-, starting with a "
                "letter"
            )
        return name

    def required(self, name: str) -> tuple[str, ...]:
        """Return the required fields of a type; an empty tuple for an unknown type."""
        return self._required.get(name, ())

    def checker(self, name: str, check: Callable[[Any], Any]) -> None:
        """Register the function that tests credentials of a type; it may raise."""
        check_callable(check=check)
        self._checkers[self.check_name(name)] = check

    def checker_of(self, name: str) -> Callable[[Any], Any]:
        """Return the function that tests credentials of a type.

        Raises:
            NotFound: none is registered.
        """
        if name not in self._checkers:
            raise NotFound(f"no checker is registered for credentials of type {name}")
        return self._checkers[name]

    def check(self, name: str, data: Mapping[str, Any]) -> None:
        """Check that a credential's data has the required fields of its type.

        Raises:
            ValueError: the type is unknown, or a required field is missing or empty.
        """
        if not isinstance(data, Mapping):
            raise ValueError(
                "credential data must be a JSON object, a mapping with strings as names"
            )
        if not isinstance(name, str) or name not in self._required:
            raise ValueError(
                f"unknown credential type {str(name)[:64]!a} (known: {', '.join(self)})"
            )
        missing = [field for field in self._required[name] if data.get(field) in (None, "")]
        if missing:
            raise ValueError(f"data of a credential of type {name} needs {', '.join(missing)}")
