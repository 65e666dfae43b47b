"""ApiKeys: `m9m.api_keys`, which creates, lists, rotates, prunes and revokes API keys."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ..audit.events import EventName
from ..audit.trail import AuditTrail
from ..errors import Conflict, NotFound
from ..ratelimit.limit import parse_limits
from ..settings.arguments import check_page, check_type, checked_duration
from ..storage.feed import ChangeFeed, Topic
from ..storage.records import ApiKey, moment
from ..storage.timed_changes import change_in_time
from .api_key_format import key_digest, make_key
from .identity import Identity, names
from .names import checked_name, name_of
from .revocations import require_unrevoked

if TYPE_CHECKING:
    from ..storage.transaction import Transaction

_LONGEST_LIFE = timedelta(days=36_525)
_SHORTEST_UNUSED = 3_600.0  # seconds; the time of last use is written up to a minute late

Span = float | str | timedelta


class ApiKeys:
    """Creates, lists, rotates, prunes and revokes API keys.

    Args:
        prefix: the start of every key.
        feed: the change feed of the app's database.
        trail: the audit trail.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        prefix: str,
        feed: ChangeFeed,
        trail: AuditTrail,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._prefix = prefix
        self._feed = feed
        self._trail = trail
        self._clock = clock

    def create(
        self,
        name: str,
        owner: str,
        scopes: str | Collection[str] = (),
        roles: str | Collection[str] = (),
        expires_at: datetime | Span | None = None,
        rate_limit: str | None = None,
        *,
        presented: Identity | None = None,
        most: int | None = None,
    ) -> tuple[ApiKey, str]:
        """Create a key.

        Args:
            name: a description, 1 to 255 printable characters.
            owner: the subject that the key authenticates; a user's current rights limit its own.
            scopes, roles: the rights of the key.
            expires_at: when the key expires: a `datetime` with a time zone, or the time from now,
                as seconds, as `"90d"` or as a `timedelta`; by default never.
            rate_limit: the key's own limit (`"100/hour"`), in addition to all others.
            presented: the credential that asks; a key that an API key makes is revoked with it.
            most: how many valid keys the owner may have, with this one.

        Returns:
            The stored record, and the key's text, which cannot be recovered later.

        Raises:
            TypeError, ValueError: an argument is not valid, or the owner lacks a scope or role.
            InvalidToken, InvalidApiKey, Conflict: `presented` was revoked; or one key too many.
            DatabaseUnavailable: the key could not be stored.
        """
        maker, now, key_id = _key_of(presented), moment(self._clock()), str(uuid.uuid4())
        check_type(int | None, most=most)
        _check_limits(rate_limit)
        key = ApiKey(
            id=key_id,
            family=maker.claims["family"] if maker else key_id,
            name=checked_name("name", name),
            owner=checked_name("owner", owner),
            scopes=frozenset(names("scopes", scopes)),
            roles=frozenset(names("roles", roles)),
            rate_limit=rate_limit,
            created_at=now,
            expires_at=_end(expires_at, now),
            made_by=maker.credential_id if maker else None,
        )
        return change_in_time(
            self._feed, lambda transaction: self._add_requested(transaction, key, presented, most)
        )

    def list(self, owner: str | None = None, unused_for: Span | None = None) -> Sequence[ApiKey]:
        """List keys, oldest first, with the revoked and expired ones.

        Args:
            owner: the owner of the keys; by default all owners.
            unused_for: list only valid keys that were neither created nor used for this long.

        Raises:
            ValueError: `unused_for` is not a duration.
            DatabaseUnavailable: the keys cannot be read.
        """
        if not self._feed.database.present():
            return []
        whose = name_of(owner)
        if owner is not None and whose is None:
            return []
        since = (
            None
            if unused_for is None
            else moment(self._clock()) - _to_timedelta("unused_for", unused_for)
        )

        def query(transaction: Transaction) -> Sequence[ApiKey]:
            if since is None:
                return transaction.identities.keys_of(whose)
            unused = transaction.identities.keys_unused_since(since)
            return [key for key in unused if whose in (None, key.owner) and self._is_valid(key)]

        return self._feed.database.read(query)

    def page(self, owner: str, limit: int = 100, offset: int = 0) -> tuple[Sequence[ApiKey], int]:
        """Return a page of an owner's keys that are not revoked, and the number of all of them.

        Args:
            owner: the owner of the keys.
            limit: the most keys of a page, 1 to 1,000.
            offset: how many keys come before the page.

        Raises:
            DatabaseUnavailable: the keys cannot be read.
        """
        check_page(limit, offset)
        whose = name_of(owner)
        if whose is None or not self._feed.limit_time(self._feed.database.present):
            return [], 0
        return self._feed.ask(
            lambda transaction: transaction.identities.keys_page(whose, limit, offset)
        )

    def revoke(self, key_id: str, owner: str | None = None) -> None:
        """Revoke a key, and the keys that it made over the REST API.

        Args:
            key_id: the key's id.
            owner: the required owner of the key; by default any.

        Raises:
            NotFound: the key does not exist, has another owner or is revoked already.
            DatabaseUnavailable: the revocation could not be stored.
        """
        self._check_id(key_id)
        now = moment(self._clock())

        def revoke(transaction: Transaction) -> None:
            key = transaction.identities.key(key_id)
            if key is None or (owner is not None and key.owner != name_of(owner)):
                raise _not_found()
            if not revoke_key(transaction, self._trail, key, now):
                raise _not_found()

        change_in_time(self._feed, revoke, long=True)

    def rotate(self, key_id: str, grace: Span = 86_400.0) -> tuple[ApiKey, str]:
        """Replace a key with a new one of the same rights and lifetime.

        If the key has a rate limit, the two keys share it.

        Args:
            key_id: the old key's id.
            grace: how long the old key stays valid, as seconds, as `"24h"` or as a `timedelta`;
                0 revokes it now, with the keys that it made.

        Returns:
            The stored record of the new key and its text, as `create` does.

        Raises:
            NotFound: the key does not exist or is not valid.
            Conflict: the key was rotated before.
            ValueError: `grace` is not a duration, or the owner lacks rights of the key.
            DatabaseUnavailable: the new key could not be stored.
        """
        self._check_id(key_id)
        left = _to_timedelta("grace", grace)
        return change_in_time(
            self._feed, lambda transaction: self._rotate(transaction, key_id, left), long=not left
        )

    def prune(self, unused_for: Span) -> Sequence[ApiKey]:
        """Delete the keys that were neither created nor used for some time, and return them.

        Args:
            unused_for: the time, as seconds, as `"90d"` or as a `timedelta`; at least an hour.

        Raises:
            ValueError: `unused_for` is not a duration of at least an hour.
            DatabaseUnavailable: the keys could not be deleted.
        """
        span = _to_timedelta("unused_for", unused_for)
        if span.total_seconds() < _SHORTEST_UNUSED:
            raise ValueError(
                f"unused_for must be at least an hour, found {span}: uses are written with a delay"
            )
        if not self._feed.database.present():
            return []
        now = moment(self._clock())
        with self._feed.write() as transaction:
            pruned = transaction.identities.keys_unused_since(now - span)
            for key in pruned:
                transaction.identities.move_made_keys(key.id, key.made_by)
                transaction.identities.delete_key(key.id)
                transaction.append_change(Topic.API_KEY, key.id, now)
                self._record(transaction, EventName.API_KEY_REVOKED, key, reason="unused")
        return pruned

    def _rotate(self, transaction: Transaction, key_id: str, left: timedelta) -> tuple[ApiKey, str]:
        now = moment(self._clock())
        old = transaction.identities.key(key_id)
        if old is None or not self._is_valid(old):
            raise _not_found()
        if old.rotated_at is not None:
            raise Conflict("this API key was rotated before: rotate the key that replaced it")
        ends = now + left if old.expires_at is None else min(old.expires_at, now + left)
        changes = {"expires_at": ends} if left else {"revoked_at": now}
        transaction.identities.change_key(key_id, rotated_at=now, **changes)
        transaction.append_change(Topic.API_KEY, key_id, now)
        following_id = str(uuid.uuid4())
        if left:
            transaction.identities.move_made_keys(key_id, following_id)
        for made in transaction.identities.keys_made_by(key_id):  # none after the move
            revoke_key(transaction, self._trail, made, now)
        life = None if old.expires_at is None else old.expires_at - old.created_at
        following = replace(
            old,
            id=following_id,
            created_at=now,
            expires_at=None if life is None else now + life,
            last_used_at=None,
        )
        if not left:
            self._record(transaction, EventName.API_KEY_REVOKED, old, replaced_by=following_id)
        return self._add(transaction, following, replaces=old.id)

    def _add(self, transaction: Transaction, key: ApiKey, **details: str) -> tuple[ApiKey, str]:
        owner = transaction.identities.user(key.owner)
        if owner is not None:
            if owner.disabled:
                raise ValueError(f"the owner {key.owner!a} is disabled")
            if more := (key.scopes - owner.scopes) | (key.roles - owner.roles):
                raise ValueError(
                    "scopes and roles must be within those of the owner: "
                    f"{key.owner!a} does not have {', '.join(sorted(more))}"
                )
        text = make_key(self._prefix)
        transaction.identities.add_key(key, key_digest(text))
        transaction.append_change(Topic.API_KEY, key.id, key.created_at)
        self._record(transaction, EventName.API_KEY_CREATED, key, **details)
        return key, text

    def _add_requested(
        self, transaction: Transaction, key: ApiKey, presented: Identity | None, most: int | None
    ) -> tuple[ApiKey, str]:
        """Add a key, unless a revoked credential asks for it, or it is one too many."""
        if presented is not None:
            require_unrevoked(transaction, presented)
        count_valid = transaction.identities.count_valid_keys
        if most is not None and count_valid(key.owner, key.created_at) >= most:
            raise Conflict(f"the owner has {most} API keys, the most allowed: revoke one first")
        return self._add(transaction, key)

    def _record(
        self, transaction: Transaction, name: EventName, key: ApiKey, **details: str
    ) -> None:
        event = self._trail.event(name, target=key.id, owner=key.owner, **details)
        self._trail.record_change(transaction, event)

    def _check_id(self, key_id: str) -> None:
        """Refuse an id that no key can have, without creating a database."""
        if name_of(key_id) is None or not self._feed.limit_time(self._feed.database.present):
            raise _not_found()

    def _is_valid(self, key: ApiKey) -> bool:
        now = moment(self._clock())
        return key.revoked_at is None and (key.expires_at is None or key.expires_at > now)


def revoke_key(transaction: Transaction, trail: AuditTrail, key: ApiKey, now: datetime) -> bool:
    """Revoke a key, and the keys that it made; return whether it was not revoked before."""
    pending, revoked = [key], False
    while pending:  # no recursion: the chain is as long as the holder of a key has made it
        ending = pending.pop()
        if transaction.identities.change_key(ending.id, revoked_at=now):
            transaction.append_change(Topic.API_KEY, ending.id, now)
            maker = {} if ending.made_by is None else {"made_by": ending.made_by}
            event = trail.event(
                EventName.API_KEY_REVOKED, target=ending.id, owner=ending.owner, **maker
            )
            trail.record_change(transaction, event)
            pending += transaction.identities.keys_made_by(ending.id)
            revoked = True
    return revoked


def revoke_keys_of(transaction: Transaction, trail: AuditTrail, owner: str, now: datetime) -> None:
    """Revoke all keys of an owner."""
    name = name_of(owner)  # a subject of tokens may be no name that a key can have
    for key in () if name is None else transaction.identities.keys_of(name):
        revoke_key(transaction, trail, key, now)


def _key_of(presented: Identity | None) -> Identity | None:
    """Return a presented credential if it is an API key."""
    check_type(Identity | None, presented=presented)
    return presented if presented is not None and presented.scheme == "api_key" else None


def _end(expires_at: datetime | Span | None, now: datetime) -> datetime | None:
    if expires_at is None:
        return None
    if not isinstance(expires_at, datetime):
        expires_at = now + _to_timedelta("expires_at", expires_at)
    if expires_at.utcoffset() is None or not now < expires_at <= now + _LONGEST_LIFE:
        raise ValueError("expires_at must have a time zone and be within the next hundred years")
    return expires_at


def _check_limits(rate_limit: str | None) -> None:
    check_type(str | None, rate_limit=rate_limit)
    try:
        if rate_limit is not None:
            parse_limits(rate_limit)
    except ValueError as error:
        raise ValueError(f"rate_limit: {error}") from None


def _not_found() -> NotFound:
    return NotFound("no valid API key with this id exists")


def _to_timedelta(argument: str, given: Span) -> timedelta:
    return timedelta(seconds=checked_duration(argument, given))
