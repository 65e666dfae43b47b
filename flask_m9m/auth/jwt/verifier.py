"""Verifier: verifies a JWT's signature, claims and dates, and caches verified tokens."""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import sha256

from ...errors import InvalidToken
from ...processes.bounded_cache import BoundedCache
from ..identity import Identity
from .claims import CheckedToken, ClaimRules
from .jws import LONGEST, parse_object, verify
from .signing_keys import SigningKeyRing


class Verifier:
    """Verifies tokens, and caches the verified ones.

    Only verified tokens are cached, so that nobody without a key can fill the memory. The validity
    period is checked on every use.

    Args:
        ring: the accepted keys.
        rules: the rules that claims must meet.
        clock: seconds since the epoch.
        capacity: how many tokens the cache keeps, about 3 KB each.
    """

    def __init__(
        self,
        ring: SigningKeyRing,
        rules: ClaimRules | None = None,
        *,
        clock: Callable[[], float] = time.time,
        capacity: int = 4_096,
    ) -> None:
        self._ring = ring
        self._rules = rules or ClaimRules()
        self._clock = clock
        self._known: BoundedCache[bytes, CheckedToken] = BoundedCache(capacity)

    def verify(self, token: str) -> Identity:
        """Verify a token.

        Returns:
            The token's identity.

        Raises:
            InvalidToken: the token is not valid; `reason` has the cause, for logs and the command
                line.
        """
        if not isinstance(token, str) or len(token) > LONGEST:
            raise InvalidToken(f"a token must be a str of at most {LONGEST} characters")
        digest = sha256(token.encode("utf-8", "surrogatepass")).digest()
        judged = self._known.find(digest) or self._judge(token, digest)
        now = self._clock()
        if now >= judged.ends:
            raise InvalidToken("the token has expired", guess=False)
        if now < judged.begins:
            raise InvalidToken("the token is not valid yet", guess=False)
        return judged.identity

    def _judge(self, token: str, digest: bytes) -> CheckedToken:
        jws = verify(token, self._ring)
        try:
            judged = self._rules.judge(jws.header, parse_object(jws.payload))
        except RecursionError:
            raise InvalidToken("the claims are nested too deeply") from None
        self._known.keep(digest, judged)
        return judged
