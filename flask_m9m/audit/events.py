"""Audit events: their names, their fields, and the form in which they are stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from types import MappingProxyType
from typing import Any, NamedTuple

from ..settings.wording import printable
from ..storage.records import moment

SUCCESS = "success"

_LONGEST_DETAILS = 8_192
_NO_DETAILS: Mapping[str, Any] = MappingProxyType({})
_MICROSECONDS = 1_000_000
_to_json = json.JSONEncoder(separators=(",", ":"), sort_keys=True, allow_nan=False).encode


class EventName(StrEnum):
    """The events that flask-m9m records itself; an app adds names of its own."""

    AUTHENTICATED = "authenticated"
    AUTHENTICATION_FAILED = "authentication_failed"
    ACCESS_DENIED = "access_denied"
    RATE_LIMITED = "rate_limited"
    TOKEN_ISSUED = "token_issued"  # noqa: S105
    TOKEN_REVOKED = "token_revoked"  # noqa: S105
    API_KEY_CREATED = "api_key_created"
    API_KEY_REVOKED = "api_key_revoked"
    USER_CHANGED = "user_changed"
    CREDENTIAL_READ = "credential_read"
    CREDENTIAL_CHANGED = "credential_changed"
    KEYS_ROTATED = "keys_rotated"
    EVENTS_DROPPED = "events_dropped"


class Circumstances(NamedTuple):
    """The request in which an event happens; all fields are `None` outside of a request.

    Attributes:
        request_id: the request's id.
        subject: the authenticated caller.
        scheme: the authentication scheme.
        address: the client's address.
        method: the request's method.
        route: the endpoint's name.
    """

    request_id: str | None = None
    subject: str | None = None
    scheme: str | None = None
    address: str | None = None
    method: str | None = None
    route: str | None = None


class Event(NamedTuple):
    """An event of the audit trail.

    Attributes:
        name: an `EventName`, or a name of the app's.
        at: the time, in seconds since the epoch.
        outcome: `success`, or the error's code (`INVALID_TOKEN`).
        request_id: the id of the request in which it happened.
        subject: who acted. Of a failed attempt: the subject that was claimed. Without a known
            caller: the subject that the event is about.
        scheme: the authentication scheme, of failed attempts too.
        address: the client's address.
        method: the request's method.
        route: the endpoint's name.
        target: the id of the object: a credential, an API key, or a token (its `jti`).
        details: further JSON values, never a secret.
    """

    name: str
    at: float
    outcome: str = SUCCESS
    request_id: str | None = None
    subject: str | None = None
    scheme: str | None = None
    address: str | None = None
    method: str | None = None
    route: str | None = None
    target: str | None = None
    details: Mapping[str, Any] = _NO_DETAILS

    def columns(self) -> tuple[Any, ...]:
        """Return the stored values, in the order of the table's columns after `seq`.

        Texts are shortened to the columns' length, and control characters are escaped.
        """
        subject, route, details = self.subject, self.route, self.details
        return (
            round(self.at * _MICROSECONDS),
            self.name,
            written(self.outcome, 64),
            self.request_id,
            subject if subject is None else written(subject, 255),
            self.scheme if self.scheme is None else written(self.scheme, 64),
            self.address if self.address is None else written(self.address, 64),
            self.method if self.method is None else written(self.method, 32),
            route if route is None else written(route, 255),
            self.target if self.target is None else written(self.target, 255),
            _stored_details(details) if details else None,
        )


class Recorded(NamedTuple):
    """A row of the trail.

    Attributes:
        seq: the row's number, without gaps.
        at: the time of the event, in UTC; the year 1 where the stored time is unreadable.
        event: the event's name.
        outcome: `success`, or the error's code.
        request_id: the id of the request in which it happened.
        subject: who acted.
        scheme: the authentication scheme.
        address: the client's address.
        method: the request's method.
        route: the endpoint's name.
        target: the id of the object.
        details: further JSON values.
    """

    seq: int
    at: datetime
    event: str
    outcome: str
    request_id: str | None
    subject: str | None
    scheme: str | None
    address: str | None
    method: str | None
    route: str | None
    target: str | None
    details: Mapping[str, Any]

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> Recorded:
        """Read a row of the database, unverified; unreadable values do not raise."""
        seq, at, details = row[0], row[1], row[-2]
        return cls._make((seq, _moment_of(at), *row[2:-2], _details_of(details)))


def details_text(details: Mapping[str, Any]) -> str:
    """Encode an event's details as stored: JSON in ASCII, of at most 8,192 characters.

    Raises:
        ValueError: the details are not JSON, or are too long.
    """
    try:
        text = _to_json(dict(details))
    except (TypeError, ValueError, RecursionError):
        raise ValueError(
            "an event's details must be JSON values (texts, numbers, booleans, lists, objects)"
        ) from None
    if len(text) > _LONGEST_DETAILS:
        raise ValueError(
            f"an event's details must be at most {_LONGEST_DETAILS} characters of JSON, found "
            f"{len(text)}"
        )
    return text


def _stored_details(details: Mapping[str, Any]) -> str:
    """Encode details; replace invalid ones by the reason, so that the event is not lost."""
    try:
        return details_text(details)
    except ValueError as error:
        return _to_json({"omitted": str(error)})


def written(text: str, longest: int) -> str:
    """Escape a text for storage; end it with a hash where it is longer than `longest`."""
    if not isinstance(text, str):  # an app's own scheme may set any object
        text = ascii(text)
    if len(text) <= longest and text.isprintable():
        return text
    escaped = printable(text[:longest])
    if len(text) <= longest and len(escaped) <= longest:
        return escaped
    digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{escaped[: longest - 17]}#{digest}"


def iso_time(at: float) -> str:
    """Write a time, in seconds since the epoch, as ISO 8601 in UTC."""
    return f"{moment(at):%Y-%m-%dT%H:%M:%S.%f}Z"


def _moment_of(at: Any) -> datetime:
    try:
        return moment(at / _MICROSECONDS)
    except (TypeError, ValueError, OverflowError, OSError):  # the row was tampered with
        return datetime.min.replace(tzinfo=UTC)


def _details_of(text: Any) -> Mapping[str, Any]:
    try:
        found = json.loads(text) if text is not None else {}
    except (TypeError, ValueError, RecursionError):
        return {"unreadable": str(text)}
    return found if isinstance(found, dict) else {"unreadable": str(text)}
