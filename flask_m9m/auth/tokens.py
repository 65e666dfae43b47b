"""Tokens: what `m9m.tokens` offers an app."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from ..audit import AuditTrail, EventName
from ..errors import InvalidToken, Problem, SettingsError
from ..identity import Identity
from ..settings import JWTSettings, parse_duration
from ..storage import ChangeFeed, User, moment
from ..text import name_of, normalize
from ..tokens import ClaimRules, Issuer, SigningKey, SigningKeyRing, Verifier, new_jti
from .revocations import Revocations, revoke_subject, revoke_token, version_of
from .sessions import Sessions, TokenPair

if TYPE_CHECKING:
    from ..storage.transaction import Transaction

T = TypeVar("T")

_LONGEST_SUBJECT = 8_192  # what fits into a token
_FOR_EVER = 3_155_760_000.0  # seconds
_JWT = re.compile(r"e[\w-]*\.[\w-]*\.[\w-]*\Z", re.ASCII)  # `e` is how base64url writes a `{`


class Tokens:
    """Issues, verifies, refreshes and revokes tokens under the app's settings.

    Args:
        settings: the app's; without a secret, or with `security.jwt.enabled: false`, JWT is
            switched off.
        feed: of the app's database.
        trail: told what is issued and revoked.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        settings: JWTSettings,
        feed: ChangeFeed,
        trail: AuditTrail,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._feed = feed
        self._trail = trail
        self._clock = clock
        self._revocations = Revocations(feed)
        self._issuer: Issuer | None = None
        self._verifier: Verifier | None = None
        self._sessions: Sessions | None = None
        if settings.enabled is False or settings.secret is None:
            return
        ring = SigningKeyRing(
            [
                SigningKey(secret.get_secret_value().encode(), settings.algorithm)
                for secret in (settings.secret, *settings.previous_secrets)
            ]
        )
        self._issuer = Issuer(
            ring,
            expiration=settings.expiration,
            issuer=settings.issuer,
            audience=settings.audience,
            clock=clock,
        )
        self._verifier = Verifier(ring, _rules(settings), clock=clock)
        refreshing = Verifier(ring, _rules(settings, refresh=True), clock=clock, capacity=1)
        self._sessions = Sessions(settings, self._issuer, refreshing, feed, trail, clock)

    @property
    def enabled(self) -> bool:
        """Whether JWT is switched on."""
        return self._issuer is not None

    def issue(
        self,
        subject: str,
        scopes: Collection[str] = (),
        roles: Collection[str] = (),
        claims: Mapping[str, Any] | None = None,
        expires_in: float | str | timedelta | None = None,
        fresh: bool = False,
    ) -> str:
        """Issue an access token (RFC 9068).

        Args:
            subject: who it speaks for.
            scopes: what it may do.
            roles: what the subject is.
            claims: further claims; the registered ones cannot be set here.
            expires_in: its life, as seconds, as `"15m"` or as a `timedelta`; left out,
                `security.jwt.expiration`.
            fresh: whether the subject has just now logged in.

        Raises:
            SettingsError: JWT is switched off.
            ValueError: an argument cannot go into a token, or the subject is a user of `m9m.users`
                who is disabled.
            DatabaseUnavailable: it cannot be told what was revoked before.
        """
        issuer = _switched_on(self._issuer)
        subject, life = _subject(subject), None if expires_in is None else _seconds(expires_in)
        version, jti = self._version_for(subject), new_jti()
        token = issuer.issue(
            subject, scopes, roles, claims or {}, life, fresh, jti=jti, version=version
        )
        if self._trail.is_heard(EventName.TOKEN_ISSUED):
            self._trail.record_event(self._trail.event(EventName.TOKEN_ISSUED, subject, jti))
        return token

    def _version_for(self, subject: str) -> int:
        """Return the version that a subject's new tokens have to carry."""
        self._feed.catch_up()
        if self._feed.has_nothing():
            return 0
        name = name_of(subject)

        def query(transaction: Transaction) -> tuple[User | None, int]:
            user = None if name is None else transaction.identities.user(name)
            return user, version_of(transaction, subject)

        user, version = self._feed.ask(query)
        if user is not None and user.disabled:
            raise ValueError(f"the user {subject!a} is disabled")
        return version

    def issue_pair(
        self,
        subject: str,
        scopes: str | Collection[str] | None = None,
        roles: str | Collection[str] | None = None,
        claims: Mapping[str, Any] | None = None,
        fresh: bool = True,
    ) -> TokenPair:
        """Begin a session: an access token, and a refresh token for the next one.

        Args:
            subject: who has logged in.
            scopes: what the access tokens may do; for a user of `m9m.users` never more than that
                user may at the moment, and left out, all of it.
            roles: what the subject is, likewise.
            claims: further claims of the access tokens.
            fresh: whether the subject has just now logged in; tokens that are refreshed are not.

        Raises:
            SettingsError: JWT is switched off.
            ValueError: an argument cannot go into a token, or the user is disabled.
            DatabaseUnavailable: the session could not be kept.
        """
        return _switched_on(self._sessions).begin(subject, scopes, roles, claims or {}, fresh)

    def refresh(self, token: str) -> TokenPair:
        """Spend a refresh token on a new pair, with the user's rights of the moment.

        Raises:
            InvalidToken: it does not hold. Where it was spent before, its session has ended now.
            Conflict: it was spent within the last ten seconds; nothing was revoked.
            SettingsError: JWT is switched off.
            DatabaseUnavailable: nothing was changed.
        """
        return _switched_on(self._sessions).refresh(token)

    def session_of(self, refresh_token: str) -> str:
        """Return the id of a refresh token's session, whether or not that goes on.

        Raises:
            InvalidToken: the token does not hold.
            SettingsError: JWT is switched off.
        """
        return _switched_on(self._sessions).session_of(refresh_token)

    def verify(self, token: str) -> Identity:
        """Return who an access token speaks for.

        Raises:
            InvalidToken: for whatever is wrong with it.
            DatabaseUnavailable: it cannot be told whether it was revoked.
            SettingsError: JWT is switched off.
        """
        identity = _switched_on(self._verifier).verify(token)
        self._revocations.check(identity)
        return identity

    def revoke(self, token: str) -> None:
        """Revoke an access token, alone.

        Args:
            token: the token, or its `jti`; with the token it is also known how long that has to
                be remembered.

        Raises:
            InvalidToken: the token does not hold anyway, or has no `jti`.
            DatabaseUnavailable: it could not be revoked.
        """
        words = [word for word in token.split() if _JWT.match(word)]
        if words and words != [token.strip()]:
            raise InvalidToken("there is more than one token in it, and no jti")
        token = words[0] if words else token
        jti: str | None = token
        subject = expires_at = None
        if _JWT.match(token):
            identity = self.verify(token)
            subject, jti, ends = identity.subject, identity.credential_id, identity.expires_at
            if ends is not None and ends < self._clock() + _FOR_EVER:
                # A minute for the clocks of others, as `security.jwt.leeway` at its most.
                expires_at = moment(ends + 60)
        if not jti:
            raise InvalidToken("it has no jti: revoke its subject")
        with self._feed.write() as transaction:
            revoke_token(transaction, jti, moment(self._clock()), expires_at)
            event = self._trail.event(EventName.TOKEN_REVOKED, subject, jti)
            self._trail.record_change(transaction, event)

    def revoke_session(self, sid: str) -> bool:
        """End a session: its refresh token, and its access tokens by their `sid`.

        Returns:
            Whether there was such a session, and it had not been ended before.

        Raises:
            SettingsError: JWT is switched off.
            DatabaseUnavailable: it could not be ended.
        """
        return _switched_on(self._sessions).end(sid)

    def revoke_subject(self, subject: str) -> None:
        """Revoke every token and end every session that a subject has by now.

        Raises:
            ValueError: it cannot be a subject.
            DatabaseUnavailable: they could not be revoked.
        """
        subject = _subject(subject)
        with self._feed.write() as transaction:
            revoke_subject(transaction, subject, moment(self._clock()))
            event = self._trail.event(EventName.TOKEN_REVOKED, subject, subject, of="subject")
            self._trail.record_change(transaction, event)


def _subject(given: str) -> str:
    """Return a subject as tokens name it; what is in NFC and what is not are the same."""
    if not isinstance(given, str) or not 0 < len(given) <= _LONGEST_SUBJECT:
        raise ValueError(f"a token's subject is a text of 1 to {_LONGEST_SUBJECT} characters")
    return normalize(given)


def _rules(settings: JWTSettings, *, refresh: bool = False) -> ClaimRules:
    return ClaimRules(
        issuer=settings.issuer,
        audience=settings.audience,
        leeway=settings.leeway,
        accept_untyped=settings.accept_untyped,
        refresh=refresh,
    )


def _seconds(given: float | str | timedelta) -> float:
    if isinstance(given, timedelta):
        return given.total_seconds()
    return parse_duration(given) if isinstance(given, str) else given


def _switched_on(part: T | None) -> T:
    if part is not None:
        return part
    problem = Problem(
        "security.jwt.secret",
        "JWT is switched off",
        "set M9M_JWT_SECRET (run: flask m9m init)",
    )
    raise SettingsError([problem])
