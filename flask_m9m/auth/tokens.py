"""Tokens: what `m9m.tokens` offers an app."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from typing import Any

from ..errors import Problem, SettingsError
from ..identity import Identity
from ..settings import JWTSettings, parse_duration
from ..tokens import ClaimRules, Issuer, KeyRing, SigningKey, Verifier


class Tokens:
    """Issues and verifies access tokens under the app's settings.

    Args:
        settings: the app's; without a secret, or with `security.jwt.enabled: false`, JWT is
            switched off.
        clock: seconds since the epoch.

    Attributes:
        verifier: checks tokens; `None` where JWT is switched off.
    """

    def __init__(self, settings: JWTSettings, clock: Callable[[], float] = time.time) -> None:
        self._issuer: Issuer | None = None
        self.verifier: Verifier | None = None
        if settings.enabled is False or settings.secret is None:
            return
        secrets = (settings.secret, *settings.previous_secrets)
        ring = KeyRing(
            [
                SigningKey(secret.get_secret_value().encode(), settings.algorithm)
                for secret in secrets
            ]
        )
        self._issuer = Issuer(
            ring,
            expiration=settings.expiration,
            issuer=settings.issuer,
            audience=settings.audience,
            clock=clock,
        )
        self.verifier = Verifier(
            ring,
            ClaimRules(
                issuer=settings.issuer,
                audience=settings.audience,
                leeway=settings.leeway,
                accept_untyped=settings.accept_untyped,
            ),
            clock=clock,
        )

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
            ValueError: an argument cannot go into a token.
        """
        if self._issuer is None:
            raise _switched_off()
        if isinstance(expires_in, timedelta):
            expires_in = expires_in.total_seconds()
        elif isinstance(expires_in, str):
            expires_in = parse_duration(expires_in)
        return self._issuer.issue(subject, scopes, roles, claims or {}, expires_in, fresh)

    def verify(self, token: str) -> Identity:
        """Return who a token speaks for.

        Raises:
            InvalidToken: for whatever is wrong with it.
            SettingsError: JWT is switched off.
        """
        if self.verifier is None:
            raise _switched_off()
        return self.verifier.verify(token)


def _switched_off() -> SettingsError:
    problem = Problem(
        "security.jwt.secret",
        "JWT is switched off",
        "set M9M_JWT_SECRET (run: flask m9m init)",
    )
    return SettingsError([problem])
