"""Tokens: `m9m.tokens`, which issues, verifies, refreshes and revokes JWTs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from ..audit.events import EventName
from ..audit.trail import AuditTrail
from ..errors import InvalidToken, Problem, SettingsError
from ..settings.arguments import check_text, check_type, checked_duration
from ..settings.models import JWTSettings
from ..storage.feed import ChangeFeed
from ..storage.records import User, moment
from ..storage.timed_changes import change_in_time
from .api_keys import revoke_keys_of
from .identity import Identity
from .jwt.claims import ClaimRules
from .jwt.issuer import Issuer, new_jti
from .jwt.signing_keys import SigningKey, SigningKeyRing
from .jwt.verifier import Verifier
from .names import name_of, normalize
from .revocations import Revocations, revoke_subject, revoke_token, version_of
from .sessions import SessionInfo, Sessions, TokenPair

if TYPE_CHECKING:
    from ..storage.transaction import Transaction

T = TypeVar("T")

_LONGEST_SUBJECT = 8_192  # characters; a longer one does not fit into a token
_CENTURY = 3_155_760_000.0  # seconds
_JWT = re.compile(r"e[\w-]*\.[\w-]*\.[\w-]*\Z", re.ASCII)  # base64url of `{` starts with `e`


class Tokens:
    """Issues, verifies, refreshes and revokes tokens under the app's settings.

    Args:
        settings: the JWT settings; without a secret, or with `security.jwt.enabled: false`, JWT is
            switched off.
        feed: the change feed of the app's database.
        trail: the audit trail.
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
            subject: the subject, 1 to 8192 characters.
            scopes: the rights of the token.
            roles: the roles of the subject.
            claims: further claims, but none that flask-m9m sets itself.
            expires_in: the lifetime, as seconds, as `"15m"` or as a `timedelta`; by default
                `security.jwt.expiration`.
            fresh: whether the subject has just logged in.

        Raises:
            SettingsError: JWT is switched off.
            TypeError, ValueError: an argument is not valid, or the subject is a disabled user.
            DatabaseUnavailable: the revocations cannot be read.
        """
        issuer = _require_enabled(self._issuer)
        check_type(bool, fresh=fresh)
        check_type(Mapping | None, claims=claims)
        subject = _subject(subject)
        life = None if expires_in is None else checked_duration("expires_in", expires_in)
        version, jti = self._version_for(subject), new_jti()
        token = issuer.issue(
            subject, scopes, roles, claims or {}, life, fresh, jti=jti, version=version
        )
        if self._trail.is_heard(EventName.TOKEN_ISSUED):
            self._trail.record_event(self._trail.event(EventName.TOKEN_ISSUED, subject, jti))
        return token

    def _version_for(self, subject: str) -> int:
        """Find the version (`ver`) for a subject's new tokens."""
        self._feed.catch_up()
        if self._feed.has_no_database():
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
        version: int | None = None,
    ) -> TokenPair:
        """Begin a session: issue an access token and a refresh token.

        Args:
            subject: the subject who has logged in, 1 to 255 printable characters.
            scopes: the rights of the access tokens. For a user of `m9m.users` they are limited to
                the user's current scopes, which are also the default.
            roles: the roles of the subject, limited in the same way.
            claims: further claims of the access tokens.
            fresh: whether the first access token is fresh; refreshed tokens never are.
            version: the result of `version_of` before the password was verified. If all tokens of
                the subject were revoked since, as by a new password, no session begins.

        Raises:
            SettingsError: JWT is switched off.
            TypeError, ValueError: an argument is not valid, or the user is disabled.
            DatabaseUnavailable: the session could not be stored.
        """
        check_type(bool, fresh=fresh)
        check_type(Mapping | None, claims=claims)
        check_type(int | None, version=version)
        sessions = _require_enabled(self._sessions)
        return sessions.begin(subject, scopes, roles, claims or {}, fresh, version)

    def refresh(self, token: str) -> TokenPair:
        """Exchange a refresh token for a new pair with the user's current rights.

        Raises:
            InvalidToken: the token is not valid. If it was used before, its session is ended.
            Conflict: the token was used within the last ten seconds; nothing was revoked.
            SettingsError: JWT is switched off.
            DatabaseUnavailable: the session could not be changed.
        """
        return _require_enabled(self._sessions).refresh(token)

    def session_of(self, refresh_token: str) -> str:
        """Return the id of a refresh token's session, which may have ended.

        Raises:
            InvalidToken: the token is not valid.
            SettingsError: JWT is switched off.
        """
        return _require_enabled(self._sessions).session_of(refresh_token)

    def verify(self, token: str) -> Identity:
        """Verify an access token and return its identity.

        Raises:
            InvalidToken: the token is not valid, or was revoked.
            DatabaseUnavailable: the revocations cannot be read.
            SettingsError: JWT is switched off.
        """
        identity = _require_enabled(self._verifier).verify(token)
        self._revocations.check(identity)
        return identity

    def revoke(self, token: str) -> None:
        """Revoke a single access token.

        Args:
            token: the token, or its `jti`. A revocation by token is deleted once the token has
                expired; a revocation by `jti` is kept.

        Raises:
            InvalidToken: the token is not valid, or has no `jti`.
            DatabaseUnavailable: the revocation could not be stored.
        """
        check_text(token=token)
        words = [word for word in token.split() if _JWT.match(word)]
        if words and words != [token.strip()]:
            raise InvalidToken("the text must be exactly one token or jti")
        token = words[0] if words else token
        jti: str | None = token
        subject = expires_at = None
        if _JWT.match(token):
            identity = self.verify(token)
            subject, jti, ends = identity.subject, identity.credential_id, identity.expires_at
            if ends is not None and ends < self._clock() + _CENTURY:
                # A minute for other machines' clocks, the maximum of `security.jwt.leeway`.
                expires_at = moment(ends + 60)
        if not jti:
            raise InvalidToken("the token has no jti: revoke its subject")
        event = self._trail.event(EventName.TOKEN_REVOKED, subject, jti)

        def add(transaction: Transaction) -> None:
            revoke_token(transaction, jti, moment(self._clock()), expires_at)
            self._trail.record_change(transaction, event)

        change_in_time(self._feed, add)

    def sessions(self, subject: str) -> Sequence[SessionInfo]:
        """List a subject's sessions that go on, the newest first; at most 1,000.

        Raises:
            ValueError: the subject is not valid.
            SettingsError: JWT is switched off.
            DatabaseUnavailable: the sessions cannot be read.
        """
        return _require_enabled(self._sessions).of(_subject(subject))

    def revoke_session(self, sid: str, subject: str | None = None) -> bool:
        """End a session: its refresh token, and its access tokens by their `sid`.

        Args:
            sid: the session's id.
            subject: the required subject of the session; by default any.

        Returns:
            Whether the session existed and was active.

        Raises:
            SettingsError: JWT is switched off.
            DatabaseUnavailable: the session could not be ended.
        """
        check_type(str, sid=sid)
        check_type(str | None, subject=subject)
        return _require_enabled(self._sessions).end(sid, subject)

    def version_of(self, subject: str) -> int:
        """Find the version of a subject's tokens, which increases when all of them are revoked.

        A login reads it before it verifies a password, and gives it to `issue_pair`.

        Raises:
            ValueError: the subject is not valid.
            DatabaseUnavailable: the revocations cannot be read.
        """
        subject = _subject(subject)
        if self._feed.has_no_database():
            return 0
        return self._feed.ask(lambda transaction: version_of(transaction, subject))

    def revoke_subject(self, subject: str, *, keys: bool = False) -> None:
        """Revoke all existing tokens and end all sessions of a subject.

        Args:
            subject: the subject.
            keys: whether to revoke the subject's API keys too.

        Raises:
            ValueError: the subject is not valid.
            DatabaseUnavailable: the revocation could not be stored.
        """
        check_type(bool, keys=keys)
        subject, now = _subject(subject), moment(self._clock())
        event = self._trail.event(EventName.TOKEN_REVOKED, subject, subject, of="subject")

        def add(transaction: Transaction) -> None:
            revoke_subject(transaction, subject, now)
            if keys:
                revoke_keys_of(transaction, self._trail, subject, now)
            self._trail.record_change(transaction, event)

        change_in_time(self._feed, add, long=keys)


def _subject(given: str) -> str:
    """Check a subject and convert it to NFC, as in tokens."""
    if not isinstance(given, str) or not 0 < len(given) <= _LONGEST_SUBJECT:
        raise ValueError(f"a token's subject must have 1 to {_LONGEST_SUBJECT} characters")
    check_text(subject=given)
    return normalize(given)


def _rules(settings: JWTSettings, *, refresh: bool = False) -> ClaimRules:
    return ClaimRules(
        issuer=settings.issuer,
        audience=settings.audience,
        leeway=settings.leeway,
        accept_untyped=settings.accept_untyped,
        refresh=refresh,
    )


def _require_enabled(part: T | None) -> T:
    if part is not None:
        return part
    problem = Problem(
        "security.jwt.secret",
        "JWT is switched off",
        "set M9M_JWT_SECRET (run: flask m9m init)",
    )
    raise SettingsError([problem])
