"""Queries and updates of the tables of API keys, users, sessions and revocations."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from .records import ApiKey, Session, User
from .tables import api_keys, revocations, sessions, users

_GRACE = timedelta(days=1)  # rows outlive their end by this: another machine's clock may be ahead
_KEY_COLUMNS = tuple(column for column in api_keys.c if column is not api_keys.c.digest)
_KEY_FIELDS = tuple(column.name for column in _KEY_COLUMNS)


def _is_valid(now: Any) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    ends = api_keys.c.expires_at
    return api_keys.c.revoked_at.is_(None), or_(ends.is_(None), ends > now)


# Built once, because requests wait for these statements.
_KEY_BY_DIGEST = (
    select(
        *_KEY_COLUMNS,
        users.c.username,
        users.c.scopes.label("owner_scopes"),
        users.c.roles.label("owner_roles"),
        users.c.disabled,
    )
    .select_from(api_keys.outerjoin(users, users.c.username == api_keys.c.owner))
    .where(
        api_keys.c.digest == bindparam("digest"),
        *_is_valid(bindparam("now")),
    )
)
_REVOCATIONS = select(revocations.c.name, revocations.c.version)


class IdentityRows:
    """Reads and writes API keys, users, sessions and revocations over one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # API keys

    def key_digests(self, now: datetime, most: int) -> frozenset[bytes]:
        """Return the digests of the keys that are neither revoked nor expired, at most so many."""
        valid = select(api_keys.c.digest).where(*_is_valid(now)).limit(most)
        return frozenset(self._connection.execute(valid).scalars())

    def find_key(self, digest: bytes, now: datetime) -> tuple[ApiKey, User | None] | None:
        """Find an API key that is neither revoked nor expired, and its owner.

        The query itself excludes revoked and expired keys, so that they take no longer than unknown
        ones.

        Args:
            digest: the digest of the key's text.
            now: the current time.

        Returns:
            The key, and the user who owns it; `None` in place of the user if the owner is not in
            the users table. `None` if there is no valid key.
        """
        row = self._connection.execute(_KEY_BY_DIGEST, {"digest": digest, "now": now}).one_or_none()
        if row is None:
            return None
        *key, username, scopes, roles, disabled = row
        found = ApiKey(**dict(zip(_KEY_FIELDS, key, strict=True)))
        if username is None:
            return found, None
        return found, User(username, scopes, roles, disabled, found.created_at, "")

    def add_key(self, key: ApiKey, digest: bytes) -> None:
        """Insert a new API key under the digest of its text."""
        values = {name: getattr(key, name) for name in _KEY_FIELDS}
        self._connection.execute(insert(api_keys).values(digest=digest, **values))

    def keys(self, *conditions: ColumnElement[bool]) -> list[ApiKey]:
        """Return the API keys that match all conditions, the oldest first."""
        query = (
            select(*_KEY_COLUMNS).where(*conditions).order_by(api_keys.c.created_at, api_keys.c.id)
        )
        return [ApiKey(**row._mapping) for row in self._connection.execute(query)]

    def key(self, key_id: str) -> ApiKey | None:
        """Return the API key with an id, or `None`."""
        matches = self.keys(api_keys.c.id == key_id)
        return matches[0] if matches else None

    def keys_of(self, owner: str | None) -> list[ApiKey]:
        """Return the API keys of an owner, or of all owners if `owner` is `None`."""
        return self.keys() if owner is None else self.keys(api_keys.c.owner == owner)

    def keys_page(self, owner: str, limit: int, offset: int) -> tuple[list[ApiKey], int]:
        """Return a page of an owner's keys that are not revoked, and the number of all of them."""
        where = (api_keys.c.owner == owner) & api_keys.c.revoked_at.is_(None)
        query = select(*_KEY_COLUMNS).where(where)
        query = query.order_by(api_keys.c.created_at, api_keys.c.id).limit(limit).offset(offset)
        total = self._connection.execute(select(func.count()).select_from(api_keys).where(where))
        return [ApiKey(*row) for row in self._connection.execute(query)], int(total.scalar_one())

    def count_valid_keys(self, owner: str, now: datetime) -> int:
        """Count an owner's keys that are neither revoked nor expired."""
        ends = api_keys.c.expires_at
        valid = api_keys.c.revoked_at.is_(None) & (ends.is_(None) | (ends > now))
        query = select(func.count()).select_from(api_keys).where(api_keys.c.owner == owner, valid)
        return int(self._connection.execute(query).scalar_one())

    def keys_made_by(self, key_id: str) -> list[ApiKey]:
        """Return the API keys that an API key made."""
        return self.keys(api_keys.c.made_by == key_id)

    def move_made_keys(self, key_id: str, following: str | None) -> None:
        """Let the keys that an API key made belong to another key, or to none."""
        made = update(api_keys).where(api_keys.c.made_by == key_id)
        self._connection.execute(made.values(made_by=following))

    def keys_unused_since(self, moment: datetime) -> list[ApiKey]:
        """Return the API keys that are not revoked, and were neither made nor used since a time."""
        used = func.coalesce(api_keys.c.last_used_at, api_keys.c.created_at)
        return self.keys(api_keys.c.revoked_at.is_(None), used < moment)

    def change_key(self, key_id: str, **values: Any) -> bool:
        """Update an API key that is not revoked; return whether there was such a key."""
        where = (api_keys.c.id == key_id) & api_keys.c.revoked_at.is_(None)
        return self._update_row(update(api_keys).where(where).values(**values))

    def delete_key(self, key_id: str) -> None:
        """Delete an API key."""
        self._connection.execute(delete(api_keys).where(api_keys.c.id == key_id))

    def note_key_uses(self, used: Mapping[str, datetime]) -> None:
        """Store when API keys were last used, by id; an older time never replaces a newer one."""
        older = or_(
            api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at < bindparam("moment")
        )
        statement = (
            update(api_keys)
            .where(api_keys.c.id == bindparam("key"), older)
            .values(last_used_at=bindparam("moment"))
        )
        rows = [{"key": key, "moment": moment} for key, moment in used.items()]
        self._connection.execute(statement, rows)

    # Users

    def user(self, username: str) -> User | None:
        """Return the user with a name, or `None`."""
        matches = self.users(users.c.username == username)
        return matches[0] if matches else None

    def users(self, *conditions: ColumnElement[bool]) -> list[User]:
        """Return the users that match all conditions, in order of their names."""
        query = select(users).where(*conditions).order_by(users.c.username)
        return [User(**row._mapping) for row in self._connection.execute(query)]

    def add_user(self, user: User) -> None:
        """Insert a new user."""
        values = {name: getattr(user, name) for name in User.__slots__}
        self._connection.execute(insert(users).values(**values))

    def delete_user(self, username: str) -> None:
        """Delete a user."""
        self._connection.execute(delete(users).where(users.c.username == username))

    def change_user(self, username: str, **values: Any) -> bool:
        """Update a user; return whether there is such a user."""
        where = users.c.username == username
        return self._update_row(update(users).where(where).values(**values))

    def replace_hash(self, username: str, old: str, new: str) -> bool:
        """Replace a password hash, unless another one was set since it was read.

        Returns:
            Whether it was replaced.
        """
        where = (users.c.username == username) & (users.c.password_hash == old)
        return self._update_row(update(users).where(where).values(password_hash=new))

    # Sessions

    def add_session(self, session: Session) -> None:
        """Insert a new session, and now and then delete sessions that ended."""
        values = {name: getattr(session, name) for name in Session.__slots__}
        self._connection.execute(insert(sessions).values(**values))
        if secrets.randbelow(64) == 0:
            ended = sessions.c.ends_at < session.created_at - _GRACE
            self._connection.execute(delete(sessions).where(ended))

    def session(self, sid: str) -> Session | None:
        """Return the session with an id, or `None`."""
        row = self._connection.execute(select(sessions).where(sessions.c.sid == sid)).one_or_none()
        return None if row is None else Session(**row._mapping)

    def spend(self, sid: str, spent: str, following: str, now: datetime) -> bool:
        """Spend a session's current refresh token and make the following one current.

        This is a single conditional UPDATE: of two requests that spend the same token, only one
        succeeds.

        Args:
            sid: the session's id.
            spent: the `jti` of the refresh token to spend.
            following: the `jti` of the refresh token that takes its place.
            now: the current time.

        Returns:
            Whether the session goes on and `spent` was its current refresh token.
        """
        where = (
            (sessions.c.sid == sid)
            & (sessions.c.current == spent)
            & sessions.c.revoked_at.is_(None)
            & (sessions.c.ends_at > now)
        )
        values = {"current": following, "previous": spent, "rotated_at": now}
        return self._update_row(update(sessions).where(where).values(**values))

    def sessions_of(self, subject: str, now: datetime, most: int) -> list[Session]:
        """Return at most `most` sessions of a subject that go on, the newest first."""
        where = (
            (sessions.c.subject == subject)
            & sessions.c.revoked_at.is_(None)
            & (sessions.c.ends_at > now)
        )
        query = select(sessions).where(where)
        query = query.order_by(sessions.c.created_at.desc(), sessions.c.sid).limit(most)
        return [Session(**row._mapping) for row in self._connection.execute(query)]

    def end_session(self, sid: str, now: datetime) -> bool:
        """End a session; return whether it had not been ended before."""
        where = (sessions.c.sid == sid) & sessions.c.revoked_at.is_(None)
        return self._update_row(update(sessions).where(where).values(revoked_at=now))

    def end_sessions_of(self, subject: str, now: datetime) -> None:
        """End all sessions of a subject."""
        where = (sessions.c.subject == subject) & sessions.c.revoked_at.is_(None)
        self._connection.execute(update(sessions).where(where).values(revoked_at=now))

    # Revocations

    def revoke(
        self, name: str, now: datetime, expires_at: datetime | None, version: int | None = None
    ) -> None:
        """Store a revocation, replacing an earlier one of the same name.

        Args:
            name: what is revoked, such as `jti:…`; see `auth/revocations.py`.
            now: the current time.
            expires_at: when everything of that name has expired, so that the row can be deleted;
                `None`: never.
            version: for a subject: tokens of earlier versions are refused.
        """
        self._connection.execute(delete(revocations).where(revocations.c.name == name))
        values = {"revoked_at": now, "expires_at": expires_at, "version": version}
        self._connection.execute(insert(revocations).values(name=name, **values))

    def revocation(self, name: str) -> tuple[str, int | None] | None:
        """Return the name and version of a revocation, or `None` if there is no such revocation."""
        query = _REVOCATIONS.where(revocations.c.name == name)
        row = self._connection.execute(query).one_or_none()
        return None if row is None else (row[0], row[1])

    def revocations(self, most: int) -> list[tuple[str, int | None]]:
        """Return the names and versions of at most `most` revocations."""
        return [(row[0], row[1]) for row in self._connection.execute(_REVOCATIONS.limit(most))]

    def prune_revocations(self, now: datetime) -> None:
        """Delete the revocations that expired a day ago or earlier."""
        expired = revocations.c.expires_at < now - _GRACE
        self._connection.execute(delete(revocations).where(expired))

    def _update_row(self, statement: Any) -> bool:
        """Execute an UPDATE; return whether it changed exactly one row."""
        result: CursorResult[Any] = self._connection.execute(statement)
        return result.rowcount == 1
