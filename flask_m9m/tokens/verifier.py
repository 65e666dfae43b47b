"""Verifier: tells who a token speaks for."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256

from ..errors import InvalidToken
from ..identity import Identity
from ..processes.forking import fork_safe_lock
from .claims import ClaimRules, Judged
from .jws import LONGEST, parse_object, verify
from .keys import SigningKeyRing


class Verifier:
    """Verifies access tokens, and remembers those that hold.

    Only good tokens are kept, so that nobody without a key can fill the memory; the moments
    between which they hold are checked on every use.

    Args:
        ring: the keys that are accepted.
        rules: which claims are believed.
        clock: seconds since the epoch.
        capacity: tokens remembered, about 3 KB each.
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
        self._capacity = capacity
        self._known: OrderedDict[bytes, Judged] = OrderedDict()
        self._lock = fork_safe_lock()

    def verify(self, token: str) -> Identity:
        """Return who a token speaks for.

        Raises:
            InvalidToken: for whatever is wrong with it; `reason` says what, for logs and the
                command line.
        """
        if not isinstance(token, str) or len(token) > LONGEST:
            raise InvalidToken(f"no text, or longer than {LONGEST} characters")
        digest = sha256(token.encode("utf-8", "surrogatepass")).digest()
        judged = self._known.get(digest) or self._judge(token, digest)
        now = self._clock()
        if now >= judged.ends:
            raise InvalidToken("expired", guess=False)
        if now < judged.begins:
            raise InvalidToken("not valid yet", guess=False)
        return judged.identity

    def _judge(self, token: str, digest: bytes) -> Judged:
        jws = verify(token, self._ring)
        try:
            judged = self._rules.judge(jws.header, parse_object(jws.payload))
        except RecursionError:
            raise InvalidToken("nested too deep") from None
        with self._lock:
            self._known[digest] = judged
            if len(self._known) > self._capacity:
                self._known.popitem(last=False)
        return judged
