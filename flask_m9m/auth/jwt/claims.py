"""JWT claims (RFC 7519 §4): checks of `typ`, `iss`, `aud` and dates, and the resulting identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...errors import InvalidToken
from ..identity import Identity, freeze, split_names
from ..names import normalize

ACCESS_TOKEN = "at+jwt"  # noqa: S105  # RFC 9068 §2.1
REFRESH_TOKEN = "refresh+jwt"  # noqa: S105  # no standard names one
_REGISTERED = ("iss", "sub", "aud", "exp", "nbf", "iat", "jti")
RESERVED = frozenset(
    (*_REGISTERED, "scope", "roles", "role", "userId", "fresh", "sid", "ver"),
)
"""Claims that flask-m9m sets itself, so that an app cannot."""

_ACCESS_TYPES = frozenset((ACCESS_TOKEN, f"application/{ACCESS_TOKEN}"))
_LATEST_DATE = 253_402_300_799  # the last second of the year 9999
_CLOCK_SKEW = 5.0  # seconds by which the issuer's clock may be ahead of this machine's


class CheckedToken(NamedTuple):
    """An identity and the validity period of its token.

    Attributes:
        identity: the caller.
        begins: when the token becomes valid, in seconds since the epoch.
        ends: when the token expires, in seconds since the epoch.
    """

    identity: Identity
    begins: float
    ends: float


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """The rules that a token's claims must meet.

    Attributes:
        issuer: the required `iss`; `None` accepts any.
        audience: the value that `aud` must contain; `None` refuses tokens with an `aud`.
        leeway: seconds by which clocks may differ.
        accept_untyped: whether tokens whose `typ` is `JWT` or missing pass as access tokens.
        refresh: whether the rules are for refresh tokens, which have their own `typ`.
    """

    issuer: str | None = None
    audience: str | None = None
    leeway: float = 0.0
    accept_untyped: bool = True
    refresh: bool = False

    def judge(self, header: Mapping[str, Any], claims: Mapping[str, Any]) -> CheckedToken:
        """Check the claims of a token whose signature is verified.

        Returns:
            The token's identity and validity period. The caller compares the period with the clock.

        Raises:
            InvalidToken: the token is of the wrong type, issuer or audience, or a claim is
                malformed.
        """
        self._check_type(header, claims)
        self._check_parties(claims)
        expires = _numeric_date(claims, "exp")
        if "ver" in claims and type(claims["ver"]) is not int:
            raise InvalidToken("the claim ver is not an integer")
        begins = max(_numeric_date(claims, "nbf"), _numeric_date(claims, "iat"))
        identity = Identity(
            subject=_subject(claims),
            scheme="bearer",
            scopes=_scopes(claims),
            roles=_roles(claims),
            claims=freeze(claims),
            credential_id=_string_claim(claims, "jti"),
            expires_at=expires,
        )
        return CheckedToken(identity, begins - self.leeway - _CLOCK_SKEW, expires + self.leeway)

    def _check_type(self, header: Mapping[str, Any], claims: Mapping[str, Any]) -> None:
        """Refuse tokens of another type (RFC 8725 §3.11, RFC 9068 §4)."""
        typ = header.get("typ", "JWT")
        if self.refresh:
            if typ != REFRESH_TOKEN:
                raise InvalidToken(f"the header's typ is not {REFRESH_TOKEN}")
            return
        if isinstance(typ, str) and typ.lower() in _ACCESS_TYPES:
            return
        if not self.accept_untyped or not isinstance(typ, str) or typ.upper() != "JWT":
            raise InvalidToken("the header's typ is not at+jwt")
        for name in ("type", "token_type", "token_use", "typ"):
            if name in claims and claims[name] not in ("access", "Bearer"):
                raise InvalidToken(f"the claim {name} marks a token that is not an access token")
        if "nonce" in claims or "at_hash" in claims:
            raise InvalidToken("the token is an ID token (OpenID Connect Core §2)")

    def _check_parties(self, claims: Mapping[str, Any]) -> None:
        """Compare `iss` and `aud` as whole strings, never as substrings (CVE-2024-53861)."""
        issuer = _string_claim(claims, "iss")
        if self.issuer is not None and issuer != self.issuer:
            raise InvalidToken("the claim iss is not security.jwt.issuer")
        if self.audience is None:
            if "aud" in claims:
                raise InvalidToken("the token has an aud, but security.jwt.audience is not set")
            return
        audience = claims.get("aud")
        named = audience if isinstance(audience, list) else [audience]
        if not all(isinstance(name, str) for name in named) or self.audience not in named:
            raise InvalidToken("the claim aud does not contain security.jwt.audience")


def _numeric_date(claims: Mapping[str, Any], name: str) -> float:
    """Read a NumericDate (RFC 7519 §2): `exp` is required, others default to 0."""
    value = claims.get(name, 0 if name != "exp" else None)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidToken(f"the claim {name} is missing or not a number")
    if abs(value) > _LATEST_DATE:
        raise InvalidToken(f"the claim {name} is past the year 9999")
    return value


def _string_claim(claims: Mapping[str, Any], name: str) -> str | None:
    value = claims.get(name)
    if name in claims and not isinstance(value, str):
        raise InvalidToken(f"the claim {name} is not a string")
    return value


def _subject(claims: Mapping[str, Any]) -> str:
    """Read the subject from `sub`, or from `userId`, which m9m's own tokens may have instead."""
    subject = _string_claim(claims, "sub" if "sub" in claims else "userId")
    if not subject:
        raise InvalidToken("the token has no sub")
    return normalize(subject)


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """Read `scope`, names with spaces between them (RFC 6749 §3.3)."""
    return frozenset(split_names(_string_claim(claims, "scope") or ""))


def _roles(claims: Mapping[str, Any]) -> frozenset[str]:
    """Read `roles`, and `role`, the single role in m9m's own tokens."""
    roles = claims.get("roles", [])
    if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
        raise InvalidToken("the claim roles is not a list of strings")
    role = _string_claim(claims, "role")
    return frozenset((*roles, role) if role else roles)
