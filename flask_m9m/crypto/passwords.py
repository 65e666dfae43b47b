"""Password hashing: scrypt, with the parameters of OWASP's Password Storage Cheat Sheet.

A hash is what Werkzeug writes: `scrypt:N:r:p$salt$hex`. One verification takes 128 MiB, so only
so many run at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from werkzeug.security import check_password_hash, generate_password_hash

from ..errors import ServiceUnavailable
from ..processes.forking import watch
from ..text import normalize

METHOD = "scrypt:131072:8:1"
"""N=2^17, r=8, p=1."""

LONGEST = 4_096
"""Characters of the longest password that is looked at; none is ever cut."""


class PasswordHasher:
    """Hashes and verifies passwords.

    Args:
        concurrency: hashes that are computed at once, 128 MiB each.
        patience: seconds that another one waits for its turn.
    """

    def __init__(self, concurrency: int = 2, patience: float = 1.0) -> None:
        self._concurrency = concurrency
        self._patience = patience
        self.after_fork()
        watch(self)

    def after_fork(self) -> None:
        """Leave the parent's turns to the parent."""
        self._turns = threading.BoundedSemaphore(self._concurrency)

    def hash(self, password: str) -> str:
        """Return a password's hash, salted afresh.

        Raises:
            ServiceUnavailable: too many are being computed.
        """
        with self._turn():
            return generate_password_hash(normalize(password), METHOD)

    def verify(self, hashed: str, password: str) -> bool:
        """Tell, in constant time, whether a hash is this password's.

        Raises:
            ServiceUnavailable: too many are being computed.
        """
        if len(password) > LONGEST:
            return False
        with self._turn():
            try:
                return check_password_hash(hashed, normalize(password))
            except ValueError:  # no hash that Werkzeug knows
                return False

    def is_current(self, hashed: str) -> bool:
        """Tell whether a hash has today's parameters."""
        return hashed.startswith(f"{METHOD}$")

    def _turn(self) -> AbstractContextManager[None]:
        return in_turn(self._turns, self._patience)


@contextmanager
def in_turn(turns: threading.Lock | threading.BoundedSemaphore, patience: float) -> Iterator[None]:
    """Do something when it is one's turn.

    Args:
        turns: what is taken and given back.
        patience: seconds to wait for it.

    Raises:
        ServiceUnavailable: it took longer.
    """
    if not turns.acquire(timeout=patience):
        error = ServiceUnavailable()
        error.headers = [("Retry-After", "1")]
        raise error
    try:
        yield
    finally:
        turns.release()
