"""Stored records: API keys, users, sessions, credentials, changes, the audit trail's ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple


def moment(seconds: float) -> datetime:
    """Return the UTC time of a number of seconds since the epoch."""
    return datetime.fromtimestamp(seconds, UTC)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The stored record of an API key. The key's own text is not stored.

    Attributes:
        id: identifies the key when it is revoked or rotated.
        family: the id of the first key of its chain of rotations; its own id if it is the first.
        name: a label that says what the key is for.
        owner: the subject on whose behalf it acts.
        scopes: the scopes it grants, as far as its owner has them.
        roles: the roles it grants, as far as its owner has them.
        rate_limit: how often it may be used, in the notation of `@rate_limit`.
        created_at: in UTC, like every time in these records.
        expires_at: when it expires; `None`: never.
        rotated_at: when a key was made that replaces it.
        revoked_at: when it was revoked.
        last_used_at: when it was last used; written up to a minute late.
        made_by: the id of the API key that made it over the REST API.
    """

    id: str
    family: str
    name: str
    owner: str
    scopes: frozenset[str]
    roles: frozenset[str]
    rate_limit: str | None
    created_at: datetime
    expires_at: datetime | None
    rotated_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    made_by: str | None = None


@dataclass(frozen=True, slots=True)
class User:
    """The stored record of a user.

    Attributes:
        username: the name, in NFC; also the subject of the user's identities.
        scopes: the user's scopes.
        roles: the user's roles.
        disabled: whether the user is refused.
        created_at: in UTC.
        password_hash: in Werkzeug's format.
    """

    username: str
    scopes: frozenset[str]
    roles: frozenset[str]
    disabled: bool
    created_at: datetime
    password_hash: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Session:
    """The stored record of a login and its chain of refresh tokens.

    Attributes:
        sid: the session's id, a claim of each of its tokens.
        subject: the subject that logged in.
        scopes: the scopes of its tokens; `None`: those of the user.
        roles: the roles of its tokens; `None`: those of the user.
        claims: further claims of its access tokens.
        current: the `jti` of the refresh token that is not spent yet.
        previous: the `jti` of the refresh token that was spent last.
        rotated_at: when `previous` was spent.
        created_at: when the session began.
        ends_at: when it ends at the latest.
        revoked_at: when it was ended early.
    """

    sid: str
    subject: str
    scopes: frozenset[str] | None
    roles: frozenset[str] | None
    claims: dict[str, Any]
    current: str
    previous: str | None
    rotated_at: datetime
    created_at: datetime
    ends_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class SealedCredential:
    """The stored record of a credential, with its data encrypted.

    Attributes:
        id: identifies the credential.
        name: a label that says what the credential is for.
        type: its credential type.
        owner: the subject that owns it; empty: no owner.
        resolve: whether `${NAME}` in its values is replaced by an environment variable.
        envelope: the encrypted data.
        created_at: in UTC.
        updated_at: when its name or its data last changed.
    """

    id: str
    name: str
    type: str
    owner: str
    resolve: bool
    envelope: str = field(repr=False)
    created_at: datetime
    updated_at: datetime

    @property
    def sealed_with(self) -> str:
        """The cipher and key id that the envelope begins with."""
        return self.envelope.rpartition(":")[0]


class Envelope(NamedTuple):
    """The columns of a stored credential that a rotation of encryption keys reads.

    Attributes:
        id: identifies the credential.
        type: its credential type.
        owner: the subject that owns it; empty: no owner.
        resolve: whether `${NAME}` in its values is replaced by an environment variable.
        envelope: the encrypted data.
    """

    id: str
    type: str
    owner: str
    resolve: bool
    envelope: str


class Change(NamedTuple):
    """A row of the change feed.

    Attributes:
        id: its position in the feed.
        mark: a random number that tells it from a row with the same id in another database.
        topic: the kind of record that changed.
        name: the record's id or name.
    """

    id: int
    mark: int
    topic: str
    name: str


class EndRow(NamedTuple):
    """The record of where the audit trail begins (`tail`) or ends (`head`).

    Attributes:
        seq: `tail`: of the last row that was removed; `head`: of the last row.
        mac: the MAC of that row.
        seal: a MAC over this record, under the trail's key.
    """

    seq: int
    mac: bytes
    seal: bytes


class AuditSearch(NamedTuple):
    """A search in the audit trail; `None` in a field matches every row.

    Attributes:
        since: the earliest time, inclusive, in microseconds since the epoch.
        until: the latest time, exclusive, in microseconds since the epoch.
        subject: the subject that acted.
        event: the name of the event.
        address: the client's address.
        target: the object of the event, such as a key's id.
        before: rows with a lower `seq` than this.
    """

    since: int | None = None
    until: int | None = None
    subject: str | None = None
    event: str | None = None
    address: str | None = None
    target: str | None = None
    before: int | None = None
