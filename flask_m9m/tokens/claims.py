"""What a JWT claims (RFC 7519 §4), and which claims are believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import InvalidToken
from ..identity import Identity, freeze
from ..text import normalize

ACCESS_TOKEN = "at+jwt"  # noqa: S105  # RFC 9068 §2.1
REFRESH_TOKEN = "refresh+jwt"  # noqa: S105  # no standard names one
_REGISTERED = ("iss", "sub", "aud", "exp", "nbf", "iat", "jti")
RESERVED = frozenset(
    (*_REGISTERED, "scope", "roles", "role", "userId", "fresh", "sid", "ver"),
)
"""Claims with a meaning here, which an app does not set as it likes."""

_ACCESS_TYPES = frozenset((ACCESS_TOKEN, f"application/{ACCESS_TOKEN}"))
_END_OF_TIME = 253_402_300_799  # the last second of the year 9999
_EARLY = 5.0  # seconds by which another machine's clock may be ahead of ours


class Judged(NamedTuple):
    """An identity, and between which moments (seconds since the epoch) its token holds."""

    identity: Identity
    begins: float
    ends: float


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """Which claims are believed.

    Attributes:
        issuer: what `iss` has to be; `None` asks nothing of it.
        audience: what `aud` has to name; under `None` there must be none.
        leeway: seconds by which clocks may differ.
        accept_untyped: whether tokens of the type `JWT`, or of none, pass as access tokens.
        refresh: whether these are the rules of refresh tokens, which have a type of their own.
    """

    issuer: str | None = None
    audience: str | None = None
    leeway: float = 0.0
    accept_untyped: bool = True
    refresh: bool = False

    def judge(self, header: Mapping[str, Any], claims: Mapping[str, Any]) -> Judged:
        """Return who a token with a good signature speaks for, and when it holds.

        Raises:
            InvalidToken: it is no access token, or is not for us.
        """
        self._check_type(header, claims)
        self._check_parties(claims)
        expires = _date(claims, "exp")
        if "ver" in claims and type(claims["ver"]) is not int:
            raise InvalidToken("its ver is no whole number")
        begins = max(_date(claims, "nbf"), _date(claims, "iat"))
        identity = Identity(
            subject=_subject(claims),
            scheme="bearer",
            scopes=_scopes(claims),
            roles=_roles(claims),
            claims=freeze(claims),
            credential_id=_text(claims, "jti"),
            expires_at=expires,
        )
        return Judged(identity, begins - self.leeway - _EARLY, expires + self.leeway)

    def _check_type(self, header: Mapping[str, Any], claims: Mapping[str, Any]) -> None:
        """Tell access tokens from all others (RFC 8725 §3.11, RFC 9068 §4)."""
        typ = header.get("typ", "JWT")
        if self.refresh:
            if typ != REFRESH_TOKEN:
                raise InvalidToken(f"its typ is not {REFRESH_TOKEN}")
            return
        if isinstance(typ, str) and typ.lower() in _ACCESS_TYPES:
            return
        if not self.accept_untyped or not isinstance(typ, str) or typ.upper() != "JWT":
            raise InvalidToken("its typ is not at+jwt")
        for name in ("type", "token_type", "token_use", "typ"):
            if name in claims and claims[name] not in ("access", "Bearer"):
                raise InvalidToken(f"its claim {name} says that it is no access token")
        if "nonce" in claims or "at_hash" in claims:
            raise InvalidToken("it is an ID token (OpenID Connect Core §2)")

    def _check_parties(self, claims: Mapping[str, Any]) -> None:
        """Check `iss` and `aud` in full, never as parts of a text (CVE-2024-53861)."""
        issuer = _text(claims, "iss")
        if self.issuer is not None and issuer != self.issuer:
            raise InvalidToken("its iss is not security.jwt.issuer")
        if self.audience is None:
            if "aud" in claims:
                raise InvalidToken("it has an aud, and security.jwt.audience is not set")
            return
        audience = claims.get("aud")
        named = audience if isinstance(audience, list) else [audience]
        if not all(isinstance(one, str) for one in named) or self.audience not in named:
            raise InvalidToken("its aud does not name security.jwt.audience")


def _date(claims: Mapping[str, Any], name: str) -> float:
    """Return a NumericDate (RFC 7519 §2), the epoch where there is none; `exp` is required."""
    value = claims.get(name, 0 if name != "exp" else None)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidToken(f"its {name} is no date")
    if abs(value) > _END_OF_TIME:
        raise InvalidToken(f"its {name} is past the year 9999")
    return value


def _text(claims: Mapping[str, Any], name: str) -> str | None:
    value = claims.get(name)
    if name in claims and not isinstance(value, str):
        raise InvalidToken(f"its {name} is no text")
    return value


def _subject(claims: Mapping[str, Any]) -> str:
    """Return `sub`; m9m's own tokens may name the subject `userId` alone."""
    subject = _text(claims, "sub" if "sub" in claims else "userId")
    if not subject:
        raise InvalidToken("it has no sub")
    return normalize(subject)


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    return frozenset((_text(claims, "scope") or "").split())


def _roles(claims: Mapping[str, Any]) -> frozenset[str]:
    """Return `roles`, and `role` as m9m's own tokens name a single one."""
    roles = claims.get("roles", [])
    if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
        raise InvalidToken("its roles are no list of texts")
    role = _text(claims, "role")
    return frozenset((*roles, role) if role else roles)
