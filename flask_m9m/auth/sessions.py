"""Sessions: refresh tokens with rotation and reuse detection, from login to logout.

A refresh token is valid once: using it is one conditional UPDATE that replaces it with the next
token. The same token again within ten seconds (a lost response, two tabs) is a conflict and revokes
nothing. After that a reused token counts as stolen, and the session ends with all its tokens
(RFC 9700 §4.14.2).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ..audit.events import EventName
from ..audit.trail import AuditTrail
from ..errors import Conflict, InvalidToken
from ..settings.models import JWTSettings
from ..storage.feed import ChangeFeed
from ..storage.records import Session, moment
from ..storage.timed_changes import change_in_time
from .identity import Identity, names
from .jwt.issuer import Issuer
from .jwt.verifier import Verifier
from .names import checked_name, name_of
from .revocations import revoke_session, version_of

if TYPE_CHECKING:
    from ..storage.transaction import Transaction

_PATIENCE = 1.5  # seconds that a refresh waits for other writers
_MOST_LISTED = 1_000  # sessions of a subject
_REUSE_GRACE = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class TokenPair:
    """An access token, and the refresh token that is exchanged for the next pair.

    Attributes:
        access_token: the token for requests.
        refresh_token: the token for `m9m.tokens.refresh`, valid once.
        expires_at: when the access token expires, in UTC.
        refresh_expires_at: when the refresh token expires, in UTC.
        subject: the subject of both tokens.
        sid: the session's id.
    """

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_at: datetime
    refresh_expires_at: datetime
    subject: str
    sid: str


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session that goes on.

    Attributes:
        sid: its id, a claim of each of its tokens.
        subject: who logged in.
        created_at: when it began.
        refreshed_at: when its tokens were last refreshed; at first, when it began.
        ends_at: when it ends at the latest.
    """

    sid: str
    subject: str
    created_at: datetime
    refreshed_at: datetime
    ends_at: datetime


class Sessions:
    """Begins, refreshes and ends sessions.

    Args:
        settings: the lifetimes of tokens and sessions.
        issuer: issues tokens.
        verifier: verifies refresh tokens.
        feed: the change feed of the app's database.
        trail: the audit trail.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        settings: JWTSettings,
        issuer: Issuer,
        verifier: Verifier,
        feed: ChangeFeed,
        trail: AuditTrail,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._access_life = timedelta(seconds=settings.expiration)
        self._refresh_life = timedelta(seconds=settings.refresh_expiration)
        self._longest = timedelta(seconds=settings.refresh_max_age)
        self._issuer = issuer
        self._verifier = verifier
        self._feed = feed
        self._trail = trail
        self._clock = clock

    def begin(
        self,
        subject: str,
        scopes: str | Collection[str] | None,
        roles: str | Collection[str] | None,
        claims: Mapping[str, Any],
        fresh: bool,
        version: int | None = None,
    ) -> TokenPair:
        """Begin a session; see `Tokens.issue_pair`."""
        now, subject = moment(self._clock()), checked_name("a subject", subject)
        session = Session(
            sid=str(uuid.uuid4()),
            subject=subject,
            scopes=None if scopes is None else frozenset(names("scopes", scopes)),
            roles=None if roles is None else frozenset(names("roles", roles)),
            claims=dict(claims),
            current=str(uuid.uuid4()),
            previous=None,
            rotated_at=now,
            created_at=now,
            ends_at=now + self._longest,
            revoked_at=None,
        )
        self._issuer.issue(subject, claims=claims)  # check the claims before anything is written

        def add(transaction: Transaction) -> TokenPair:
            if version is not None and version != version_of(transaction, subject):
                raise ValueError(
                    f"version: the tokens of {subject!a} were revoked during the login"
                )
            pair = self._issue_pair(transaction, session, session.current, now, fresh=fresh)
            if pair is None:
                raise ValueError(f"the user {subject!a} is disabled")
            transaction.identities.add_session(session)
            return pair

        return change_in_time(self._feed, add)

    def refresh(self, token: str) -> TokenPair:
        """Exchange a refresh token for a new pair; see `Tokens.refresh`."""
        spent = self._verifier.verify(token)
        sid, jti = _session_ids(spent)
        database = self._feed.database
        if not self._feed.limit_time(database.present):
            database.require_file()
            raise InvalidToken("the session does not exist", guess=False)
        now = moment(self._clock())
        spent_for = change_in_time(
            self._feed, lambda transaction: self._spend(transaction, sid, jti, now), _PATIENCE
        )
        if isinstance(spent_for, str):
            raise InvalidToken(spent_for, guess=False)
        return spent_for

    def _spend(
        self, transaction: Transaction, sid: str, jti: str, now: datetime
    ) -> TokenPair | str:
        """Spend a refresh token for a new pair, or end its session and return the reason."""
        following = str(uuid.uuid4())
        spendable = transaction.identities.spend(sid, jti, following, now)
        session = transaction.identities.session(sid)
        if session is None or session.revoked_at is not None or session.ends_at <= now:
            raise InvalidToken("the session has ended", guess=False)
        if spendable:
            try:
                pair = self._issue_pair(transaction, session, following, now, fresh=False)
            except ValueError:
                reason = "the scopes and roles of the user do not fit into a token"
                raise InvalidToken(reason, guess=False) from None
            if pair is not None:
                return pair
        elif session.previous == jti and now - session.rotated_at <= _REUSE_GRACE:
            raise Conflict(
                "this refresh token was used a moment ago: use the token that replaced it"
            )
        reason = "the user is disabled" if spendable else "the refresh token was used before"
        self._end(transaction, sid, now, session.ends_at, session.subject, reason=reason)
        return reason

    def session_of(self, token: str) -> str:
        """Verify a refresh token and return its session's id."""
        return _session_ids(self._verifier.verify(token))[0]

    def of(self, subject: str) -> list[SessionInfo]:
        """List a subject's sessions that go on; see `Tokens.sessions`."""
        name, now = name_of(subject), moment(self._clock())
        if name is None:
            return []
        found = self._feed.ask_if_there(
            lambda transaction: transaction.identities.sessions_of(name, now, _MOST_LISTED),
            list[Session],
        )
        return [
            SessionInfo(
                session.sid,
                session.subject,
                session.created_at,
                session.rotated_at,
                session.ends_at,
            )
            for session in found
        ]

    def end(self, sid: str, subject: str | None = None) -> bool:
        """End a session and revoke its tokens; return whether it was active."""
        if not self._feed.limit_time(self._feed.database.present):
            return False
        now = moment(self._clock())

        def end(transaction: Transaction) -> bool:
            session = None if name_of(sid) is None else transaction.identities.session(sid)
            if subject is not None and (session is None or session.subject != name_of(subject)):
                return False
            if session is None:  # the row may be deleted before the last access token expires
                self._end(transaction, sid, now, now)
                return False
            if session.revoked_at is not None:
                return False
            self._end(transaction, sid, now, session.ends_at, session.subject)
            return True

        return change_in_time(self._feed, end)

    def _end(
        self,
        transaction: Transaction,
        sid: str,
        now: datetime,
        ends: datetime,
        subject: str | None = None,
        **details: str,
    ) -> None:
        revoke_session(transaction, sid, now, ends + self._access_life)
        event = self._trail.event(EventName.TOKEN_REVOKED, subject, sid, of="session", **details)
        self._trail.record_change(transaction, event)

    def _issue_pair(
        self, transaction: Transaction, session: Session, jti: str, now: datetime, *, fresh: bool
    ) -> TokenPair | None:
        """Issue a pair with the user's current rights; `None` if the user is disabled."""
        user = transaction.identities.user(session.subject)
        scopes, roles = session.scopes, session.roles
        if user is not None:
            if user.disabled:
                return None
            scopes = user.scopes if scopes is None else scopes & user.scopes
            roles = user.roles if roles is None else roles & user.roles
        access = self._issuer.issue(
            session.subject,
            sorted(scopes or ()),
            sorted(roles or ()),
            session.claims,
            fresh=fresh,
            sid=session.sid,
            version=version_of(transaction, session.subject),
        )
        life = min(self._refresh_life, session.ends_at - now)
        refresh = self._issuer.issue_refresh(
            session.subject, session.sid, jti, life.total_seconds()
        )
        event = self._trail.event(
            EventName.TOKEN_ISSUED, session.subject, session.sid, of="session"
        )
        self._trail.record_change(transaction, event)
        ends = now + self._access_life, now + life
        return TokenPair(access, refresh, *ends, session.subject, session.sid)


def _session_ids(identity: Identity) -> tuple[str, str]:
    sid, jti = identity.claims.get("sid"), identity.credential_id
    if not isinstance(sid, str) or name_of(sid) is None or jti is None or name_of(jti) is None:
        raise InvalidToken("the token belongs to no session")
    return sid, jti
