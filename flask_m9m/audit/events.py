"""Events: what the audit trail is made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from types import MappingProxyType
from typing import Any, NamedTuple

from ..storage import moment
from ..text import printable

SUCCESS = "success"

_LONGEST_DETAILS = 8_192
_NO_DETAILS: Mapping[str, Any] = MappingProxyType({})
_MICROSECONDS = 1_000_000
_to_json = json.JSONEncoder(separators=(",", ":"), sort_keys=True, allow_nan=False).encode


class EventName(StrEnum):
    """What flask-m9m itself has to say; an app adds names of its own."""

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
    """In which request something happens; all is `None` outside of one.

    Attributes:
        request_id: its id.
        subject: who sent it, once that is proved.
        scheme: by which scheme.
        address: the client's.
        method: the request's.
        route: the endpoint's name.
    """

    request_id: str | None = None
    subject: str | None = None
    scheme: str | None = None
    address: str | None = None
    method: str | None = None
    route: str | None = None


class Event(NamedTuple):
    """Something that happened.

    Attributes:
        name: what, an `EventName` or a name of the app's.
        at: when, in seconds since the epoch.
        outcome: `success`, or the error's code (`INVALID_TOKEN`).
        request_id: of the request in which it happened.
        subject: who acted, or of a failed attempt who was claimed; where nobody is known, whom it
            is about.
        scheme: by which scheme, whether or not it let anybody in.
        address: the client's.
        method: the request's.
        route: the endpoint's name.
        target: the id of what it was done to: a credential's, an API key's, a token's `jti`.
        details: what else there is to say, never a secret.
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
        """Return what is kept of it, in the order of the table's columns after `seq`.

        Texts are bounded, and whatever a terminal or a log might obey is escaped.
        """
        subject, route, details = self.subject, self.route, self.details
        return (
            round(self.at * _MICROSECONDS),
            self.name,
            self.outcome,
            self.request_id,
            subject if subject is None else written(subject, 255),
            self.scheme if self.scheme is None else written(self.scheme, 64),
            self.address if self.address is None else written(self.address, 64),
            self.method if self.method is None else written(self.method, 32),
            route if route is None else written(route, 255),
            self.target if self.target is None else written(self.target, 255),
            _kept_details(details) if details else None,
        )


class Recorded(NamedTuple):
    """A row of the trail.

    Attributes:
        seq: its number, without gaps.
        at: when it happened, in UTC; of a row that was tampered with, maybe the year 1.
        event: its name.
        outcome: `success`, or the error's code.
        request_id: of the request in which it happened.
        subject: who acted.
        scheme: by which scheme.
        address: the client's.
        method: the request's.
        route: the endpoint's name.
        target: the id of what it was done to.
        details: what else there is to say.
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
        """Return a row as it is read; what somebody made of it shows when it is verified."""
        seq, at, details = row[0], row[1], row[-2]
        return cls._make((seq, _moment_of(at), *row[2:-2], _details_of(details)))


def details_text(details: Mapping[str, Any]) -> str:
    """Return details as they are kept, in JSON of ASCII alone.

    Raises:
        ValueError: they are no JSON, or longer than 8 KiB.
    """
    try:
        text = _to_json(dict(details))
    except (TypeError, ValueError, RecursionError):
        raise ValueError("an event's details are JSON") from None
    if len(text) > _LONGEST_DETAILS:
        raise ValueError(f"an event's details are at most {_LONGEST_DETAILS} characters of JSON")
    return text


def _kept_details(details: Mapping[str, Any]) -> str:
    """Return details as they are kept; no event waits for ever for those that cannot be."""
    try:
        return details_text(details)
    except ValueError as error:
        return _to_json({"omitted": str(error)})


def written(text: str, longest: int) -> str:
    """Return a text as it is kept: printable, and a hash in place of what is too much of it."""
    if not isinstance(text, str):  # an app's own scheme may name whom it likes
        text = ascii(text)
    if len(text) <= longest and text.isprintable():
        return text
    escaped = printable(text[:longest])
    if len(text) <= longest and len(escaped) <= longest:
        return escaped
    digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{escaped[: longest - 17]}#{digest}"


def _moment_of(at: Any) -> datetime:
    try:
        return moment(at / _MICROSECONDS)
    except (TypeError, ValueError, OverflowError, OSError):  # somebody wrote something there
        return datetime.min.replace(tzinfo=UTC)


def _details_of(text: Any) -> Mapping[str, Any]:
    try:
        found = json.loads(text) if text is not None else {}
    except (TypeError, ValueError, RecursionError):
        return {"unreadable": str(text)}
    return found if isinstance(found, dict) else {"unreadable": str(text)}
