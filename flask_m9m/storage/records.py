"""What is kept: API keys, users, sessions, credentials, and the ends of the audit trail."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple


def moment(seconds: float) -> datetime:
    """Return a number of seconds since the epoch as what is kept of it."""
    return datetime.fromtimestamp(seconds, UTC)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key, without the key itself, which nobody keeps.

    Attributes:
        id: what it is called by when it is revoked or rotated.
        family: the id of the first key in whose place it stands; its own, where it is the first.
        name: what it is for.
        owner: the subject that it speaks for.
        scopes: what it may do, within what its owner may.
        roles: what it may be, within what its owner is.
        rate_limit: how often it may be used, as in `@rate_limit`.
        created_at: in UTC, like every moment here.
        expires_at: when it stops to hold; `None`: never.
        rotated_at: when another key was made that takes its place.
        revoked_at: when it was revoked.
        last_used_at: when it was last used, up to a minute late.
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
    rotated_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class User:
    """A user.

    Attributes:
        username: its name, in NFC; the subject of its identities.
        scopes: what it may do.
        roles: what it is.
        disabled: whether it is kept out.
        created_at: in UTC.
        password_hash: as Werkzeug writes it.
    """

    username: str
    scopes: frozenset[str]
    roles: frozenset[str]
    disabled: bool
    created_at: datetime
    password_hash: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Session:
    """A login and the refresh tokens that follow from it, one after the other.

    Attributes:
        sid: its id, in each of its tokens.
        subject: who logged in.
        scopes: what its tokens may do; `None`: whatever the user may.
        roles: what its subject is; `None`: whatever the user is.
        claims: further claims of its access tokens.
        current: the `jti` of the refresh token that has not been spent.
        previous: that of the one spent last.
        rotated_at: when it was.
        created_at: when the session began.
        ends_at: when it ends at the latest.
        revoked_at: when it was ended.
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
    """A stored credential, its data encrypted.

    Attributes:
        id: its id.
        name: what it is for.
        type: its credential type.
        owner: whose it is; empty: nobody's.
        resolve: whether `${NAME}` in its values stands for an environment variable.
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
        """The cipher and the key, as the envelope names them."""
        return self.envelope.rpartition(":")[0]


class Envelope(NamedTuple):
    """What a rotation needs of a stored credential.

    Attributes:
        id: its id.
        type: its credential type.
        owner: whose it is; empty: nobody's.
        resolve: whether `${NAME}` in its values stands for an environment variable.
        envelope: the encrypted data.
    """

    id: str
    type: str
    owner: str
    resolve: bool
    envelope: str


class Change(NamedTuple):
    """A row of the feed: something of this name changed."""

    id: int
    mark: int
    topic: str
    name: str


class EndRow(NamedTuple):
    """Where the trail begins or ends, as it is written down.

    Attributes:
        seq: of the last row before the trail that is kept (`tail`), or of the last one (`head`).
        mac: that row's.
        seal: what nobody can write without the key.
    """

    seq: int
    mac: bytes
    seal: bytes


class Sought(NamedTuple):
    """Which rows of the trail are looked for; `None`: any.

    Attributes:
        since: in microseconds since the epoch, this moment too.
        until: likewise, this moment not.
        subject: who acted.
        event: its name.
        address: the client's.
        target: what it was done to.
        before: only those ahead of this `seq`.
    """

    since: int | None = None
    until: int | None = None
    subject: str | None = None
    event: str | None = None
    address: str | None = None
    target: str | None = None
    before: int | None = None
