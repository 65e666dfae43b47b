"""Issuer: writes access tokens (RFC 9068) and refresh tokens."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ..identity import names
from .claims import ACCESS_TOKEN, REFRESH_TOKEN, RESERVED
from .jws import sign
from .keys import SigningKeyRing

_LONGEST_LIFE = 36_525 * 86_400  # seconds: a century

_RESERVED = frozenset(name.lower() for name in RESERVED)


class Issuer:
    """Issues tokens under the ring's current key.

    Args:
        ring: its first key signs.
        expiration: seconds that a token lives where nothing else is said.
        issuer: `iss`, where set.
        audience: `aud`, where set.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        ring: SigningKeyRing,
        *,
        expiration: float,
        issuer: str | None = None,
        audience: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ring = ring
        self._expiration = expiration
        parties = {"iss": issuer, "aud": audience}
        self._parties = {name: value for name, value in parties.items() if value is not None}
        self._clock = clock

    def issue(
        self,
        subject: str,
        scopes: str | Collection[str] = (),
        roles: str | Collection[str] = (),
        claims: Mapping[str, Any] | None = None,
        expires_in: float | None = None,
        fresh: bool = False,
        *,
        jti: str | None = None,
        sid: str | None = None,
        version: int = 0,
    ) -> str:
        """Issue an access token.

        Args:
            subject: who it speaks for; not empty.
            scopes: what it may do (RFC 6749 §3.3).
            roles: what the subject is.
            claims: further claims; those with a meaning here cannot be set.
            expires_in: seconds that it lives, more than 0 and at most a century.
            fresh: whether the subject has just now logged in.
            jti: its id; left out, a new one.
            sid: the session's of which it is.
            version: that of the subject's tokens, which goes up when all are revoked at once.

        Raises:
            ValueError: an argument cannot go into a token.
        """
        life = self._expiration if expires_in is None else expires_in
        if not 0 < life <= _LONGEST_LIFE:
            raise ValueError("expires_in is longer than zero and at most a century")
        if not isinstance(subject, str) or not subject:
            raise ValueError("a token's subject is a text, not empty")
        # Go, and so m9m, takes a claim for another one of the same letters in another case.
        if taken := [name for name in claims or {} if str(name).lower() in _RESERVED]:
            raise ValueError(f"claims cannot set {', '.join(sorted(taken))}")
        payload = {
            **(claims or {}),
            **self._dated(subject, jti or new_jti(), life),
            "scope": " ".join(names("scopes", scopes)),
            "roles": list(names("roles", roles)),
        }
        if self._parties.get("iss") == "m9m":
            payload.update(_for_m9m(subject, payload["roles"]))
        if fresh:
            payload["fresh"] = True
        if sid is not None:
            payload["sid"] = sid
        if version:
            payload["ver"] = version
        return sign(payload, self._ring.current, ACCESS_TOKEN)

    def issue_refresh(self, subject: str, sid: str, jti: str, expires_in: float) -> str:
        """Issue a refresh token of a session.

        Args:
            subject: who logged in.
            sid: the session's.
            jti: the token's own.
            expires_in: seconds that it lives.
        """
        payload = {**self._dated(subject, jti, expires_in), "sid": sid}
        return sign(payload, self._ring.current, REFRESH_TOKEN)

    def _dated(self, subject: str, jti: str, life: float) -> dict[str, Any]:
        now = int(self._clock())
        return {
            **self._parties,
            "sub": subject,
            "iat": now,
            "nbf": now,
            "exp": now + math.ceil(life),
            "jti": jti,
        }


def new_jti() -> str:
    """Return the id of a new token (RFC 7519 §4.1.7)."""
    return secrets.token_urlsafe(16)


def _for_m9m(subject: str, roles: list[str]) -> dict[str, str]:
    """Return the claims by which m9m finds its user; its users have one role."""
    return {"userId": subject, "role": roles[0]} if len(roles) == 1 else {"userId": subject}
