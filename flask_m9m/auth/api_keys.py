"""ApiKeys: what `m9m.api_keys` offers an app."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ..audit import AuditTrail, EventName
from ..errors import Conflict, NotFound
from ..identity import names
from ..ratelimit import parse_limits
from ..settings import parse_duration
from ..storage import ApiKey, ChangeFeed, Topic, moment
from ..text import checked_name, name_of
from .key_format import digest_of, make_key

if TYPE_CHECKING:
    from ..storage.transaction import Transaction

_LONGEST_LIFE = timedelta(days=36_525)
_SOONEST = 3_600.0  # seconds: uses are noted up to a minute late

Span = float | str | timedelta


class ApiKeys:
    """Makes, lists, rotates and revokes API keys.

    Args:
        prefix: how every key begins.
        feed: of the app's database.
        trail: told what is made and revoked.
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
        expires_at: datetime | None = None,
        rate_limit: str | None = None,
        *,
        family: str | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key.

        Args:
            name: what it is for.
            owner: the subject that it speaks for. Where that is a user of `m9m.users`, the key's
                rights are never more than the user's of the moment.
            scopes: what it may do.
            roles: what it may be.
            expires_at: when it stops to hold, with a time zone; left out, never.
            rate_limit: how often it may be used (`"100/hour"`), beside all other limits.
            family: that of another key, with which it counts together; left out, its own.

        Returns:
            What is kept of the key, and the key itself, which nobody can be shown again.

        Raises:
            ValueError: an argument is wrong, or gives the key what its owner does not have.
            DatabaseUnavailable: it could not be kept.
        """
        now, key_id = moment(self._clock()), str(uuid.uuid4())
        if expires_at is not None and (
            expires_at.tzinfo is None or not now < expires_at <= now + _LONGEST_LIFE
        ):
            raise ValueError("expires_at is a moment of the next hundred years, with a time zone")
        if rate_limit is not None:
            parse_limits(rate_limit)
        key = ApiKey(
            id=key_id,
            family=family or key_id,
            name=checked_name("name", name),
            owner=checked_name("owner", owner),
            scopes=frozenset(names("scopes", scopes)),
            roles=frozenset(names("roles", roles)),
            rate_limit=rate_limit,
            created_at=now,
            expires_at=expires_at,
            rotated_at=None,
            revoked_at=None,
            last_used_at=None,
        )
        with self._feed.write() as transaction:
            return self._add(transaction, key)

    def list(self, owner: str | None = None, unused_for: Span | None = None) -> Sequence[ApiKey]:
        """Return the keys, the oldest first, revoked and expired ones too.

        Args:
            owner: whose; left out, everybody's.
            unused_for: only those that hold and were not used, nor made, for so long.

        Raises:
            ValueError: `unused_for` is no duration.
            DatabaseUnavailable: it could not be asked.
        """
        if not self._feed.database.present():
            return []
        whose = name_of(owner)
        if owner is not None and whose is None:
            return []
        since = None if unused_for is None else moment(self._clock()) - _span(unused_for)

        def query(transaction: Transaction) -> Sequence[ApiKey]:
            if since is None:
                return transaction.identities.keys_of(whose)
            unused = transaction.identities.keys_unused_since(since)
            return [key for key in unused if whose in (None, key.owner) and self._holds(key)]

        return self._feed.database.read(query)

    def revoke(self, key_id: str, owner: str | None = None) -> None:
        """Revoke a key.

        Args:
            key_id: its id.
            owner: whose it has to be; left out, anybody's.

        Raises:
            NotFound: there is none of that id, or it is revoked already.
            DatabaseUnavailable: it could not be revoked.
        """
        self._existing(key_id)
        now = moment(self._clock())
        with self._feed.write() as transaction:
            key = transaction.identities.key(key_id)
            if key is None or (owner is not None and key.owner != name_of(owner)):
                raise _not_found()
            if not transaction.identities.change_key(key_id, revoked_at=now):
                raise _not_found()
            transaction.append_change(Topic.API_KEY, key_id, now)
            self._note(transaction, EventName.API_KEY_REVOKED, key)

    def rotate(self, key_id: str, grace: Span = 86_400.0) -> tuple[ApiKey, str]:
        """Make a key that takes another's place, with the same rights and the same life.

        Where the key has a rate limit, the two count together.

        Args:
            key_id: the old one's id.
            grace: for how long the old one goes on to hold, as seconds, as `"24h"` or as a
                `timedelta`; 0: not at all.

        Returns:
            As `create` does.

        Raises:
            NotFound: no key of that id holds.
            Conflict: it was rotated before: another key has its place already.
            ValueError: `grace` is no duration, or the owner's rights are less than the key's.
            DatabaseUnavailable: nothing was changed.
        """
        self._existing(key_id)
        now, left = moment(self._clock()), _span(grace)
        with self._feed.write() as transaction:
            old = transaction.identities.key(key_id)
            if old is None or not self._holds(old):
                raise _not_found()
            if old.rotated_at is not None:
                raise Conflict("this API key was rotated before: rotate the one in its place")
            ends = now + left if old.expires_at is None else min(old.expires_at, now + left)
            changes = {"expires_at": ends} if left else {"revoked_at": now}
            transaction.identities.change_key(key_id, rotated_at=now, **changes)
            transaction.append_change(Topic.API_KEY, key_id, now)
            life = None if old.expires_at is None else old.expires_at - old.created_at
            following = replace(
                old,
                id=str(uuid.uuid4()),
                created_at=now,
                expires_at=None if life is None else now + life,
                last_used_at=None,
            )
            if not left:
                self._note(transaction, EventName.API_KEY_REVOKED, old, replaced_by=following.id)
            return self._add(transaction, following, replaces=old.id)

    def prune(self, unused_for: Span) -> Sequence[ApiKey]:
        """Delete the keys that were not used, nor made, for so long, and return them.

        Args:
            unused_for: as seconds, as `"90d"` or as a `timedelta`; at least an hour.

        Raises:
            ValueError: `unused_for` is no such duration.
            DatabaseUnavailable: nothing was changed.
        """
        span = _span(unused_for)
        if span.total_seconds() < _SOONEST:
            raise ValueError("unused_for is at least an hour: uses are noted with a delay")
        if not self._feed.database.present():
            return []
        now = moment(self._clock())
        with self._feed.write() as transaction:
            pruned = transaction.identities.keys_unused_since(now - span)
            for key in pruned:
                transaction.identities.delete_key(key.id)
                transaction.append_change(Topic.API_KEY, key.id, now)
                self._note(transaction, EventName.API_KEY_REVOKED, key, reason="unused")
        return pruned

    def _add(self, transaction: Transaction, key: ApiKey, **details: str) -> tuple[ApiKey, str]:
        owner = transaction.identities.user(key.owner)
        if owner is not None:
            if owner.disabled:
                raise ValueError(f"the owner {key.owner!a} is disabled")
            if more := (key.scopes - owner.scopes) | (key.roles - owner.roles):
                raise ValueError(f"the owner {key.owner!a} does not have {', '.join(sorted(more))}")
        text = make_key(self._prefix)
        transaction.identities.add_key(key, digest_of(text))
        self._note(transaction, EventName.API_KEY_CREATED, key, **details)
        return key, text

    def _note(self, transaction: Transaction, name: EventName, key: ApiKey, **details: str) -> None:
        event = self._trail.event(name, target=key.id, owner=key.owner, **details)
        self._trail.record_change(transaction, event)

    def _existing(self, key_id: str) -> None:
        """Refuse an id that nothing can have, without making a database for it."""
        if name_of(key_id) is None or not self._feed.database.present():
            raise _not_found()

    def _holds(self, key: ApiKey) -> bool:
        now = moment(self._clock())
        return key.revoked_at is None and (key.expires_at is None or key.expires_at > now)


def _not_found() -> NotFound:
    return NotFound("no API key of that id holds")


def _span(given: Span) -> timedelta:
    return timedelta(seconds=parse_duration(given))
