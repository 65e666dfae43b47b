"""Password hashing: scrypt, with the parameters of OWASP's Password Storage Cheat Sheet.

A stored hash has Werkzeug's format, `scrypt:N:r:p$salt$hex`. One verification takes 128 MiB, so
the number of concurrent ones is limited.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from werkzeug.security import check_password_hash, generate_password_hash

from ..errors import ServiceUnavailable
from ..processes.forking import watch
from .names import normalize

METHOD = "scrypt:131072:8:1"
"""N=2^17, r=8, p=1."""

LONGEST = 4_096
"""The longest accepted password, in characters; a longer one is rejected, never truncated."""


class PasswordHasher:
    """Hashes and verifies passwords.

    Args:
        concurrency: how many hashes may be computed at once; each takes 128 MiB.
        patience: seconds to wait for a free slot.
    """

    def __init__(self, concurrency: int = 2, patience: float = 1.0) -> None:
        self._concurrency = concurrency
        self._patience = patience
        self.after_fork()
        watch(self)

    def after_fork(self) -> None:
        """Replace the semaphore, whose slots may be held by threads of the parent process."""
        self._turns = threading.BoundedSemaphore(self._concurrency)

    def hash(self, password: str) -> str:
        """Hash a password with a new salt.

        Raises:
            ServiceUnavailable: no slot became free in time.
        """
        with self._turn():
            return generate_password_hash(normalize(password), METHOD)

    def verify(self, hashed: str, password: str) -> bool:
        """Compare a password with a stored hash in constant time.

        Raises:
            ServiceUnavailable: no slot became free in time.
        """
        if len(password) > LONGEST:
            return False
        with self._turn():
            try:
                return check_password_hash(hashed, normalize(password))
            except ValueError:  # not a format that Werkzeug knows
                return False

    def is_current(self, hashed: str) -> bool:
        """Tell whether a hash was made with the current parameters."""
        return hashed.startswith(f"{METHOD}$")

    def _turn(self) -> AbstractContextManager[None]:
        return hold_slot(self._turns, self._patience)


@contextmanager
def hold_slot(
    turns: threading.Lock | threading.BoundedSemaphore, patience: float
) -> Iterator[None]:
    """Hold a lock, or a semaphore's slot, while the block runs.

    Args:
        turns: the lock or semaphore.
        patience: seconds to wait for it.

    Raises:
        ServiceUnavailable: it was not free in time.
    """
    if not turns.acquire(timeout=patience):
        error = ServiceUnavailable()
        error.headers = [("Retry-After", "1")]
        raise error
    try:
        yield
    finally:
        turns.release()
