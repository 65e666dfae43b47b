"""API keys, users, sessions and revocations: the queries and changes of their tables."""

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

_KEPT = timedelta(days=1)  # longer than needed, for clocks that are ahead
_KEY_COLUMNS = tuple(column for column in api_keys.c if column is not api_keys.c.digest)
_KEY_FIELDS = tuple(column.name for column in _KEY_COLUMNS)

# Statements that requests wait for are built once.
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
        api_keys.c.revoked_at.is_(None),
        or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > bindparam("now")),
    )
)
_REVOCATIONS = select(revocations.c.name, revocations.c.version)


class IdentityRows:
    """The rows of API keys, users, sessions and revocations, over one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # API keys

    def find_key(self, digest: bytes, now: datetime) -> tuple[ApiKey, User | None] | None:
        """Return a key that holds, within its owner's rights, and its owner where that is a user.

        The query leaves out keys that do not hold, so that they take no longer than unknown ones.
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
        """Keep a new key."""
        values = {name: getattr(key, name) for name in _KEY_FIELDS}
        self._connection.execute(insert(api_keys).values(digest=digest, **values))

    def keys(self, *conditions: ColumnElement[bool]) -> list[ApiKey]:
        """Return keys, the oldest first."""
        query = (
            select(*_KEY_COLUMNS).where(*conditions).order_by(api_keys.c.created_at, api_keys.c.id)
        )
        return [ApiKey(**row._mapping) for row in self._connection.execute(query)]

    def key(self, key_id: str) -> ApiKey | None:
        """Return a key by its id."""
        found = self.keys(api_keys.c.id == key_id)
        return found[0] if found else None

    def keys_of(self, owner: str | None) -> list[ApiKey]:
        """Return the keys of one owner, or all."""
        return self.keys() if owner is None else self.keys(api_keys.c.owner == owner)

    def keys_unused_since(self, moment: datetime) -> list[ApiKey]:
        """Return the keys that hold and were not used since; those made since then are no such."""
        used = func.coalesce(api_keys.c.last_used_at, api_keys.c.created_at)
        return self.keys(api_keys.c.revoked_at.is_(None), used < moment)

    def change_key(self, key_id: str, **values: Any) -> bool:
        """Change a key that is not revoked; tell whether there was one."""
        where = (api_keys.c.id == key_id) & api_keys.c.revoked_at.is_(None)
        return self._changed_one(update(api_keys).where(where).values(**values))

    def delete_key(self, key_id: str) -> None:
        """Forget a key."""
        self._connection.execute(delete(api_keys).where(api_keys.c.id == key_id))

    def note_key_uses(self, used: Mapping[str, datetime]) -> None:
        """Note when keys were last used; a note that comes late changes nothing."""
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
        """Return a user by its name."""
        found = self.users(users.c.username == username)
        return found[0] if found else None

    def users(self, *conditions: ColumnElement[bool]) -> list[User]:
        """Return users by name."""
        query = select(users).where(*conditions).order_by(users.c.username)
        return [User(**row._mapping) for row in self._connection.execute(query)]

    def add_user(self, user: User) -> None:
        """Keep a new user."""
        values = {name: getattr(user, name) for name in User.__slots__}
        self._connection.execute(insert(users).values(**values))

    def change_user(self, username: str, **values: Any) -> bool:
        """Change a user; tell whether there is one."""
        where = users.c.username == username
        return self._changed_one(update(users).where(where).values(**values))

    def replace_hash(self, username: str, old: str, new: str) -> bool:
        """Replace a password's hash unless another one was set meanwhile."""
        where = (users.c.username == username) & (users.c.password_hash == old)
        return self._changed_one(update(users).where(where).values(password_hash=new))

    # Sessions

    def add_session(self, session: Session) -> None:
        """Keep a new session; now and then forget those that ended."""
        values = {name: getattr(session, name) for name in Session.__slots__}
        self._connection.execute(insert(sessions).values(**values))
        if secrets.randbelow(64) == 0:
            over = sessions.c.ends_at < session.created_at - _KEPT
            self._connection.execute(delete(sessions).where(over))

    def session(self, sid: str) -> Session | None:
        """Return a session by its id."""
        row = self._connection.execute(select(sessions).where(sessions.c.sid == sid)).one_or_none()
        return None if row is None else Session(**row._mapping)

    def spend(self, sid: str, spent: str, following: str, now: datetime) -> bool:
        """Put the following refresh token in place of one; tell whether that was the current one.

        It is one conditional UPDATE, so that of two who spend the same one, one does.
        """
        where = (
            (sessions.c.sid == sid)
            & (sessions.c.current == spent)
            & sessions.c.revoked_at.is_(None)
            & (sessions.c.ends_at > now)
        )
        values = {"current": following, "previous": spent, "rotated_at": now}
        return self._changed_one(update(sessions).where(where).values(**values))

    def end_session(self, sid: str, now: datetime) -> bool:
        """End a session; tell whether it went on until now."""
        where = (sessions.c.sid == sid) & sessions.c.revoked_at.is_(None)
        return self._changed_one(update(sessions).where(where).values(revoked_at=now))

    def end_sessions_of(self, subject: str, now: datetime) -> None:
        """End all sessions of one subject."""
        where = (sessions.c.subject == subject) & sessions.c.revoked_at.is_(None)
        self._connection.execute(update(sessions).where(where).values(revoked_at=now))

    # Revocations

    def revoke(
        self, name: str, now: datetime, expires_at: datetime | None, version: int | None = None
    ) -> None:
        """Keep a revocation, in place of an earlier one of that name.

        Args:
            name: what is revoked.
            now: the moment.
            expires_at: when it can be forgotten, because nothing of that name can hold any more.
            version: of a subject's tokens: those of earlier versions are refused.
        """
        self._connection.execute(delete(revocations).where(revocations.c.name == name))
        values = {"revoked_at": now, "expires_at": expires_at, "version": version}
        self._connection.execute(insert(revocations).values(name=name, **values))

    def revocation(self, name: str) -> tuple[str, int | None] | None:
        """Return a revocation and its version."""
        query = _REVOCATIONS.where(revocations.c.name == name)
        row = self._connection.execute(query).one_or_none()
        return None if row is None else (row[0], row[1])

    def revocations(self, most: int) -> list[tuple[str, int | None]]:
        """Return revocations and their versions, at most so many."""
        return [(row[0], row[1]) for row in self._connection.execute(_REVOCATIONS.limit(most))]

    def prune_revocations(self, now: datetime) -> None:
        """Delete the revocations that expired a day ago or earlier."""
        over = revocations.c.expires_at < now - _KEPT
        self._connection.execute(delete(revocations).where(over))

    def _changed_one(self, statement: Any) -> bool:
        result: CursorResult[Any] = self._connection.execute(statement)
        return result.rowcount == 1
