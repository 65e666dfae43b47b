"""Issuer: creates signed access tokens (RFC 9068) and refresh tokens."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ...settings.arguments import check_type
from ..identity import names
from .claims import ACCESS_TOKEN, REFRESH_TOKEN, RESERVED
from .jws import sign
from .signing_keys import SigningKeyRing

_LONGEST_LIFE = 36_525 * 86_400  # seconds: a century

_RESERVED = frozenset(name.lower() for name in RESERVED)


class Issuer:
    """Issues tokens signed with the key ring's current key.

    Args:
        ring: the signing keys; the current one signs.
        expiration: the default lifetime of an access token, in seconds.
        issuer: the claim `iss`; left out of tokens if `None`.
        audience: the claim `aud`; left out of tokens if `None`.
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
            subject: the subject, not empty.
            scopes: the rights of the token (RFC 6749 §3.3).
            roles: the roles of the subject.
            claims: further claims, but none of `RESERVED`.
            expires_in: the lifetime in seconds, more than 0 and at most a century.
            fresh: whether the subject has just logged in.
            jti: the token's id; by default a new one.
            sid: the id of the token's session.
            version: the version of the subject's tokens (`ver`), which increases when all of them
                are revoked.

        Raises:
            ValueError: an argument is not valid, or the token would be too long.
        """
        life = self._expiration if expires_in is None else expires_in
        _check(subject, claims or {}, life)
        payload = {
            **(claims or {}),
            **self._common_claims(subject, jti or new_jti(), life),
            "scope": " ".join(names("scopes", scopes)),
            "roles": list(names("roles", roles)),
        }
        if self._parties.get("iss") == "m9m":
            payload.update(_m9m_claims(subject, payload["roles"]))
        if fresh:
            payload["fresh"] = True
        if sid is not None:
            payload["sid"] = sid
        if version:
            payload["ver"] = version
        return sign(payload, self._ring.current, ACCESS_TOKEN)

    def issue_refresh(self, subject: str, sid: str, jti: str, expires_in: float) -> str:
        """Issue a refresh token.

        Args:
            subject: the subject who logged in.
            sid: the session's id.
            jti: the token's id.
            expires_in: the lifetime in seconds.
        """
        payload = {**self._common_claims(subject, jti, expires_in), "sid": sid}
        return sign(payload, self._ring.current, REFRESH_TOKEN)

    def _common_claims(self, subject: str, jti: str, life: float) -> dict[str, Any]:
        now = int(self._clock())
        return {
            **self._parties,
            "sub": subject,
            "iat": now,
            "nbf": now,
            "exp": now + math.ceil(life),
            "jti": jti,
        }


def _check(subject: object, claims: Mapping[str, Any], life: float) -> None:
    if not 0 < life <= _LONGEST_LIFE:
        raise ValueError(f"expires_in must be more than 0 and at most a century, found {life}")
    if not isinstance(subject, str) or not subject:
        raise ValueError("a token's subject must be text and not empty")
    for name in claims:
        check_type(str, **{"a name in claims": name})
    # m9m is written in Go, whose JSON parser matches names without regard to case.
    if taken := [name for name in claims if str(name).lower() in _RESERVED]:
        raise ValueError(f"claims must not contain reserved names: {', '.join(sorted(taken))}")


def new_jti() -> str:
    """Make a random token id (`jti`, RFC 7519 §4.1.7)."""
    return secrets.token_urlsafe(16)


def _m9m_claims(subject: str, roles: list[str]) -> dict[str, str]:
    """Build the claims by which m9m finds its user, who has a single role there."""
    return {"userId": subject, "role": roles[0]} if len(roles) == 1 else {"userId": subject}
